"""``memory://``: results in this process, for tests and for a worker and its callers in one.

Apps whose URLs are the same share one memory; ``memory://name`` is another one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from amqtask.backends.base import Can, Found, Listener, Record, home
from amqtask.backends.chords import OpenChord
from amqtask.backends.codec import Codec
from amqtask.backends.keys import KeyStore
from amqtask.clock import wall
from amqtask.settings import Settings

#: Values kept at most; the oldest go first, as this is no place to keep things for long.
LIMIT = 100_000


@dataclass(slots=True)
class _Memory:
    """What all stores of one URL share."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    #: Key to value and the `time.time` at which it goes.
    values: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    finals: set[str] = field(default_factory=set)
    counters: dict[str, int] = field(default_factory=dict)
    #: Values kept above which those are dropped whose time has passed.
    sweep_at: int = 2 * LIMIT
    #: What is kept for chords; none of it goes before its time.
    kept: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    #: Chords that wait for members, by their homes and groups.
    chords: dict[str, dict[str, OpenChord]] = field(default_factory=dict)
    listeners: list[_Listener] = field(default_factory=list)


_memories: dict[str, _Memory] = {}


class MemoryStore(KeyStore):
    """Keeps results in a dict.

    Fork: a child has its own copy, as of all memory.
    """

    can = Can(notifies=True, expires=True, guards=True, counts=True, keeps=True)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        self._memory = _memories.setdefault(url, _Memory())

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`."""
        memory = self._memory
        with memory.changed:
            written = []
            for record in records:
                key = self.key(record.id)
                if key in memory.finals and self._live(key) is not None:
                    continue
                self._put(key, record.body, record.expires)
                if record.final:
                    memory.finals.add(key)
                written.append((record.id, record.body))
            for listener in memory.listeners:
                listener.put(written)
            memory.changed.notify_all()

    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `KeyStore.read`."""
        with self._memory.changed:
            return {key: value for key in keys if (value := self._live(key)) is not None}

    def write(self, key: str, value: bytes, expires: float | None) -> None:
        """See `KeyStore.write`."""
        with self._memory.changed:
            self._put(key, value, expires)

    def delete(self, keys: Sequence[str]) -> None:
        """See `KeyStore.delete`."""
        with self._memory.changed:
            for key in keys:
                self._drop(key)

    def count(self, key: str, by: int, expires: float | None) -> int:
        """See `Store.count`."""
        counters = self._memory.counters
        with self._memory.changed:
            counters[key] = counters.get(key, 0) + by
            return counters[key]

    def keep(self, key: str, value: bytes, expires: float) -> bytes:
        """See `Store.keep`."""
        memory, now = self._memory, wall()
        with memory.changed:
            if len(memory.kept) > memory.sweep_at:
                memory.kept = {k: each for k, each in memory.kept.items() if each[1] > now}
                memory.sweep_at = 2 * max(LIMIT, len(memory.kept))
            there = memory.kept.get(key)
            if there is None or there[1] <= now:
                there = memory.kept[key] = value, now + expires
            return there[0]

    def kept(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `Store.kept`."""
        now = wall()
        with self._memory.changed:
            found = {key: self._memory.kept.get(key) for key in keys}
            return {key: each[0] for key, each in found.items() if each and each[1] > now}

    def unkeep(self, keys: Sequence[str]) -> None:
        """See `Store.unkeep`."""
        with self._memory.changed:
            for key in keys:
                self._memory.kept.pop(key, None)

    def register(self) -> MemoryRegister:
        """See `Store.register`."""
        return MemoryRegister(self._memory, home(self.settings))

    def listen(self) -> Listener:
        """See `Store.listen`."""
        listener = _Listener(self._memory)
        with self._memory.changed:
            self._memory.listeners.append(listener)
        return listener

    def forked(self) -> None:
        """See `Store.forked`: the parent's lock may have been held."""
        self._memory.changed = threading.Condition()
        self._memory.listeners.clear()

    def _put(self, key: str, value: bytes, expires: float | None) -> None:
        self._drop(key)
        ends = float("inf") if expires is None else wall() + expires
        self._memory.values[key] = value, ends
        if len(self._memory.values) > LIMIT:
            self._drop(next(iter(self._memory.values)))

    def _live(self, key: str) -> bytes | None:
        found = self._memory.values.get(key)
        if found is None:
            return None
        if found[1] <= wall():
            self._drop(key)
            return None
        return found[0]

    def _drop(self, key: str) -> None:
        self._memory.values.pop(key, None)
        self._memory.finals.discard(key)


class MemoryRegister:
    """See `Register`: for the workers of this process."""

    def __init__(self, memory: _Memory, home: str) -> None:
        self._memory = memory
        self._chords = memory.chords.setdefault(home, {})

    def note(self, chord: OpenChord, keep: float) -> None:
        """See `Register.note`; nothing is dropped before it is over, as long as the process lives."""
        with self._memory.changed:
            self._chords[chord.group_id] = chord

    def drop(self, group_id: str) -> None:
        """See `Register.drop`."""
        with self._memory.changed:
            self._chords.pop(group_id, None)

    def take(self, now: float, until: float, most: int) -> Sequence[OpenChord]:
        """See `Register.take`."""
        with self._memory.changed:
            due = [chord for chord in self._chords.values() if chord.due <= now]
            taken = sorted(due, key=lambda chord: chord.due)[:most]
            self._move(taken, until)
        return taken

    def put_off(self, group_ids: Sequence[str], until: float) -> None:
        """See `Register.put_off`."""
        with self._memory.changed:
            there = [self._chords[each] for each in group_ids if each in self._chords]
            self._move(there, until)

    def list(self, most: int) -> Sequence[OpenChord]:
        """See `Register.list`."""
        with self._memory.changed:
            return sorted(self._chords.values(), key=lambda chord: chord.due)[:most]

    def find(self, group_id: str) -> OpenChord | None:
        """See `Register.find`."""
        return self._chords.get(group_id)

    def _move(self, chords: Sequence[OpenChord], until: float) -> None:
        for chord in chords:
            self._chords[chord.group_id] = replace(chord, due=until)


class _Listener:
    """News from the same process."""

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self._ids: set[str] = set()
        self._news: list[tuple[str, Found | None]] = []
        self._woken = False

    def put(self, news: Sequence[tuple[str, bytes]]) -> None:
        """Note what was written; the memory's lock is held."""
        self._news += [(task_id, body) for task_id, body in news if task_id in self._ids]

    def follow(self, ids: Sequence[str]) -> None:
        with self._memory.changed:
            self._ids.update(ids)

    def unfollow(self, ids: Sequence[str]) -> None:
        with self._memory.changed:
            self._ids.difference_update(ids)

    def take(self, timeout: float) -> Sequence[tuple[str, Found | None]]:
        with self._memory.changed:
            self._memory.changed.wait_for(lambda: self._news or self._woken, timeout)
            self._woken = False
            news, self._news = self._news, []
        return news

    def wake(self) -> None:
        with self._memory.changed:
            self._woken = True
            self._memory.changed.notify_all()

    def close(self) -> None:
        with self._memory.changed:
            if self in self._memory.listeners:
                self._memory.listeners.remove(self)
