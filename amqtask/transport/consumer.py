"""Consume one queue, for as long as it takes.

    setting up --consume-ok--> consuming --channel or session lost--> setting up (back-off)
                                   |--basic.cancel from the broker--> setting up
                                   |--deaf, see `amqtask.transport.watch`--> setting up
                                   `--stop--> stopped (settling still works) --close--> closed

Setting up means: a session, the queue prepared, a channel, prefetch, consume.
A consumer that is not `consuming` has an `error` that says why, so nothing is
ever alive but deaf without showing it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from amqtask.errors import AmqtaskError, ChannelClosed, ConnectionLost, TransportError
from amqtask.message.model import Message
from amqtask.transport.acks import AckWindow
from amqtask.transport.backoff import Backoff, Repeats
from amqtask.transport.deliveries import Sink
from amqtask.transport.link import Link
from amqtask.transport.session import Channel, Session
from amqtask.transport.watch import Watch

log = logging.getLogger(__name__)

# Source: the reply text of RabbitMQ 3.10 to 4.2, rabbit_channel
_TIMED_OUT = re.compile(r"delivery acknowledgement.* timed out(?:.*?(?P<ms>\d+) ms)?", re.DOTALL)
#: Seconds that a broker has to confirm the end of a consumer that seems deaf.
_CANCEL = 5.0


class Lease:
    """The right to settle what one channel delivered; ends with the channel.

    Settling after the end is a logged no-op: the broker has given the message
    to somebody else by then. So is settling twice: a task may end just as a
    shutdown gives it back, and the first of the two counts.
    """

    __slots__ = ("_acks", "_channel", "_loop", "last")

    def __init__(self, channel: Channel) -> None:
        #: Tag of the last delivery.
        self.last = 0
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
        self.last = tag
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
            self._channel.send_acks(self._acks.flush())

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
        arguments: Gives the arguments of ``basic.consume`` that fit a session's broker.
        on_change: Called on the I/O loop whenever `consuming` changes.

    Attributes:
        consuming: True between consume-ok and whatever ends it.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        *,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        prepare: Callable[[Session], Awaitable[None]] | None = None,
        arguments: Callable[[Session], Mapping[str, Any]] | None = None,
        on_change: Callable[[Consumer], None] | None = None,
    ) -> None:
        self.queue = queue
        self.consuming = False
        self._error: AmqtaskError | None = ConnectionLost("not connected yet")
        self._arguments = arguments
        self._watch = Watch(queue)
        self._repeats = Repeats()
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
    def error(self) -> AmqtaskError | None:
        """Why it is not consuming; None while it is."""
        if self.consuming or self._stopping.is_set() or self._link.session is not None:
            return self._error
        return self._link.last_error or self._error

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
        self.consuming, self._error = consuming, error
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
                self._say_lost(session, error, wait)
                await asyncio.sleep(wait)

    async def _serve(self, channel: Channel, backoff: Backoff) -> None:
        """Consume on ``channel``, again after each cancel.

        Returns when another channel is needed; raises why this one ended, or when it does
        after a stop.
        """
        deaf = 0
        self._lease = lease = Lease(channel)
        channel.raw.add_on_cancel_callback(self._on_cancel)
        while not self._stopping.is_set():
            self._interrupt = asyncio.get_running_loop().create_future()
            await channel.qos(self._prefetch)
            self._tag = await channel.consume(
                self.queue,
                self._receiver(lease),
                arguments=dict(self._arguments(channel.session)) if self._arguments else None,
            )
            if self._stopping.is_set():  # stop came first, and found no consumer to cancel
                await channel.cancel(self._tag)
                break
            backoff.reset()
            if not self.consuming:
                log.info("consumer.ready queue=%r prefetch=%d", self.queue, self._prefetch)
            self._set(True, None)
            self._repeats.reset()
            watching = asyncio.create_task(
                self._watch.until_deaf(channel.session, lease, self._prefetch),
                name=f"amqtask watch {self.queue}",
            )
            ends: list[asyncio.Future[Any]] = [channel.closed, self._interrupt, watching]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
            if channel.closed.done():
                break
            if self._stopping.is_set():
                continue
            if not self._interrupt.done():
                deaf += 1
                if await self._begin_anew(channel, lease, watching.result(), deaf):
                    return
            else:
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

    async def _begin_anew(
        self, channel: Channel, lease: Lease, why: str | None, times: int
    ) -> bool:
        """End a consumer that may be deaf; returns whether its channel went with it.

        The channel may be what is broken, but closing it gives up what still runs. So that
        waits for the second time, or until nothing does.
        """
        if why is not None:
            log.warning(
                "consumer.deaf queue=%r why=%r: the broker confirmed this consumer and delivers "
                "nothing, consuming again",
                self.queue,
                why,
            )
            self._set(False, ConnectionLost(f"consumer of {self.queue!r} got nothing: {why}"))
        tag, self._tag = self._tag, None
        if tag is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CANCEL):
                    await channel.cancel(tag)
        if lease.outstanding and times < 2:
            if self._prepare is not None:
                await self._prepare(channel.session)
            return False
        lease.flush()
        await channel.close()
        return True

    def _say_lost(self, session: Session, error: AmqtaskError, wait: float) -> None:
        """Log why it does not consume, unless the link does, or it was said just now."""
        text = str(error)
        if isinstance(error, ChannelClosed) and (found := _TIMED_OUT.search(error.text)):
            log.error(
                "consumer.timeout queue=%r seconds=%s: a delivery was held for longer than the "
                "broker allows; it delivers all that was held here again, consuming again in "
                "%.1f s\ngive its task a time_limit below that, or allow more by "
                "Queue(consumer_timeout=...), a policy or rabbitmq.conf",
                self.queue,
                f"{int(found['ms']) / 1000:g}" if found["ms"] else "?",
                wait,
            )
            return
        said = session.is_open and self._repeats.due(text, time.monotonic())
        log.log(
            logging.WARNING if said else logging.DEBUG,
            "consumer.lost queue=%r error=%r: consuming again in %.1f s",
            self.queue,
            text,
            wait,
        )

    def _on_cancel(self, frame: Any) -> None:
        lease, channel = self._lease, self._channel
        timed = lease is not None and lease.outstanding and channel is not None
        version = channel.session.rabbitmq if timed and channel is not None else None
        log.warning(
            "consumer.cancelled queue=%r: the broker cancelled it (queue deleted or moved%s), "
            "consuming again",
            self.queue,
            # from 4.3 on, this is how a consumer timeout ends a consumer of a quorum queue
            ", or a delivery held for longer than its consumer timeout"
            if version is not None and version >= (4, 3)
            else "",
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
