"""Bare aio-pika, the limit of an asyncio client: what its own public calls do, without a library."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aio_pika

from tests.bench.bare import BODY, HEADERS, WARM_UP
from tests.bench.work import clock, clocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

#: Messages awaited together; more at once are no faster.
GATHERED = 1000


def gathered(url: str, exchange: str, queue: str, count: int) -> dict[str, Any]:
    """Publish, many at a time, each confirmed."""

    async def main() -> dict[str, Any]:
        async with _channel(url) as channel:
            to = await channel.get_exchange(exchange, ensure=False)
            await _gathered(to, queue, WARM_UP)
            began = clock()
            await _gathered(to, queue, count)
            return clocked(began, count)

    return asyncio.run(main())


def awaited(url: str, exchange: str, queue: str, count: int) -> dict[str, Any]:
    """Publish, each confirmed before the next."""

    async def main() -> dict[str, Any]:
        async with _channel(url) as channel:
            to = await channel.get_exchange(exchange, ensure=False)
            await _gathered(to, queue, WARM_UP)
            began = clock()
            for _ in range(count):
                await to.publish(_message(), queue, mandatory=True)
            return clocked(began, count)

    return asyncio.run(main())


def drain(url: str, queue: str, count: int, prefetch: int) -> dict[str, Any]:
    """Take messages and ack each."""

    async def main() -> dict[str, Any]:
        seen, began = 0, (0.0, 0.0)
        done = asyncio.Event()

        async def on_message(message: AbstractIncomingMessage) -> None:
            nonlocal seen, began
            if not seen:
                began = clock()
            seen += 1
            await message.ack()
            if seen == count:
                done.set()

        async with _channel(url) as channel:
            await channel.set_qos(prefetch_count=prefetch)
            source = await channel.get_queue(queue, ensure=False)
            await source.consume(on_message)
            await done.wait()
            return clocked(began, count)

    return asyncio.run(main())


def finish() -> None:
    """Nothing is left open."""


@asynccontextmanager
async def _channel(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url) as connection:
        yield await connection.channel(publisher_confirms=True)


async def _gathered(exchange: AbstractExchange, queue: str, count: int) -> None:
    for start in range(0, count, GATHERED):
        await asyncio.gather(
            *(
                exchange.publish(_message(), queue, mandatory=True)
                for _ in range(min(GATHERED, count - start))
            )
        )


def _message() -> aio_pika.Message:
    id_ = str(uuid.uuid4())
    return aio_pika.Message(
        BODY,
        content_type="application/json",
        content_encoding="utf-8",
        headers={**HEADERS, "id": id_, "root_id": id_},
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        priority=0,
        correlation_id=id_,
        message_id=id_,
        timestamp=int(time.time()),
    )
