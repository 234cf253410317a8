"""Programs under test: started as a user starts them, and what they write."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from amqtask.worker.template import NAME as TEMPLATE
from tests.helpers import eventually
from tests.servers import Names

ROOT = Path(__file__).parents[2]
#: The head of a tasks.py whose tasks write words into the file ``ledger``.
WRITING = """
import asyncio, os, re, time
from amqtask import App

app = App("tests")
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def write(word):
    os.write(ledger, f"{word}\\n".encode())
"""
#: Seconds a program may take; none needs a tenth of it on an idle machine.
TIMEOUT = 120.0


class Program:
    """A process whose standard error is kept, line by line."""

    def __init__(self, command: list[str], folder: Path, environ: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Wait until it has written ``text``."""
        eventually(lambda: text in self.output or self.process.poll() is not None, timeout=TIMEOUT)
        if text not in self.output:
            self._reader.join(TIMEOUT)  # it has ended, and its last lines may be on their way
        assert text in self.output, self.output

    def wait_for_count(self, text: str, count: int) -> None:
        """Wait until it has written ``text`` so many times."""
        eventually(lambda: self.output.count(text) >= count, timeout=TIMEOUT)

    @property
    def output(self) -> str:
        """What it has written so far."""
        return "\n".join(self.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal and return its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return code

    def children(self) -> list[psutil.Process]:
        """Return the processes that run its tasks; none once it has ended."""
        found: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.name() != TEMPLATE:
                        found.append(process)
        return found

    def kill(self) -> None:
        """Kill it, and what it started, for good."""
        if self.process.poll() is None:
            children = self.children()
            self.process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.wait()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.lines.extend(line.rstrip() for line in lines)


class Workshop:
    """A folder with a tasks.py, and the workers that run in it.

    Attributes:
        queue: The queue its tasks are sent to.
        environ: What programs in it get as their environment.
    """

    def __init__(self, folder: Path, url: str, names: Names) -> None:
        self.folder = folder
        self.queue = names.queue("work")
        self._settings = {
            "AMQTASK_BROKER": url,
            "AMQTASK_DEFAULT_QUEUE": self.queue,
            "AMQTASK_EXCHANGE": names.exchange(),
            "AMQTASK_DEAD_LETTER_EXCHANGE": names.exchange("dead"),
            "AMQTASK_DELAY_PREFIX": names.delay_prefix(),
            "AMQTASK_CANCEL_EXCHANGE": names.cancel_exchange(),
            "AMQTASK_CONTROL_EXCHANGE": names.exchange("control"),
            "AMQTASK_BEAT_QUEUE": names.beat_queue(),
        }
        kept = {key: word for key, word in os.environ.items() if not key.startswith("AMQTASK_")}
        self.environ = kept | self._settings | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        self._programs: list[Program] = []

    def write(self, source: str, name: str = "tasks.py") -> None:
        """Write a module into the folder."""
        (self.folder / name).write_text(source, encoding="utf-8")

    def worker(self, *arguments: str, **environ: str) -> Program:
        """Start ``amqtask worker``."""
        return self.program("worker", *arguments, **environ)

    def program(self, *arguments: str, **environ: str) -> Program:
        """Start an ``amqtask`` command; it is killed when the test ends."""
        command = [sys.executable, "-m", "amqtask", *arguments]
        program = Program(command, self.folder, self.environ | environ)
        self._programs.append(program)
        return program

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run an ``amqtask`` command to its end."""
        return self.python("-m", "amqtask", *arguments, **environ)

    def python(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the folder to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def ledger(self) -> list[str]:
        """Return the lines that tasks have written into the file ``ledger``."""
        path = self.folder / "ledger"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def close(self) -> None:
        """Kill what still runs."""
        for program in self._programs:
            program.kill()


@contextlib.contextmanager
def workshop_in(folder: Path, url: str, names: Names) -> Iterator[Workshop]:
    """Give a workshop, and end all of its programs."""
    workshop = Workshop(folder, url, names)
    try:
        yield workshop
    finally:
        workshop.close()


@pytest.fixture
def workshop(broker: str, names: Names, tmp_path: Path) -> Iterator[Workshop]:
    """A workshop on each broker in turn."""
    with workshop_in(tmp_path, broker, names) as made:
        yield made
