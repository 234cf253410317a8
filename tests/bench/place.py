"""Where a run works on the broker: one queue of its own, gone without a trace afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pika
import pika.exceptions
import psutil

from tests.bench.machine import broker_of, used
from tests.bench.measure import Reading
from tests.servers import Names

ROOT = Path(__file__).parents[2]
#: Seconds that one reading may take; far more than any takes.
TIMEOUT = 180.0
#: Seconds between two looks at a file that something else writes.
PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Working:
    """A worker that runs.

    Attributes:
        seconds: What it took to get ready; None when nobody waited for that.
    """

    process: psutil.Process
    seconds: float | None


class Place:
    """A queue, and the processes that are measured on it.

    Args:
        url: The broker.

    Attributes:
        queue: Its name.
        exchange: Name of the topic exchange it is bound to.
        folder: For files that measured processes write.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._names = Names()
        self.queue = self._names.queue("bench")
        self.exchange = self._names.exchange("tasks")
        #: What programs run with.
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AMQTASK_")},
            "AMQTASK_BROKER": url,
            "AMQTASK_DEFAULT_QUEUE": self.queue,
            "AMQTASK_EXCHANGE": self.exchange,
            "AMQTASK_DEAD_LETTER_EXCHANGE": self._names.exchange("dead"),
            "AMQTASK_DELAY_PREFIX": self._names.delay_prefix(),
            "AMQTASK_CANCEL_EXCHANGE": self._names.cancel_exchange(),
            "PYTHONPATH": str(ROOT),
            # pip has compiled what the others are; ours is compiled by who runs it first
            "PYTHONDONTWRITEBYTECODE": "",
        }
        self._rivals: dict[str, str] = {}
        self._broker = broker_of(url)
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0  # it is idle for longer than any, while others are measured
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()

    @classmethod
    @contextlib.contextmanager
    def at(cls, url: str) -> Iterator[Place]:
        """Give a place for as long as the block runs."""
        with TemporaryDirectory(prefix="amqtask-bench-") as folder:
            place = cls(url, Path(folder))
            try:
                yield place
            finally:
                place._connection.close()
                place._names.delete(url)

    @property
    def address(self) -> dict[str, Any]:
        """Where a bare client publishes to."""
        return {"url": self.url, "exchange": self.exchange, "queue": self.queue}

    # -- programs ---------------------------------------------------------------

    def read(
        self,
        module: str,
        function: str,
        *,
        python: Path | None = None,
        environ: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> Reading:
        """Run one function of one side in a process of its own, and return what it measured.

        Args:
            python: The interpreter; this process's by default.
            environ: More variables.
            arguments: What the function is called with.
        """
        command = self._side(module, function, arguments, python)
        output = self.run(command, **(environ or {}))
        return Reading(**json.loads(output.splitlines()[-1]))

    def run(self, command: Sequence[str], **environment: str) -> str:
        """Run a program to its end and return its standard output."""
        done = subprocess.run(
            command,
            env={**self.environment, **environment},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            timeout=TIMEOUT,
            check=True,
            text=True,
        )
        return done.stdout

    @contextlib.contextmanager
    def program(self, module: str, function: str, **arguments: Any) -> Iterator[float]:
        """Run a function meanwhile that says that it is ready, and tell the seconds that took.

        It ends with its standard input, or before that.
        """
        began = time.perf_counter()
        process = subprocess.Popen(
            self._side(module, function, arguments),
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                raise AssertionError(f"{module}.{function} did not start")
            yield time.perf_counter() - began
        finally:
            process.communicate(timeout=TIMEOUT)  # ends its standard input, and so the process

    @contextlib.contextmanager
    def worker(
        self,
        *options: str,
        queues: Sequence[str] = (),
        processes: int = 1,
        ready: bool = False,
        **environment: str,
    ) -> Iterator[Working]:
        """Run ``amqtask worker`` meanwhile.

        Args:
            options: More of its command line.
            queues: What it works for; the place's own queue by default.
            ready: True waits until it consumes, which only its log tells: not to be
                used where logging would weigh on what is measured.
            environment: More variables.
        """
        level = "info" if ready else "warning"
        began = time.perf_counter()
        names = ",".join(queues or [self.queue])
        process = psutil.Popen(
            [
                *(sys.executable, "-m", "amqtask", "-A", "tests.bench.tasks:app", "worker"),
                *("--queues", names, "--processes", str(processes), "--loglevel", level),
                *options,
            ],
            env={**self.environment, **environment},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        said: list[str] = []
        heard = threading.Event()

        def listen() -> None:  # or it would wait, once a pipe is full of what it says
            for line in process.stderr or ():
                said.append(line)
                if "worker.ready" in line:
                    heard.set()
            heard.set()

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            if ready and not (heard.wait(TIMEOUT) and process.poll() is None):
                raise AssertionError(f"the worker did not start: {''.join(said)}")
            yield Working(process, time.perf_counter() - began if ready else None)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT)
            listener.join()
        rest = "".join(said)
        if process.returncode or " ERROR " in rest or "Traceback" in rest:
            raise AssertionError(f"the worker ended with {process.returncode}: {rest}")

    def await_marks(self, paths: Sequence[Path]) -> list[tuple[float, float]]:
        """Wait until the files are there; return the time and processor time in each."""
        await_true(lambda: all(path.exists() for path in paths), "the worker did not finish")
        marks = [tuple(json.loads(path.read_text())) for path in paths]
        for path in paths:
            path.unlink()
        return [(float(when), float(used)) for when, used in marks]

    def _side(
        self, module: str, function: str, arguments: dict[str, Any], python: Path | None = None
    ) -> list[str]:
        call = [module, function, json.dumps(arguments)]
        return [str(python or sys.executable), "-m", "tests.bench.side", *call]

    def broker_cpu(self) -> float | None:
        """Return the processor seconds that the broker has used; None when it is not here."""
        return None if self._broker is None else used([self._broker])

    # -- the queue ------------------------------------------------------------------

    def declare(self) -> None:
        """Make queue and exchange as amqtask does, by sending one task."""
        self.read("ours", "pipelined", count=1)
        self.purge()

    def purge(self) -> None:
        """Empty the queue."""
        self._channel.queue_purge(self.queue)

    def clean(self) -> None:
        """Empty all queues, and forget the marks, after something went wrong."""
        for path in self.folder.iterdir():
            path.unlink()
        for queue in (self.queue, f"{self.queue}.dead", *self._rivals.values()):
            with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                self._connection.channel().queue_purge(queue)

    def broker_cpu_since(self, before: float | None) -> float | None:
        """Return what the broker has used since `broker_cpu` returned ``before``."""
        now = self.broker_cpu()
        return None if now is None or before is None else now - before

    def marks(self, *names: str) -> list[Path]:
        """Return files that tasks write their marks to."""
        return [self.folder / name for name in names]

    def more_queues(self, count: int) -> list[str]:
        """Return names of so many queues beside its own, which are deleted in the end."""
        return [self._names.also(f"{self.queue}-{number}") for number in range(count)]

    def rival_queue(self, library: str) -> str:
        """Return the queue of another library; what it makes beside it is deleted, too."""
        if library not in self._rivals:
            name = self._rivals[library] = self._names(library)
            for more in (f"{name}.DQ", f"{name}.XQ"):
                self._names.also(more)
            self._names.also_exchange(f"{name}.exchange")
        return self._rivals[library]

    def purge_rival(self, library: str) -> None:
        """Empty the queue of another library."""
        self._channel.queue_purge(self.rival_queue(library))

    def depth(self, queue: str) -> int:
        """Return how many messages a queue holds ready."""
        count: int = self._channel.queue_declare(queue, passive=True).method.message_count
        return count

    def check_empty(self) -> None:
        """Raise unless every message was acked, and none was parked."""
        for queue in (self.queue, f"{self.queue}.dead"):
            if left := self.depth(queue):
                raise AssertionError(f"{left} messages are left in {queue!r}")

    def sample(self) -> tuple[dict[str, Any], bytes]:
        """Take the first message; return its headers and properties in one dict, and its body."""
        _, props, body = self._channel.basic_get(self.queue, auto_ack=True)
        assert props is not None
        assert body is not None
        return {**vars(props), **(props.headers or {}), "headers": None}, body


def await_true(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(PAUSE)
