r"""A bare AMQP client that hides nothing: it sends what it is told and shows every frame it gets.

pika and aio-pika merge confirms, assemble messages and swallow reply codes. Tests of exactly these
things need the frames themselves, and the freedom to send wrong ones.

    connected --login()--> open --open_channel()--> in use
        \                    \                       \
         +---------------------+-----------------------+--> gone (the socket is closed)
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pamqp import base, body, commands, frame, header, heartbeat

from tests.helpers import TIMEOUT

F = TypeVar("F")
M = TypeVar("M", bound=base.Frame)
Frame = base.Frame | header.ContentHeader | body.ContentBody | heartbeat.Heartbeat

#: What a client can say it understands; RabbitMQ's own clients say all of it.
CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}
#: Methods that carry a message.
_CARRIERS = (commands.Basic.Deliver, commands.Basic.GetOk, commands.Basic.Return)
#: Octets around a frame's payload: type, channel and size before it, the end octet after it.
FRAME_OVERHEAD = 8


class Gone(Exception):
    """The server closed the socket."""


@dataclass(frozen=True, slots=True)
class Refused:
    """How a server refused something.

    Attributes:
        scope: ``"channel"`` or ``"connection"``: what it closed.
        code: The reply code.
        text: The reply text.
    """

    scope: str
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """A message as it came: the method that carried it, its header and the bodies of its frames."""

    method: Any
    header: header.ContentHeader
    frames: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        return b"".join(self.frames)

    @property
    def properties(self) -> commands.Basic.Properties:
        return self.header.properties


class Wire:
    """One connection to a broker.

    Args:
        url: Where, and the user, the password and the vhost for `login`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.user = unquote(parts.username or "guest")
        self.password = unquote(parts.password or "guest")
        self.vhost = unquote(parts.path[1:]) or "/"
        self._socket = socket.create_connection((parts.hostname, parts.port or 5672), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bytes = bytearray()
        self._held: deque[tuple[int, Frame]] = deque()
        self.frame_max = 131072
        #: The octets of the frame that was read last.
        self.last = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's descriptor, for ``select``."""
        return self._socket.fileno()

    # -- connecting ---------------------------------------------------------------

    def start(self) -> commands.Connection.Start:
        """Send the protocol header and return what the server says about itself."""
        self.write(header.ProtocolHeader().marshal())
        return self.expect(commands.Connection.Start, channel=0)

    def authenticate(
        self, *, mechanism: str = "PLAIN", capabilities: dict[str, bool] | None = None
    ) -> None:
        """Send the credentials; the answer is left to read."""
        known = CAPABILITIES if capabilities is None else capabilities
        client: dict[str, Any] = {"capabilities": known}
        login = f"\0{self.user}\0{self.password}"
        self.send(commands.Connection.StartOk(client, mechanism, login, "en_US"), channel=0)

    def login(
        self,
        *,
        channel_max: int = 2047,
        frame_max: int = 131072,
        beat: int = 0,
        capabilities: dict[str, bool] | None = None,
    ) -> Self:
        """Go through the whole handshake."""
        self.start()
        self.authenticate(capabilities=capabilities)
        self.expect(commands.Connection.Tune, channel=0)
        self.send(commands.Connection.TuneOk(channel_max, frame_max, beat), channel=0)
        self.frame_max = frame_max
        self.call(commands.Connection.Open(self.vhost), commands.Connection.OpenOk, channel=0)
        return self

    def open_channel(self, number: int = 1) -> Self:
        self.call(commands.Channel.Open(), commands.Channel.OpenOk, channel=number)
        return self

    def close(self) -> None:
        """Close the connection as a client should."""
        self.send(commands.Connection.Close(200, "bye", 0, 0), channel=0)
        while not isinstance(self.receive()[1], commands.Connection.CloseOk):
            pass
        self._socket.close()

    def abandon(self) -> None:
        """Close the socket at once, as when the process dies."""
        self._socket.close()

    # -- sending ------------------------------------------------------------------

    def write(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def send(self, method: frame.FrameTypes, channel: int = 1) -> None:
        self.write(frame.marshal(method, channel))

    def call(self, method: base.Frame, answer: type[M], channel: int = 1) -> M:
        """Send the method and return the server's answer to it."""
        self.send(method, channel)
        return self.expect(answer, channel)

    def publish(
        self,
        octets: bytes = b"",
        *,
        exchange: str = "",
        key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        channel: int = 1,
        pieces: Sequence[bytes] | None = None,
        properties: commands.Basic.Properties | None = None,
    ) -> None:
        """Send a message, in the given pieces or in frames as large as may be."""
        if pieces is None:
            most = self.frame_max - FRAME_OVERHEAD
            pieces = [octets[at : at + most] for at in range(0, len(octets), most)]
        size = sum(map(len, pieces))
        frames: list[frame.FrameTypes] = [
            commands.Basic.Publish(0, exchange, key, mandatory, immediate),
            header.ContentHeader(0, size, properties or commands.Basic.Properties()),
            *(body.ContentBody(piece) for piece in pieces),
        ]
        self.write(b"".join(frame.marshal(each, channel) for each in frames))

    # -- receiving ----------------------------------------------------------------

    def receive(self, timeout: float = TIMEOUT) -> tuple[int, Frame]:
        """Return the next frame and its channel.

        Raises:
            Gone: The server closed the socket.
            TimeoutError: Nothing came in time.
        """
        if self._held:
            return self._held.popleft()
        return self._read(time.monotonic() + timeout)

    def _read(self, deadline: float) -> tuple[int, Frame]:
        while len(self._bytes) < 7 or len(self._bytes) < self._size():
            self._bytes += self.read(deadline)
        size = self._size()
        self.last = bytes(self._bytes[:size])
        del self._bytes[:size]
        _, channel, value = frame.unmarshal(self.last)
        assert not isinstance(value, header.ProtocolHeader)
        return channel, value

    def _size(self) -> int:
        return int.from_bytes(self._bytes[3:7]) + FRAME_OVERHEAD

    def read(self, deadline: float | None = None) -> bytes:
        """Return the octets that come next.

        Raises:
            Gone: The server closed the socket.
        """
        left = TIMEOUT if deadline is None else deadline - time.monotonic()
        self._socket.settimeout(max(left, 0.001))
        try:
            octets = self._socket.recv(1 << 20)
        except ConnectionError as error:
            raise Gone(str(error)) from error
        if not octets:
            raise Gone("end of stream")
        return octets

    def read_all(self) -> bytes:
        """Return what comes until the server closes the socket."""
        octets = b""
        with contextlib.suppress(Gone):
            while True:
                octets += self.read()
        return octets

    def expect(self, kind: type[F], channel: int = 1) -> F:
        """Return the next frame, which has to be of this kind and on this channel."""
        number, value = self.receive()
        assert isinstance(value, kind), f"{value!r} on channel {number}"
        assert number == channel
        return value

    def await_(self, kind: type[F], channel: int = 1) -> F:
        """Return the next frame of this kind on this channel; what came before is kept."""
        deadline = time.monotonic() + TIMEOUT
        for at, (number, value) in enumerate(self._held):
            if number == channel and isinstance(value, kind):
                del self._held[at]
                return value
        while True:
            number, value = self._read(deadline)
            if number == channel and isinstance(value, kind):
                return value
            self._held.append((number, value))

    def content(self, kind: type[base.Frame], channel: int = 1) -> Content:
        """Return the message that comes next, carried by this kind of method."""
        method = self.expect(kind, channel)
        head = self.expect(header.ContentHeader, channel)
        frames: list[bytes] = []
        while sum(map(len, frames)) < head.body_size:
            frames.append(self.expect(body.ContentBody, channel).value)
        return Content(method, head, tuple(frames))

    def arrived(self) -> Iterator[Frame | Content]:
        """Read once from the socket, and yield what is whole, messages put together."""
        self._bytes += self.read()
        while True:
            frames = self._whole()
            if not frames:
                return
            method, *rest = frames
            if not rest:
                yield method
                continue
            head, *bodies = rest
            assert isinstance(head, header.ContentHeader)
            pieces = [each.value for each in bodies if isinstance(each, body.ContentBody)]
            yield Content(method, head, tuple(pieces))

    def _whole(self) -> list[Frame]:
        """Take the frames of one method out of what was read; none when they are not all there."""
        frames: list[Frame] = []
        place, missing = 0, 0
        while not frames or missing:
            size = int.from_bytes(self._bytes[place + 3 : place + 7]) + FRAME_OVERHEAD
            if len(self._bytes) < place + max(size, FRAME_OVERHEAD):
                return []
            _, _, value = frame.unmarshal(bytes(self._bytes[place : place + size]))
            assert not isinstance(value, header.ProtocolHeader)
            frames.append(value)
            place += size
            if isinstance(value, _CARRIERS):
                # its header, which says how much body follows
                missing = -1
            elif isinstance(value, header.ContentHeader):
                missing = value.body_size
            elif isinstance(value, body.ContentBody):
                missing -= len(value.value)
        del self._bytes[:place]
        return frames

    def refusal(self) -> Refused:
        """Return how the server closed the channel or the connection, and agree to it."""
        while True:
            channel, value = self.receive()
            if isinstance(value, commands.Channel.Close):
                self.send(commands.Channel.CloseOk(), channel)
                return _refused("channel", value)
            if isinstance(value, commands.Connection.Close):
                self.send(commands.Connection.CloseOk(), 0)
                return _refused("connection", value)

    def ended(self) -> bool:
        """Wait until the server has closed the socket, whatever it sends before."""
        try:
            while True:
                self.receive()
        except Gone:
            return True


def _refused(scope: str, close: commands.Channel.Close | commands.Connection.Close) -> Refused:
    assert close.reply_code is not None
    return Refused(scope, close.reply_code, close.reply_text)
