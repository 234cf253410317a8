"""The reply queue of one client process.

One durable queue with ``x-expires`` for the whole process, however many
threads and coroutines wait: it outlives a lost connection, so replies sent
meanwhile are there when it is back, and the broker removes it when the
process is gone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress

from amqtask.errors import TransportError
from amqtask.message.model import Message
from amqtask.transport.consumer import Consumer, Delivery
from amqtask.transport.link import Link
from amqtask.transport.session import Session

#: Replies taken from the broker before they are acked, at most.
PREFETCH = 1000


class ReplyQueue:
    """A queue that replies to this process come to.

    Args:
        expires: Seconds without a consumer after which the broker deletes it.
        on_reply: Called on the I/O loop with each reply.

    Attributes:
        name: The address to put into ``reply_to``.
    """

    def __init__(self, *, expires: float, on_reply: Callable[[Message], None]) -> None:
        self.name = f"amqtask.reply.{uuid.uuid4()}"
        self._expires_ms = max(1, round(expires * 1000))
        self._on_reply = on_reply
        self._ready = asyncio.Event()
        self._link: Link | None = None
        self._consumer: Consumer | None = None

    def start(self, link: Link) -> None:
        """Begin to consume over ``link``, on its loop."""
        self._link = link
        self._consumer = Consumer(
            link,
            self.name,
            prefetch=PREFETCH,
            on_delivery=self._on_delivery,
            prepare=self._prepare,
            on_change=self._on_change,
        )
        self._consumer.start()

    async def ready(self, _: Session | None = None) -> None:
        """Wait until the queue is there and consumed."""
        await self._ready.wait()

    async def close(self) -> None:
        """Stop consuming and delete the queue; without a session the broker does, in time."""
        if self._consumer is None or self._link is None:
            return
        await self._consumer.close()
        if (session := self._link.session) is not None:
            with suppress(TransportError):
                channel = await session.channel()
                await channel.delete_queue(self.name)
                await channel.close()

    async def _prepare(self, session: Session) -> None:
        channel = await session.channel()
        try:
            await channel.declare_queue(
                self.name, durable=True, arguments={"x-expires": self._expires_ms}
            )
        finally:
            await channel.close()

    def _on_change(self, consumer: Consumer) -> None:
        if consumer.consuming:
            self._ready.set()

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            self._on_reply(delivery.message)
        finally:
            delivery.ack()
