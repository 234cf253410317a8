"""Frames and methods, in and out.

pamqp's command classes are the catalogue of methods: which fields each has,
in which order and of which type. Reading and writing is done here, because
its own codec forgets the types of table values (see `fields`) and refuses
names that RabbitMQ takes. The few frames that a task message needs, deliver,
ack and content, are packed by hand: they are nearly all of the traffic.

Source:
    AMQP 0-9-1 specification, sections 2.3.5 (frames) and 4.2 (formats).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, TypeVar, cast

from pamqp import base, commands

from amqtask.broker.fields import Malformed, Table, octets, read_table, short, text, write_table

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
#: What follows every frame's payload.
END = b"\xce"
END_OCTET = 0xCE
#: Type, channel and size, before every payload.
FRAME = struct.Struct(">BHI")
#: Octets of a frame besides its payload.
OVERHEAD = 8
#: The protocol header a client begins with.
GREETING = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME = FRAME.pack(HEARTBEAT, 0, 0) + END

_METHOD_ID = struct.Struct(">I")
_ACK = struct.Struct(">BHIIQB")
_TAG = struct.Struct(">Q")
#: Class, weight and body size, before a message's properties.
CONTENT = struct.Struct(">HHQ")
_NUMBERS = {
    "octet": struct.Struct(">B"),
    "short": struct.Struct(">H"),
    "long": struct.Struct(">I"),
    "longlong": struct.Struct(">Q"),
    "timestamp": struct.Struct(">Q"),
}
_ACK_ID = commands.Basic.Ack.index
_NACK_ID = commands.Basic.Nack.index
#: pamqp's table of methods is not annotated in a way that tells what it holds.
_COMMANDS = cast("dict[int, type[base.Frame]]", commands.INDEX_MAPPING)
_LAYOUTS = {
    index: tuple((name, command.amqp_type(name)) for name in command.attributes())
    for index, command in _COMMANDS.items()
}

M = TypeVar("M", bound=base.Frame)


class Call(NamedTuple):
    """A method as it was received.

    Attributes:
        method: An object of pamqp's class for it.
        table: Its table field with types, ``{}`` when it has none.
    """

    method: base.Frame
    table: Table


class Unknown(Exception):
    """No method has that id."""


def read_method(payload: bytes) -> Call:
    """Read a method frame's payload.

    Raises:
        Unknown: There is no such method.
        Malformed: Its fields are cut off or broken.
    """
    if len(payload) < 4:
        raise Malformed("a method without its id")
    (index,) = _METHOD_ID.unpack_from(payload)
    command = _COMMANDS.get(index)
    if command is None:
        raise Unknown(index)
    method = command.__new__(command)
    table: Table = {}
    place, bit = 4, 0
    for name, kind in _LAYOUTS[index]:
        if kind == "bit":
            # bits that follow each other share an octet
            if bit == 0:
                place += 1
            if place > len(payload):
                raise Malformed("bits are cut off")
            setattr(method, name, bool(payload[place - 1] & (1 << bit)))
            bit = (bit + 1) % 8
            continue
        bit = 0
        if kind == "table":
            table, place = read_table(payload, place)
            value: Any = table
        else:
            value, place = _read(payload, place, kind)
        setattr(method, name, value)
    return Call(method, table)


def _read(data: bytes, place: int, kind: str) -> tuple[Any, int]:
    number = _NUMBERS.get(kind)
    if number is not None:
        if place + number.size > len(data):
            raise Malformed("a number is cut off")
        return number.unpack_from(data, place)[0], place + number.size
    size = 1 if kind == "shortstr" else 4
    if place + size > len(data):
        raise Malformed("a string's length is cut off")
    end = place + size + int.from_bytes(data[place : place + size], "big")
    if end > len(data):
        raise Malformed("a string is cut off")
    return text(data[place + size : end]), end


def method(command: type[M], **values: object) -> M:
    """Make a method of pamqp's class without its checks, which are stricter than RabbitMQ's."""
    made = command.__new__(command)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def write_method(method: base.Frame, channel: int) -> bytes:
    """Return the whole frame of a method. Fields that were not set are empty."""
    parts = [_METHOD_ID.pack(method.index)]
    bits, bit = 0, 0
    for name, kind in _LAYOUTS[method.index]:
        value = getattr(method, name, None)
        if kind == "bit":
            bits |= bool(value) << bit
            bit += 1
            continue
        if bit:
            parts.append(bytes((bits,)))
            bits, bit = 0, 0
        parts.append(_write(value, kind))
    if bit:
        parts.append(bytes((bits,)))
    payload = b"".join(parts)
    return FRAME.pack(METHOD, channel, len(payload)) + payload + END


def _write(value: Any, kind: str) -> bytes:
    number = _NUMBERS.get(kind)
    if number is not None:
        return number.pack(value or 0)
    if kind == "table":
        return write_table(value or {})
    if kind == "shortstr":
        return short(value or "")
    body = octets(value or "")
    return _NUMBERS["long"].pack(len(body)) + body


def blocked_frame(reason: str | None) -> bytes:
    """Return the frame that tells a client that it may not publish, or may again."""
    if reason is None:
        return write_method(commands.Connection.Unblocked(), 0)
    return write_method(method(commands.Connection.Blocked, reason=reason), 0)


def confirm_frame(channel: int, tag: int, multiple: bool, *, nack: bool = False) -> bytes:
    """Return the frame of a confirm: an ack, or a nack."""
    # RabbitMQ leaves requeue, a nack's second bit, as it is by default: set
    what, flags = (_NACK_ID, multiple | 2) if nack else (_ACK_ID, multiple)
    return _ACK.pack(METHOD, channel, 13, what, tag, flags) + END


def deliver_head(consumer_tag: str) -> bytes:
    """Return how every deliver method of a consumer begins."""
    return _METHOD_ID.pack(commands.Basic.Deliver.index) + short(consumer_tag)


def content_frames(channel: int, head: bytes, properties: bytes, body: bytes, most: int) -> bytes:
    """Return the frames of a method that carries a message.

    Args:
        channel: Its number.
        head: The method frame's payload.
        properties: Property flags and values, as in the header frame.
        body: The message's body.
        most: Octets a body frame's payload may have.
    """
    size = len(body)
    parts = [
        FRAME.pack(METHOD, channel, len(head)),
        head,
        END,
        FRAME.pack(HEADER, channel, 12 + len(properties)),
        CONTENT.pack(60, 0, size),
        properties,
        END,
    ]
    if size <= most:
        if size:
            parts += (FRAME.pack(BODY, channel, size), body, END)
    else:
        for start in range(0, size, most):
            piece = body[start : start + most]
            parts += (FRAME.pack(BODY, channel, len(piece)), piece, END)
    return b"".join(parts)


def deliver_frames(
    channel: int, head: bytes, tag: int, redelivered: bool, route: bytes, properties: bytes,
    body: bytes, most: int,
) -> bytes:  # fmt: skip
    """Return the frames of a delivery; ``head`` is a consumer's `deliver_head`."""
    payload = head + _TAG.pack(tag) + (b"\x01" if redelivered else b"\x00") + route
    return content_frames(channel, payload, properties, body, most)
