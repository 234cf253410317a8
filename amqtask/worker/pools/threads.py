"""Threads for plain functions, started as they are needed."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from amqtask.worker.pools.waiting import Waiting

J = TypeVar("J")


#: Seconds without work after which a thread lets go of what it keeps for its jobs.
IDLE = 60.0


class Threads(ABC, Generic[J]):
    """At most ``size`` threads that take jobs in turn, started as they are needed.

    Daemon threads: a task that never ends must not keep a process from ending.

    Args:
        name: Start of the threads' names.

    Threads: every method from any thread.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self.waiting: Waiting[J] = Waiting()
        # True for each job that came; it may be taken back by then. False ends a thread.
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def submit(self, job: J) -> None:
        """Run ``job`` when a thread is free."""
        self.waiting.add(job)
        self._tokens.put(True)
        if len(self._threads) < self._size and self.waiting:
            self._start()

    def take_back(self) -> list[J]:
        """Return the jobs that have not started."""
        return self.waiting.drain()

    def join(self) -> None:
        """Have each thread end after its present job, and wait for them."""
        for _ in self._threads:
            self._tokens.put(False)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        with self._starting:
            if len(self._threads) >= self._size:
                return
            thread = threading.Thread(
                target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
        thread.start()

    @abstractmethod
    def _work(self) -> None:
        """Serve in a thread, to its end."""

    def _serve(self, run: Callable[[J], None], idle: Callable[[], None] | None = None) -> None:
        """Run jobs until told to end.

        Args:
            idle: Called when no job has come for `IDLE` seconds.
        """
        get, take, timeout = self._tokens.get, self.waiting.take, IDLE if idle else None
        while True:
            try:
                if not get(timeout=timeout):
                    return
                job = take()
            except Empty:
                if idle is not None:
                    idle()
                continue
            except IndexError:  # taken back
                continue
            run(job)
            del job  # and with it its body and arguments, which may be large, while this waits


class ThreadPool(Threads[J]):
    """Threads that run plain functions.

    Args:
        run: Called in a thread with each job; must not raise.
    """

    def __init__(self, size: int, run: Callable[[J], None], *, name: str = "amqtask-task") -> None:
        super().__init__(size, name)
        self._run = run

    def _work(self) -> None:
        self._serve(self._run)
