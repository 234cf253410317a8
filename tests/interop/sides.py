"""The two sides of the interop tests: a Celery worker as a process, an amqtask worker in a thread."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pika
import pika.exceptions
import pytest

from amqtask import App
from amqtask.testing import servers
from amqtask.worker import Node
from tests.helpers import eventually
from tests.servers import Names

ROOT = Path(__file__).parents[2]
#: Seconds a Celery worker has to start on a machine that is busy.
START = 120.0
#: A value of every kind that Celery serialises.
VALUES: list[Any] = [
    datetime(2026, 11, 23, 12, 30, 15, 250000, tzinfo=UTC),
    datetime(2026, 11, 23, tzinfo=UTC).date(),
    Decimal("12.50"),
    UUID("12345678-1234-5678-1234-567812345678"),
    b"text",
    b"\xff\x00",
    "ünïcode",
    2**70,
    1.5,
    True,
    None,
    [1, [2]],
    {"a": {"b": 1}},
]


@dataclass(frozen=True, slots=True)
class CeleryWorker:
    """A running Celery worker.

    Attributes:
        queue: What it consumes: durable, classic, without arguments.
    """

    url: str
    queue: str
    process: subprocess.Popen[bytes]
    output: Path

    def check(self) -> bool:
        """Return True while it runs; fail with its output when it ended."""
        if self.process.poll() is not None:
            text = self.output.read_text(errors="replace")[-4000:]
            pytest.fail(f"the Celery worker ended with {self.process.returncode}:\n{text}")
        return True

    def errors(self) -> list[str]:
        """Return what it logged as an error or a warning about messages."""
        words = ("ERROR", "CRITICAL", "Traceback", "unknown message", "unregistered")
        lines = self.output.read_text(errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in words)]


class CeleryWorkers:
    """Starts one Celery worker for each broker, and ends them."""

    def __init__(self) -> None:
        self._workers: dict[str, tuple[CeleryWorker, Names]] = {}

    def on(self, url: str) -> CeleryWorker:
        """Return the worker on this broker, once it consumes."""
        if url not in self._workers:
            names = Names()
            worker = _start(url, names)
            self._workers[url] = worker, names
            eventually(
                lambda: worker.check() and consumers(url, worker.queue),
                timeout=START,
                message="the Celery worker did not consume",
            )
        worker = self._workers[url][0]
        worker.check()
        return worker

    def stop(self) -> None:
        """End all workers and delete what they left on the brokers."""
        for worker, names in self._workers.values():
            if worker.process.poll() is None:
                os.killpg(worker.process.pid, signal.SIGKILL)
            with worker.process:  # closes its input
                worker.process.wait()
            worker.output.unlink()
            names.delete(worker.url)


def _start(url: str, names: Names) -> CeleryWorker:
    queue = names("celery")  # Celery makes an exchange of the same name
    with tempfile.NamedTemporaryFile(prefix="amqtask-celery-", delete=False) as output:
        process = subprocess.Popen(
            [
                # so that it ends with the tests, also when these are killed
                *(sys.executable, "-c", servers._GUARD),
                *(sys.executable, "-m", "celery", "-A", "tests.interop.celery_app", "worker"),
                *("--pool", "threads", "--concurrency", "2", "--loglevel", "info"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "INTEROP_BROKER": url,
                "INTEROP_QUEUE": queue,
                "INTEROP_EVENTS": names.exchange("celeryev"),
            },
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return CeleryWorker(url, queue, process, Path(output.name))


def consumers(url: str, queue: str) -> int:
    """Return how many consumers a queue has; 0 also when there is no such queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        try:
            declared = connection.channel().queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return 0
        return int(declared.method.consumer_count)


@contextmanager
def running(app: App, *queues: str) -> Iterator[Node]:
    """Run an amqtask worker on an event loop in a thread of its own."""
    node = Node(app, queues, name="interop-worker")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="interop-worker")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(node.start(), loop).result(START)
        eventually(lambda: node.ready, message="the worker did not consume")
        yield node
    finally:
        asyncio.run_coroutine_threadsafe(node.stop(), loop).result(START)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(START)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
