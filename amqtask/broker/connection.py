"""A connection: frames from a socket to its channels, and back.

    handshake --> running --> closing (an error was told) --> gone
                     |                                         ^
                     +-- the client closed, or the socket ended +

Frames are read in one loop over each piece the socket gives, and what they
cause is written once at its end: at thousands of small messages a second the
number of writes is what costs. A client that does not read gets nothing more
until it does.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from pamqp import commands

from amqtask.broker.channel import Channel
from amqtask.broker.fields import Malformed, Table
from amqtask.broker.handshake import CHANNEL_MAX, FRAME_MAX, Handshake, capable
from amqtask.broker.heartbeat import Heartbeat
from amqtask.broker.outbox import Outbox
from amqtask.broker.refusals import Hangup, Refusal, cannot_decode, frame_error, snippet
from amqtask.broker.wire import (
    BODY,
    END_OCTET,
    FRAME,
    GREETING,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    OVERHEAD,
    Call,
    Unknown,
    blocked_frame,
    method,
    read_method,
    write_method,
)

if TYPE_CHECKING:
    from amqtask.broker.server import Broker
    from amqtask.broker.vhost import VHost

#: Octets that a socket may owe before its consumers get nothing more.
_HIGH_WATER = 1024 * 1024
#: Seconds a client has to log in, and to answer a close.
_PATIENCE = 10.0
#: Seconds in which a client may read why it is not understood.
_GRACE = 3.0

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """A client's connection.

    Attributes:
        user: Who is logged in.
        channels: Those that are not gone, by number.
        frame_max: Octets of a frame, as agreed.
        writable: Whether its socket takes more.
        name: What the client calls itself, or where it is.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.channels: dict[int, Channel] = {}
        self.frame_max = FRAME_MAX
        self.writable = True
        self.user = ""
        self.name = ""
        self.vhost: VHost | None = None
        self.published = False
        self._channel_max = CHANNEL_MAX
        self._properties: Table = {}
        self._handshake: Handshake | None = Handshake(broker)
        self._greeted = False
        self._closing = False
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        #: Whether nothing is read any more, as frames cannot be told apart.
        self._deaf = False
        self._outbox = Outbox(broker.call_soon)
        self.send = self._outbox.send
        self.confirms_soon = self._outbox.confirms_soon
        self.flush = self._outbox.flush
        self._deadline: asyncio.TimerHandle | None = None
        self._heartbeat: Heartbeat | None = None
        #: Whether something came since the heartbeat looked last.
        self.heard = False
        #: Set while a test or a full memory keeps publishers waiting.
        self.held_back = False

    # -- the socket -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._outbox.transport = self._transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.name = str(transport.get_extra_info("peername") or "unix")
        self.broker.connections[self] = None
        self._expect_within(_PATIENCE)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: channels give back, exclusive queues go."""
        self._transport = None
        self._deaf = True
        self.broker.ended(self)
        self._expect_within(None)
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._end_channels()
        self._outbox.close()
        self._handshake = None

    def _end_channels(self) -> None:
        for channel in list(self.channels.values()):
            channel.end()
        self.channels.clear()
        vhost, self.vhost = self.vhost, None
        if vhost is not None:
            vhost.disown(self)

    def pause_writing(self) -> None:
        """Keep deliveries back: the client does not read them."""
        self.writable = False

    def resume_writing(self) -> None:
        """Go on delivering."""
        self.writable = True
        for channel in list(self.channels.values()):
            channel.resume()

    def data_received(self, data: bytes) -> None:
        """Take what the socket gives."""
        self.heard = True
        if self._deaf:
            return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        self._outbox.reading = True
        try:
            self._rest = self._read(data)
        except Refusal as refusal:
            # where the next frame begins is unknown now
            self._deaf = True
            self.refuse(refusal)
            self._expect_within(_GRACE)
        except Hangup as hangup:
            self._hang_up(hangup.last)
        except Exception:
            # a fault of ours ends this connection, not the broker
            log.exception("broker.failed connection=%s: it is closed", self.name)
            self._deaf = True
            self.refuse(Refusal(541))
        self._outbox.reading = False
        self.flush()

    def _read(self, data: bytes) -> bytes:
        """Take all whole frames; returns what is left."""
        place = 0
        if not self._greeted:
            if len(data) < 8:
                if not GREETING.startswith(data):
                    raise Hangup(GREETING)
                return data
            self._greeted = True
            assert self._handshake is not None
            self.send(self._handshake.greet(data[:8]))
            place = 8
        size = len(data)
        unpack = FRAME.unpack_from
        most = self.frame_max
        channels = self.channels
        while size - place >= OVERHEAD:
            kind, number, length = unpack(data, place)
            start = place + 7
            end = start + length
            if length > most:
                raise frame_error(kind, b"", f"{{frame_too_large,{length},{most - OVERHEAD}}}")
            if end >= size:
                break
            payload = data[start:end]
            if data[end] != END_OCTET:
                raise frame_error(kind, payload, f"{{invalid_frame_end_marker,{data[end]}}}")
            place = end + 1
            channel = channels.get(number)
            try:
                if channel is not None and METHOD <= kind <= BODY and (length > 3 or kind == BODY):
                    channel.frame(kind, payload)
                else:
                    self._other(kind, number, payload)
                    most = self.frame_max
            except Refusal as refusal:
                if channel is None or refusal.hard:
                    self.refuse(refusal)
                else:
                    channel.refuse(refusal)
        return data[place:]

    # -- frames that are no open channel's ------------------------------------

    def _other(self, kind: int, number: int, payload: bytes) -> None:
        if kind == HEARTBEAT:
            if number and not self._closing:
                raise Refusal(505, f"type 8, {snippet(payload)}")
            return
        wrong = kind > BODY or kind < METHOD or (kind == METHOD and len(payload) < 4)
        if self._closing:
            if number == 0 and kind == METHOD and not wrong:
                self._while_closing(payload)
            return
        if wrong or (kind == HEADER and len(payload) < 12):
            raise frame_error(kind, payload, "unknown_frame")
        if self._handshake is not None:
            if number or kind != METHOD:
                raise Hangup
            self._shake(self._method(payload))
        elif number:
            self._open_channel(kind, number, payload)
        elif kind != METHOD:
            raise Refusal(505, f"type {kind}, {snippet(payload)}")
        else:
            self._connection_method(self._method(payload))

    def _method(self, payload: bytes) -> Call:
        try:
            return read_method(payload)
        except Unknown as error:
            raise Hangup from error
        except Malformed as error:
            raise cannot_decode(payload) from error

    def _shake(self, call: Call) -> None:
        handshake = self._handshake
        assert handshake is not None
        self.send(handshake.take(call))
        agreed = handshake.agreed
        if agreed is None:
            return
        self._handshake = None
        self.user, self._channel_max = agreed.user, agreed.channel_max
        self.frame_max, self._properties = agreed.frame_max, agreed.properties
        self.vhost = self.broker.vhost(agreed.vhost)
        given = agreed.properties.get("connection_name")
        if given is not None and given.tag == "S":
            self.name = given.value
        self._expect_within(None)
        if agreed.heartbeat:
            self._heartbeat = Heartbeat(self, agreed.heartbeat)
        self.broker.faults.connected(self)

    def _open_channel(self, kind: int, number: int, payload: bytes) -> None:
        if len(self.channels) >= self._channel_max:
            raise Refusal(
                530,
                f"number of channels opened ({len(self.channels)}) has reached the negotiated "
                f"channel_max ({self._channel_max})",
            )
        if kind != METHOD:
            raise Refusal(505, "expected method frame, got non method frame instead")
        call = self._method(payload)
        if not isinstance(call.method, commands.Channel.Open):
            raise Refusal(504, "expected 'channel.open'", method=call.method.index)
        assert self.vhost is not None
        self.channels[number] = Channel(self, number, self.vhost)
        self.send(write_method(commands.Channel.OpenOk(), number))

    def _connection_method(self, call: Call) -> None:
        if isinstance(call.method, commands.Connection.Close):
            self._outbox.flush_confirms()
            self._end_channels()
            self._hang_up(write_method(commands.Connection.CloseOk(), 0))
        elif isinstance(call.method, commands.Connection.UpdateSecret):
            self.send(write_method(commands.Connection.UpdateSecretOk(), 0))
        else:
            raise Refusal(
                504,
                "unexpected method in connection state running",
                method=call.method.index,
            )

    def _while_closing(self, payload: bytes) -> None:
        index = int.from_bytes(payload[:4], "big")
        if index == commands.Connection.CloseOk.index:
            self._hang_up()
        elif index == commands.Connection.Close.index:
            self.send(write_method(commands.Connection.CloseOk(), 0))

    # -- end ------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client why the connection ends, and wait for its answer."""
        if self._closing:
            return
        if self._handshake is not None and refusal.code not in {403, 530}:
            self._hang_up()
            return
        self._outbox.flush_confirms()
        self._end_channels()
        close = method(
            commands.Connection.Close,
            reply_code=refusal.code,
            reply_text=refusal.text,
            class_id=refusal.method >> 16,
            method_id=refusal.method & 0xFFFF,
        )
        self.send(write_method(close, 0))
        self._closing = True
        self._handshake = None
        self._expect_within(_PATIENCE)

    def shut_down(self) -> None:
        """End because the broker does."""
        if self._handshake is None and not self._closing:
            self.refuse(Refusal(320, "broker forced connection closure with reason 'shutdown'"))
        self._hang_up()

    def told_blocked(self, reason: str | None) -> None:
        """Learn that publishing is blocked, or is not any more, and tell the client."""
        if self._handshake is not None or self._closing:
            return
        if self.capable("connection.blocked"):
            self.send(blocked_frame(reason))
        if reason is None or self.published:
            self.hold_back(held=reason is not None)

    def _hang_up(self, last: bytes = b"") -> None:
        self._closing = True
        self._rest = b""
        if last:
            self.send(last)
        self.flush()
        self._outbox.close()
        self._deaf = True
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """End the socket at once, as when a cable is pulled."""
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """Return the number of its socket, -1 when that is closed."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def forget(self, channel: Channel) -> None:
        """Let go of a channel's number."""
        self.channels.pop(channel.number, None)

    def capable(self, name: str) -> bool:
        """Tell whether the client says that it can do something."""
        return capable(self._properties, name)

    def _expect_within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.broker.later(seconds, self.cut)

    def beat(self) -> None:
        """Send a heartbeat, unless something else went out since the last look."""
        if not self._outbox.spoke:
            self.send(HEARTBEAT_FRAME)
            self.flush()
        self._outbox.spoke = False

    def hold_back(self, *, held: bool) -> None:
        """Read nothing from a publisher, or read on."""
        if self._transport is None or held == self.held_back:
            return
        self.held_back = held
        if held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
