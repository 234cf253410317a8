"""Read deliveries straight off the wire, as `frames` writes what is published.

A worker reads three frames a message, and pika takes each of them through an
object, a copy of all that came after it, and three calls for every field.
Here the three are read in one go, when all of them are there, and end in a
`Message`. Whatever is not that simple (another method, a body in several
frames or still on its way, a field that pika reads in a way of its own, or
bytes that make no sense) is left where it is, for pika to read or to refuse.

Source: AMQP 0-9-1 specification, 2.3.5 (frames), 4.2 (fields), 1.8.3.13
(``basic.deliver``); checked against pika's decoder in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct, error
from typing import Any

from pika import data
from pika.exceptions import AMQPError

from amqtask.message.model import Message

#: Called with delivery tag, redelivered, exchange, routing key and the message.
Sink = Callable[[int, bool, str, str, Message], None]

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = 0xCE
_HEAD = 7  # bytes of a frame before its payload: type, channel, size
_DELIVER = b"\x00\x3c\x00\x3c"  # class 60, method 60
_EMPTY = b"\x00\x00\x00\x00"
_TWO_VOIDS = b"\x00\x00\x00\x02VV"

_frame = Struct(">BHI").unpack_from
_content = Struct(">HHQH").unpack_from
_tag = Struct(">QB").unpack_from
_long = Struct(">I").unpack_from
_int32 = Struct(">i").unpack_from
_timestamp = Struct(">Q").unpack_from


def read(buffer: bytes, start: int, sinks: Mapping[int, Sink]) -> int:
    """Hand over the deliveries that ``buffer`` begins with, and stop at anything else.

    Args:
        buffer: Bytes as they came from the broker.
        start: Where in it a frame begins.
        sinks: For each channel that is read here, who takes its deliveries.

    Returns:
        Where the first frame begins that was not read.
    """
    size = len(buffer)
    while start + _HEAD < size:
        kind, channel, length = _frame(buffer, start)
        method = start + _HEAD
        header = method + length + 1 + _HEAD
        if kind != _METHOD or header > size or buffer[method : method + 4] != _DELIVER:
            return start
        sink = sinks.get(channel)
        if sink is None:
            return start
        kind, also, length = _frame(buffer, header - _HEAD)
        body = header + length + 1
        if kind != _HEADER or also != channel or body > size:
            return start
        try:
            of_class, _, body_size, flags = _content(buffer, header)
            end, content = _body(buffer, body, size, channel, body_size)
            if buffer[header - _HEAD - 1] != _END or buffer[body - 1] != _END or of_class != 60:
                return start
            tag, redelivered, exchange, routing_key = _method(
                buffer, method + 4, header - _HEAD - 1
            )
            message = _message(buffer, header + 14, body - 1, flags, content)
        except (error, IndexError, ValueError, AMQPError):  # UnicodeDecodeError is a ValueError
            return start
        sink(tag, redelivered, exchange, routing_key, message)
        start = end
    return start


def _body(buffer: bytes, at: int, size: int, channel: int, length: int) -> tuple[int, bytes]:
    """Return where a body of one frame ends, and the body.

    Raises:
        ValueError: It has several frames, or is not here yet.
    """
    if not length:
        return at, b""
    kind, also, here = _frame(buffer, at)
    begin = at + _HEAD
    end = begin + here
    if kind != _BODY or also != channel or here != length or end >= size or buffer[end] != _END:
        raise ValueError
    return end + 1, buffer[begin:end]


def _method(buffer: bytes, at: int, stop: int) -> tuple[int, bool, str, str]:
    """Return delivery tag, redelivered, exchange and routing key, which end at ``stop``."""
    at += 1 + buffer[at]  # the consumer's tag: a channel has one consumer
    tag, redelivered = _tag(buffer, at)
    at += 9
    middle = at + 1 + buffer[at]
    if middle + 1 + buffer[middle] != stop:
        raise ValueError("the method does not end where its frame does")
    return tag, redelivered & 1 == 1, *_route(buffer[at:stop])


@lru_cache(maxsize=1024)
def _route(encoded: bytes) -> tuple[str, str]:
    """Return the two short strings: workers see the same few again and again."""
    exchange = encoded[1 : 1 + encoded[0]]
    return exchange.decode(), encoded[2 + len(exchange) :].decode()


def _message(buffer: bytes, at: int, end: int, flags: int, body: bytes) -> Message:
    """Return the message whose properties stand at ``at``."""
    if flags & 3:
        raise ValueError("flags that no property of this class has")
    texts: list[str | None] = [None] * 16
    headers: dict[str, Any] = {}
    mode = priority = timestamp = None
    for bit in _bits(flags):
        if bit == 13:
            length = _long(buffer, at)[0]
            headers = _table(buffer, at + 4, at + 4 + length)
            at += 4 + length
        elif bit == 12:
            mode = buffer[at]
            at += 1
        elif bit == 11:
            priority = buffer[at]
            at += 1
        elif bit == 6:
            timestamp = _timestamp(buffer, at)[0]
            at += 8
        else:
            stop = at + 1 + buffer[at]
            texts[bit] = buffer[at + 1 : stop].decode()
            at = stop
    if at != end:
        raise ValueError("the properties do not end where their frame does")
    return Message(
        body,
        headers,
        texts[15],
        texts[14],
        texts[10],
        texts[9],
        mode,
        priority,
        texts[8],
        texts[7],
        timestamp,
        texts[5],
        texts[4],
        texts[3],
    )


@lru_cache(maxsize=256)
def _bits(flags: int) -> tuple[int, ...]:
    """Return the properties that are set, by their bits, in the order they are written."""
    return tuple(bit for bit in range(15, 1, -1) if flags >> bit & 1)


def _table(buffer: bytes, at: int, end: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    while at < end:
        begin = at + 1
        at = begin + buffer[at]
        name = _name(buffer[begin:at])
        kind = buffer[at]
        # the kinds that nearly every header is; pika reads the others
        if kind == 0x53:  # S
            begin = at + 5
            at = begin + _long(buffer, at + 1)[0]
            table[name] = buffer[begin:at].decode()
        elif kind == 0x56:  # V
            table[name] = None
            at += 1
        elif kind == 0x49:  # I
            table[name] = _int32(buffer, at + 1)[0]
            at += 5
        elif kind == 0x74:  # t
            table[name] = buffer[at + 1] != 0
            at += 2
        elif kind == 0x46 and buffer[at + 1 : at + 5] == _EMPTY:  # F: no stamps
            table[name] = {}
            at += 5
        elif kind == 0x41 and buffer[at + 1 : at + 7] == _TWO_VOIDS:  # A: no limits
            table[name] = [None, None]
            at += 7
        else:
            table[name], at = data.decode_value(buffer, at)
    if at != end:
        raise ValueError("a table does not end where its length says")
    return table


#: Names recur from message to message.
_name = lru_cache(maxsize=1024)(bytes.decode)
