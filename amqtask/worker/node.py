"""A worker inside one process: intake, pools, executor and settler put together.

    starting --every queue consumed--> ready --stop--> draining --> stopped
                                         |                 `--stop_now--+
                                         `--stop_now---------------------+--> stopped

User code runs on the loop that started the node (async tasks) and in its
threads (plain ones); sockets, acks and heartbeats live in the I/O thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from amqtask.app import App
from amqtask.worker.execute import Executor, Job
from amqtask.worker.intake import Intake
from amqtask.worker.pools import LoopPool, ThreadPool
from amqtask.worker.settle import Settler

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that outcomes have to become safe once the last task has ended.
SETTLE_TIMEOUT = 10.0
#: Seconds that cancelled coroutines have to clean up when it has to be quick.
CLEAN_UP = 1.0


class Node:
    """Runs an app's tasks off some queues.

    Args:
        app: Whose tasks run; its task modules are imported already.
        queues: Names of the queues to consume; the default queue when empty.
        concurrency: Threads for plain tasks, and as many coroutines for async ones.
        prefetch: Deliveries held per queue; None lets it follow the pace.
        name: Shown in logs and dead letters; the host's name by default.
        on_change: Called in the I/O thread when `ready` changed.

    Threads: start and stop it on one event loop, which runs the async tasks.
    """

    def __init__(
        self,
        app: App,
        queues: Sequence[str] = (),
        *,
        concurrency: int | None = None,
        prefetch: int | None = None,
        name: str | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        settings = app.settings
        self._app = app
        self._io = app.transport.io
        self.queues = tuple(dict.fromkeys(queues)) or (settings.default_queue,)
        self.name = name or settings.worker_name or socket.gethostname()
        self._slots = concurrency or settings.concurrency
        self._prefetch = prefetch or settings.prefetch
        self._on_change = on_change
        self._settler = Settler(app, self.name)
        self._executor = Executor(app, self.name, self._settler.settle)
        self._threads: ThreadPool[Job] = ThreadPool(self._slots, self._run_in_thread)
        self._coroutines: LoopPool[Job]
        self._intake: Intake | None = None

    @property
    def ready(self) -> bool:
        """Whether every queue is consumed right now."""
        return self._intake is not None and self._intake.consuming

    @property
    def counts(self) -> Counter[str]:
        """Jobs settled so far, by the name of their outcome."""
        return self._settler.counts

    @property
    def running(self) -> int:
        """Tasks whose code runs now."""
        return len(self._executor.running)

    async def start(self) -> None:
        """Begin to consume; returns at once, `ready` tells when it does."""
        self._coroutines = LoopPool(
            asyncio.get_running_loop(), self._slots, self._executor.run_async
        )
        await self._on_io(self._start_intake())

    async def stop(self) -> None:
        """Stop warm: give back what has not started, finish what runs, settle it all.

        Delivery: nothing is lost; what was given back is delivered to another
        worker at once.
        """
        if self._intake is None:
            return
        await self._on_io(self._intake.stop())
        self._give_back([*self._threads.take_back(), *self._coroutines.take_back()])
        # in this order: a thread that decodes protocol 1 may still hand a job to the loop
        await _in_daemon_thread(self._threads.join)
        await self._coroutines.join()
        await self._on_io(self._settle_all(SETTLE_TIMEOUT))
        await self._on_io(self._intake.close())

    async def stop_now(self) -> None:
        """Stop quickly: give back what runs too, cancel coroutines, leave threads behind.

        Delivery: what ran is delivered again, so it may run twice.
        """
        if self._intake is None:
            return
        await self._on_io(self._intake.stop())
        waiting = [*self._threads.take_back(), *self._coroutines.take_back()]
        running = list(self._executor.running)
        for job in running:
            job.abandoned = True
        self._give_back([*waiting, *running])
        self._coroutines.cancel()
        try:
            async with asyncio.timeout(CLEAN_UP):
                await self._coroutines.join()
        except TimeoutError:
            log.warning("node.left_behind count=%d: they ignore their cancellation", self.running)
        await self._on_io(self._settle_all(CLEAN_UP))
        await self._on_io(self._intake.close())

    async def _start_intake(self) -> None:
        self._intake = Intake(
            self._app,
            self.queues,
            slots=self._slots,
            prefetch=self._prefetch,
            submit=self._submit,
            on_change=self._on_change,
        )
        self._intake.start()

    async def _settle_all(self, timeout: float) -> None:
        """Wait until every outcome is safe; what is not by then is delivered again."""
        try:
            async with asyncio.timeout(timeout):
                await self._settler.drain()
        except TimeoutError:
            log.warning(
                "node.unsettled count=%d: the broker delivers them again", self._settler.pending
            )

    def _submit(self, job: Job, is_async: bool) -> None:
        if is_async:
            self._coroutines.submit(job)
        else:
            self._threads.submit(job)

    def _run_in_thread(self, job: Job) -> None:
        # only a protocol 1 message hides its task's name until it is decoded
        self._executor.decode(job)
        if job.call is not None:
            task = self._app.tasks.get(job.call.task)
            if task is not None and task.is_async:
                self._coroutines.submit(job)
                return
        self._executor.run_sync(job)

    def _give_back(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._io.post(job.delivery.give_back)
        if jobs:
            log.info("node.gave_back count=%d: other workers get them", len(jobs))

    async def _on_io(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._io.submit(coroutine))


async def _in_daemon_thread(function: Callable[[], object]) -> None:
    """Await a blocking call; not `asyncio.to_thread`, whose threads a process waits for at its end.

    A task that never ends would keep the process when this is cancelled.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        function()
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True, name="amqtask-join").start()
    await done.wait()
