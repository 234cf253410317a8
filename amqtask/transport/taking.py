"""Look at a queue, and take all that is in it at once.

    free --take--> taken (nobody else gets anything) --let go--> free, as it was
                     `--delete--> gone

A queue that somebody has taken shows its consumer, so whoever looks at it knows
that what he counts is not all. Letting go closes the channel in one step: the
broker puts everything back, and ends the consumer, before it tells anybody else
about the queue. So no one sees it half full and free.

Source: tried on RabbitMQ 3.10 and 4.0, classic queues: after a message was confirmed a passive
declare counts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from amqtask.errors import AccessRefused, ChannelClosed
from amqtask.message.model import Message
from amqtask.transport.link import Link
from amqtask.transport.session import Channel, Session

log = logging.getLogger(__name__)

#: Why a channel ends over one queue: it is not there, or is another one.
_ABOUT_ONE = (404, 406)
#: Seconds between two looks at a queue that hands over what it has.
_PAUSE = 0.002


class Gone(Exception):
    """The queue is not there."""


class Taken(Exception):
    """Somebody else has taken the queue."""


@dataclass(frozen=True, slots=True)
class Count:
    """What is in a queue now.

    Attributes:
        ready: Messages that nobody holds.
        consumers: Who has taken it.
    """

    ready: int
    consumers: int


class Desk:
    """Looks at queues over one link, on one channel for all of them.

    Args:
        link: Its sessions; it is started when it is needed.

    Threads: on the link's loop only.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._asked: dict[str, list[asyncio.Future[Count]]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def count(self, queue: str) -> Count:
        """Return what is in a queue; those who ask while an answer is awaited share the next one.

        Raises:
            Gone: It is not there.
            TransportError: The connection ended, or the broker refuses to tell.
        """
        future: asyncio.Future[Count] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(queue, []).append(future)
        if queue not in self._asking:
            self._asking[queue] = asyncio.create_task(self._answer(queue), name="amqtask count")
        return await future

    async def _answer(self, queue: str) -> None:
        """Ask the broker for those who wait, until nobody does."""
        try:
            while waiting := self._asked.pop(queue, None):
                answer: Count | None = None
                error: Exception | None = None
                try:
                    answer = await self._count(queue)
                except Exception as caught:  # it is theirs, who wait for it
                    error = caught
                for future in waiting:
                    if future.done():
                        continue
                    if answer is not None:
                        future.set_result(answer)
                    elif error is not None:
                        future.set_exception(error)
        finally:
            del self._asking[queue]

    async def _count(self, queue: str) -> Count:
        try:
            return await self._declare(queue, passive=True)
        except ChannelClosed as error:
            if _is_gone(error):
                raise Gone from error
            raise

    async def make(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """Make a durable queue; one that is there with other arguments is used as it is.

        Raises:
            TransportError: The connection ended, or the broker refuses it.
        """
        try:
            await self._declare(queue, durable=True, arguments=dict(arguments))
        except ChannelClosed as error:
            if error.code != 406:
                raise
            log.info("queue.differs queue=%r: it is used as it is: %s", queue, error.text)

    async def _declare(self, queue: str, **options: Any) -> Count:
        while True:
            channel = await self._open()
            try:
                _, ready, consumers = await channel.declare_queue(queue, **options)
                return Count(ready, consumers)
            except ChannelClosed as error:
                if error.code not in _ABOUT_ONE or repr(queue) in error.text:
                    raise
                # the channel ended over a queue that somebody else here asked for

    async def take(self, queue: str) -> Hold:
        """Take a queue with all that is in it.

        Raises:
            Gone: It is not there.
            Taken: Somebody else has it.
            TransportError: The connection ended, or the broker refuses it.
        """
        self.link.start()
        return await Hold.of(await self.link.up(), queue)

    async def delete(self, queue: str) -> None:
        """Delete a queue, whatever it holds; one that is gone is no error."""
        await (await self._open()).delete_queue(queue)

    async def _open(self) -> Channel:
        async with self._opening:
            if self._channel is None or not self._channel.is_open:
                self.link.start()
                session = await self.link.up()
                self._channel = await session.channel()
            return self._channel


class Hold:
    """A queue that was taken, on a channel of its own.

    Attributes:
        messages: What it held, in order; what comes later is added.
    """

    def __init__(self, queue: str, channel: Channel) -> None:
        self.queue = queue
        self.messages: list[Message] = []
        self._tags: dict[int, int] = {}
        self._channel = channel

    @classmethod
    async def of(cls, session: Session, queue: str) -> Hold:
        """Take a queue; see `Desk.take`."""
        hold = cls(queue, await session.channel())
        try:
            await hold._channel.consume(queue, hold._on_message, exclusive=True)
            await hold.wait()
        except BaseException as error:
            await hold.let_go()
            if _is_gone(error):
                raise Gone from error
            if isinstance(error, AccessRefused) and "exclusive" in str(error):
                raise Taken from error
            raise
        return hold

    async def wait(self) -> None:
        """Return once everything that the queue holds now is in `messages`."""
        while True:
            # the answer comes after all that was on its way here
            _, ready, _ = await self._channel.declare_queue(self.queue, passive=True)
            if not ready:
                return
            await asyncio.sleep(_PAUSE)

    async def delete(self) -> None:
        """Delete the queue with all that is in it."""
        await self._channel.delete_queue(self.queue)
        await self._channel.close()

    def drop(self, messages: Iterable[Message]) -> None:
        """Take some of its messages out of the queue for good."""
        for message in messages:
            self._channel.raw.basic_ack(self._tags[id(message)])

    async def let_go(self) -> None:
        """Leave the queue to others, as it was, but for what was dropped."""
        await self._channel.close()

    def _on_message(
        self, tag: int, redelivered: bool, exchange: str, routing_key: str, message: Message
    ) -> None:
        self._tags[id(message)] = tag
        self.messages.append(message)


def _is_gone(error: BaseException) -> bool:
    """Whether there is no such queue; one whose node is down is "not found" as well."""
    return isinstance(error, ChannelClosed) and error.code == 404 and "no queue" in error.text
