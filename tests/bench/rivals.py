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
from dataclasses import dataclass

import psutil

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
        on_loop: Whether its tasks are async.
    """

    label: str
    module: str
    safe: bool
    worker: Sequence[str]
    on_loop: bool = False

    def environ(self, place: Place, *, results: bool = False) -> dict[str, str]:
        """Return the variables of its programs."""
        return {
            "BENCH_URL": place.url,
            "BENCH_QUEUE": self.queue(place),
            "BENCH_SAFE": "1" if self.safe else "0",
            "BENCH_RESULTS": "1" if results else "0",
        }

    def queue(self, place: Place) -> str:
        """Return the name of its queue, and have all that the library makes deleted in the end."""
        return place.rival_queue(self.library)

    @property
    def library(self) -> str:
        """Name of the library."""
        return self.module.removesuffix("_side")

    def read(self, place: Place, function: str, **arguments: object) -> Reading:
        """Run one function of its client in a process of its own."""
        results = function in ("round_trips", "in_flight")
        return place.read(
            f"peers.{self.module}",
            function,
            python=environment.python(),
            environ=self.environ(place, results=results),
            **arguments,
        )

    @contextlib.contextmanager
    def working(self, place: Place, *, results: bool = False) -> Iterator[psutil.Process]:
        """Run its worker meanwhile."""
        words = [word.format(queue=self.queue(place)) for word in self.worker]
        process = psutil.Popen(
            [str(environment.python()), *words],
            env={**place.environment, **self.environ(place, results=results)},
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
                for each in (*process.children(recursive=True), process):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
                process.wait(TIMEOUT)

    def drain(self, place: Place, count: int) -> Mapping[str, Reading]:
        """Time its worker from the first of so many tasks to the last."""
        paths = [place.folder / name for name in ("first", "last")]
        marks = [str(path) for path in paths]
        self.read(place, "fill", count=count, marks=marks, on_loop=self.on_loop)
        with self.working(place) as process:
            await_true(paths[0].exists, f"the worker of {self.label} did not start")
            used = _used(process)
            first, last = place.await_marks(paths)
            used = _used(process) - used
        return {self.label: Reading(count, last[0] - first[0], used)}


def _used(process: psutil.Process) -> float:
    """Return the processor seconds of a process and all below it."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def _celery(*options: str) -> tuple[str, ...]:
    return (
        *("-m", "celery", "-A", "tests.bench.peers.celery_side", "worker", "-Q", "{queue}"),
        *("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        # two workers of one name cannot run at the same time: their control queue is exclusive
        *("-n", "{queue}@%h"),
        *options,
    )


_DRAMATIQ = (
    *("-m", "dramatiq", "tests.bench.peers.dramatiq_side", "--queues", "{queue}"),
    *("--processes", "1", "--threads", "8"),
)


def _taskiq(ack: str) -> tuple[str, ...]:
    return (
        *("-m", "taskiq", "worker", "tests.bench.peers.taskiq_side:broker", "--workers", "1"),
        *("--max-async-tasks", "500", "--ack-type", ack, "--log-level", "ERROR"),
    )


CELERY = Rival("Celery, solo, best", "celery_side", False, _celery("--pool", "solo"))
CELERY_PREFORK = Rival(
    "Celery, prefork 1, best", "celery_side", False, _celery("--pool", "prefork", "-c", "1")
)
CELERY_SAFE = Rival("Celery, solo, safe", "celery_side", True, _celery("--pool", "solo"))
DRAMATIQ = Rival("Dramatiq, best", "dramatiq_side", False, _DRAMATIQ)
DRAMATIQ_SAFE = Rival("Dramatiq, safe", "dramatiq_side", True, _DRAMATIQ)
TASKIQ = Rival("Taskiq, best", "taskiq_side", False, _taskiq("when_received"), on_loop=True)
TASKIQ_SAFE = Rival("Taskiq, safe", "taskiq_side", True, _taskiq("when_executed"), on_loop=True)
