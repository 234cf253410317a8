"""Chords in a store that keeps values and counts: SQL, memcached, MongoDB, memory.

Each member keeps its part under its place in the header and counts one more
then. A member that runs twice counts twice, so the count only says when it is
worth looking: whoever counts enough looks whether every place is taken. The
last one to keep a part counts after all others have, so he finds them all.

    GROUP.p3, .f3    value of member 3, or its failure; +ID for one added on the way
         .n          parts that were kept, those that came twice counted twice
         .late .l1   how many were added on the way, and their ids
         .open       there from the start to the join: a part that finds none comes too late
         .claim      who joins it; whoever it is has a delivery in hand, which does not go
                     before the body is safe
         .failing    the same for a body that fails
         .done .failed

Where the store has a register, the chord is on it until it is joined, has failed or is given up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amqtask.backends.base import Store
from amqtask.backends.chords import ON_RECORD, RESERVE, ChordPart, OpenChord, Standing
from amqtask.workflow.join_parts import Gathered, gather, read

#: What is kept where only its being there counts.
_MARK = b"1"


class CountedChords:
    """See `Chords`, for a store that can count and keep; chords of amqtask's clients only.

    Delivery: a crash between two steps repeats them, and none counts twice where it matters.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._register = store.register()

    def open(self, sizes: Mapping[OpenChord, int], expires: float) -> None:
        """See `Chords.open`: a chord that is sent once more begins anew."""
        words = ("done", "failed", "claim", "failing")
        self._store.unkeep([f"{chord.group_id}.{word}" for chord in sizes for word in words])
        for chord, size in sizes.items():
            self._store.keep(f"{chord.group_id}.open", str(size).encode(), expires + ON_RECORD)
            if self._register is not None:
                self._register.note(chord, expires + ON_RECORD)

    def add(self, parts: Sequence[ChordPart], expires: float) -> Sequence[tuple[Standing, Any]]:
        """See `Chords.add`."""
        return [self._add(part, expires + RESERVE) for part in parts]

    def end(self, part: ChordPart, *, sent: bool, expires: float) -> None:
        """See `Chords.end`."""
        group_id = part.group_id
        if sent:
            self._store.keep(f"{group_id}.done", _MARK, expires)
        else:  # as long as a member that is sent back finds the other parts
            self._store.keep(f"{group_id}.failed", _MARK, expires + RESERVE)
        if self._register is not None:
            self._register.drop(group_id)
        if sent:
            size = self._size(group_id) or 0
            late = self._late(group_id, expires)
            gone = [*_places(group_id, size, late), *_slots(group_id, len(late))]
            self._store.unkeep([*gone, f"{group_id}.open"])

    def give_up(
        self, part: ChordPart, expires: float, *, by_hand: bool
    ) -> tuple[Standing, Sequence[Any]]:
        """See `Chords.give_up`; here the time is counted from the opening."""
        keep, size = expires + RESERVE, part.size or 0
        marks, said, gathered = self._found(part.group_id, size, keep)
        if marks & {"done", "failed"} or "open" not in marks:
            return Standing.OVER, ()
        claim = "failing" if gathered.complete and gathered.failed else "claim"
        if self._claimed(part, claim, keep, Standing.READY) is not Standing.READY:
            return Standing.WAITING, ()
        return Standing.READY, said

    def came(self, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """See `Chords.came`."""
        found = {
            group_id: self._found(group_id, size, RESERVE)[2] for group_id, size in sizes.items()
        }
        return {group_id: len(gathered.parts) for group_id, gathered in found.items()}

    def _add(self, part: ChordPart, expires: float) -> tuple[Standing, Any]:
        store, group_id = self._store, part.group_id
        place = f"+{part.id}" if part.index is None else f"{part.index}"
        store.keep(f"{group_id}.{'p' if part.ok else 'f'}{place}", part.body, expires)
        if part.index is None:
            slot = store.count(f"{group_id}.late", 1, expires)
            store.keep(f"{group_id}.l{slot}", part.id.encode(), expires)
        counted = store.count(f"{group_id}.n", 1, expires)
        # the first one looks whether the chord was opened, or was kept for too short a time
        size = self._size(group_id) if counted == 1 else part.size
        if size is None:
            return self._lost(part, expires), None
        if counted < size:
            return Standing.WAITING, None
        return self._look(part, size, expires)

    def _look(self, part: ChordPart, size: int, expires: float) -> tuple[Standing, Any]:
        marks, said, gathered = self._found(part.group_id, size, expires)
        if "done" in marks or "open" not in marks:
            return Standing.OVER, None
        if not gathered.complete:
            return Standing.WAITING, None
        if gathered.failed and "failed" in marks:
            return Standing.OVER, None
        claim = "failing" if gathered.failed else "claim"
        return self._claimed(part, claim, expires, Standing.READY), said

    def _found(
        self, group_id: str, size: int, expires: float
    ) -> tuple[set[str], list[Any], Gathered]:
        """Return which marks there are, all parts, and what these come to."""
        store = self._store
        late = self._late(group_id, expires)
        marks = {f"{group_id}.{word}": word for word in ("open", "done", "failed")}
        found = store.kept([*marks, *_places(group_id, size, late)])
        said = [store.codec.decode_value(found[key]) for key in found if key not in marks]
        gathered = gather([read(each) for each in said], size)
        return {marks[key] for key in found if key in marks}, said, gathered

    def _lost(self, part: ChordPart, expires: float) -> Standing:
        found: Mapping[str, bytes] = self._store.kept(
            [f"{part.group_id}.done", f"{part.group_id}.failed"]
        )
        if found:
            return Standing.OVER
        return self._claimed(part, "failing", expires, Standing.GONE)

    def _claimed(self, part: ChordPart, word: str, expires: float, standing: Standing) -> Standing:
        token = part.token.encode()
        mine = self._store.keep(f"{part.group_id}.{word}", token, expires) == token
        return standing if mine else Standing.OVER

    def _size(self, group_id: str) -> int | None:
        found = self._store.kept([f"{group_id}.open"]).get(f"{group_id}.open")
        return None if found is None else int(found)

    def _late(self, group_id: str, expires: float) -> list[str]:
        count = self._store.count(f"{group_id}.late", 0, expires)
        found = self._store.kept(list(_slots(group_id, count)))
        return list(dict.fromkeys(value.decode() for value in found.values()))


def _slots(group_id: str, count: int) -> Iterator[str]:
    return (f"{group_id}.l{slot}" for slot in range(1, count + 1))


def _places(group_id: str, size: int, late: Sequence[str]) -> Iterator[str]:
    for place in (*range(size), *(f"+{each}" for each in late)):
        yield f"{group_id}.p{place}"
        yield f"{group_id}.f{place}"
