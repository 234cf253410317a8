"""Messages that follow from a message: its next attempt, and its place among the dead.

Both keep the sender's bytes. What the broker wrote into the headers goes: sent
again, it makes RabbitMQ drop or misroute the message.

Source:
    RabbitMQ's dead-lettering headers; celery/celery#9867 for what they do when
    they are sent again. ``user_id`` goes too, as the broker closes the channel
    of whoever sends another user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from amqtask.errors import RemoteError
from amqtask.message.encoding import encode, instant
from amqtask.message.headers import CRASHES_HEADER, clean_headers
from amqtask.message.model import Call, Message
from amqtask.message.serializers import JSON, Serializer
from amqtask.message.text import cut, sendable

#: Characters of the ``amqtask-exception`` header at most.
EXCEPTION_SIZE = 2_000
#: Characters of the ``amqtask-traceback`` header at most; its end is kept.
TRACEBACK_SIZE = 16_000

# all headers travel in one frame, 131,072 bytes unless the broker was told otherwise
_HEADER_BYTES = 120_000

# a timestamp before the protocol existed is no timestamp
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()


def resend(
    message: Message,
    call: Call,
    *,
    retries: int,
    eta: datetime | None,
    crashes: int = 0,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    serializer: Serializer = JSON,
) -> Message:
    """Return the message for another attempt at a call, under the same id.

    Body and properties stay as they are, except ``expiration`` and
    ``user_id``, which go. A message of protocol 1 becomes one of protocol 2.

    Args:
        message: The delivery that is being settled.
        call: What it decoded to.
        retries: 0 for a first attempt that was only put off.
        eta: Aware time before which it may not start.
        crashes: How often its process has died under this attempt.
        args: Other positional arguments; None keeps them.
        kwargs: Other keyword arguments; None keeps them.
        serializer: Writes the body when it has to be written anew. Give the
            one the message came with.

    Raises:
        EncodeError: A body that has to be written anew does not serialise: other
            arguments, or those of protocol 1 that hold NaN.
    """
    headers = clean_headers(message.headers)
    if crashes:
        headers[CRASHES_HEADER] = crashes
    if args is None and kwargs is None and call.protocol == 2:
        headers["retries"] = retries
        headers["eta"] = None if eta is None else instant("eta", eta)
        return replace(message, headers=headers, expiration=None, user_id=None)
    successor = replace(
        call,
        args=call.args if args is None else args,
        kwargs=call.kwargs if kwargs is None else kwargs,
        retries=retries,
        eta=eta,
        headers={},  # they are in the message's headers already, and stay as they came
        stamps={},
    )
    return _written_anew(message, headers, successor, call.stamps, serializer)


def _written_anew(
    message: Message,
    headers: dict[str, Any],
    call: Call,
    stamps: Mapping[str, Any],
    serializer: Serializer,
) -> Message:
    """Return ``message`` with the body of ``call``, and its headers over those that came."""
    compression = headers.pop("compression", None)
    if isinstance(compression, bytes):
        compression = compression.decode("utf-8")
    fresh = encode(call, serializer=serializer, compression=compression or None, now=0)
    headers.update(fresh.headers)
    headers["stamps"] = clean_headers(stamps)
    return replace(
        message,
        body=fresh.body,
        headers=headers,
        content_type=fresh.content_type,
        content_encoding=fresh.content_encoding,
        expiration=None,
        user_id=None,
    )


def park(
    message: Message,
    *,
    reason: str,
    queue: str,
    exception: BaseException | str | None,
    traceback: str | None,
    attempts: int,
    host: str,
    now: float,
    details: Mapping[str, Any] | None = None,
) -> Message:
    """Return the message as it goes to the dead-letter queue; works for any message.

    Body and properties stay byte for byte, except ``expiration`` and
    ``user_id``, which go (the latter into ``amqtask-user-id``).

    Args:
        reason: Short machine word, such as `MessageError.reason`.
        queue: Where it was delivered from.
        exception: What ended it, if anything did.
        traceback: Its text; over `TRACEBACK_SIZE` characters the end is kept.
        attempts: How often it was started.
        host: The worker that parks it.
        now: Unix seconds.
        details: More of our own headers, such as what is known of a process's death.
    """
    parked_at = _iso(now)
    sane = type(message.timestamp) is int and _OLDEST <= message.timestamp <= now
    headers = clean_headers(message.headers or {})
    headers["amqtask-reason"] = sendable(reason)
    headers["amqtask-queue"] = sendable(queue)
    if exception is not None:
        headers["amqtask-exception"] = sendable(cut(exception_text(exception), EXCEPTION_SIZE))
    headers["amqtask-attempts"] = attempts
    headers["amqtask-host"] = sendable(host)
    headers["amqtask-first-seen"] = _iso(message.timestamp or 0) if sane else parked_at
    headers["amqtask-parked-at"] = parked_at
    headers.update(details or {})
    if message.user_id is not None:
        headers["amqtask-user-id"] = message.user_id
    if traceback is not None:
        # four bytes is the most a character takes
        room = min(TRACEBACK_SIZE, (_HEADER_BYTES - _weight(headers)) // 4)
        if room > 0:
            headers["amqtask-traceback"] = sendable(traceback[-room:])[-room:]
    return replace(message, headers=headers, expiration=None, user_id=None)


def exception_text(exception: BaseException | str) -> str:
    """Return ``"ValueError: x"``, whatever the exception's own ``__str__`` does."""
    if isinstance(exception, str):
        return exception
    if isinstance(exception, RemoteError) and exception.exc_type:
        return str(exception)  # which begins with the name it had where it came from
    name = type(exception).__qualname__
    try:
        text = str(exception)
    except Exception:  # user code
        return f"{name}: <its text cannot be had>"
    return f"{name}: {text}" if text else name


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _weight(value: Any) -> int:
    """Return about how many bytes a header value takes, rather more than less."""
    if isinstance(value, str):
        return 5 + len(value.encode("utf-8"))
    if isinstance(value, bytes):
        return 5 + len(value)
    if isinstance(value, dict):
        return 5 + sum(_weight(key) + _weight(item) for key, item in value.items())
    if isinstance(value, list):
        return 5 + sum(map(_weight, value))
    return 10
