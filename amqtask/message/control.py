"""Requests to what runs, and their replies, as they stand on the wire.

    request   {"method": "schedule.pause", "arguments": {"name": "report"}}
    reply     {"ok": VALUE}  or  {"error": {"kind": "ConfigurationError", "text": ..., "hint": ...}}

Both are JSON, with dates and the like as in calls. A reply bears its request's id as ``correlation_id``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amqtask.errors import AmqtaskError, MalformedMessage
from amqtask.message.model import Message
from amqtask.message.serializers import JSON

#: ``type`` property of a request.
REQUEST = "amqtask.request"
#: ``type`` property of a reply.
REPLY = "amqtask.reply"


@dataclass(frozen=True, slots=True)
class Request:
    """Something that is asked of what runs.

    Attributes:
        method: What to do.
        arguments: With what; JSON types.
        id: Names it, for its reply.
        reply_to: Where the reply goes; empty for none.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    reply_to: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not done.

    Attributes:
        kind: Name of the error's class.
        text: What was wrong.
        hint: What to do about it.
    """

    kind: str
    text: str
    hint: str | None = None


def encode_request(request: Request, expires: float) -> Message:
    """Return the message that carries a request.

    Args:
        expires: Seconds after which nobody waits for the reply any more.
    """
    return Message(
        JSON.dumps({"method": request.method, "arguments": dict(request.arguments)}),
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=request.id,
        reply_to=request.reply_to,
        delivery_mode=1,
        expiration=str(max(1, math.ceil(expires * 1000))),
        message_id=request.id,
        type=REQUEST,
    )


def decode_request(message: Message) -> Request:
    """Return the request in a message.

    Raises:
        MalformedMessage: There is none.
    """
    match _json(message.body):
        case {"method": str(method), "arguments": dict(arguments)}:
            return Request(method, arguments, message.message_id or "", message.reply_to or "")
    raise MalformedMessage("it is no request: a JSON object with method and arguments")


def encode_reply(request: Request, value: Any = None, error: AmqtaskError | None = None) -> Message:
    """Return the message that answers a request: with a value of JSON types, or an error."""
    body: dict[str, Any]
    if error is None:
        body = {"ok": value}
    else:
        said = {"kind": type(error).__name__, "text": str(error), "hint": error.hint}
        body = {"error": said}
    return Message(
        JSON.dumps(body),
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=request.id,
        delivery_mode=1,
        message_id=request.id,
        type=REPLY,
    )


def decode_reply(message: Message) -> tuple[Any, Refusal | None]:
    """Return the value of a reply, or why there is none.

    Raises:
        MalformedMessage: It is no reply.
    """
    match _json(message.body):
        case {"ok": value}:
            return value, None
        case {"error": {"kind": str(kind), "text": str(text), **rest}}:
            hint = rest.get("hint")
            return None, Refusal(kind, text, hint if isinstance(hint, str) else None)
    raise MalformedMessage("it is no reply: a JSON object with ok or error")


def _json(body: bytes) -> Any:
    try:
        return JSON.loads(body)
    except (ValueError, AmqtaskError):
        return None
