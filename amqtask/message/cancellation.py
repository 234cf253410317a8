"""The record of a cancelled call, as it stands in the broker.

Records lie in a queue that workers read and give back, so a record says by
itself until when it counts: a broker drops an expired message only when it is
at the head of its queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import orjson

from amqtask.message.model import Message

#: ``type`` property of a record.
RECORD = "amqtask.cancel"
#: ``type`` property of the mark that shows a reader where the records end.
MARK = "amqtask.cancel.mark"

_MOST_MS = 315_360_000_000  # ten years, the longest TTL that RabbitMQ takes


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A call that shall not run.

    Attributes:
        id: The call's id.
        terminate: True ends it also where it ignores its cancellation.
        until: Unix time in seconds from which on nobody remembers it.
    """

    id: str
    terminate: bool
    until: float


def encode_cancellation(record: Cancellation, now: float) -> Message:
    """Return the message that carries ``record``."""
    body = {"id": record.id, "terminate": record.terminate, "until": record.until}
    left = max(1, math.ceil((record.until - now) * 1000))
    return Message(
        orjson.dumps(body),
        content_type="application/json",
        content_encoding="utf-8",
        expiration=str(min(left, _MOST_MS)),
        message_id=record.id,
        timestamp=int(now),
        type=RECORD,
    )


def decode_cancellation(body: bytes) -> Cancellation | None:
    """Return the record in ``body``; None when there is none, whoever wrote that."""
    try:
        said: Any = orjson.loads(body)
    except ValueError:
        return None
    match said:
        case {"id": str(id_), "terminate": bool(terminate), "until": int() | float() as until}:
            return Cancellation(id_, terminate, float(until))
    return None


def encode_mark(nonce: str, keep: float) -> Message:
    """Return a mark that only its writer knows.

    Args:
        keep: Seconds after which the broker forgets it, should its writer not take it out.
    """
    return Message(nonce.encode(), expiration=str(round(keep * 1000)), type=MARK)
