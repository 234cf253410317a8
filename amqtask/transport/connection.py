"""pika's asyncio connection: it reads deliveries itself, opens without three slips, hears better.

Each of the slips leaves whoever waits for the connection without an answer, so
that a broker which restarts just then is only tried again after a timeout. The
ear: a peer that has gone silent is noticed within two heartbeats.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pika
from pika import exceptions as pika_errors
from pika import frame
from pika.adapters.asyncio_connection import AsyncioConnection, _AsyncioIOServicesAdapter
from pika.adapters.utils import connection_workflow
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.heartbeat import HeartbeatChecker

from amqtask.transport.confirms import OnConfirm, read_acks
from amqtask.transport.deliveries import Reader, Sink

#: Looks per heartbeat for a byte from the broker.
_LOOKS = 4
#: Looks in a row without one that end the connection: one and a half heartbeats, as the broker
#: may be silent for a whole one.
_SILENT = 6
#: Bytes read from the socket at once. pika reads 4 KiB, which cuts through every fourth message:
#: one that is not whole has to be held. More would be memory that is new for each read.
_READ = 64 * 1024
#: Seconds between looks at least: with a heartbeat of a second a busy machine looks dead.
_LOOK = 0.5


class Heartbeats(HeartbeatChecker):
    """Beats as pika does, and listens more closely.

    pika looks every heartbeat + 5 seconds and needs the whole time between two looks
    without a byte, so with a heartbeat of 30 s a dead peer may go unnoticed for 70 s.
    """

    @property
    def connection_is_idle(self) -> bool:
        """Whether the broker was silent for too long."""
        return bool(self._idle_byte_intervals >= _SILENT)

    def _start_check_timer(self) -> None:
        # looks are counted, not seconds: a process that was stopped for a minute has heard
        # nothing either, and is no reason to hang up
        self._check_interval = max(_LOOK, self._timeout / _LOOKS)
        super()._start_check_timer()  # type: ignore[no-untyped-call] # pika leaves it open


class _Services(_AsyncioIOServicesAdapter):
    """The loop as pika sees it."""

    def create_streaming_connection(
        self,
        protocol_factory: Any,
        sock: Any,
        on_done: Any,
        ssl_context: Any = None,
        server_hostname: Any = None,
    ) -> Any:
        """Set up the transport; a peer that is gone already is an outcome like others.

        pika raises into the loop when the connection was reset between connect and
        here, and never calls ``on_done``.
        """
        try:
            return super().create_streaming_connection(
                protocol_factory, sock, on_done, ssl_context, server_hostname
            )
        except ValueError as error:
            reset = ConnectionResetError("the connection was reset as soon as it was made")
            reset.__cause__ = error
            return self.call_later(0, partial(on_done, reset))


class Connection(AsyncioConnection):
    """A connection on the running loop; making it is what begins to open it.

    Attributes:
        sinks: For each channel whose deliveries are read here, who takes them; what is too
            unusual to be read here reaches that channel's pika consumer instead.
        takers: The same for confirms.
    """

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        *,
        on_open_callback: Any,
        on_open_error_callback: Any,
        on_close_callback: Any,
    ) -> None:
        self.sinks: dict[int, Sink] = {}
        self.takers: dict[int, OnConfirm] = {}
        self._deliveries = Reader(self.sinks, self._leave_to_pika)
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            custom_ioloop=_Services(asyncio.get_running_loop()),
        )

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _READ
        # one read each turn of the loop: pika would read on until the socket says that it is empty
        transport._MAX_CONSUME_BYTES = 1
        super()._proto_connection_made(transport)

    def _adapter_emit_data(self, data: bytes) -> None:
        """Send at once, and leave to the loop what the socket does not take.

        pika has the loop look first whether the socket is writable, which costs more than to send.
        """
        transport: Any = self._transport
        if (
            type(transport) is _AsyncPlaintextTransport
            and transport._state == transport._STATE_ACTIVE
            and not transport._tx_buffers
        ):
            try:
                sent = transport._sock.send(data)
            except OSError:  # full, or broken: pika meets the same error, and ends the connection
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        # pika passes the class instead of an instance here, and then fails on an assert
        if conn_or_exc is connection_workflow.AMQPConnectionWorkflowAborted:
            conn_or_exc = conn_or_exc()
        super()._on_connection_workflow_done(conn_or_exc)

    def _on_data_available(self, data_in: bytes) -> None:
        """Read the frames that came; what is left of one waits for the rest.

        pika copies all that follows a frame, frame by frame; here only a position moves.
        """
        buffer = self._frame_buffer + data_in if self._frame_buffer else data_in
        self._frame_buffer = b""
        start = 0
        try:
            while start < len(buffer):
                begun = start
                start, waits = self._deliveries.read(buffer, start)
                if waits:
                    break
                start = read_acks(buffer, start, self.takers)
                if start > begun:
                    continue
                length, value = frame.decode_frame(buffer[start : _frame_end(buffer, start)])
                if value is None:
                    break
                start += length
                self._process_frame(value)
        finally:
            self.bytes_received += start
            self._frame_buffer = buffer[start:]

    def forget(self, channel: int) -> None:
        """Read a channel no more, which is closed: its number may be another's soon."""
        self.sinks.pop(channel, None)
        self.takers.pop(channel, None)
        self._deliveries.drop(channel)

    def _leave_to_pika(self, channel: int, head: bytes, body: bytes) -> None:
        """Have pika read a delivery after all, as far as its body is here."""
        while head:
            length, value = frame.decode_frame(head)
            assert isinstance(value, frame.Frame)  # they are whole
            self._process_frame(value)
            head = head[length:]
        if body:
            self._process_frame(frame.Body(channel, body))

    def _create_heartbeat_checker(self) -> HeartbeatChecker | None:
        heartbeat = self.params.heartbeat
        if not heartbeat:
            return None
        return Heartbeats(self, heartbeat)  # type: ignore[no-untyped-call] # pika leaves it open

    def abort(self) -> None:
        """End it without a word to the broker."""
        if self._error is None:
            self._error = pika_errors.ConnectionClosedByClient(200, "aborted")
        self._terminate_stream(None)  # the only way pika offers past a silent peer

    def give_up(self) -> None:
        """Close it while it opens."""
        if (workflow := self._connection_workflow) is not None:
            # an address that was resolved in this turn of the loop is handed over in the next
            # one, cancelled or not, and pika would connect to it after all
            workflow._try_next_resolved_address = lambda: None
        with suppress(pika_errors.ConnectionWrongStateError):
            self.close()


def _frame_end(buffer: bytes, start: int) -> int:
    """Return where a frame ends, as far as it is here; pika looks at what it is."""
    return start + 8 + int.from_bytes(buffer[start + 3 : start + 7])
