"""How a store keeps the parts of chords, where it does that in Celery's own way.

Stores whose way Celery does not share need none of this: they keep values and
count, and `amqtask.workflow` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from amqtask.records import record


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


class Chords(Protocol):
    """The parts of chords, in Celery's way. Every method blocks."""

    def open(self, sizes: Mapping[str, int], expires: float) -> None:
        """Note how many members chords have, by the ids of their groups."""
        ...

    def add(self, parts: Sequence[ChordPart], expires: float) -> Sequence[tuple[Standing, Any]]:
        """Keep parts; returns for each where the chord stands, and if it is ready all parts."""
        ...

    def end(self, part: ChordPart, *, sent: bool, expires: float) -> None:
        """Note that the body was sent, and drop the parts; or that it failed."""
        ...
