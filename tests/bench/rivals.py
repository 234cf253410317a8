"""The other libraries as contenders: which program each runs, and how it is set.

A rival comes in two settings. *Best* is the fastest that its own settings allow for this work,
whatever that costs in safety; *safe* is confirms on and acks after the run, which is what amqtask
does always.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from tests.bench.machine import tree, used
from tests.bench.measure import Reading
from tests.bench.peers import environment
from tests.bench.place import ROOT, TIMEOUT, Place, await_true


@dataclass(frozen=True, slots=True)
class Rival:
    """One library in one setting.

    Attributes:
        label: What its rows are called.
        module: Its program in `tests.bench.peers`.
        safe: Whether it confirms, and acks after the run.
        worker: Arguments of its worker command, after its Python; ``{queue}`` is filled in.
        variables: More of its environment.
    """

    label: str
    module: str
    safe: bool
    worker: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)

    def environ(self, place: Place, results: str = "") -> dict[str, str]:
        """Return the variables of its programs."""
        return {
            "BENCH_URL": place.url,
            "BENCH_QUEUE": place.rival_queue(self.library),
            "BENCH_SAFE": "1" if self.safe else "0",
            "BENCH_RESULTS": results,
            **self.variables,
        }

    @property
    def library(self) -> str:
        """Name of the library."""
        return self.module.removesuffix("_side")

    def read(
        self, place: Place, function: str, *, results: str = "", **arguments: object
    ) -> Reading:
        """Run one function of its client in a process of its own.

        Args:
            results: Where results go, as the library writes it.
        """
        return place.read(
            f"peers.{self.module}",
            function,
            python=environment.python(),
            environ=self.environ(place, results),
            **arguments,
        )

    def mark(self, place: Place, path: str) -> None:
        """Send a task that writes a mark."""
        self.read(place, "fill", count=0, marks=[path], kind="noop", size=0)

    @contextlib.contextmanager
    def working(self, place: Place, *, results: str = "") -> Iterator[psutil.Process]:
        """Run its worker meanwhile."""
        queue = place.rival_queue(self.library)
        process = psutil.Popen(
            [str(environment.python()), *(word.format(queue=queue) for word in self.worker)],
            env={**place.environment, **self.environ(place, results)},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TIMEOUT / 10)
            except psutil.TimeoutExpired:
                for each in reversed(tree(process)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
                process.wait(TIMEOUT)

    def drain(
        self, place: Place, count: int, kind: str = "noop", size: int = 0
    ) -> Mapping[str, Reading]:
        """Time its worker from the first of so many tasks to the last; see `ours.fill`."""
        paths = place.marks("first", "last")
        marks = [str(path) for path in paths]
        self.read(place, "fill", count=count, marks=marks, kind=kind, size=size)
        with self.working(place) as process:
            await_true(paths[0].exists, f"the worker of {self.label} did not start")
            begun, broker = used(tree(process)), place.broker_cpu()
            first, last = place.await_marks(paths)
            cpu, served = used(tree(process)) - begun, place.broker_cpu_since(broker)
        place.purge_rival(self.library)
        return {self.label: Reading(count, last[0] - first[0], cpu, served)}


def _celery(label: str, *options: str, safe: bool = False) -> Rival:
    worker = (
        *("-m", "celery", "-A", "tests.bench.peers.celery_side", "worker", "-Q", "{queue}"),
        *("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        # two workers of one name cannot run at the same time: their control queue is exclusive
        *("-n", "{queue}@%h"),
        *options,
    )
    return Rival(f"Celery, {label}", "celery_side", safe, worker)


def _dramatiq(label: str, processes: int = 1, threads: int = 8, *, safe: bool = False) -> Rival:
    worker = (
        *("-m", "dramatiq", "tests.bench.peers.dramatiq_side", "--queues", "{queue}"),
        *("--processes", str(processes), "--threads", str(threads)),
    )
    variables = {} if safe else {"dramatiq_queue_prefetch": "500"}
    return Rival(f"Dramatiq, {label}", "dramatiq_side", safe, worker, variables)


def _taskiq(label: str, workers: int = 1, at_once: int = 500, *, safe: bool = False) -> Rival:
    worker = (
        *("-m", "taskiq", "worker", "tests.bench.peers.taskiq_side:broker"),
        *("--workers", str(workers), "--max-async-tasks", str(at_once), "--log-level", "ERROR"),
        *("--ack-type", "when_executed" if safe else "when_received"),
    )
    return Rival(f"Taskiq, {label}", "taskiq_side", safe, worker)


CELERY = _celery("solo, best", "--pool", "solo")
CELERY_PREFORK = _celery("prefork 1, best", "--pool", "prefork", "-c", "1")
CELERY_SAFE = _celery("solo, safe", "--pool", "solo", safe=True)
DRAMATIQ = _dramatiq("best")
DRAMATIQ_SAFE = _dramatiq("safe", safe=True)
TASKIQ = _taskiq("best")
TASKIQ_SAFE = _taskiq("safe", safe=True)


def by_core(cores: int) -> list[Rival]:
    """Return them with a process for each processor, at their best."""
    word = f"{cores} processes, best"
    return [
        _celery(f"prefork {cores}, best", "--pool", "prefork", "-c", str(cores)),
        _dramatiq(word, cores),
        _taskiq(word, cores),
    ]


def at_once(number: int) -> list[Rival]:
    """Return them in one process that runs so many tasks at once, at their best."""
    return [
        _celery(f"{number} threads, best", "--pool", "threads", "-c", str(number)),
        _dramatiq(f"{number} threads, best", threads=number),
        _taskiq(f"{number} at once, best", at_once=number),
    ]
