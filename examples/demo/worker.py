"""The worker of the demo: ``amqtask worker`` as a process of its own, ended whatever happens."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType

#: Seconds it has to get ready, and to end after a signal.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
_ROOT = Path(__file__).parents[2]


class Worker:
    """A running ``amqtask worker``; a ``with`` block ends it.

    Args:
        queues: Queues it consumes.

    Attributes:
        output: The last lines it wrote.
    """

    def __init__(self, *queues: str) -> None:
        command = [sys.executable, "-m", "amqtask", "-A", "examples.demo.tasks:app"]
        self._process = subprocess.Popen(
            [*command, "worker", "--queues", ",".join(queues), "--loglevel", "info"],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C reaches the demo only, which then ends the worker
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.output: deque[str] = deque(maxlen=25)
        self._ready = threading.Event()
        threading.Thread(target=self._read, name="worker output", daemon=True).start()

    def wait_ready(self) -> bool:
        """Wait until it consumes all its queues; False when it ended, or takes too long."""
        return self._ready.wait(START_TIMEOUT) and self.running

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Ask it to finish what runs, and return its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            self._process.kill()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.output.append(line.rstrip())
            if "worker.ready" in line:
                self._ready.set()
        self._ready.set()  # it has ended, and nobody need wait for it
