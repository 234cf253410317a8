"""aio-pika, with waiting: what arrives is waited for with a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from tests.helpers import TIMEOUT


async def publish(
    channel: AbstractChannel,
    queue: AbstractQueue | str,
    body: bytes | str = b"",
    **properties: Any,
) -> Any:
    """Publish to a queue and return the broker's answer: a confirm, or the message itself."""
    key = queue if isinstance(queue, str) else queue.name
    octets = body.encode() if isinstance(body, str) else body
    return await channel.default_exchange.publish(Message(octets, **properties), key)


async def fetch(queue: AbstractQueue, **options: Any) -> AbstractIncomingMessage:
    """Return the next message of the queue, which may take its time to come."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        if (message := await queue.get(fail=False, **options)) is not None:
            return message
        assert time.monotonic() < deadline, f"no message came into {queue.name}"
        await asyncio.sleep(0.01)


async def drain(queue: AbstractQueue) -> list[str]:
    """Take the bodies of all messages that are in the queue now."""
    bodies = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        bodies.append(message.body.decode())
    return bodies


class Inbox:
    """A consumer that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self.tag = ""

    @classmethod
    async def of(cls, queue: AbstractQueue, **options: Any) -> Inbox:
        made = cls()
        made.tag = await queue.consume(made.messages.put, **options)
        return made

    async def take(self, count: int = 1) -> list[AbstractIncomingMessage]:
        """Return the next messages, once they have come."""
        async with asyncio.timeout(TIMEOUT):
            return [await self.messages.get() for _ in range(count)]

    async def bodies(self, count: int) -> list[str]:
        """Return the bodies of the next messages, once they have come."""
        return [message.body.decode() for message in await self.take(count)]
