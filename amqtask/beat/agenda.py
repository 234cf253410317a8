"""The entries of a running beat, ordered by when they have to be looked at next.

It decides as `plan` does, and looks at no entry before its time: what a tick
costs follows what is due, not how many entries there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count

from amqtask.beat.plan import (
    GRACE,
    MOST,
    Fire,
    Mark,
    Missed,
    current_mark,
    decide,
    fire_now,
    in_order,
    is_paused,
)
from amqtask.policy.entry import Entry

#: Fires in one tick, and entries that one tick looks at: what keeps it short.
FIRES = 250
LOOKS = 250
#: Seconds until an entry is looked at again whose schedule failed.
AGAIN = 60.0


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick decided.

    Attributes:
        fires: To be sent, in this order.
        marks: Of the entries whose past has changed, by name: to be kept.
        wake: When the next tick is wanted, which is now when this one did not get through;
            None when no instant will come.
        missed: What is not caught up.
        ended: Names of entries that have no instant any more, each said once.
        failed: Entries whose schedule could not be asked, and why; they are tried again.
    """

    fires: tuple[Fire, ...]
    marks: Mapping[str, Mark]
    wake: datetime | None
    missed: tuple[Missed, ...] = ()
    ended: tuple[str, ...] = ()
    failed: tuple[tuple[Entry, Exception], ...] = ()


class Agenda:
    """What a beat has before it; holds no connection and sends nothing.

    Args:
        app: Name of the app; part of the ids of fires.
        entries: Those of the code and those added at run time.
        marks: What was kept of their past, by name; marks of unknown entries are ignored.
        now: In UTC.
        grace: How late an instant may be and still be due.

    Threads: not safe; one thread owns it.
    """

    def __init__(
        self,
        app: str,
        entries: Iterable[Entry],
        marks: Mapping[str, Mark],
        now: datetime,
        *,
        grace: timedelta = GRACE,
    ) -> None:
        self._app = app
        self._grace = grace
        self._entries: dict[str, Entry] = {}
        self._marks: dict[str, Mark] = {}
        #: Looks that are to come; one is void unless its number is the entry's current one.
        self._heap: list[tuple[datetime, int, str]] = []
        self._numbers = count()
        self._current: dict[str, int] = {}
        #: Marks that no tick has told of yet.
        self._told: set[str] = set()
        for entry in entries:
            self.put(entry, now, marks.get(entry.name))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The entries, by name."""
        return self._entries

    @property
    def marks(self) -> Mapping[str, Mark]:
        """What is known of their past, by name."""
        return self._marks

    # -- entries ------------------------------------------------------------------

    def put(self, entry: Entry, now: datetime, mark: Mark | None = None) -> Mark:
        """Add an entry, or replace the one of its name; return its mark.

        Args:
            mark: What was kept of its past; by default what is known here. One of another
                schedule counts no more: the entry begins now.
        """
        name = entry.name
        kept = mark if mark is not None else self._marks.get(name)
        self._entries[name] = entry
        return self._keep(name, current_mark(entry, kept, now), kept, now)

    def remove(self, name: str) -> Entry:
        """Take an entry out and return it; raises `KeyError` for an unknown name."""
        entry = self._entries.pop(name)
        for table in (self._marks, self._current):
            table.pop(name, None)
        self._told.discard(name)
        return entry

    def pause(self, name: str, now: datetime) -> Mark:
        """Have an entry's instants pass; raises `KeyError` for an unknown name."""
        return self._set_paused(name, True, now)

    def resume(self, name: str, now: datetime) -> Mark:
        """Fire an entry again from now on; what passed meanwhile is not caught up."""
        return self._set_paused(name, False, now)

    def run_now(self, name: str, now: datetime) -> Fire:
        """Return a fire of an entry outside its schedule; raises `KeyError` for an unknown name."""
        mark = self._marks[name]
        fire, after = fire_now(self._app, self._entries[name], mark, now)
        self._marks[name] = after
        self._told.add(name)
        return fire

    def is_paused(self, name: str) -> bool:
        """Tell whether an entry is paused, by its declaration or at run time."""
        return is_paused(self._entries[name], self._marks[name])

    # -- time ---------------------------------------------------------------------

    def tick(self, now: datetime) -> Tick:
        """Decide what is due; at most `FIRES` fires, and a look at `LOOKS` entries.

        Args:
            now: In UTC. It may be earlier than last time: then nothing is due that was before.
        """
        fires: list[Fire] = []
        missed: list[Missed] = []
        ended: list[str] = []
        failed: list[tuple[Entry, Exception]] = []
        told, self._told = self._told, set()
        for _ in range(LOOKS):
            name = self._next(now) if len(fires) < FIRES else None
            if name is None:
                break
            entry, mark = self._entries[name], self._marks[name]
            most = min(MOST, FIRES - len(fires))
            try:
                decision = decide(self._app, entry, mark, now, grace=self._grace, most=most)
            except Exception as error:  # a schedule may be anybody's code, and is one of many
                failed.append((entry, error))
                self._look(name, now + timedelta(seconds=AGAIN))
                continue
            fires += decision.fires
            missed += () if decision.missed is None else (decision.missed,)
            ended += (name,) if decision.ended else ()
            if decision.mark != mark:
                self._marks[name] = decision.mark
                told.add(name)
            if decision.wake is not None:
                self._look(name, decision.wake)
        marks = {name: self._marks[name] for name in told}
        wake = self._wake(now)
        return Tick(in_order(fires), marks, wake, tuple(missed), tuple(ended), tuple(failed))

    def ahead(self, now: datetime) -> timedelta:
        """Return by how much the clock is behind what was decided already; zero when it is not.

        Until it has made that up, entries are silent: an instant is never decided twice.
        """
        latest = max((mark.at for mark in self._marks.values()), default=now)
        return max(latest - now, timedelta())

    def rewind(self, now: datetime) -> list[str]:
        """Have entries that are ahead of the clock begin now; return their names.

        For a clock that was wrong by a lot: an instant that was fired in that time is fired
        again when it comes, under the same id.
        """
        names = [name for name, mark in self._marks.items() if mark.at > now]
        for name in names:
            mark = self._marks[name]
            self._keep(name, replace(mark, at=now), mark, now)
        return names

    # -- the heap -----------------------------------------------------------------

    def _set_paused(self, name: str, paused: bool, now: datetime) -> Mark:
        entry, mark = self._entries[name], self._marks[name]
        if paused == is_paused(entry, mark):
            return mark
        said = None if paused == entry.paused else paused
        return self._keep(name, replace(mark, paused=said, at=max(mark.at, now)), mark, now)

    def _keep(self, name: str, mark: Mark, before: Mark | None, now: datetime) -> Mark:
        self._marks[name] = mark
        if mark != before:
            self._told.add(name)
        self._look(name, now)
        return mark

    def _look(self, name: str, when: datetime) -> None:
        number = self._current[name] = next(self._numbers)
        heapq.heappush(self._heap, (when, number, name))

    def _next(self, now: datetime) -> str | None:
        """Return the name of an entry to look at now, taken off the heap."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, number, name = heapq.heappop(heap)
            if self._current.get(name) == number:
                return name
        return None

    def _wake(self, now: datetime) -> datetime | None:
        heap = self._heap
        while heap and self._current.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)
        return max(now, heap[0][0]) if heap else None
