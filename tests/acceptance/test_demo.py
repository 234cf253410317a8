"""The demo: right counts and exit code 0, and a clear word where it cannot run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import psutil
import pytest

from amqtask.testing import Server
from examples.demo.report import Kind
from tests.helpers import eventually

ROOT = Path(__file__).parents[2]
#: Seconds; it takes about five on an idle machine.
TIMEOUT = 120.0


def environ(url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AMQTASK_")}
    return kept | {"AMQTASK_BROKER": url, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}


def demo(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env=environ(url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


class Running:
    """A demo that was started, and what it prints."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.demo"],
            cwd=ROOT,
            env=environ(url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self, start: str) -> str:
        """Wait for the line that starts so, and return it."""

        def found() -> str:
            return next((line for line in list(self.lines) if line.startswith(start)), "")

        return eventually(found, timeout=TIMEOUT, message=f"the demo printed no {start!r} line")

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(line.rstrip() for line in lines)


@pytest.fixture
def start() -> Iterator[Callable[[str], Running]]:
    """Starts a demo, and kills it at the end if it still runs."""
    made: list[Running] = []

    def begin(url: str) -> Running:
        made.append(Running(url))
        return made[-1]

    yield begin
    for each in made:
        each.process.kill()
        each.wait()


def test_it_brings_its_own_broker() -> None:
    """With no AMQTASK_BROKER it needs nothing but Python, and every count is right as well."""
    done = demo("")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(the embedded broker, for this run)" in done.stdout


def test_every_count_is_right(broker: str) -> None:
    """It ends with 0, and its table says what became of every kind of call."""
    done = demo(broker)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        line.split() for line in done.stdout.splitlines() if re.match(r"\s*[a-z]+\.[a-z]+ ", line)
    ]
    # kind, sent, done, retried, dead
    assert [row[:5] for row in rows] == [
        ["email.reminder", "1", "1", "0", "0"],
        ["email.receipt", "40", "40", "10", "0"],
        ["email.welcome", "500", "500", "0", "0"],
        ["reports.daily", "60", "60", "0", "0"],
        ["reports.yearly", "1", "0", "0", "1"],
    ]
    assert (
        "dead     yearly is in reports.dead: failed in attempt 1, "
        "ValueError: no figures for the year 2100\n" in done.stdout
    )
    assert done.stdout.splitlines()[-1].startswith("every count is right; it took ")
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(
    rabbitmq: Server, start: Callable[[str], Running], number: signal.Signals
) -> None:
    """Ctrl-C, or SIGTERM, in the middle: the worker is stopped and nothing is left on the broker."""
    running = start(rabbitmq.url)
    worker = psutil.Process(int(re.findall(r"process (\d+)", running.line("worker"))[0]))
    run = next(value for name, value in worker.environ().items() if name == "DEMO_RUN")
    running.line("sent")
    running.process.send_signal(number)
    assert running.wait() == 130
    assert running.lines[-1] == "stopped"
    assert not worker.is_running()
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    for queue in (f"{run}.email", f"{run}.email.dead", f"{run}.delay.level00.1"):
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            connection.channel().queue_declare(queue, passive=True)
    connection.close()


def test_a_wrong_count_is_told() -> None:
    """Each count that is not as it should be gets a line, and so does a delay that was too short."""
    welcome = Kind("email.welcome", sent=2, retries=1, delay=2.0)
    welcome.ran(sent=10.0, started=11.5, attempt=1)
    assert welcome.wrong() == [
        "email.welcome: 1 done, 2 expected",
        "email.welcome: 0 retried, 1 expected",
        "email.welcome: started after 1.500 s, before its time",
    ]
    assert Kind("reports.yearly", sent=1, fails=True).wrong() == [
        "reports.yearly: 0 dead, 1 expected"
    ]


def test_right_counts_are_not_mentioned() -> None:
    """A kind of call whose counts are right has nothing to say."""
    receipt = Kind("email.receipt", sent=1, retries=1)
    receipt.ran(sent=10.0, started=10.5, attempt=2)
    assert receipt.wrong() == []


def test_without_a_broker() -> None:
    """Where AMQTASK_BROKER does not answer it says so, and ends with 2."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        done = demo(f"amqp://ada:secret@127.0.0.1:{port}/")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.sub(r"Errno \d+", "Errno N", done.stderr) == (
        f"demo: no broker answers: amqp://ada@127.0.0.1:{port}: [Errno N] Connection refused\n"
        "  start it, or correct AMQTASK_BROKER, or unset it: the demo then brings its own\n"
    )
