"""How a store keeps the parts of chords, where it does that in Celery's own way.

Stores whose way Celery does not share need none of this: they keep values and
count, and `amqtask.workflow` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from amqtask.records import record

#: Seconds that parts outlive the time that their chord may wait: whoever gives it up reads them.
RESERVE = 24 * 3600.0
#: The same of what is on record of a chord: no worker may have been there for days.
ON_RECORD = 7 * 24 * 3600.0


class Standing(Enum):
    """What a part has come to.

    Attributes:
        WAITING: Others are still to come.
        OVER: The chord was joined, or somebody with a part of his own is at it.
        READY: It is complete, and whoever added this part is to join it.
        GONE: The store has lost it, and whoever added this part is to say so.
    """

    WAITING = "waiting"
    OVER = "over"
    READY = "ready"
    GONE = "gone"


@record(frozen=True, slots=True)
class ChordPart:
    """A part on its way into a store.

    Attributes:
        index: Place in the header; None for a member that was added on the way.
        ok: Whether the member returned a value.
        extra: Members that it has added.
        size: Members that the chord was opened with; None where a Celery client sent it.
        body: ``[1, id, state, result]`` as JSON.
    """

    group_id: str
    id: str
    index: int | None
    ok: bool
    extra: int
    size: int | None
    body: bytes

    @property
    def token(self) -> str:
        """What the one who joins puts down; the same when the member is delivered again."""
        return f"amqtask:{self.id}:{self.index}"


@dataclass(frozen=True, slots=True)
class OpenChord:
    """A chord that is on record as waiting for members.

    Attributes:
        record: What was put down when it was opened.
        due: Unix seconds at which it is given up, unless a part has put that off.
    """

    group_id: str
    record: bytes
    due: float


class Register(Protocol):
    """The chords that are open in a store. Every method blocks.

    open --note--> on record --due--> taken by one --put off--> taken again
                       `--joined, failed, given up--> dropped
    """

    def note(self, chord: OpenChord, keep: float) -> None:
        """Put a chord on record; one that is there is replaced.

        Args:
            keep: Seconds after which the store may drop it, whatever has become of it.
        """
        ...

    def drop(self, group_id: str) -> None:
        """Strike a chord off; one that is not there is no trouble."""
        ...

    def take(self, now: float, until: float, most: int) -> Sequence[OpenChord]:
        """Take chords that are due; nobody else gets one of them before ``until``."""
        ...

    def put_off(self, group_ids: Sequence[str], until: float) -> None:
        """Have nobody take these before ``until``; those that are not there stay away."""
        ...

    def list(self, most: int) -> Sequence[OpenChord]:
        """Return what is on record, the first to be given up first."""
        ...

    def find(self, group_id: str) -> OpenChord | None:
        """Return what is on record of one chord."""
        ...


class Chords(Protocol):
    """The parts of chords, in Celery's way. Every method blocks."""

    def open(self, sizes: Mapping[OpenChord, int], expires: float) -> None:
        """Note how many members chords have, and put them on record."""
        ...

    def add(self, parts: Sequence[ChordPart], expires: float) -> Sequence[tuple[Standing, Any]]:
        """Keep parts; returns for each where the chord stands, and if it is ready all parts."""
        ...

    def end(self, part: ChordPart, *, sent: bool, expires: float) -> None:
        """Note that the body was sent, and drop the parts; or that it failed."""
        ...

    def give_up(
        self, part: ChordPart, expires: float, *, by_hand: bool
    ) -> tuple[Standing, Sequence[Any]]:
        """Take a chord that nobody completes from whoever comes with a part.

        Args:
            part: Stands for who gives it up.
            by_hand: It is given up though a part came a short while ago.

        Returns:
            All parts if it is ready to be given up, or to be joined, each as
            ``[1, id, state, result, index, extra, task]``. It is waiting while others are at it,
            and while the last part is not old enough.
        """
        ...

    def came(self, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """Return how many parts came of each of these chords that has not ended meanwhile."""
        ...
