"""A channel on which a test writes and reads frames byte by byte.

For header tables that no client library writes, and for seeing how a table was written, which
decoded values do not show.

Source: AMQP 0-9-1 specification, sections 2.3.5 and 4.2.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame, header
from pamqp.constants import FRAME_BODY, FRAME_HEADER

from tests.helpers import TIMEOUT

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _REPLY_TO = 1 << 15, 1 << 13, 1 << 12, 1 << 9
_ACK = struct.pack(">HH", 60, 80)


def text(value: str) -> bytes:
    """Return a long string as a table holds it."""
    data = value.encode()
    return b"S" + struct.pack(">I", len(data)) + data


def nested(depth: int) -> bytes:
    """Return arrays inside each other, as a table holds them."""
    value = text("inside")
    for _ in range(depth):
        value = b"A" + struct.pack(">I", len(value)) + value
    return value


@contextmanager
def raw_channel(url: str) -> Iterator[Any]:
    """Open a connection and channel 1; yields the stream."""
    target = urlsplit(url)
    with (
        socket.create_connection((target.hostname or "", target.port or 5672), TIMEOUT) as sock,
        sock.makefile("rwb") as stream,
    ):
        stream.write(header.ProtocolHeader().marshal())
        read_frame(stream)
        login = f"\0{unquote(target.username or '')}\0{unquote(target.password or '')}"
        call(stream, commands.Connection.StartOk({}, "PLAIN", login), 0)
        stream.write(frame.marshal(commands.Connection.TuneOk(1, 131072, 0), 0))
        call(stream, commands.Connection.Open(unquote(target.path[1:]) or "/"), 0)
        call(stream, commands.Channel.Open())
        yield stream


def publish_raw(
    url: str, queue: str, headers: Mapping[bytes, bytes], body: bytes, *, reply_to: str = ""
) -> None:
    """Publish a JSON body, with headers whose values are written already, and wait for the confirm."""
    table = b"".join(_short(name) + value for name, value in headers.items())
    flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _REPLY_TO
    properties = (
        struct.pack(">HHQH", 60, 0, len(body), flags)
        + _short(b"application/json")
        + struct.pack(">I", len(table))
        + table
        + b"\x02"
        + _short(reply_to.encode())
    )
    with raw_channel(url) as stream:
        call(stream, commands.Confirm.Select())
        stream.write(frame.marshal(commands.Basic.Publish(routing_key=queue), 1))
        for kind, payload in ((FRAME_HEADER, properties), (FRAME_BODY, body)):
            stream.write(struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce")
        _, answer = read_frame(stream)
    assert answer.startswith(_ACK), f"no confirm, but {answer!r}"


def call(stream: Any, method: frame.FrameTypes, channel: int = 1) -> None:
    """Send a method, and read the one that answers it."""
    stream.write(frame.marshal(method, channel))
    read_frame(stream)


def read_frame(stream: Any) -> tuple[int, bytes]:
    """Return the type and the payload of the next frame."""
    stream.flush()
    kind, _, size = struct.unpack(">BHI", stream.read(7))
    return kind, stream.read(size + 1)[:-1]


def _short(data: bytes) -> bytes:
    return bytes([len(data)]) + data
