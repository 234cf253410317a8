"""Coroutines on the user's event loop, for async tasks.

A soft limit has to come out of the very ``await`` that the task is in, and
be an ordinary exception there. asyncio can only cancel. So a task with a soft
limit is driven through a `Driver`, which turns that one cancellation into
`SoftTimeLimitExceeded` on its way in, and takes it off the task's count of
cancellations, so that ``asyncio.timeout`` and ``TaskGroup`` see an ordinary
error pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar

from amqtask.errors import SoftTimeLimitExceeded
from amqtask.transport.threads import Mailbox
from amqtask.worker.pools.stacks import coroutine_stack
from amqtask.worker.pools.waiting import Waiting

J = TypeVar("J")


class LoopPool(Generic[J]):
    """At most ``size`` coroutines at once on the user's event loop.

    Args:
        loop: The loop that runs them; not the I/O thread's.
        run: Called on it with each job; must not raise.

    Threads: `submit` and `take_back` from any thread; the rest on the loop.
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
        self.waiting: Waiting[J] = Waiting()
        self._running: set[asyncio.Task[None]] = set()
        self._mailbox = Mailbox(loop)

    def submit(self, job: J) -> None:
        """Run ``job`` when there is room."""
        self.waiting.add(job)
        self._mailbox.post(self._fill)

    def take_back(self) -> list[J]:
        """Return the jobs that have not started."""
        return self.waiting.drain()

    async def join(self) -> None:
        """Wait for what runs."""
        while self._running:
            await asyncio.wait(self._running)

    def cancel(self) -> None:
        """Cancel what runs."""
        for task in self._running:
            task.cancel()

    def _fill(self) -> None:
        while len(self._running) < self._size:
            try:
                job = self.waiting.take()
            except IndexError:  # none waits
                return
            task = self._loop.create_task(self._run(job))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self.waiting:
            self._fill()


class LoopRun:
    """The way to a coroutine that runs.

    Attributes:
        coroutine: The task's own.
        driver: What its soft limit goes through; None when it has none.

    Threads: make it in the coroutine's asyncio task; its verbs from any thread.
    """

    __slots__ = ("_loop", "_task", "coroutine", "driver")

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)  # to look for the loop costs a system call
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.driver: Driver | None = None

    def soft(self) -> None:
        """Raise `SoftTimeLimitExceeded` at its ``await``."""
        if self.driver is not None:
            self._post(self.driver.interrupt)

    def cancel(self) -> None:
        """Cancel it."""
        if self._task is not None:
            self._post(self._task.cancel)

    def kill(self) -> bool:
        """Do nothing: code that does not want to end takes the end of its process."""
        return False

    def stack(self) -> str:
        """Return where it waits."""
        return coroutine_stack(self.coroutine)

    def _post(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it the coroutine
            self._loop.call_soon_threadsafe(function)


class Driver:
    """Awaits a coroutine, and can make it raise `SoftTimeLimitExceeded`.

    waiting --interrupt--> task.cancel() --throw(CancelledError)--> throw(SoftTimeLimitExceeded)
                                 `--the awaited thing ends first--> throw(SoftTimeLimitExceeded)

    Threads: on the loop.
    """

    __slots__ = ("_asked", "_coroutine", "_ended", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._task = asyncio.current_task()
        self._asked = False
        self._ended = False

    def interrupt(self) -> None:
        """Have it raised; too late when the coroutine has ended."""
        if self._task is not None and not self._ended and not self._asked:
            self._asked = self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        # the coroutine's own steps pass through `send` and `throw` of this object
        return self

    def __iter__(self) -> Driver:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Go on with it, as a generator."""
        if self._asked:  # what it awaited swallowed the cancellation
            return self.throw(asyncio.CancelledError())
        try:
            return self._coroutine.send(value)
        except BaseException:
            self._ended = True
            raise

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raise an exception in it, as a generator; the cancellation that was ours, as what it is."""
        error = value if isinstance(value, BaseException) else kind
        if isinstance(error, type):
            error = error()
        if self._asked and isinstance(error, asyncio.CancelledError):
            self._asked = False
            if self._task is not None:
                self._task.uncancel()
            error = SoftTimeLimitExceeded()
        try:
            return self._coroutine.throw(error)
        except BaseException:
            self._ended = True
            raise

    def close(self) -> None:
        """End it, as a generator."""
        self._ended = True
        self._coroutine.close()
