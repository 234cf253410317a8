"""Publish header tables that no client library writes: the frames, byte by byte.

Source: AMQP 0-9-1 specification, sections 2.3.5 and 4.2.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame, header

from tests.helpers import TIMEOUT

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 13, 1 << 12


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


def publish_raw(url: str, queue: str, headers: Mapping[bytes, bytes], body: bytes) -> None:
    """Publish a JSON body, with headers whose values are written already, and wait for the confirm."""
    target = urlsplit(url)
    with (
        socket.create_connection((target.hostname or "", target.port or 5672), TIMEOUT) as sock,
        sock.makefile("rwb") as stream,
    ):
        stream.write(header.ProtocolHeader().marshal())
        _read(stream)
        login = f"\0{unquote(target.username or '')}\0{unquote(target.password or '')}"
        _call(stream, commands.Connection.StartOk({}, "PLAIN", login))
        stream.write(frame.marshal(commands.Connection.TuneOk(2047, 131072, 0), 0))
        _call(stream, commands.Connection.Open(unquote(target.path[1:]) or "/"))
        _call(stream, commands.Channel.Open(), 1)
        _call(stream, commands.Confirm.Select(), 1)
        stream.write(frame.marshal(commands.Basic.Publish(routing_key=queue), 1))
        table = b"".join(_short(name) + value for name, value in headers.items())
        properties = (
            struct.pack(">HHQH", 60, 0, len(body), _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE)
            + _short(b"application/json")
            + struct.pack(">I", len(table))
            + table
            + b"\x02"
        )
        stream.write(_frame(2, properties) + _frame(3, body))
        answer = _read(stream)
        assert answer[:4] == struct.pack(">HH", 60, 80), f"no confirm, but {answer!r}"


def _short(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


def _call(stream: Any, method: frame.FrameTypes, channel: int = 0) -> None:
    stream.write(frame.marshal(method, channel))
    _read(stream)


def _read(stream: Any) -> bytes:
    stream.flush()
    _, _, size = struct.unpack(">BHI", stream.read(7))
    payload: bytes = stream.read(size + 1)[:-1]
    return payload
