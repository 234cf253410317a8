"""A worker inside the test's process.

    made --start--> consuming --stop--> stopped

It is the worker's own `Node`, on an event loop and a thread of its own, so a
test may block, and tasks run as they do in production: plain ones in threads,
async ones on a loop that is not the test's.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from amqtask.app import App
from amqtask.testing.failures import Failure
from amqtask.testing.threads import Beside, LoopThread
from amqtask.worker.node import Node

if TYPE_CHECKING:
    from amqtask.testing.sandbox import Sandbox

#: Seconds in which a worker has to consume, and in which it has to stop.
PATIENCE = 10.0


class Worker(Beside):
    """Runs an app's tasks in this process; made by `Sandbox.worker`.

    Use it in ``with`` or ``async with``, or call `start`; the end of the test
    stops it anyway.

    Threads: from the test's thread; `arun_until_idle` and ``async with`` from its loop.
    """

    def __init__(
        self, sandbox: Sandbox, app: App, queues: Sequence[str], concurrency: int | None
    ) -> None:
        self.app = app
        self._sandbox = sandbox
        self._changed = threading.Event()
        self._thread: LoopThread | None = None
        self._node = Node(
            app,
            queues,
            concurrency=concurrency,
            name="test-worker",
            on_change=self._changed.set,
        )
        self.queues = tuple(self._node.queues)

    # -- life -----------------------------------------------------------------

    def start(self) -> Self:
        """Start it and wait until it consumes; one that runs already is fine.

        Raises:
            AssertionError: It does not consume.
        """
        if self._thread is not None:
            return self
        self._thread = LoopThread("amqtask-test-worker")
        self._thread.run(self._node.start(), PATIENCE)
        while not self._node.ready:
            if not self._changed.wait(PATIENCE):
                raise AssertionError(
                    f"the worker does not consume {', '.join(self.queues)} after {PATIENCE:g} s; "
                    "its log says why"
                )
            self._changed.clear()
        return self

    def stop(self) -> None:
        """Stop it warm: what runs is finished, what waits stays in its queue.

        Raises:
            AssertionError: A task did not end; the text names it.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            stuck = thread.run(self._stop())
        finally:
            thread.close()
        if stuck:
            raise AssertionError(
                f"the worker did not stop: {stuck} of its tasks still ran after {PATIENCE:g} s"
            )

    async def _stop(self) -> int:
        """Return how many tasks did not end."""
        try:
            await asyncio.wait_for(self._node.stop(), PATIENCE)
        except TimeoutError:
            stuck = self._node.running
            await self._node.stop_now()
            return stuck
        return 0

    # -- what a test does with it ---------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._thread is not None

    @property
    def counts(self) -> Counter[str]:
        """Calls settled so far, by how they ended: ``done``, ``again``, ``failed``."""
        return self._node.counts

    def run_until_idle(self, timeout: float = PATIENCE) -> None:
        """Wait until nothing runs, no call waits in a queue, and all results have arrived.

        Delayed calls wait for time, not for the worker: see `Sandbox.advance`, and
        `drain`.

        Args:
            timeout: Seconds of real time.

        Raises:
            BaseException: What a task raised that is not retried, the first of several.
            AssertionError: It was not idle in time; the text says what still runs.
        """
        self._sandbox.run_until_idle(timeout)

    async def arun_until_idle(self, timeout: float = PATIENCE) -> None:
        """Do as `run_until_idle`, and leave the test's event loop free meanwhile."""
        await asyncio.to_thread(self._sandbox.run_until_idle, timeout)

    def drain(self, timeout: float = PATIENCE) -> None:
        """Run until nothing is left at all: time jumps to whatever waits for it.

        Raises:
            BaseException: As `run_until_idle`.
            AssertionError: There is always more, as with a task that calls itself.
        """
        self._sandbox.drain(timeout)

    async def adrain(self, timeout: float = PATIENCE) -> None:
        """Do as `drain`, and leave the test's event loop free meanwhile."""
        await asyncio.to_thread(self._sandbox.drain, timeout)

    def take_failures(self) -> list[Failure]:
        """Return the failures that the test has not seen yet; they count as seen now."""
        return self._sandbox.take_failures()
