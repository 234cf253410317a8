"""Runners in their slots: one call at a time in each, in a process that can be killed.

A slot is a thread that waits for its runner's word. So nothing here runs on
the I/O loop, and a runner that is slow to start or to answer holds up nobody.

A runner starts with the first job of its slot, serves until it has had its
number of jobs or memory, and ends when there has been nothing to do for a
while. One that cannot start is tried again, with back-off; its job waits with
it, since giving it back would count against it on most brokers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from amqtask.transport.backoff import Backoff
from amqtask.worker.pools.handle import Runner, RunnerBroken, RunnerDied
from amqtask.worker.pools.threads import Threads

log = logging.getLogger(__name__)

J = TypeVar("J")

Spec = Callable[[], dict[str, Any]]


class ProcessPool(Threads[J]):
    """At most ``size`` runners.

    Args:
        run: Called in a slot's thread with each job and the slot; must not raise.
        spec: Returns what a runner has to know.
        max_tasks: Jobs after which a runner is replaced; None for no limit.
        max_memory: Bytes of memory over which it is replaced after its job.
    """

    def __init__(
        self,
        size: int,
        run: Callable[[J, Seat], None],
        spec: Spec,
        *,
        name: str = "amqtask-runner",
        max_tasks: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        super().__init__(size, name)
        self._run_in = run
        self.spec = spec
        self.max_tasks = max_tasks
        self.max_memory = max_memory
        #: Set when no more jobs shall begin.
        self.stopping = threading.Event()
        self._seats: list[Seat] = []

    @property
    def broken(self) -> str | None:
        """Why runners cannot start; None when they can, as far as is known."""
        return next((seat.broken for seat in self._seats if seat.broken), None)

    @property
    def pids(self) -> list[int]:
        """The runners' processes."""
        return [seat.pid for seat in list(self._seats) if seat.pid is not None]

    def begin_to_stop(self) -> None:
        """Let no job begin that still waits for its runner."""
        self.stopping.set()

    def kill(self) -> None:
        """Kill all runners."""
        self.stopping.set()
        for seat in list(self._seats):
            seat.kill()

    def _work(self) -> None:
        seat = Seat(self)
        self._seats.append(seat)
        try:
            self._serve(lambda job: self._run_in(job, seat), seat.rest)
        finally:
            seat.rest()


class Seat:
    """One slot of a pool, with the runner it keeps.

    Threads: its own; `kill` from any.
    """

    def __init__(self, pool: ProcessPool[Any]) -> None:
        self._pool = pool
        self._runner: Runner | None = None
        self._jobs = 0
        self._backoff = Backoff(first=0.5, cap=30.0)
        self.broken: str | None = None

    @property
    def pid(self) -> int | None:
        """The runner's process."""
        runner = self._runner
        return runner.pid if runner is not None else None

    def runner(self) -> Runner | None:
        """Return a runner that is ready; None when the pool stops before there is one."""
        while not self._pool.stopping.is_set():
            if self._runner is not None:
                return self._runner
            try:
                self._start()
            except (RunnerBroken, RunnerDied, OSError) as error:
                self._runner = None
                self.broken = str(error)
                wait = self._backoff.next()
                log.error(
                    "runner.cannot_start error=%s: trying again in %.1f s, its task waits",
                    error,
                    wait,
                )
                self._pool.stopping.wait(wait)
        return None

    def served(self, memory: int) -> None:
        """Note that a job has ended in the runner, which has so many bytes of memory now."""
        self._jobs += 1
        pool = self._pool
        if pool.max_tasks is not None and self._jobs >= pool.max_tasks:
            log.info("runner.recycled pid=%s jobs=%d: another one follows", self.pid, self._jobs)
            self.rest()
        elif pool.max_memory is not None and memory > pool.max_memory:
            log.info("runner.recycled pid=%s memory=%d: another one follows", self.pid, memory)
            self.rest()

    def lost(self, *, begun: bool) -> None:
        """Note that the runner is dead; one that died before its job began is not replaced at once."""
        self._runner = None
        if not begun:
            self._pool.stopping.wait(self._backoff.next())

    def rest(self) -> None:
        """End the runner; another one starts with the next job."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def kill(self) -> None:
        """Kill the runner."""
        runner = self._runner
        if runner is not None:
            runner.kill()

    def _start(self) -> None:
        self._runner = runner = Runner(self._pool.spec())
        if self._pool.stopping.is_set():
            runner.kill()  # whoever killed the others has not seen it
        runner.start()
        log.info("runner.ready pid=%d", runner.pid)
        self._jobs = 0
        self.broken = None
        self._backoff.reset()
