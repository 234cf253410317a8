"""The call that ends a chord which nobody completes, and what has to be known for it.

Whoever opens a chord puts a `Waiting` where the chord is kept. When its time is over, the
broker, or a worker that looks after the store, turns that into a call of
``amqtask.expire_join``, by its form one more member. The worker that runs it gives the
chord up as its last part would have completed it: confirmed, before the call is acked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqtask.errors import MalformedMessage
from amqtask.message.model import Call, Embed
from amqtask.message.serializers import JSON
from amqtask.message.signature import Document, chord_size
from amqtask.message.text import show
from amqtask.workflow.ports import EXPIRE, Opening, Part

if TYPE_CHECKING:
    from amqtask.app import App

#: Unix seconds at which the chord was opened.
OPENED_HEADER = "x-amqtask-opened"
#: Says that somebody has asked for it, though the chord's time is not over.
BY_HAND_HEADER = "x-amqtask-by-hand"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A chord that waits for members.

    Attributes:
        group_id: Id of its header.
        size: Members that it was opened with.
        body: Signature of its body, with ids.
        opened: Unix seconds.
        reply_to: Where the body's outcome goes, if its signature does not say so.
    """

    group_id: str
    size: int
    body: Document
    opened: float
    reply_to: str | None = None

    @classmethod
    def of(cls, opening: Opening, now: float) -> Waiting:
        """Return what a chord is that is opened now."""
        return cls(opening.group_id, opening.size, opening.body, now)

    @classmethod
    def of_alarm(cls, part: Part) -> Waiting:
        """Return the chord that an alarm is about."""
        opened = part.call.headers.get(OPENED_HEADER)
        since = float(opened) if isinstance(opened, int | float) else 0.0
        return cls(part.group_id, part.size or 0, part.body, since, part.call.reply_to)

    @classmethod
    def load(cls, group_id: str, data: bytes) -> Waiting:
        """Return what `dump` wrote.

        Raises:
            MalformedMessage: It is something else.
        """
        said = JSON.loads(data)
        body = said.get("body") if isinstance(said, dict) else None
        if not isinstance(body, dict) or (size := chord_size(body)) is None:
            raise MalformedMessage(f"the record of chord {group_id} is {show(said)}")
        return cls(group_id, size, body, float(said.get("opened") or 0), said.get("reply_to"))

    def dump(self) -> bytes:
        """Return it as JSON."""
        body = {**self.body, "chord_size": self.size}
        return JSON.dumps({"body": body, "opened": int(self.opened), "reply_to": self.reply_to})

    def alarm(self, *, by_hand: bool = False) -> Call:
        """Return the call that gives it up."""
        options = self.body.get("options") or {}
        headers: dict[str, Any] = {OPENED_HEADER: int(self.opened)}
        if by_hand:
            headers[BY_HAND_HEADER] = True
        return Call(
            EXPIRE,
            f"{self.group_id}-alarm",
            embed=Embed(chord={**self.body, "chord_size": self.size}),
            group=self.group_id,
            root_id=options.get("root_id"),
            reply_to=options.get("reply_to") or self.reply_to,
            ignore_result=True,
            headers=headers,
        )


@dataclass(frozen=True, slots=True)
class OpenJoin:
    """A chord that is open, as the tools show it.

    Attributes:
        kept: Who has its parts: ``broker`` or ``store``.
        came: Parts that came; of two from one member both may count.
        due: Unix seconds at which it is given up, unless a part puts that off.
        missing: Places in the header of which nothing is known; None where nobody looked.
    """

    waiting: Waiting
    kept: str
    came: int
    due: float
    missing: Sequence[int] | None = None

    @property
    def id(self) -> str:
        """Id of the header."""
        return self.waiting.group_id

    @property
    def task(self) -> str:
        """The task of the body, or of the group or chain that it is."""
        return str(self.waiting.body.get("task"))

    @property
    def body_id(self) -> str | None:
        """Id of the body's call; None where it is several."""
        id_ = (self.waiting.body.get("options") or {}).get("task_id")
        return id_ if isinstance(id_, str) else None


def target_of(app: App, body: Document) -> str:
    """Return the queue whose workers hear an alarm: where the body is to run, if it says so."""
    queue = (body.get("options") or {}).get("queue")
    return queue if isinstance(queue, str) and queue else app.settings.default_queue


def is_by_hand(part: Part) -> bool:
    """Whether an alarm was sent by somebody who wants the chord given up now."""
    return bool(part.call.headers.get(BY_HAND_HEADER))
