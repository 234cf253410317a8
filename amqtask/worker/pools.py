"""Where tasks run: threads for plain functions, the event loop for async ones.

Both pools have the same two verbs: `submit` hands a job over, `take_back`
returns those that have not started.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from amqtask.transport.threads import Mailbox

log = logging.getLogger(__name__)

J = TypeVar("J")


class ThreadPool(Generic[J]):
    """At most ``size`` threads, started as they are needed.

    Daemon threads: a task that never ends must not keep a process from ending.

    Args:
        run: Called in a thread with each job; must not raise.

    Threads: `submit` and `take_back` from one thread, the I/O loop's.
    """

    def __init__(self, size: int, run: Callable[[J], None]) -> None:
        self._size = size
        self._run = run
        self._jobs: SimpleQueue[J | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, job: J) -> None:
        """Run ``job`` when a thread is free."""
        self._jobs.put(job)
        if len(self._threads) < self._size and not self._jobs.empty():
            thread = threading.Thread(
                target=self._work, name=f"amqtask-task-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def take_back(self) -> list[J]:
        """Return the jobs that have not started."""
        jobs: list[J | None] = []
        with suppress(Empty):
            while True:
                jobs.append(self._jobs.get_nowait())
        for _ in range(jobs.count(None)):  # a `join` under way: its threads still have to end
            self._jobs.put(None)
        return [job for job in jobs if job is not None]

    def join(self) -> None:
        """Have each thread end after its present job, and wait for them."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        get, run = self._jobs.get, self._run
        while (job := get()) is not None:
            run(job)


class LoopPool(Generic[J]):
    """At most ``size`` coroutines at once on the user's event loop.

    Args:
        loop: The loop that runs them; not the I/O thread's.
        run: Called on it with each job; must not raise.

    Threads: `submit` from any thread; the rest on the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        size: int,
        run: Callable[[J], Coroutine[Any, Any, None]],
    ) -> None:
        self._loop = loop
        self._size = size
        self._run = run
        self._waiting: deque[J] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._mailbox = Mailbox(loop)

    def submit(self, job: J) -> None:
        """Run ``job`` when there is room."""
        self._mailbox.post(self._accept, job)

    def take_back(self) -> list[J]:
        """Return the jobs that have not started."""
        jobs = list(self._waiting)
        self._waiting.clear()
        return jobs

    async def join(self) -> None:
        """Wait for what runs."""
        while self._running:
            await asyncio.wait(self._running)

    def cancel(self) -> None:
        """Cancel what runs."""
        for task in self._running:
            task.cancel()

    def _accept(self, job: J) -> None:
        if len(self._running) < self._size:
            self._start(job)
        else:
            self._waiting.append(job)

    def _start(self, job: J) -> None:
        task = self._loop.create_task(self._run(job))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._start(self._waiting.popleft())
