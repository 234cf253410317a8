"""A worker inside one process: intake, pools, executor and settler put together.

    starting --every queue consumed--> ready --stop--> draining --> stopped
                                         |                 `--stop_now--+
                                         `--stop_now---------------------+--> stopped

User code runs on the loop that started the node (async tasks), in its threads
(plain ones) and in runners, processes of their own (what is to be isolated);
sockets, acks and heartbeats live in the I/O thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from amqtask.app import App
from amqtask.discovery import locate
from amqtask.errors import AppNotFound
from amqtask.message import task_name
from amqtask.topology.delay import delay_prefix
from amqtask.transport import Delivery
from amqtask.worker.board import Board
from amqtask.worker.cancelled import Cancelled
from amqtask.worker.execute import Executor
from amqtask.worker.groups import PoolSet
from amqtask.worker.intake import Intake
from amqtask.worker.job import Job, Kind
from amqtask.worker.outcome import GivenBack, Outcome, Revoked, Verdict
from amqtask.worker.overdue import Overdue
from amqtask.worker.settle import Settler
from amqtask.worker.slots import QueueSlots, slot_groups
from amqtask.worker.strays import Strays
from amqtask.worker.suspects import Suspects

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that outcomes have to become safe once the last task has ended.
SETTLE_TIMEOUT = 10.0
#: Seconds that cancelled coroutines have to clean up when it has to be quick.
CLEAN_UP = 1.0


@dataclass(frozen=True, slots=True)
class RunningJob:
    """What a node runs now.

    Attributes:
        pool: ``thread``, ``loop`` or ``process``.
        seconds: How long its code has run.
    """

    id: str
    task: str
    queue: str
    pool: str
    seconds: float


class Node:
    """Runs an app's tasks off some queues.

    Args:
        app: Whose tasks run; its task modules are imported already.
        queues: Queues to consume; the default queue when empty. One with slots of
            its own shares none with the others.
        concurrency: Threads for plain tasks, and as many coroutines for async ones.
        prefetch: Deliveries held per queue; None lets it follow the pace.
        name: Shown in logs and dead letters; the host's name by default.
        pool: ``process`` isolates every task that does not say otherwise.
        process_slots: Runners for isolated tasks; the number of CPUs by default.
        max_tasks_per_child: Tasks after which a runner is replaced.
        max_memory_per_child: Bytes of memory over which a runner is replaced.
        board: Where what runs is noted, for the case that this process dies.
        on_change: Called in the I/O thread when `ready` changed.
        on_give_up: Called, in any thread, when a task that is over its hard limit
            cannot be ended but by the end of this process; it is settled by then.

    Threads: start and stop it on one event loop, which runs the async tasks. What
    else there is may be called from any thread.
    """

    def __init__(
        self,
        app: App,
        queues: Sequence[str | QueueSlots] = (),
        *,
        concurrency: int | None = None,
        prefetch: int | None = None,
        name: str | None = None,
        pool: str | None = None,
        process_slots: int | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        board: Board | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_give_up: Callable[[str], None] = lambda _: None,
    ) -> None:
        settings = app.settings
        self._app = app
        self._io = app.transport.io
        self._groups = slot_groups(
            queues or (settings.default_queue,),
            slots=concurrency or settings.concurrency,
            processes=process_slots or settings.process_slots,
        )
        self.queues = tuple(queue for group in self._groups for queue in group.queues)
        self._group_of = {
            queue: index for index, group in enumerate(self._groups) for queue in group.queues
        }
        self.name = name or settings.worker_name or socket.gethostname()
        self._isolates_all = (pool or settings.pool) == "process"
        self._recycling = {"max_tasks": max_tasks_per_child, "max_memory": max_memory_per_child}
        self._prefetch = prefetch or settings.prefetch
        self._on_change = on_change
        self._settler = Settler(app, self.name)
        self._executor = Executor(
            app,
            self.name,
            self._settler.settle,
            wants_result=self._settler.wants_result,
            on_give_up=on_give_up,
            board=board,
        )
        self._suspects = Suspects()
        self._executor.checks.append(self._on_record)
        self._executor.begun = self._cancelled_just_now
        self._app_path: str | None = None
        self._pools: list[PoolSet] = []
        self._intake: Intake | None = None
        self._cancelled: Cancelled | None = None
        self._strays: Strays | None = None
        self._overdue: Overdue | None = None
        self._heard: dict[str, bool] = {}  # cancelled in this turn of the I/O loop

    # -- what it does -------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether every queue is consumed right now."""
        return self._intake is not None and self._intake.consuming

    @property
    def counts(self) -> Counter[str]:
        """Jobs settled so far, by the name of their outcome."""
        return self._settler.counts

    @property
    def finished(self) -> int:
        """Jobs settled so far."""
        return self._settler.counts.total()

    @property
    def running(self) -> int:
        """Tasks whose code runs now."""
        return len(self._executor.running)

    @property
    def waiting(self) -> int:
        """Deliveries held that have not started."""
        return sum(pools.waiting for pools in self._pools)

    def unready(self) -> list[str]:
        """Return why it is not ready, a line for each reason; empty when it is."""
        if self._intake is None:
            return ["it has not started"]
        reasons = self._intake.unready()
        reasons += [
            f"runners cannot start: {pools.runners.broken}"
            for pools in self._pools
            if pools.runners.broken
        ]
        return reasons

    def running_jobs(self) -> list[RunningJob]:
        """Return what runs now."""
        return [
            RunningJob(job.id, job.name, job.delivery.queue, job.kind.value, job.runtime)
            for job in self._executor.running.copy()
        ]

    def stacks(self) -> str:
        """Return where the code of each running task is; a runner may take half a second for it."""
        parts = []
        for job in self._executor.running.copy():
            where = job.run.stack() if job.run is not None else "  it waits for its runner\n"
            parts.append(
                f"task {job.name} (id {job.id}), in a {job.kind.value}, "
                f"for {job.runtime:.1f} s:\n{where}"
            )
        return "\n".join(parts) or "no task is running\n"

    # -- starting and stopping ------------------------------------------------------------

    async def start(self) -> None:
        """Begin to consume; returns at once, `ready` tells when it does."""
        loop = self._app.loop = asyncio.get_running_loop()
        self._pools = [
            PoolSet(group, self._executor, loop, self._run_in_thread, self._spec, **self._recycling)
            for group in self._groups
        ]
        await self._on_io(self._start_intake())

    async def stop(self) -> None:
        """Stop warm: give back what has not started, finish what runs, settle it all.

        Delivery: nothing is lost; what was given back is delivered to another
        worker at once.
        """
        if self._intake is None:
            return
        await self._on_io(self._intake.stop())
        self._give_back(self._take_back())
        await asyncio.gather(*(pools.join() for pools in self._pools))
        await self._on_io(self._settle_all(SETTLE_TIMEOUT))
        await self._on_io(self._close_intake())

    def cancel_running(self) -> None:
        """Ask all that runs to end; what ends for it is given back, and nothing begins any more.

        What was given back comes again at once while this worker still consumes.
        """
        self._executor.checks.insert(0, lambda _: GivenBack())
        for job in self._executor.running.copy():
            self._executor.limits.stop(job, Verdict.STOPPING)

    async def stop_now(self) -> None:
        """Stop quickly: give back what runs too, cancel coroutines, kill runners, leave threads.

        Delivery: what ran is delivered again, so it may run twice.
        """
        if self._intake is None:
            return
        await self._on_io(self._let_go())
        await asyncio.sleep(0)  # a coroutine that was just made comes to its first step, and back
        self._give_back(self._claimed())
        for pools in self._pools:
            pools.coroutines.cancel()
        left = [pools.coroutines.join() for pools in self._pools]
        try:
            async with asyncio.timeout(CLEAN_UP):
                await asyncio.gather(*left)
        except TimeoutError:
            log.warning("node.left_behind: coroutines ignore their cancellation")
        await self._on_io(self._finish())

    async def release(self) -> None:
        """Stop quickly from the I/O loop, when the loop of the async tasks does not answer.

        Delivery: as `stop_now`, but for coroutines, which are left behind.
        """
        if self._intake is not None:
            await self._let_go()
            await self._finish()

    async def _let_go(self) -> None:
        assert self._intake is not None
        self._executor.checks.insert(0, lambda _: GivenBack())
        await self._intake.stop()
        self._give_back([*self._take_back(), *self._claimed()])
        for pools in self._pools:
            pools.runners.kill()

    async def _finish(self) -> None:
        await self._settle_all(CLEAN_UP)
        await self._close_intake()

    # -- single calls -------------------------------------------------------------------

    def cancel(self, task_id: str, *, terminate: bool = False) -> bool:
        """Cancel a call that waits or runs here.

        Args:
            terminate: True ends it for certain when it runs: its runner is killed; for a
                thread, or a coroutine that does not end, this process is given up.

        Returns:
            Whether it was here.
        """
        for pools in self._pools:
            job = pools.find(task_id)
            if job is not None:
                job.verdict = Verdict.CANCELLED  # in case that it begins just now
                if pools.withdraw(job):
                    self._executor.decode(job)
                    if job.outcome is None:
                        job.outcome = Revoked("cancelled")
                    self._settler.settle(job)
                    return True
        for job in self._executor.running.copy():
            if job.id == task_id:
                self._stop_job(job, terminate)
                return True
        return False

    def _stop_job(self, job: Job, terminate: bool) -> None:
        self._executor.limits.stop(job, Verdict.CANCELLED)
        if terminate:
            self._executor.limits.terminate(job, Verdict.CANCELLED)

    def suspect(self, ids: Iterable[str], why: str) -> None:
        """Run these calls isolated when they come."""
        for id_ in ids:
            self._suspects.suspect(id_, why)

    def condemn(self, task_id: str, why: str) -> None:
        """Settle this call as timed out when it comes, without running it."""
        self._suspects.condemn(task_id, why)
        if self._sentence not in self._executor.checks:
            self._executor.checks.append(self._sentence)

    # -- placing jobs -------------------------------------------------------------------

    def _submit(self, delivery: Delivery) -> None:
        job = Job(delivery, self._group_of[delivery.queue])
        self._place(job, task_name(delivery.message))
        self._pools[job.group].submit[job.kind](job)

    def _place(self, job: Job, name: str | None) -> None:
        task = self._app.tasks.get(name) if name is not None else None
        if task is None:
            job.kind = Kind.THREAD  # where it is found out what it is
            return
        if task.pool is not None:
            job.kind = Kind(task.pool)
        elif self._isolates_all:
            job.kind = Kind.PROCESS
        else:
            job.kind = Kind.LOOP if task.is_async else Kind.THREAD
        if job.kind is not Kind.PROCESS and (why := self._suspects.why_isolated(job.delivery)):
            self._isolate(job, why)

    def _isolate(self, job: Job, why: str) -> None:
        try:
            self._spec()
        except AppNotFound as error:
            log.warning("task.not_isolated id=%s: %s, but %s", job.id, why, error)
            return
        log.info("task.isolated id=%s: %s, it runs in a process of its own", job.id, why)
        job.kind = Kind.PROCESS

    def _run_in_thread(self, job: Job) -> None:
        # only a protocol 1 message hides its task's name until it is decoded
        self._executor.decode(job)
        if job.call is not None and job.call.protocol == 1:
            self._place(job, job.call.task)
            if job.kind is not Kind.THREAD:
                self._pools[job.group].submit[job.kind](job)
                return
        self._executor.run_sync(job)

    def _spec(self) -> dict[str, Any]:
        """Return what a runner has to know."""
        if self._app_path is None:
            self._app_path = locate(self._app)
        level = logging.getLogger("amqtask").getEffectiveLevel()
        return {
            "app": self._app_path,
            "path": list(sys.path),
            "host": self.name,
            "loglevel": logging.getLevelName(level),
        }

    def _on_record(self, job: Job) -> Outcome | None:
        if self._cancelled is None or self._cancelled.get(job.id) is None:
            return None
        return Revoked("cancelled")

    def _cancelled_just_now(self, job: Job) -> None:
        """Cancel a job that was let in before its record came, and begins after it was looked for."""
        record = self._cancelled.get(job.id) if self._cancelled is not None else None
        if record is not None:
            self._stop_job(job, record.terminate)

    def _hear(self, task_id: str, terminate: bool) -> None:
        # in the I/O thread, for each call that is cancelled anywhere; most are not here, and
        # thousands may come at once: they are looked for together
        if not self._heard:
            self._io.loop.call_soon(self._find_heard)
        self._heard[task_id] = terminate or self._heard.get(task_id, False)

    def _find_heard(self) -> None:
        heard, self._heard = self._heard, {}
        here = {job.id for pools in self._pools for job in pools.held()}
        here |= {job.id for job in self._executor.running.copy()}
        for task_id in here & heard.keys():
            self.cancel(task_id, terminate=heard[task_id])

    def _sentence(self, job: Job) -> Outcome | None:
        why = self._suspects.sentence(job.id)
        return self._executor.timed_out(job, why) if why is not None else None

    # -- inside -------------------------------------------------------------------------

    async def _start_intake(self) -> None:
        self._cancelled = Cancelled(self._app, self._hear)
        self._cancelled.start()
        settings = self._app.settings
        self._strays = Strays(
            self._app, {delay_prefix(self._app.queue(name), settings) for name in self.queues}
        )
        self._strays.start()
        self._overdue = Overdue(self._app, self.queues[0])
        self._overdue.start()
        self._intake = Intake(
            self._app,
            {queue: self._group_size(index) for queue, index in self._group_of.items()},
            prefetch=self._prefetch,
            submit=self._submit,
            before=self._cancelled.caught_up,
            on_change=self._on_change,
        )
        self._intake.start()

    async def _close_intake(self) -> None:
        if self._intake is not None:
            await self._intake.close()
        if self._strays is not None:
            await self._strays.close()
        if self._overdue is not None:
            await self._overdue.close()
        if self._cancelled is not None:
            await self._cancelled.close()

    def _group_size(self, index: int) -> int:
        """Return how many tasks of a group can run at once."""
        group = self._groups[index]
        kinds = {task.pool for task in self._app.tasks.values()}
        only_isolated = kinds == {"process"} or (self._isolates_all and kinds <= {None, "process"})
        return group.processes if only_isolated else group.slots

    async def _settle_all(self, timeout: float) -> None:
        """Wait until every outcome is safe; what is not by then is delivered again."""
        try:
            async with asyncio.timeout(timeout):
                await self._settler.drain()
        except TimeoutError:
            log.warning(
                "node.unsettled count=%d: the broker delivers them again", self._settler.pending
            )

    def _claimed(self) -> list[Job]:
        """Take what runs from whatever runs it: its end has no consequences any more."""
        running = [job for job in self._executor.running.copy() if self._executor.claim(job)]
        for job in running:
            job.abandoned = True
        return running

    def _take_back(self) -> list[Job]:
        return [job for pools in self._pools for job in pools.take_back()]

    def _give_back(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._io.post(job.delivery.give_back)
        if jobs:
            log.info("node.gave_back count=%d: other workers get them", len(jobs))

    async def _on_io(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._io.submit(coroutine))
