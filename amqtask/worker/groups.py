"""A slot group at work: its threads, its coroutines and its runners."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from amqtask.worker.execute import Executor
from amqtask.worker.job import Job, Kind
from amqtask.worker.pools import LoopPool, ProcessPool, ThreadPool
from amqtask.worker.pools.process import Spec
from amqtask.worker.slots import SlotGroup


class PoolSet:
    """The pools of one slot group.

    Args:
        loop: The user's, for async tasks.
        route: Called in a thread with each job that is to run there; see `Node`.

    Threads: make it on the loop; see each method.
    """

    def __init__(
        self,
        group: SlotGroup,
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
        route: Callable[[Job], None],
        spec: Spec,
        *,
        max_tasks: int | None,
        max_memory: int | None,
    ) -> None:
        suffix = f"-{group.name}" if group.name else ""
        self.threads: ThreadPool[Job] = ThreadPool(group.slots, route, name=f"amqtask-task{suffix}")
        self.coroutines: LoopPool[Job] = LoopPool(loop, group.slots, executor.run_async)
        self.runners: ProcessPool[Job] = ProcessPool(
            group.processes,
            executor.run_isolated,
            spec,
            name=f"amqtask-runner{suffix}",
            max_tasks=max_tasks,
            max_memory=max_memory,
        )
        self.submit = {
            Kind.THREAD: self.threads.submit,
            Kind.LOOP: self.coroutines.submit,
            Kind.PROCESS: self.runners.submit,
        }
        self._all = (self.threads, self.coroutines, self.runners)

    @property
    def waiting(self) -> int:
        """Jobs that have not started; from any thread."""
        return sum(len(pool.waiting) for pool in self._all)

    def find(self, id: str) -> Job | None:
        """Return the waiting job of that id; from any thread."""
        return next((job for pool in self._all for job in pool.waiting.all() if job.id == id), None)

    def held(self) -> list[Job]:
        """Return the jobs that wait; from any thread."""
        return [job for pool in self._all for job in pool.waiting.all()]

    def withdraw(self, job: Job) -> bool:
        """Take a waiting job out; False when it has started; from any thread."""
        return any(pool.waiting.withdraw(job) for pool in self._all)

    def take_back(self) -> list[Job]:
        """Take out all jobs that have not started; from any thread."""
        return [job for pool in self._all for job in pool.take_back()]

    async def join(self) -> None:
        """Wait for what runs; on the loop."""
        self.runners.begin_to_stop()
        # in this order: a thread that decodes protocol 1 may still hand a job on
        await _in_daemon_thread(self.threads.join)
        await self.coroutines.join()
        await _in_daemon_thread(self.runners.join)


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
