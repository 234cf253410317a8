"""A Call becomes a Message: Celery's protocol 2, always in its full shape.

Clients in other languages are stricter than Celery about what may be absent
and of which type it is, so every header is always there.

Source:
    celery 5.7 ``celery/app/amqp.py`` (``as_task_v2``), kombu 5.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from amqtask.clock import wall
from amqtask.errors import EncodeError
from amqtask.message.compression import compress
from amqtask.message.headers import check_headers
from amqtask.message.model import NO_EMBED, Call, Embed, Message
from amqtask.message.serializers import JSON, Serializer
from amqtask.message.text import brief

#: Characters of ``argsrepr`` and ``kwargsrepr``, as Celery sends at most.
REPR_SIZE = 1024

# a body above this is shown by its first elements, so that the repr costs no more than the sending
_REPR_WHOLE = 8 * 1024

_NO_EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_NO_EMBED_TAIL = b"," + orjson.dumps(_NO_EMBED) + b"]"


def encode(
    call: Call,
    *,
    serializer: Serializer = JSON,
    compression: str | None = None,
    compress_over: int = 0,
    now: float | None = None,
    ttl_ms: int | None = None,
) -> Message:
    """Return the message that carries a call.

    Args:
        compression: ``zlib``, ``zstd``, ``bz2`` or ``lzma``; None sends the body as it is.
        compress_over: Bytes of body up to which it is not compressed.
        now: Unix seconds for the timestamp; None asks the clock.
        ttl_ms: Milliseconds after which the broker drops or dead-letters it.

    Raises:
        EncodeError: An argument, a header or a stamp does not serialise.
        ConfigurationError: There is no such compression here.
    """
    headers, body = _headers_and_body(call, serializer)
    if call.headers:
        headers.update(check_headers(call.headers))
    if compression is not None and len(body) > compress_over:
        headers["compression"], body = compress(compression, body)
    return Message(
        body,
        headers,
        serializer.content_type,
        serializer.content_encoding,
        call.correlation_id or call.id,
        call.reply_to or "",
        2,
        call.priority,
        None if ttl_ms is None else str(max(0, ttl_ms)),
        call.id,
        int(wall() if now is None else now),
    )


def _headers_and_body(call: Call, serializer: Serializer) -> tuple[dict[str, Any], bytes]:
    args, kwargs = call.args, call.kwargs
    if type(kwargs) is not dict:
        kwargs = dict(kwargs)
    body = encode_body(call.task, args, kwargs, call.embed, serializer)
    whole = len(body) <= _REPR_WHOLE
    headers = {
        "lang": "py",
        "task": call.task,
        "id": call.id,
        "root_id": call.root_id or call.id,
        "parent_id": call.parent_id,
        "group": call.group,
        "group_index": call.group_index,
        "retries": call.retries,
        "eta": None if call.eta is None else instant("eta", call.eta),
        "expires": None if call.expires is None else instant("expires", call.expires),
        "timelimit": [_seconds(call.hard_limit), _seconds(call.soft_limit)],
        "shadow": call.shadow,
        "argsrepr": brief(args, REPR_SIZE, whole=whole) if args else "()",
        "kwargsrepr": brief(kwargs, REPR_SIZE, whole=whole) if kwargs else "{}",
        "origin": call.origin,
        "ignore_result": call.ignore_result,
        "replaced_task_nesting": call.replaced_task_nesting,
        "stamped_headers": None if call.stamped_headers is None else list(call.stamped_headers),
        "stamps": check_headers(call.stamps, stamps=True) if call.stamps else {},
    }
    return headers, body


def encode_body(
    task: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    embed: Embed,
    serializer: Serializer,
) -> bytes:
    """Return ``[args, kwargs, embed]``, serialised but not compressed."""
    for key in kwargs:
        if not isinstance(key, str):
            raise EncodeError(
                f"cannot encode kwargs of task {task!r}: the key {key!r} is no str",
                hint="keyword arguments are named by str",
            )
    try:
        if embed is NO_EMBED and serializer is JSON:
            return JSON.dumps((args, kwargs))[:-1] + _NO_EMBED_TAIL
        if serializer is JSON:
            return JSON.dumps((args, kwargs))[:-1] + b"," + _embed_json(embed) + b"]"
        return serializer.dumps((args, kwargs, embed_table(embed)))
    except EncodeError:
        for part, value in (("args", args), ("kwargs", kwargs), ("embed", embed_table(embed))):
            _blame(task, part, value, serializer)
        raise


def _embed_json(embed: Embed) -> bytes:
    """Return the third element of a body, part by part.

    Written as one it would have nulls, and the whole of a long chain would be walked to tell
    them from what JSON cannot write.
    """
    parts = [
        b'"%s":%s' % (name.encode(), b"null" if value is None else JSON.dumps(value))
        for name, value in embed_table(embed).items()
    ]
    return b"{" + b",".join(parts) + b"}"


def _blame(task: str, part: str, value: Any, serializer: Serializer) -> None:
    """Raise an error that names the part of the call, if it is this one that does not encode."""
    try:
        serializer.dumps(value)
    except EncodeError as error:
        named = EncodeError(f"cannot encode {part} of task {task!r}: {error}", hint=error.hint)
        named.path = error.path
        raise named from error.__cause__


def embed_table(embed: Embed) -> dict[str, Any]:
    """Return the third element of a body."""
    return {
        "callbacks": embed.callbacks,
        "errbacks": embed.errbacks,
        "chain": embed.chain,
        "chord": embed.chord,
    }


def instant(name: str, value: datetime) -> str:
    """Return ISO 8601 with an explicit offset: a naive time means something else elsewhere."""
    if value.utcoffset() is None:
        raise EncodeError(
            f"{name} {value.isoformat()} is naive", hint=f"give {name} a zone: datetime.now(UTC)"
        )
    return value.isoformat()


def _seconds(limit: float | None) -> float | None:
    # rusty-celery reads integers only, and drops the header otherwise
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit
