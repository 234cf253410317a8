"""What other threads hand to a coroutine."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Takes items from any thread, for one coroutine of the loop that it is made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T] = asyncio.Queue()

    def put(self, item: T) -> None:
        """Add an item; from any thread."""
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def get(self, deadline: float | None) -> T:
        """Await the next item.

        Args:
            deadline: Time of the loop's clock; None for none.

        Raises:
            TimeoutError: None had been put by then.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._items.get()
        except TimeoutError:
            if self._items.empty():
                raise
            # it was put in time: a deadline that is over ends the wait in the loop's next turn,
            # which is the one that brings items
            return self._items.get_nowait()
