"""pika's slips while a connection opens are outcomes like others here; silence is noticed soon."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

from amqtask.transport.connection import Connection, Heartbeats, _Services
from tests.helpers import aeventually


async def test_a_peer_that_is_gone_at_once_is_reported() -> None:
    """Reset between connect and transport: whoever waits is told, and nothing reaches the loop."""
    raised: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(context))
    outcomes: list[Any] = []
    with socket.socket() as unconnected:
        unconnected.setblocking(False)
        _Services(loop).create_streaming_connection(lambda: None, unconnected, outcomes.append)
        assert outcomes == []  # never before the caller has its reference
        await aeventually(lambda: outcomes)
    (error,) = outcomes
    assert isinstance(error, ConnectionResetError)
    assert str(error) == "the connection was reset as soon as it was made"
    assert raised == []


async def test_it_reads_much_at_once() -> None:
    """pika's 4 KiB would cut through every fourth message, and pika would have to read that."""
    asked: list[int] = []

    class Recording(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            asked.append(size)
            return super().recv(size, flags)

    ours, theirs = socket.socketpair()
    with theirs:
        recording = Recording(ours.family, ours.type, ours.proto, ours.detach())
        recording.setblocking(False)
        _, transport = _over(recording)
        theirs.send(b"x")
        with suppress(BlockingIOError, AttributeError):
            transport._consume()
        recording.close()
    assert asked == [64 * 1024]  # and once, as the loop comes back for more


async def test_it_sends_at_once_what_the_socket_takes() -> None:
    """The rest follows when there is room, in order, with what is written meanwhile behind it."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        ours.setblocking(False)
        theirs.setblocking(False)
        connection, transport = _over(ours)
        connection._adapter_emit_data(b"first")
        assert theirs.recv(100) == b"first"
        large = bytes(range(256)) * 20_000  # more than a socket holds
        connection._adapter_emit_data(large)
        connection._adapter_emit_data(b"behind")
        assert transport._tx_buffers
        came = bytearray()

        def read() -> bool:
            with suppress(BlockingIOError):
                came.extend(theirs.recv(1 << 20))
            return came.endswith(b"behind")

        await aeventually(read)
        assert bytes(came) == large + b"behind"
        assert not transport._tx_buffers
        transport.abort()


async def test_a_broken_socket_is_found_by_the_loop() -> None:
    """Nothing is raised into whoever writes: the connection ends as it does for pika."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    protocol = Protocol()
    connection, _ = _over(ours, protocol)
    theirs.close()
    connection._adapter_emit_data(b"lost")
    await aeventually(lambda: protocol.lost)
    assert len(protocol.lost) == 1


class Protocol:
    """What pika puts between a transport and a connection."""

    def __init__(self) -> None:
        self.lost: list[object] = []

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: object) -> None:
        self.lost.append(error)


def _over(sock: socket.socket, protocol: Any = None) -> tuple[Connection, Any]:
    """Return a connection that has a transport, and is not set up beyond that."""
    connection = Connection.__new__(Connection)
    services = _Services(asyncio.get_running_loop())
    transport = _AsyncPlaintextTransport(sock, protocol or connection, services)
    with suppress(AttributeError):
        connection._proto_connection_made(transport)
    return connection, transport


class Clockwork:
    """What a heartbeat checker uses of a connection, with timers that go off when a test says so."""

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.now = 0.0
        self.ended: BaseException | None = None

    def _adapter_call_later(self, delay: float, callback: Callable[[], None]) -> object:
        timer = (self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def _adapter_remove_timeout(self, timer: tuple[float, Callable[[], None]]) -> None:
        self.timers.remove(timer)

    def _send_frame(self, _: object) -> None: ...

    def _terminate_stream(self, error: BaseException) -> None:
        self.ended = error

    def turn(self) -> None:
        """Let the next timer go off."""
        timer = min(self.timers, key=lambda each: each[0])
        self.timers.remove(timer)
        self.now = timer[0]
        timer[1]()


def _silence(heartbeat: int, heard_at: float = 0.0) -> float:
    """Return how long a silence lasts until it ends the connection."""
    clock = Clockwork()
    Heartbeats(clock, heartbeat)  # type: ignore[no-untyped-call]
    last = 0.0
    while clock.ended is None:
        clock.turn()
        if clock.now <= heard_at:
            clock.bytes_received += 8
            last = clock.now
    return clock.now - last


@pytest.mark.parametrize("heartbeat", [2, 3, 10, 30, 60, 580])
def test_a_silent_peer_is_noticed_within_two_heartbeats(heartbeat: int) -> None:
    """And never within one, for which the broker may be silent."""
    for heard_at in (0.0, 1.7 * heartbeat, 2.1 * heartbeat):
        assert 1.5 * heartbeat <= _silence(heartbeat, heard_at) < 2 * heartbeat


def test_a_short_heartbeat_leaves_room_for_a_busy_machine() -> None:
    """With a second, three of them."""
    assert _silence(1) == 3.0


def test_a_process_that_was_stopped_does_not_hang_up() -> None:
    """A minute without a look is one look, not a minute of silence."""
    clock = Clockwork()
    Heartbeats(clock, 4)  # type: ignore[no-untyped-call]
    clock.now = 60.0
    clock.timers = [(clock.now, callback) for _, callback in clock.timers]
    for _ in range(4):
        clock.turn()
    assert clock.ended is None
