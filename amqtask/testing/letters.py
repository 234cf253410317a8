"""What is in a queue: messages as the broker holds them, read without taking them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pamqp import header

from amqtask.broker.message import Message as Held
from amqtask.errors import MessageError
from amqtask.message import Call, Message, decode
from amqtask.message.headers import OWN_PREFIX
from amqtask.testing.outbox import codecs

#: What a content header has before its properties: class, weight and the body's size.
_BASIC = b"\0\x3c" + bytes(10)
_LARGE = 1 << 30


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a queue.

    Attributes:
        queue: The queue.
        task: Name of the task; None when it is no call.
        id: Id of the call.
        call: All that it says; None when it cannot be read.
        reason: Why it is a dead letter, such as ``failed``; None for one that waits.
        exception: What ended it, as text.
        traceback: Its traceback's text.
        attempts: How often it was started.
        message: The message itself.
    """

    queue: str
    task: str | None
    id: str | None
    call: Call | None = field(repr=False)
    reason: str | None
    exception: str | None
    traceback: str | None
    attempts: int
    message: Message = field(repr=False)

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments of the call, ``()`` when it cannot be read."""
        return self.call.args if self.call is not None else ()

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments of the call, ``{}`` when it cannot be read."""
        return self.call.kwargs if self.call is not None else {}


def read(queue: str, held: Held, *, dead: bool) -> Letter:
    """Return a message that the broker holds as a letter.

    Args:
        queue: Where it is.
        dead: Whether that is a dead-letter queue.
    """
    content = header.ContentHeader()
    content.unmarshal(_BASIC + held.properties)
    message = unpacked(content, held.body)
    headers = message.headers
    try:
        call = decode(message, codecs(), max_decoded_size=_LARGE)
    except MessageError:
        call = None
    own = {name: headers.get(OWN_PREFIX + name) for name in ("reason", "exception", "traceback")}
    if dead and own["reason"] is None:  # the broker parked it by itself, and has its own word
        own["reason"] = headers.get("x-last-death-reason")
    return Letter(
        queue=queue,
        task=call.task if call is not None else _text(headers.get("task")),
        id=call.id if call is not None else _text(headers.get("id")),
        call=call,
        reason=_text(own["reason"]),
        exception=_text(own["exception"]),
        traceback=_text(own["traceback"]),
        attempts=int(headers.get(f"{OWN_PREFIX}attempts") or 0),
        message=message,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def unpacked(content: header.ContentHeader, body: bytes) -> Message:
    """Return the message of a header frame and a body."""
    properties = content.properties
    moment = properties.timestamp
    return Message(
        body,
        dict(properties.headers or {}),
        properties.content_type,
        properties.content_encoding,
        properties.correlation_id,
        properties.reply_to,
        properties.delivery_mode,
        properties.priority,
        properties.expiration,
        properties.message_id,
        None if moment is None else int(moment.timestamp()),
        properties.message_type,
        properties.user_id,
        properties.app_id,
    )
