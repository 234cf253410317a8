"""Workers under test, started as a user starts them, and what can be seen of them from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from amqtask.worker.template import NAME as TEMPLATE

ROOT = Path(__file__).parents[3]
#: Seconds that a worker has to end in good order: its longest task, with room for a loaded machine.
STOP_TIMEOUT = 60.0


#: Becomes the worker, which the kernel then kills when the run is killed: a worker that nobody
#: watches would look for its broker for ever. Elsewhere than on Linux it would do just that.
_MORTAL = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process had at one time.

    Attributes:
        at: `time.monotonic`.
        rss: Bytes.
        fds: Open descriptors.
    """

    at: float
    rss: int
    fds: int
    threads: int


@dataclass(slots=True)
class Member:
    """A process of a worker, alive or gone.

    Attributes:
        role: ``supervisor``, ``child`` or ``runner``.
        child: The child it belongs to: itself, for a child; 0 for the supervisor.
    """

    process: psutil.Process
    role: str
    child: int
    samples: list[Sample] = field(default_factory=list)


class Worker:
    """One worker, and after each restart the next one in its place.

    Attributes:
        name: In its log lines.
        members: Every process it ever had, by pid; pids do not come again in one run's time.
        supervisors: Pids of its supervisors, the present one last.
    """

    def __init__(
        self, name: str, folder: Path, environ: Mapping[str, str], options: Sequence[str]
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._environ = dict(environ)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.members: dict[int, Member] = {}
        self.supervisors: list[int] = []

    def start(self) -> None:
        """Start it, or the next one; from a thread that lives as long as the run."""
        command = [sys.executable, "-c", _MORTAL]
        command += [sys.executable, "-m", "amqtask", "-A", "tests.acceptance.chaos.tasks:app"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "worker", "--name", self.name, *self._options],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.supervisors.append(self._process.pid)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def children(self) -> list[psutil.Process]:
        """The supervisor's children, in the order of their start."""
        return _children(self.process.pid)

    @property
    def runners(self) -> list[psutil.Process]:
        """The processes in which isolated tasks run."""
        return [runner for child in self.children for runner in _children(child.pid)]

    @property
    def readies(self) -> int:
        """How often it, or one before it, has said that it is ready."""
        return self.log.read_text(errors="replace").count(" worker.ready ")

    def catches(self, number: signal.Signals) -> bool:
        """Whether the supervisor has a handler for a signal; where it cannot be seen, no."""
        status = Path(f"/proc/{self.process.pid}/status")
        with suppress(OSError):
            for line in status.read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)

    def kill(self) -> None:
        """Kill all of it at once, as a machine that loses its power."""
        tree = [*self.children, *self.runners]
        self.process.kill()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def look(self) -> None:
        """Take a sample of each process."""
        with suppress(psutil.NoSuchProcess):
            self._see(psutil.Process(self.process.pid), "supervisor", 0)
        for child in self.children:
            self._see(child, "child", child.pid)
            for runner in _children(child.pid):
                self._see(runner, "runner", child.pid)

    def _see(self, process: psutil.Process, role: str, child: int) -> None:
        with suppress(psutil.NoSuchProcess):
            member = self.members.setdefault(process.pid, Member(process, role, child))
            if process.status() == psutil.STATUS_ZOMBIE:
                return
            member.samples.append(
                Sample(
                    time.monotonic(),
                    process.memory_info().rss,
                    process.num_fds(),
                    process.num_threads(),
                )
            )

    def alive(self) -> list[Member]:
        """Return the processes it ever had that still run."""
        return [member for member in self.members.values() if _runs(member.process)]

    def tail(self, lines: int = 30) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _children(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children()
        found = [process for process in found if process.name() != TEMPLATE]
    except psutil.NoSuchProcess:
        return []
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
