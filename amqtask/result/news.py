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
from amqtask.result.inbox import Inbox
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
    news: Inbox[ResultMeta | None] = Inbox()

    def end() -> None:
        news.put(None)

    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    pending.follow(news.put)
    pending.on_ready(end)
    try:
        while True:
            try:  # not around the yield: what the caller does there has no deadline of ours
                meta = await news.get(deadline)
            except TimeoutError:
                raise late(timeout) from None
            if meta is None:
                return
            if (progress := Progress.of(meta)) is not None and meta.status != "SUCCESS":
                yield progress
    finally:
        pending.forget(end)
        pending.unfollow(news.put)
