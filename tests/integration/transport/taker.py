"""A consumer that keeps what it gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from amqtask.transport import Consumer, Delivery, Link, Session
from tests.helpers import aeventually


class Taker:
    """Consumes for the length of an ``async with``.

    Attributes:
        deliveries: Everything that came, in order.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        *,
        prefetch: int = 100,
        prepare: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        self.deliveries: list[Delivery] = []
        self.consumer = Consumer(
            link, queue, prefetch=prefetch, on_delivery=self.deliveries.append, prepare=prepare
        )

    async def __aenter__(self) -> Taker:
        self.consumer.start()
        await aeventually(lambda: self.consumer.consuming)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.consumer.close()

    async def get(self, count: int) -> list[Delivery]:
        await aeventually(lambda: len(self.deliveries) >= count)
        return self.deliveries
