"""A Message becomes a Call, or a MessageError: whatever came, and nothing else.

Three forms are read: protocol 2 (metadata in headers, body of three),
protocol 1 (all in a dict body) and the hybrid of both. What Celery runs is
run; what would end a Celery worker is malformed, with a text that says why.

Source:
    celery 5.7 ``celery/worker/strategy.py`` and ``celery/worker/request.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from amqtask.errors import ContentDisallowed, DecodedTooLarge, MalformedMessage
from amqtask.message.compression import decompress
from amqtask.message.headers import as_text, user_headers
from amqtask.message.model import NO_EMBED, Call, Embed, Message
from amqtask.message.serializers import Serializer
from amqtask.message.text import show

_INT64 = 1 << 63
_RETRIES = 1 << 31

# what a hybrid's dict body may say where its headers do not
_BODY_FIELDS = (
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "shadow",
    "eta",
    "expires",
    "retries",
    "timelimit",
    "origin",
    "ignore_result",
)


def task_name(message: Message) -> str | None:
    """Return the task a message names in its header, without decoding it; None when none."""
    name = message.headers.get("task") if message.headers else None
    if type(name) is str:
        return name
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace")
    return name if isinstance(name, str) else None


def decode(
    message: Message,
    accepted: Mapping[str, Serializer],
    *,
    max_decoded_size: int,
    timezone: tzinfo = UTC,
) -> Call:
    """Return the call a message carries.

    Args:
        accepted: Serializers by content type, from `accepted`.
        max_decoded_size: Bytes the body may have, unpacked.
        timezone: Zone of times that name none.

    Raises:
        MalformedMessage: It is no task message, or a broken one.
        ContentDisallowed: Its serializer or compression is not accepted.
        DecodedTooLarge: Its body is over ``max_decoded_size``.
    """
    headers = message.headers or {}
    named = headers.get("task") is not None
    body = _body(message, headers, accepted, max_decoded_size)
    if isinstance(body, dict):
        return _from_dict(message, headers, body, named=named, zone=timezone)
    if not named:
        raise MalformedMessage("message has no 'task' header and its body is no protocol 1 task")
    if not isinstance(body, list | tuple):
        raise MalformedMessage(f"body is {show(body)}, a task message has (args, kwargs, embed)")
    if len(body) != 3:
        raise MalformedMessage(
            f"body has {len(body)} elements, a task message has 3 (args, kwargs, embed)"
        )
    args, kwargs, embed = body
    fields = _Fields(headers, timezone)
    return fields.call(message, headers, args, kwargs, _embed(embed), protocol=2)


def _body(
    message: Message, headers: Mapping[str, Any], accepted: Mapping[str, Serializer], limit: int
) -> Any:
    content_type = message.content_type
    if not content_type:
        raise MalformedMessage("message has no content type")
    codec = accepted.get(content_type)
    if codec is None:
        raise ContentDisallowed(
            f"content type {show(content_type)} is not accepted",
            hint=f"accept_content allows {', '.join(accepted) or 'nothing'}",
        )
    data = message.body
    compression = headers.get("compression")
    if compression:
        if isinstance(compression, bytes):
            compression = as_text("compression", compression)
        if not isinstance(compression, str):
            raise _wrong("compression", compression, "the name of a compression")
        data = decompress(compression, data, limit)
    elif len(data) > limit:
        raise DecodedTooLarge(f"body has {len(data)} bytes, {limit} are allowed")
    return codec.loads(data)


def _from_dict(
    message: Message,
    headers: Mapping[str, Any],
    body: dict[str, Any],
    *,
    named: bool,
    zone: tzinfo,
) -> Call:
    """Return the call of a protocol 1 or hybrid message."""
    if named:
        if "args" not in body:
            raise MalformedMessage("body is a dict without 'args'")
        said = {name: body[name] for name in _BODY_FIELDS if name in body}
        metadata: dict[str, Any] = {**said, **headers}
        utc = body.get("utc", False)
    elif body.get("task") is not None:
        metadata = dict(body)
        if "taskset" in body:
            metadata["group"] = body["taskset"]
        utc = body.get("utc", True)
    else:
        raise MalformedMessage("message has no 'task' header and its body is no protocol 1 task")
    embed = {name: body.get(name) for name in ("callbacks", "errbacks", "chord")}
    return _Fields(metadata, UTC if utc else zone).call(
        message, headers, body.get("args", ()), body.get("kwargs", {}), _embed(embed), protocol=1
    )


def _wrong(name: str, value: Any, wanted: str) -> MalformedMessage:
    return MalformedMessage(f"{name} is {show(value)}, not {wanted}")


@dataclass(slots=True)  # not frozen: one is made per delivery
class _Fields:
    """The metadata of a call, wherever it came from, read field by field."""

    fields: Mapping[str, Any]
    zone: tzinfo

    def call(
        self,
        message: Message,
        headers: Mapping[str, Any],
        args: Any,
        kwargs: Any,
        embed: Embed,
        *,
        protocol: int,
    ) -> Call:
        get = self.fields.get
        task_id = self.required("id")
        retries = get("retries")
        nesting = get("replaced_task_nesting")
        ignore = get("ignore_result")
        hard, soft = _limits(get("timelimit"))
        return Call(
            self.required("task"),
            task_id,
            _args(args),
            _kwargs(kwargs),
            embed,
            retries if type(retries) is int and 0 <= retries < _RETRIES else _retries(retries),
            None if get("eta") is None else self.instant("eta"),
            None if get("expires") is None else self.instant("expires"),
            hard,
            soft,
            self.text("root_id"),
            self.text("parent_id"),
            self.text("group"),
            None if get("group_index") is None else _whole("group_index", get("group_index")),
            self.text("shadow"),
            self.text("origin"),
            None if ignore is None else bool(ignore),
            _whole("replaced_task_nesting", nesting) if nesting else 0,
            _names(get("stamped_headers")),
            _table("stamps", get("stamps")),
            message.reply_to or None,
            message.correlation_id or task_id,
            message.priority or 0,
            user_headers(headers),
            protocol,
        )

    def text(self, name: str) -> str | None:
        """Return a text field, or None."""
        value = self.fields.get(name)
        if value is None or (type(value) is str and value.isascii()):
            return value
        if isinstance(value, str):
            return _sendable(name, value)
        if isinstance(value, bytes):
            return as_text(name, value)
        raise _wrong(name, value, "text or null")

    def required(self, name: str) -> str:
        """Return a text field that must be there and not empty."""
        value = self.text(name)
        if value:
            return value
        if name in self.fields:
            raise _wrong(name, value, "text that is not empty")
        raise MalformedMessage(f"message has no {name!r}")

    def instant(self, name: str) -> datetime:
        """Return a time, in UTC; one without an offset is read in the zone."""
        value = self.fields[name]
        if isinstance(value, bytes):
            value = as_text(name, value)
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            if moment.tzinfo is UTC:
                return moment
            if moment.utcoffset() is None:
                moment = moment.replace(tzinfo=self.zone)
            return moment.astimezone(UTC)
        except (TypeError, ValueError, OverflowError) as error:
            raise _wrong(name, value, "an ISO 8601 time") from error


def _sendable(name: str, value: str) -> str:
    """Refuse text that no header can hold again, as a JSON body of protocol 1 may."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(name, value, "text: it has a lone surrogate") from None
    return str.__str__(value)


# -- parts of the body ------------------------------------------------------------


def _args(args: Any) -> tuple[Any, ...]:
    if isinstance(args, list | tuple):
        return tuple(args)
    raise _wrong("args", args, "a list")


def _kwargs(kwargs: Any) -> dict[str, Any]:
    if not isinstance(kwargs, dict):
        raise _wrong("kwargs", kwargs, "a dict")
    for key in kwargs:
        if not isinstance(key, str):
            raise _wrong("a key of kwargs", key, "text")
    return kwargs


def _embed(embed: Any) -> Embed:
    if not embed and (embed is None or isinstance(embed, dict | list | tuple)):
        return NO_EMBED
    if not isinstance(embed, dict):
        raise _wrong("embed", embed, "a dict or null")
    callbacks, errbacks = embed.get("callbacks"), embed.get("errbacks")
    chain, chord = embed.get("chain"), embed.get("chord")
    if callbacks is None and errbacks is None and chain is None and chord is None:
        return NO_EMBED
    return Embed(
        _signatures("callbacks", callbacks),
        _signatures("errbacks", errbacks),
        _signatures("chain", chain),
        None if chord is None else _signature("chord", chord),
    )


def _signatures(name: str, value: Any) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise _wrong(name, value, "a list of signatures or null")
    return [_signature(name, item) for item in value]


def _signature(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and isinstance(value.get("task"), str):
        return value
    raise _wrong(f"a signature in {name}", value, "a dict with a 'task'")


# -- parts of the metadata --------------------------------------------------------


def _whole(name: str, value: Any) -> int:
    """Return an integer that fits the wire; 2.0 is one, as some clients write it, True is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64:
        return int(value)
    raise _wrong(name, value, "a whole number")


def _retries(value: Any) -> int:
    """Return the number of retries; Celery takes it as text too."""
    if value is None:
        return 0
    if isinstance(value, bytes):
        value = as_text("retries", value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:
        value = int(value)
    number = _whole("retries", value)
    if not 0 <= number < _RETRIES:
        raise _wrong("retries", value, "a number of retries")
    return number


def _limits(value: Any) -> tuple[float | None, float | None]:
    if value is None:
        return None, None
    if not isinstance(value, list | tuple) or len(value) not in (0, 2):
        raise _wrong("timelimit", value, "a list of two (hard, soft)")
    if not value:
        return None, None
    return _limit(value[0]), _limit(value[1])


def _limit(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if value >= 0 and math.isfinite(value):
                return value or None  # 0 means no limit to Celery
        except OverflowError:
            pass  # an integer no float holds is no number of seconds
    raise _wrong("an element of timelimit", value, "a number of seconds or null")


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return list(value)
    raise _wrong("stamped_headers", value, "a list of names or null")


def _table(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise _wrong(name, value, "a table or null")
