"""Chords under fire: workers killed, links cut, and every body runs with the whole list in order."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from amqtask.testing.servers import Server
from tests.acceptance.program import Program, Workshop, workshop_in
from tests.helpers import eventually
from tests.proxy import Proxy, proxied
from tests.servers import Names

TASKS = """
import json, os, time
from amqtask import App

app = App("chords")
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.task(name="member")
def member(number, index):
    time.sleep(0.002)
    return [number, index]

@app.task(name="body")
def body(values):
    os.write(ledger, (json.dumps(values) + "\\n").encode())
"""
SEND = """
import sys
from concurrent.futures import ThreadPoolExecutor
from amqtask import chord
from tasks import app, body, member

first, count, size = map(int, sys.argv[1:])

def send(number):
    chord([member.s(number, index) for index in range(size)], body.s()).delay()

with ThreadPoolExecutor(4) as pool:
    list(pool.map(send, range(first, first + count)))
app.close()
"""
SIZE = 20
#: What goes wrong, all of it before any of it comes again.
WAYS = ("child", "cut", "child", "cut", "worker")
PREFETCH, PROCESSES = 20, 2
#: Seconds for all of it; far more than it takes.
_LONG = 240.0


def _count() -> int:
    """Return how many chords run: ``AMQTASK_CHORDS``, 1,000 for the full check."""
    return int(os.environ.get("AMQTASK_CHORDS", "40"))


class Trouble:
    """Kills children and workers, and cuts their links, at random, until it is told to stop.

    Attributes:
        count: How often it did.
    """

    def __init__(self, workshop: Workshop, proxy: Proxy, seed: int) -> None:
        self.count: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._workshop = workshop
        self._proxy = proxy
        self._stopping = threading.Event()
        self.worker = self._start()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _start(self) -> Program:
        options = ("--processes", str(PROCESSES), "--prefetch", str(PREFETCH))
        worker = self._workshop.worker(
            *options, "--loglevel", "error", AMQTASK_BROKER=self._proxy.url
        )
        eventually(lambda: len(worker.children()) == PROCESSES, timeout=_LONG)
        return worker

    def _run(self) -> None:
        ways: list[str] = []
        while not self._stopping.wait(self._random.uniform(0.5, 2.0)):
            if not ways:
                ways = [*WAYS]
                self._random.shuffle(ways)
            what = ways.pop()
            self.count[what] += 1
            if what == "cut":
                self._proxy.cut()
            elif what == "worker":
                self.worker.kill()
                self.worker = self._start()
            elif children := self.worker.children():
                with suppress(psutil.NoSuchProcess):
                    self._random.choice(children).send_signal(signal.SIGKILL)


@contextmanager
def _trouble(
    tmp_path: Path, url: str, backend: str, names: Names, seed: int
) -> Iterator[tuple[Workshop, Trouble]]:
    with proxied(url) as proxy, workshop_in(tmp_path, url, names) as workshop:
        workshop.environ |= {
            "AMQTASK_BACKEND": backend,
            "AMQTASK_RESULT_PREFIX": f"test-{os.getpid()}",
            # what is killed here is not to blame
            "AMQTASK_CRASH_LIMIT": "1000",
        }
        workshop.write(TASKS)
        workshop.write(SEND, "send.py")
        trouble = Trouble(workshop, proxy, seed)
        try:
            yield workshop, trouble
        finally:
            trouble.stop()


@pytest.mark.parametrize("kind", ["rpc", "redis"])
def test_every_body_runs_whatever_dies(
    request: pytest.FixtureRequest, any_broker: Server, names: Names, tmp_path: Path, kind: str
) -> None:
    """None hangs, none is lost, each has the whole list; few run twice."""
    count = _count()
    seed = int(os.environ.get("AMQTASK_CHORDS_SEED", "11"))
    backend = "rpc://" if kind == "rpc" else request.getfixturevalue("redis").url
    with _trouble(tmp_path, any_broker.url, backend, names, seed) as (workshop, trouble):
        begun, step = time.monotonic(), 20
        for first in range(0, count, step):
            sent = workshop.python("send.py", str(first), str(min(step, count - first)), str(SIZE))
            assert sent.returncode == 0, sent.stderr
        eventually(lambda: trouble.count.total() >= len(WAYS), timeout=_LONG)
        trouble.stop()
        try:
            eventually(lambda: len(_bodies(workshop)) == count, timeout=_LONG + count / 10)
        finally:
            missing = sorted(set(range(count)) - set(_bodies(workshop)))
            print(
                f"{count} chords of {SIZE}, {dict(trouble.count)} in "
                f"{time.monotonic() - begun:.0f} s; missing {missing[:20]}"
            )
        for number, lists in _bodies(workshop).items():
            for values in lists:
                assert values == [[number, index] for index in range(SIZE)]
        repeats = len(workshop.ledger()) - count
        print(f"{repeats} bodies ran more than once")
        assert repeats <= trouble.count.total() * PREFETCH * PROCESSES
        # its code tells nothing here: the child that it begins in place of a killed one may be
        # killed by the stop itself, and counts as failed then
        trouble.worker.stop()


def _bodies(workshop: Workshop) -> dict[int, list[list[list[int]]]]:
    bodies: dict[int, list[list[list[int]]]] = {}
    for line in workshop.ledger():
        values = json.loads(line)
        bodies.setdefault(values[0][0], []).append(values)
    return bodies
