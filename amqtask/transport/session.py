"""One connection epoch: a pika connection and its channels, thrown away whole.

    opening --> open --> closed

Nothing here reconnects. When the connection ends, for whatever reason, the
session is closed for good and `amqtask.transport.link` makes the next one;
half-dead objects are never repaired. Everything runs on the loop that opened
the session.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from pika import exceptions as pika_errors
from pika.adapters.utils import connection_workflow
from pika.channel import Channel as PikaChannel
from pika.spec import Basic, BasicProperties

from amqtask.errors import (
    AccessRefused,
    BrokerUnreachable,
    ChannelClosed,
    ConnectionLost,
    TransportError,
)
from amqtask.message.model import Message
from amqtask.transport.confirms import OnConfirm, ack_frame
from amqtask.transport.connection import Connection
from amqtask.transport.deliveries import Sink
from amqtask.transport.url import BrokerURL

log = logging.getLogger(__name__)

T = TypeVar("T")

_ACCESS_CODES = (403, 530)
_CLOSED = re.compile(r"ConnectionClosedByBroker: \((\d+)\) (['\"])(.*)\2")
# pika's guess from how far the handshake went; what the broker said is in it, if it said anything
_GUESSES = (
    pika_errors.IncompatibleProtocolError,
    pika_errors.ProbableAuthenticationError,
    pika_errors.ProbableAccessDeniedError,
)


def _causes(error: BaseException) -> list[BaseException]:
    """Unfold pika's connection workflow errors down to what really happened."""
    if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
        return [cause for inner in error.exceptions[-1:] for cause in _causes(inner)]
    if isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
        return _causes(error.exception)
    if type(error) is pika_errors.AMQPConnectionError and error.args:
        inner = error.args[0]
        return _causes(inner) if isinstance(inner, BaseException) else [error]
    return [error]


def connection_error(error: BaseException | None, url: BrokerURL) -> TransportError:
    """Translate what pika says about a connection into an error of ours."""
    cause = _causes(error)[-1] if error is not None else None
    wrapped: TransportError
    if isinstance(cause, pika_errors.ConnectionClosedByBroker):
        text = f"{cause.reply_code} {cause.reply_text}"
        if cause.reply_code in _ACCESS_CODES:
            wrapped = AccessRefused(
                f"broker {url} refused access to vhost {url.vhost!r}: {text}",
                hint="check user, password, vhost and permissions of the broker URL",
            )
        else:
            wrapped = ConnectionLost(f"broker {url} closed the connection: {text}")
    elif isinstance(cause, _GUESSES) and (said := _CLOSED.search(str(cause))):
        closed = pika_errors.ConnectionClosedByBroker(int(said[1]), said[3])
        wrapped = connection_error(closed, url)
    elif isinstance(cause, _GUESSES):
        # a broker that restarts does this too, so it is no refusal: it is tried again
        wrapped = BrokerUnreachable(
            f"broker {url} ended the connection during the handshake",
            hint="if it keeps doing so, check user, password and vhost of the broker URL",
        )
    elif isinstance(cause, pika_errors.AMQPHeartbeatTimeout):
        wrapped = ConnectionLost(f"broker {url} sent no heartbeat in time")
    elif isinstance(cause, pika_errors.ConnectionClosedByClient):
        wrapped = ConnectionLost(f"connection to broker {url} was closed here")
    elif isinstance(cause, pika_errors.StreamLostError):
        wrapped = ConnectionLost(f"connection to broker {url} was lost")
    else:
        what = str(cause) or type(cause).__name__ if cause is not None else "no reason given"
        wrapped = BrokerUnreachable(f"broker {url} does not answer: {what}")
    wrapped.__cause__ = cause
    return wrapped


def channel_error(error: BaseException, url: BrokerURL) -> TransportError:
    """Translate what pika says about a channel into an error of ours."""
    if not isinstance(error, pika_errors.ChannelClosed):
        return connection_error(error, url)
    wrapped: TransportError
    if error.reply_code == 403:
        wrapped = AccessRefused(
            f"broker {url} refused an operation: {error.reply_text}",
            hint="give the user this permission, or have somebody else declare "
            'the entities and set declare="never"',
        )
    else:
        wrapped = ChannelClosed(
            f"broker {url} closed a channel: {error.reply_code} {error.reply_text}",
            code=error.reply_code,
            text=error.reply_text,
        )
    wrapped.__cause__ = error
    return wrapped


class Session:
    """An open connection.

    Attributes:
        url: The broker it leads to.
        epoch: Counts up with each session of a link.
        closed: Done when the session is over; its result is the reason.
        blocked: The broker's reason while it takes no publishes, else None.
        server: The broker's own ``product``, ``version`` and the like.

    Threads: not thread-safe; use it on the loop that opened it.
    """

    def __init__(self, url: BrokerURL, epoch: int) -> None:
        self.url = url
        self.epoch = epoch
        self.closed: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()
        self.blocked: str | None = None
        self.on_unblocked: list[Callable[[], None]] = []
        self._raw: Connection

    @classmethod
    async def open(
        cls, url: BrokerURL, *, epoch: int, name: str, heartbeat: int, timeout: float
    ) -> Session:
        """Connect and log in.

        Args:
            name: The connection's name in RabbitMQ's tools.
            heartbeat: Seconds between heartbeats asked of the broker.
            timeout: Seconds for all of it.

        Raises:
            BrokerUnreachable: Nothing answered, or not in time.
            AccessRefused: The credentials or the vhost were refused.
        """
        session = cls(url, epoch)
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_open(_: Any) -> None:
            if not opened.done():
                opened.set_result(None)

        def on_open_error(_: Any, error: BaseException) -> None:
            if not opened.done():
                opened.set_exception(connection_error(error, url))

        raw = Connection(
            url.parameters(name=name, heartbeat=heartbeat, timeout=timeout),
            on_open_callback=on_open,
            on_open_error_callback=on_open_error,
            on_close_callback=session._on_close,
        )
        session._raw = raw
        raw.add_on_connection_blocked_callback(session._on_blocked)
        raw.add_on_connection_unblocked_callback(session._on_unblocked)
        try:
            async with asyncio.timeout(timeout):
                await opened
        except BaseException as error:
            opened.cancel()
            raw.give_up()
            if isinstance(error, TimeoutError):
                raise BrokerUnreachable(
                    f"broker {url} did not complete the handshake within {timeout:g} s"
                ) from None
            raise
        return session

    @property
    def server(self) -> dict[str, Any]:
        """The broker's server properties."""
        return dict(self._raw.server_properties or {})

    @property
    def rabbitmq(self) -> tuple[int, int] | None:
        """RabbitMQ's version, as far as it decides what it can do; None for other brokers."""
        said = self._raw.server_properties or {}
        found = re.match(r"(\d+)\.(\d+)", str(said.get("version", "")))
        if said.get("product") != "RabbitMQ" or found is None:
            return None
        return int(found[1]), int(found[2])

    @property
    def is_open(self) -> bool:
        """Whether the session can be used."""
        return not self.closed.done()

    async def channel(self) -> Channel:
        """Open a channel.

        Raises:
            TransportError: The session ended meanwhile.
        """
        channel = Channel(self)
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel._waiting.add(opened)
        try:
            channel._raw = self._raw.channel(on_open_callback=partial(_resolve, opened))
        except pika_errors.AMQPConnectionError as error:
            raise connection_error(error, self.url) from error
        channel._raw.add_on_close_callback(channel._on_close)
        try:
            await opened
        finally:
            channel._waiting.discard(opened)
        return channel

    async def close(self, timeout: float = 2.0) -> None:
        """Close in good order; after ``timeout`` seconds without an answer, abruptly."""
        if self.is_open:
            with suppress(pika_errors.ConnectionWrongStateError):
                self._raw.close()
            await asyncio.wait([self.closed], timeout=timeout)
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once, without a word to the broker."""
        if self.is_open:
            self._raw.abort()

    def abort_soon(self) -> None:
        """As `abort`; from any thread."""
        self.closed.get_loop().call_soon_threadsafe(self.abort)

    def _on_close(self, _: Any, error: BaseException) -> None:
        if not self.closed.done():
            self.closed.set_result(connection_error(error, self.url))

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self.blocked = frame.method.reason or "no reason given"
        log.warning(
            "broker.blocked url=%s reason=%r: publishing waits until the alarm ends",
            self.url,
            self.blocked,
        )

    def _on_unblocked(self, _: Any, __: Any) -> None:
        self.blocked = None
        log.info("broker.unblocked url=%s: publishing goes on", self.url)
        for callback in self.on_unblocked:
            callback()


def _resolve(future: asyncio.Future[Any], value: Any = None) -> None:
    if not future.done():
        future.set_result(value)


def _hand_over(
    sink: Sink, _: PikaChannel, method: Basic.Deliver, props: BasicProperties, body: bytes
) -> None:
    """Hand over a delivery that pika has read."""
    message = Message(
        body,
        props.headers or {},
        props.content_type,
        props.content_encoding,
        props.correlation_id,
        props.reply_to,
        props.delivery_mode,
        props.priority,
        props.expiration,
        props.message_id,
        props.timestamp,
        props.type,
        props.user_id,
        props.app_id,
    )
    sink(method.delivery_tag, method.redelivered, method.exchange, method.routing_key, message)


class Channel:
    """An open channel: pika's callbacks as coroutines, its errors as ours.

    Attributes:
        closed: Done when the channel is over; its result is the reason.
        raw: pika's channel, for the hot path (publish, ack).

    Threads: not thread-safe; use it on the session's loop.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.closed: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._raw: PikaChannel

    @property
    def raw(self) -> PikaChannel:
        """pika's own channel."""
        return self._raw

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return not self.closed.done()

    @property
    def number(self) -> int:
        """The channel's number, as it stands in each frame."""
        return int(self._raw.channel_number)

    @property
    def body_max(self) -> int:
        """Most payload bytes of one body frame, as negotiated with the broker."""
        return int(self._raw.connection._body_max_length)

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send whole frames that are encoded already.

        What is a view is large, and goes as it is; the rest is joined as far as it can be.
        """
        # its hints say bytes; views go the same way
        emit: Callable[[list[Any]], None] = self._raw.connection._output_marshaled_frames
        if memoryview in map(type, pieces):
            for kind, some in groupby(pieces, type):
                run = list(some)
                emit(run if kind is memoryview else [b"".join(run)])
        elif pieces:
            # as a view: of bytes, pika copies what the socket did not take, each time
            emit([memoryview(b"".join(pieces))])

    def _on_close(self, _: Any, error: BaseException) -> None:
        if self.closed.done():
            return
        reason = channel_error(error, self.session.url)
        self.closed.set_result(reason)
        for future in self._waiting:
            if not future.done():
                future.set_exception(reason)

    async def _ask(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Send a method that the broker answers; return the answering method frame's method."""
        if self.closed.done():
            raise self.closed.result()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        try:
            method(*args, callback=partial(_resolve, answer), **kwargs)
            return (await answer).method
        except pika_errors.AMQPError as error:
            raise channel_error(error, self.session.url) from error
        finally:
            self._waiting.discard(answer)

    async def declare_exchange(self, name: str, **options: Any) -> None:
        """``exchange.declare``; options as pika's ``exchange_declare``."""
        await self._ask(self._raw.exchange_declare, name, **options)

    async def declare_queue(self, name: str, **options: Any) -> tuple[str, int, int]:
        """``queue.declare``.

        Returns:
            The queue's name, its ready messages and its consumers.
        """
        ok = await self._ask(self._raw.queue_declare, name, **options)
        return ok.queue, ok.message_count, ok.consumer_count

    async def bind_queue(
        self, queue: str, exchange: str, routing_key: str, arguments: dict[str, Any] | None = None
    ) -> None:
        """``queue.bind``."""
        await self._ask(self._raw.queue_bind, queue, exchange, routing_key, arguments=arguments)

    async def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """``exchange.bind``."""
        await self._ask(
            self._raw.exchange_bind, destination, source, routing_key, arguments=arguments
        )

    async def delete_queue(self, name: str) -> None:
        """``queue.delete``, whatever it holds."""
        await self._ask(self._raw.queue_delete, name)

    async def qos(self, prefetch: int) -> None:
        """``basic.qos`` for the consumers made after it."""
        await self._ask(self._raw.basic_qos, prefetch_count=prefetch)

    def send_acks(self, tags: Sequence[tuple[int, bool]]) -> None:
        """``basic.ack`` of each tag, and of all before it where the second says so."""
        number = self.number
        self.write([ack_frame(number, tag, multiple) for tag, multiple in tags])

    async def confirm(self, on_confirm: OnConfirm) -> None:
        """``confirm.select``; ``on_confirm`` gets each ack and nack."""
        if self.closed.done():
            raise self.closed.result()

        def take(frame: Any) -> None:
            method = frame.method
            on_confirm(method.delivery_tag, method.multiple, isinstance(method, Basic.Nack))

        self._until_closed(self._raw.connection.takers, on_confirm)
        await self._ask(self._raw.confirm_delivery, take)

    async def consume(
        self,
        queue: str,
        sink: Sink,
        *,
        arguments: dict[str, Any] | None = None,
        exclusive: bool = False,
    ) -> str:
        """``basic.consume`` with manual acks; returns the consumer tag.

        Args:
            sink: Takes every delivery of this channel, so a channel has one consumer at a time.
            arguments: The consumer's arguments.
            exclusive: Refused while there is another consumer, and no other one beside it.
        """
        self._until_closed(self._raw.connection.sinks, sink)
        ok = await self._ask(
            self._raw.basic_consume,
            queue,
            partial(_hand_over, sink),
            arguments=arguments,
            exclusive=exclusive,
        )
        return str(ok.consumer_tag)

    async def consume_unacked(self, queue: str, sink: Sink) -> str:
        """``basic.consume`` with ``no-ack``; returns the consumer tag."""
        self._until_closed(self._raw.connection.sinks, sink)
        on_message = partial(_hand_over, sink)
        ok = await self._ask(self._raw.basic_consume, queue, on_message, auto_ack=True)
        return str(ok.consumer_tag)

    def _until_closed(self, readers: dict[int, T], reader: T) -> None:
        """Have a reader of the connection read this channel, for as long as there is one."""
        connection, number = self._raw.connection, self.number
        if number not in readers:
            self.closed.add_done_callback(lambda _: connection.forget(number))
        readers[number] = reader

    async def cancel(self, consumer_tag: str) -> None:
        """``basic.cancel``; deliveries under way still reach the callback."""
        raw = self._raw
        if consumer_tag not in raw._consumers:
            return  # the broker cancelled it before we did

        def cancel(tag: str, *, callback: Callable[..., None]) -> None:
            raw.basic_cancel(tag, callback=callback)
            # pika would reject what arrives before cancel-ok: a failed delivery, to
            # RabbitMQ 4.3. Forgetting the mark lets it come here, to be given back.
            raw._cancelled.discard(tag)

        await self._ask(cancel, consumer_tag)

    async def close(self) -> None:
        """``channel.close``, and wait for its answer.

        What is unsettled is back in its queue before another consumer that waits for its
        turn there (``x-single-active-consumer``) gets anything.
        """
        if self.is_open:
            raw = self._raw
            # pika would cancel the consumers first, and a cancelled one keeps what it has: the
            # next one would have its turn before that is back, and get what is behind it
            consumers = set(raw._consumers) - raw._cancelled
            raw._cancelled |= consumers
            with suppress(pika_errors.AMQPError):
                raw.close()
            raw._cancelled -= consumers
            await asyncio.wait([self.closed], timeout=2.0)
