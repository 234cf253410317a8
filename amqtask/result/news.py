"""Follow one call while it runs: its reports of progress, until its end."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator

from amqtask.backends import Pending
from amqtask.errors import ResultTimeout
from amqtask.message.results import ResultMeta
from amqtask.progress import Progress
from amqtask.waiting import no_waiting_in_tasks

#: Returns the error for a call that did not end in time.
Late = Callable[[float | None], ResultTimeout]


def watch(pending: Pending, timeout: float | None, late: Late) -> Iterator[Progress]:
    """Yield what a call reports until it has ended; see `AsyncResult.watch`."""
    no_waiting_in_tasks(timeout)
    deadline = None if timeout is None else time.monotonic() + timeout
    news: queue.SimpleQueue[ResultMeta | None] = queue.SimpleQueue()

    def end() -> None:
        news.put(None)

    pending.follow(news.put)
    pending.on_ready(end)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                meta = news.get(timeout=left)
            except queue.Empty:
                raise late(timeout) from None
            if meta is None:
                return
            if (progress := Progress.of(meta)) is not None and meta.status != "SUCCESS":
                yield progress
    finally:
        pending.forget(end)
        pending.unfollow(news.put)


async def awatch(pending: Pending, timeout: float | None, late: Late) -> AsyncIterator[Progress]:
    """Yield what a call reports, without blocking; as `watch`."""
    no_waiting_in_tasks(timeout)
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[ResultMeta | None] = asyncio.Queue()

    def put(meta: ResultMeta | None) -> None:
        loop.call_soon_threadsafe(news.put_nowait, meta)

    def end() -> None:
        put(None)

    deadline = None if timeout is None else loop.time() + timeout
    pending.follow(put)
    pending.on_ready(end)
    try:
        while True:
            try:  # not around the yield: what the caller does there has no deadline of ours
                async with asyncio.timeout_at(deadline):
                    meta = await news.get()
            except TimeoutError:
                raise late(timeout) from None
            if meta is None:
                return
            if (progress := Progress.of(meta)) is not None and meta.status != "SUCCESS":
                yield progress
    finally:
        pending.forget(end)
        pending.unfollow(put)
