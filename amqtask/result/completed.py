"""Handles in the order in which their calls end."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from amqtask.backends import Pending
from amqtask.errors import ResultTimeout
from amqtask.result.inbox import Inbox
from amqtask.waiting import no_waiting_in_tasks

if TYPE_CHECKING:
    from amqtask.result.handle import AsyncResult

R = TypeVar("R")


class as_completed(Generic[R]):  # noqa: N801 - it is called, as asyncio's is
    """Yield handles in the order in which their calls end: ``for`` and ``async for``.

    Args:
        results: Handles; each is yielded once.
        timeout: Seconds for all of them; 0 only looks.

    Raises:
        ResultTimeout: One or more had not ended in time.
        WaitInTask: As `AsyncResult.get`.
    """

    def __init__(self, results: Iterable[AsyncResult[R]], timeout: float | None = None) -> None:
        self._results = list(dict.fromkeys(results))
        self._timeout = timeout

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        if no_waiting_in_tasks(self._timeout) == 0:
            for result in self._results:
                result._look()
        ended: queue.SimpleQueue[AsyncResult[R]] = queue.SimpleQueue()
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        callbacks = self._register(ended.put)
        try:
            for count in range(len(callbacks)):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    yield ended.get(timeout=left)
                except queue.Empty:
                    raise self._late(count) from None
        finally:
            _take_back(callbacks)

    async def __aiter__(self) -> AsyncIterator[AsyncResult[R]]:
        if no_waiting_in_tasks(self._timeout) == 0:
            for result in self._results:
                await result._alook()
        ended: Inbox[AsyncResult[R]] = Inbox()
        now = asyncio.get_running_loop().time()
        deadline = None if self._timeout is None else now + self._timeout
        callbacks = self._register(ended.put)
        try:
            for count in range(len(callbacks)):
                try:
                    result = await ended.get(deadline)
                except TimeoutError:
                    raise self._late(count) from None
                yield result
        finally:
            _take_back(callbacks)

    def _register(
        self, put: Callable[[AsyncResult[R]], object]
    ) -> list[tuple[Pending, Callable[[], object]]]:
        made: list[tuple[Pending, Callable[[], object]]] = []
        for result in self._results:
            pending = result._need()

            def end(result: AsyncResult[R] = result) -> None:
                put(result)

            pending.on_ready(end)
            made.append((pending, end))
        return made

    def _late(self, ended: int) -> ResultTimeout:
        left = len(self._results) - ended
        return ResultTimeout(
            f"{left} of {len(self._results)} results did not come within {self._timeout:g} s"
        )


def _take_back(callbacks: Iterable[tuple[Pending, Callable[[], object]]]) -> None:
    for pending, callback in callbacks:
        pending.forget(callback)
