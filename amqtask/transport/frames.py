"""The frames of one published message, as one piece of bytes.

pika builds an object for each frame, encodes each field through three calls
and writes each frame to the socket by itself. Publishing is what callers wait
for, so its three kinds of frame are written here, straight from a `Message`;
everything else, and all reading, stays pika's.

Source: AMQP 0-9-1 specification, 2.3.5 (frames), 4.2 (fields), with RabbitMQ's
field types as listed in its errata; checked against pika's decoder in the tests.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct, error
from typing import Any

from amqtask.message.model import Message

#: Bytes of a frame that are not payload: type, channel, size and end octet.
OVERHEAD = 8

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_BASIC_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"  # class 60, method 40, reserved
_NO_TABLE = b"F\x00\x00\x00\x00"
_MANDATORY, _OPTIONAL = b"\x01", b"\x00"
#: Bytes of a body above which it is not joined with the rest.
_APART = 16 * 1024
#: Starts of the addresses that RabbitMQ and LavinMQ give for a direct reply.
DIRECT_REPLIES = ("amq.rabbitmq.reply-to.", "amq.direct.reply-to.")

_frame = Struct(">BHI").pack
_content = Struct(">HHQH").pack
_int32 = Struct(">ci").pack
_int64 = Struct(">cq").pack
_double = Struct(">cd").pack
_size = Struct(">cI").pack
_long = Struct(">I").pack
_timestamp = Struct(">Q").pack
_decimal = Struct(">cBi").pack


def publish_frames(
    channel: int, exchange: str, routing_key: str, message: Message, body_max: int
) -> list[bytes | memoryview]:
    """Return the pieces of ``basic.publish`` with ``mandatory``, ready to be joined.

    Direct replies alone go without ``mandatory``.

    Args:
        channel: Its number.
        body_max: Most payload bytes of one body frame, as negotiated.

    Raises:
        ValueError: A name, property or header cannot be written; nothing was.
    """
    try:
        header = _properties(message)
        pieces: list[bytes | memoryview] = [_publish_method(channel, exchange, routing_key)]
    except (error, AttributeError, TypeError, OverflowError, UnicodeError) as wrong:
        raise ValueError(str(wrong)) from wrong
    body = message.body
    size = len(body)
    payload = _content(60, 0, size, header[0])
    header_size = len(payload) + len(header[1])
    if header_size > body_max:  # the broker would close the connection, time and again
        raise ValueError(
            f"its headers take {header_size} bytes, a frame of this connection holds {body_max}"
        )
    pieces += (
        _frame(_HEADER, channel, header_size),
        payload,
        header[1],
        _END,
    )
    if size > _APART:
        view = memoryview(body)
        for start in range(0, size, body_max):
            part = view[start : start + body_max]
            pieces += (_frame(_BODY, channel, len(part)), part, _END)
    elif size:
        pieces += (_frame(_BODY, channel, size), body, _END)
    return pieces


@lru_cache(maxsize=1024)
def _publish_method(channel: int, exchange: str, routing_key: str) -> bytes:
    # RabbitMQ before 4.2 returns a mandatory direct reply even when it arrives
    # (str: what came as no UTF-8 is bytes here)
    direct = not exchange and str(routing_key).startswith(DIRECT_REPLIES)
    flags = _OPTIONAL if direct else _MANDATORY
    payload = _BASIC_PUBLISH + _short(exchange) + _short(routing_key) + flags
    return _frame(_METHOD, channel, len(payload)) + payload + _END


def _properties(message: Message) -> tuple[int, bytes]:
    """Return the flags and the encoded list of the properties that are set."""
    flags = 0
    pieces: list[bytes] = []
    if message.content_type is not None:
        flags |= 1 << 15
        pieces.append(_name(message.content_type))
    if message.content_encoding is not None:
        flags |= 1 << 14
        pieces.append(_name(message.content_encoding))
    if message.headers:
        flags |= 1 << 13
        pieces.append(_table(message.headers))
    if message.delivery_mode is not None:
        flags |= 1 << 12
        pieces.append(bytes((message.delivery_mode,)))
    if message.priority is not None:
        flags |= 1 << 11
        pieces.append(bytes((message.priority,)))
    if message.correlation_id is not None:
        flags |= 1 << 10
        pieces.append(_short(message.correlation_id))
    if message.reply_to is not None:
        flags |= 1 << 9
        pieces.append(_short(message.reply_to))
    if message.expiration is not None:
        flags |= 1 << 8
        pieces.append(_short(message.expiration))
    if message.message_id is not None:
        flags |= 1 << 7
        pieces.append(_short(message.message_id))
    if message.timestamp is not None:
        flags |= 1 << 6
        pieces.append(_timestamp(message.timestamp))
    if message.type is not None:
        flags |= 1 << 5
        pieces.append(_short(message.type))
    if message.user_id is not None:
        flags |= 1 << 4
        pieces.append(_short(message.user_id))
    if message.app_id is not None:
        flags |= 1 << 3
        pieces.append(_short(message.app_id))
    return flags, b"".join(pieces)


def _short(text: str | bytes) -> bytes:
    # pika hands out bytes for what is no UTF-8; a dead letter passes on what came
    data = text if isinstance(text, bytes) else text.encode()
    if len(data) > 255:
        raise ValueError(f"{text[:40]!r}... has {len(data)} bytes, a short string holds 255")
    return bytes((len(data),)) + data


#: For names that recur: header names, content types.
_name = lru_cache(maxsize=1024)(_short)


def _table(table: Mapping[str, Any]) -> bytes:
    pieces: list[bytes] = [b""]
    for name, value in table.items():
        pieces.append(_name(name))
        # the kinds that nearly every header is, without a call
        kind = type(value)
        if kind is str:
            data = value.encode()
            pieces.append(_size(b"S", len(data)))
            pieces.append(data)
        elif value is None:
            pieces.append(b"V")
        elif kind is bool:
            pieces.append(b"t\x01" if value else b"t\x00")
        elif kind is dict and not value:
            pieces.append(_NO_TABLE)
        else:
            pieces.append(_value(value))
    data = b"".join(pieces)
    return _long(len(data)) + data


def _value(value: Any) -> bytes:
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, str):
        data = value.encode()
        return _size(b"S", len(data)) + data
    if isinstance(value, int):
        if -0x80000000 <= value <= 0x7FFFFFFF:
            return _int32(b"I", value)
        return _int64(b"l", value)
    if isinstance(value, float):
        return _double(b"d", value)
    # before mappings, which take longest to tell
    if isinstance(value, list | tuple):
        data = b"".join([_value(item) for item in value])
        return _size(b"A", len(data)) + data
    if isinstance(value, Mapping):
        return b"F" + _table(value)
    if isinstance(value, bytes | bytearray):
        return _size(b"x", len(value)) + bytes(value)
    if isinstance(value, datetime):
        return b"T" + _timestamp(calendar.timegm(value.utctimetuple()))
    if isinstance(value, Decimal):
        return _scaled(value)
    raise TypeError(f"a header holds a value of type {type(value).__qualname__!r}")


def _scaled(value: Decimal) -> bytes:
    """Return a decimal as scale and integer, as far as AMQP's 8 and 32 bits go."""
    sign, digits, exponent = value.normalize().as_tuple()
    if not isinstance(exponent, int):
        raise TypeError(f"a header holds {value}, which is no number")
    scale = max(0, -exponent)
    number = int("".join(map(str, digits))) * 10 ** max(0, exponent)
    return _decimal(b"D", scale, -number if sign else number)
