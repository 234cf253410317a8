"""What the settler needs of whatever joins the members of a chord.

    launched --open--> counting --part, part, ...--> complete --> body sent, or failed

Every member of a chord carries the body in its message, with the ids of all its
steps fixed and the number of members beside it (``chord_size``). So whoever has
the last part can send the body, and one that is sent twice has the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amqtask.errors import ChordError
from amqtask.message.model import Call
from amqtask.message.signature import Document
from amqtask.records import record

#: The task that the alarm of a chord's queue calls.
EXPIRE = "amqtask.expire_join"
#: Called once, on any thread, with None when it is safe, or with what kept it from that.
Done = Callable[[Exception | None], object]


@dataclass(frozen=True, slots=True)
class Opening:
    """A chord that is about to be launched; none of its members is sent before this is safe.

    Attributes:
        group_id: Id of its header.
        size: Members it has.
        body: Signature of its body, with ids.
    """

    group_id: str
    size: int
    body: Document


@record(frozen=True, slots=True)
class Part:
    """What became of one member of a chord.

    Attributes:
        group_id: Id of the header.
        index: The member's place in it; None for one that was added on the way, which
            comes after the others.
        size: Members that the chord has been opened with; None where a Celery client
            launched it, which keeps that in the store only.
        body: Signature of the body as the member carries it.
        id: Id of the member's own call; two parts of the same id are one.
        task: Its task, for texts.
        value: What it returned.
        error: Why it failed; None when it did not.
        extra: Members that it has added to the chord: they count beside ``size``.
        call: The call that ended, which the body follows (root id, reply address).
    """

    group_id: str
    index: int | None
    size: int | None
    body: Document
    id: str
    task: str
    value: Any
    error: BaseException | None
    extra: int
    call: Call


class Follow(Protocol):
    """What a join does with a chord that is complete; offered by the settler."""

    def send_body(self, part: Part, values: Sequence[Any], done: Done) -> None:
        """Publish what the body begins with, confirmed; ``values`` in the order of the members.

        Whatever it is called with, it sends the same ids for the same body.
        """
        ...

    def fail_body(self, part: Part, error: ChordError, done: Done) -> None:
        """End the body, and all that follows it, as failed: results stored, errbacks sent."""
        ...


class Joins(Protocol):
    """Joins the members of chords.

    Threads: every method from any thread, and none blocks.
    """

    def open(self, opening: Opening, done: Done) -> None:
        """Have ready what the members of a chord need; doing it twice is fine."""
        ...

    def part(self, part: Part, follow: Follow, done: Done, ours: Callable[[], bool]) -> None:
        """Take a part in; when it completes the chord, have the body sent or failed.

        Args:
            done: Once the part is safe and, where it completed the chord, the body is too: the
                member's delivery is acked then. An error means that it is not safe yet, and
                the settler tries again while the delivery is ours.
            ours: Whether the member's delivery is still this worker's.
        """
        ...
