"""A client without a socket: what it sends goes straight into a connection of the broker.

Frames are made and read by pamqp's own codec, so that the broker's is not tested with itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pamqp import base, body, commands, frame, header

from amqtask.broker import Broker
from amqtask.broker.connection import Connection

M = TypeVar("M", bound=base.Frame)

#: Octets of a body that a frame takes.
_PIECE = 131072 - 8
CAPABILITIES = {"consumer_cancel_notify": True, "connection.blocked": True}


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self._protocol = protocol
        self.written = bytearray()
        self.closed = False
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        assert not self.closed, "the broker writes to a socket that it has closed"
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(None)

    abort = close


class Client:
    """A client of a broker in the same process."""

    def __init__(self, broker: Broker) -> None:
        self._piece: bytearray | None = None
        self.connection = Connection(broker)
        self.transport = FakeTransport(self.connection)
        self.connection.connection_made(self.transport)

    def send_octets(self, octets: bytes) -> None:
        if self._piece is not None:
            self._piece += octets
        else:
            self.connection.data_received(octets)

    @contextmanager
    def in_one_piece(self) -> Iterator[None]:
        """Let all that is sent arrive as one piece."""
        self._piece = bytearray()
        yield
        piece, self._piece = self._piece, None
        self.send_octets(bytes(piece))

    def send(self, method: base.Frame, channel: int = 1) -> None:
        self.send_octets(frame.marshal(method, channel))

    def login(self, vhost: str = "/", **properties: Any) -> Client:
        self.send_octets(header.ProtocolHeader().marshal())
        properties = {"capabilities": CAPABILITIES, **properties}
        self.send(commands.Connection.StartOk(properties, "PLAIN", "\0guest\0guest"), 0)
        self.send(commands.Connection.TuneOk(2047, 131072, 0), 0)
        self.send(commands.Connection.Open(vhost), 0)
        self.open(1)
        self.drain()
        return self

    def open(self, channel: int) -> None:
        self.send(commands.Channel.Open(), channel)

    def drain(self) -> list[Any]:
        """Return the frames that came since, heartbeats aside."""
        self.connection.flush()
        data = bytes(self.transport.written)
        self.transport.written.clear()
        frames = []
        while data:
            used, _, each = frame.unmarshal(data)
            frames.append(each)
            data = data[used:]
        return frames

    def call(self, method: base.Frame, answer: type[M], channel: int = 1) -> M:
        self.drain()
        self.send(method, channel)
        frames = self.drain()
        assert frames, f"no answer to {method.name}"
        assert isinstance(frames[0], answer), dict(frames[0])
        return frames[0]

    def publish(
        self, queue: str, text: str = "", *, exchange: str = "", channel: int = 1, **properties: Any
    ) -> None:
        mandatory = properties.pop("mandatory", False)
        self.send(commands.Basic.Publish(0, exchange, queue, mandatory), channel)
        made = commands.Basic.Properties(**properties)
        self.send_octets(frame.marshal(header.ContentHeader(0, len(text), made), channel))
        octets = text.encode()
        for start in range(0, len(octets), _PIECE):
            piece = body.ContentBody(octets[start : start + _PIECE])
            self.send_octets(frame.marshal(piece, channel))

    def declare(self, queue: str, arguments: dict[str, Any] | None = None, **flags: Any) -> None:
        flags = {"durable": True, **flags}
        self.call(
            commands.Queue.Declare(queue=queue, arguments=arguments, **flags),
            commands.Queue.DeclareOk,
        )

    def count(self, queue: str) -> int:
        answer = self.call(
            commands.Queue.Declare(queue=queue, passive=True), commands.Queue.DeclareOk
        )
        return answer.message_count or 0

    def get(self, queue: str, *, no_ack: bool = True) -> Any:
        """Return method, properties and text of the next message, None when there is none."""
        self.drain()
        self.send(commands.Basic.Get(queue=queue, no_ack=no_ack))
        found = contents(self.drain())
        return found[0] if found else None

    def texts(self, queue: str) -> list[str]:
        """Take all ready messages out."""
        found = []
        while (got := self.get(queue)) is not None:
            found.append(got[2])
        return found


def contents(frames: list[Any]) -> list[tuple[Any, Any, str]]:
    """Put deliveries together: method, properties, text."""
    found: list[tuple[Any, Any, str]] = []
    for each in frames:
        if isinstance(each, header.ContentHeader):
            method, _, text = found[-1]
            found[-1] = (method, each.properties, text)
        elif isinstance(each, body.ContentBody):
            method, properties, text = found[-1]
            found[-1] = (method, properties, text + bytes(each.value).decode())
        elif isinstance(
            each, commands.Basic.Deliver | commands.Basic.GetOk | commands.Basic.Return
        ):
            found.append((each, None, ""))
    return found
