"""Send on what the delay levels handed out while no queue was there to take it.

    no session --up--> waiting --in a while--> looking --found some--> sent on, the rest given back
                          ^-----------------------|  as often as LOOKS says, then no more

RabbitMQ does it when all its nodes boot at once: what is due leaves its level
before the bindings are known again, and ends in the levels' ``lost`` queue.
Every connection has ended then as well, so each new session is when to look.
A queue that was deleted and came back later has its delayed messages there too.

A message is published to its queue, confirmed, before it is acked here: one
that dies in between leaves two, and loses none. What still has no queue stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from amqtask.app import App
from amqtask.errors import AmqtaskError
from amqtask.message.headers import clean_headers
from amqtask.message.model import Message
from amqtask.topology.delay import LEVELS, lost_name
from amqtask.transport import Channel, Publication, Session

log = logging.getLogger(__name__)

#: Seconds from a session's begin until each look, about: workers come at different moments.
LOOKS = (5.0, 20.0, 90.0, 600.0)
#: Messages that one look holds at most.
MOST = 2_000
_DIGITS = frozenset("01234567")
#: Seconds without any news after which a look is over.
QUIET = 2.0
#: Seconds for the broker to confirm one.
CONFIRM = 30.0


class Strays:
    """Looks for stray messages.

    Args:
        app: Whose connections are used.
        prefixes: Those of the delay levels to look at.
        looks: See `LOOKS`.

    Threads: I/O loop only.
    """

    def __init__(self, app: App, prefixes: Iterable[str], looks: Sequence[float] = LOOKS) -> None:
        self._transport = app.transport
        self._link = app.transport.link("consume")
        self._queues = sorted({lost_name(prefix) for prefix in prefixes})
        self._looks = looks
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; a second call does nothing."""
        if self._task is None:
            self._link.start()
            self._task = asyncio.create_task(self._run(), name="amqtask strays")

    async def close(self) -> None:
        """Look no more; what is held is given back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            session = await self._link.up()
            began = time.monotonic()
            for after in self._looks:
                left = began + after * random.uniform(0.8, 1.2) - time.monotonic()  # noqa: S311
                await asyncio.wait([session.closed], timeout=max(0.0, left))
                if session.closed.done():
                    break
                for queue in self._queues:
                    await self._look(session, queue)
            await asyncio.wait([session.closed])

    async def _look(self, session: Session, queue: str) -> None:
        try:
            channel = await session.channel()
            try:
                _, count, _ = await channel.declare_queue(queue, passive=True)
                if count:
                    await _Look(self._transport.publish, channel, queue).send_on(count)
            finally:
                await channel.close()
        except AmqtaskError as error:
            # most often there is no such queue, as nothing was ever delayed here
            log.debug("delay.unseen queue=%r error=%r", queue, str(error))


class _Look:
    """One look at one queue: what is sent on is acked, what stays goes back with the channel."""

    def __init__(
        self, publish: Callable[[Publication], object], channel: Channel, queue: str
    ) -> None:
        self._publish = publish
        self._channel = channel
        self._queue = queue
        self._news = asyncio.Event()
        self._held = 0
        self._most = 0
        self._sent: Counter[str] = Counter()
        self._stay: Counter[str] = Counter()

    @property
    def _over(self) -> int:
        return self._sent.total() + self._stay.total()

    async def send_on(self, count: int) -> None:
        """Send on what has a queue, of that many messages."""
        self._most = most = min(count, MOST)
        await self._channel.qos(most)
        await self._channel.consume(self._queue, self._take)
        while self._over < most:
            self._news.clear()
            # with nothing under way, the others are with another worker
            patience = QUIET if self._over == self._held else 2 * CONFIRM
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                break
        if self._sent:
            log.warning(
                "delay.strays queue=%r sent_on=%s: they left the delay levels while their queue "
                "was not there",
                self._queue,
                dict(self._sent),
            )
        if self._stay:
            log.warning(
                "delay.stranded queue=%r staying=%s: no queue takes them; declare it, or purge %r",
                self._queue,
                dict(self._stay),
                self._queue,
            )

    def _take(self, tag: int, _: bool, __: str, routing_key: str, message: Message) -> None:
        if self._held == self._most:
            return  # it came for the first ack: its confirm would find the channel closed
        self._held += 1
        target = target_of(routing_key)
        if target is None:
            self._end(self._stay, routing_key)
            return

        def on_done(publication: Publication) -> None:
            if publication.error is not None or not self._channel.is_open:
                self._end(self._stay, target)
                return
            self._channel.raw.basic_ack(tag)
            self._end(self._sent, target)

        self._publish(
            Publication(
                replace(
                    message,
                    headers=clean_headers(message.headers),
                    expiration=None,
                    user_id=None,
                ),
                "",
                target,
                deadline=time.monotonic() + CONFIRM,
                on_done=on_done,
            )
        )

    def _end(self, counts: Counter[str], target: str) -> None:
        counts[target] += 1
        self._news.set()


def target_of(routing_key: str) -> str | None:
    """Return the queue that a delayed message's routing key leads to; None for any other key."""
    *digits, target = routing_key.split(".", LEVELS)
    return target if len(digits) == LEVELS and {*digits} <= _DIGITS and target else None
