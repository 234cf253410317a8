"""Consume one queue, for as long as it takes.

    setting up --consume-ok--> consuming --channel or session lost--> setting up (back-off)
                                   |--basic.cancel from the broker--> setting up
                                   `--stop--> stopped (settling still works) --close--> closed

Setting up means: a session, the queue prepared, a channel, prefetch, consume.
A consumer that is not `consuming` has an `error` that says why, so nothing is
ever alive but deaf without showing it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from amqtask.errors import AmqtaskError, ConnectionLost, TransportError
from amqtask.message.model import Message
from amqtask.transport.acks import AckWindow
from amqtask.transport.backoff import Backoff
from amqtask.transport.deliveries import Sink
from amqtask.transport.link import Link
from amqtask.transport.session import Channel, Session

log = logging.getLogger(__name__)


class Lease:
    """The right to settle what one channel delivered; ends with the channel.

    Settling after the end is a logged no-op: the broker has given the message
    to somebody else by then. So is settling twice: a task may end just as a
    shutdown gives it back, and the first of the two counts.
    """

    __slots__ = ("_acks", "_channel", "_loop")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._acks = AckWindow()
        self._loop = asyncio.get_running_loop()

    @property
    def is_valid(self) -> bool:
        """Whether settling still has an effect."""
        return self._channel.is_open

    @property
    def outstanding(self) -> int:
        """Deliveries not settled yet."""
        return self._acks.outstanding

    def delivered(self, tag: int) -> None:
        """Note a delivery."""
        self._acks.delivered(tag)

    def ack(self, tag: int) -> None:
        """Ack with the next flush, at the end of this turn of the loop."""
        if self._stale("ack", tag) or not self._acks.holds(tag):
            return
        if self._acks.ack(tag):
            self._loop.call_soon(self.flush)

    def nack(self, tag: int, *, requeue: bool) -> None:
        """``basic.nack``: give back, or have the broker dead-letter it."""
        if not self._stale("nack", tag) and self._acks.holds(tag):
            self._acks.settled(tag)
            self._channel.raw.basic_nack(tag, requeue=requeue)

    def reject(self, tag: int, *, requeue: bool) -> None:
        """``basic.reject``: as nack, but RabbitMQ 4.3 counts it as a failed delivery."""
        if not self._stale("reject", tag) and self._acks.holds(tag):
            self._acks.settled(tag)
            self._channel.raw.basic_reject(tag, requeue=requeue)

    def flush(self) -> None:
        """Send the acks that wait."""
        if self._channel.is_open:
            ack = self._channel.raw.basic_ack
            for tag, multiple in self._acks.flush():
                ack(tag, multiple)

    def _stale(self, verb: str, tag: int) -> bool:
        if self._channel.is_open:
            return False
        log.info(
            "delivery.stale verb=%s tag=%d epoch=%d: its channel is gone, the broker delivers it again",
            verb,
            tag,
            self._channel.session.epoch,
        )
        return True


class Delivery:
    """One message handed to this consumer.

    Attributes:
        message: Body and properties.
        queue: The queue it came from.
        exchange: Where it was published to.
        routing_key: Its routing key.
        redelivered: True when it was delivered before.

    Threads: settle it on the I/O loop only.
    """

    __slots__ = ("_lease", "exchange", "message", "queue", "redelivered", "routing_key", "tag")

    def __init__(
        self,
        message: Message,
        queue: str,
        exchange: str,
        routing_key: str,
        redelivered: bool,
        tag: int,
        lease: Lease,
    ) -> None:
        self.message = message
        self.queue = queue
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered
        self.tag = tag
        self._lease = lease

    @property
    def is_valid(self) -> bool:
        """Whether settling still has an effect."""
        return self._lease.is_valid

    def ack(self) -> None:
        """Settle it as done."""
        self._lease.ack(self.tag)

    def give_back(self) -> None:
        """Return it to its queue, not as a failure."""
        self._lease.nack(self.tag, requeue=True)

    def reject(self, *, requeue: bool) -> None:
        """Return it as a failed delivery, or have the broker dead-letter it."""
        self._lease.reject(self.tag, requeue=requeue)


class Consumer:
    """Delivers one queue's messages to a callback.

    Args:
        link: Where sessions come from.
        queue: The queue's name.
        prefetch: Most unsettled deliveries at once.
        on_delivery: Called on the I/O loop with each `Delivery`; must not block.
        prepare: Awaited before each consume, to make or check the queue.
        on_change: Called on the I/O loop whenever `consuming` changes.

    Attributes:
        consuming: True between consume-ok and whatever ends it.
        error: Why it is not consuming; None while it is.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        prepare: Callable[[Session], Awaitable[None]] | None = None,
        on_change: Callable[[Consumer], None] | None = None,
    ) -> None:
        self.queue = queue
        self.consuming = False
        self.error: AmqtaskError | None = ConnectionLost("not connected yet")
        self._link = link
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._prepare = prepare
        self._on_change = on_change
        self._lease: Lease | None = None
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._stopping = asyncio.Event()
        self._interrupt: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to consume, and never stop trying."""
        self._link.start()
        self._task = asyncio.create_task(self._run(), name=f"amqtask consumer {self.queue}")

    @property
    def prefetch(self) -> int:
        """Most unsettled deliveries at once."""
        return self._prefetch

    def set_prefetch(self, prefetch: int) -> None:
        """Change the prefetch: the broker only takes a new one with a new consume."""
        if prefetch != self._prefetch:
            self._prefetch = prefetch
            self._wake()

    async def stop(self) -> None:
        """Take no more deliveries; those here can still be settled."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        channel, tag = self._channel, self._tag
        if channel is not None and tag is not None and channel.is_open:
            with suppress(TransportError):
                await channel.cancel(tag)
        self._wake()
        self._set(False, ConnectionLost("stopped"))

    async def close(self) -> None:
        """Stop, send the acks that wait, and close the channel.

        What is still unsettled goes back to the queue.
        """
        await self.stop()
        if self._lease is not None:
            self._lease.flush()
        if self._channel is not None:
            await self._channel.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _wake(self) -> None:
        if self._interrupt is not None and not self._interrupt.done():
            self._interrupt.set_result(None)

    def _set(self, consuming: bool, error: AmqtaskError | None) -> None:
        changed = consuming != self.consuming
        self.consuming, self.error = consuming, error
        if changed and self._on_change is not None:
            self._on_change(self)

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            session = await self._link.up()
            try:
                if self._prepare is not None:
                    await self._prepare(session)
                self._channel = await session.channel()
                await self._serve(self._channel, backoff)
            except AmqtaskError as error:
                self._set(False, error)
                if self._stopping.is_set():
                    return
                wait = backoff.next()
                log.warning(
                    "consumer.lost queue=%r error=%r: consuming again in %.1f s",
                    self.queue,
                    str(error),
                    wait,
                )
                await asyncio.sleep(wait)

    async def _serve(self, channel: Channel, backoff: Backoff) -> None:
        """Consume on ``channel``, again after each cancel, until it closes or we stop."""
        self._lease = lease = Lease(channel)
        channel.raw.add_on_cancel_callback(self._on_cancel)
        while not self._stopping.is_set():
            self._interrupt = asyncio.get_running_loop().create_future()
            await channel.qos(self._prefetch)
            self._tag = await channel.consume(self.queue, self._receiver(lease))
            if self._stopping.is_set():  # stop came first, and found no consumer to cancel
                await channel.cancel(self._tag)
                break
            backoff.reset()
            self._set(True, None)
            log.info("consumer.ready queue=%r prefetch=%d", self.queue, self._prefetch)
            ends: list[asyncio.Future[Any]] = [channel.closed, self._interrupt]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if channel.closed.done():
                break
            if not self._stopping.is_set():
                await self._cancelled_or_retuned(channel)
        # stopping: acks still go out until the channel ends
        raise await asyncio.shield(channel.closed)

    async def _cancelled_or_retuned(self, channel: Channel) -> None:
        if self._tag is None:  # the broker's basic.cancel: the queue may be gone
            await asyncio.sleep(0.05)
            if self._prepare is not None:
                await self._prepare(channel.session)
        else:
            await channel.cancel(self._tag)

    def _on_cancel(self, frame: Any) -> None:
        log.warning(
            "consumer.cancelled queue=%r: the broker cancelled it (queue deleted or moved), "
            "consuming again",
            self.queue,
        )
        self._tag = None
        self._set(False, ConnectionLost(f"the broker cancelled the consumer of {self.queue!r}"))
        self._wake()

    def _receiver(self, lease: Lease) -> Sink:
        queue, on_delivery, delivered = self.queue, self._on_delivery, lease.delivered
        stopping = self._stopping.is_set

        def receive(
            tag: int, redelivered: bool, exchange: str, routing_key: str, message: Message
        ) -> None:
            delivered(tag)
            if stopping():
                lease.nack(tag, requeue=True)
                return
            on_delivery(Delivery(message, queue, exchange, routing_key, redelivered, tag, lease))

        return receive
