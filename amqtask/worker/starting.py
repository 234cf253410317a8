"""How a child's process comes to be: as a fresh Python here, as a copy in `amqtask.worker.forks`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from amqtask.worker.process import MALLOC
from amqtask.worker.spec import WorkerSpec


class Process(Protocol):
    """As much of `subprocess.Popen` as a child needs."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, unless it has ended."""

    def kill(self) -> None:
        """End it."""


#: Starts a child that has a run board of that descriptor; returns it with our end of its line.
Start = Callable[[WorkerSpec, int], tuple[Process, socket.socket]]


class Starter:
    """Starts children, each as a fresh Python.

    Attributes:
        adopts: Whether what is orphaned below this process becomes its own.
    """

    adopts = False

    @property
    def pids(self) -> set[int]:
        """Processes of ours that are no children."""
        return set()

    def __call__(self, spec: WorkerSpec, board: int) -> tuple[Process, socket.socket]:
        """Start a child with the descriptor of its run board; returns it with our end of its line.

        Raises:
            OSError: It cannot be started.
        """
        return start_python(spec, board)

    def look(self) -> None:
        """See whether all is well; called at each round."""

    async def renew(self, spec: WorkerSpec) -> None:
        """Prepare for children with the code as it is now."""

    def close(self) -> None:
        """Let go of all but the children."""


def start_python(spec: WorkerSpec, board: int) -> tuple[Process, socket.socket]:
    """Start a child as a fresh Python; see `Starter`."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "amqtask.worker.child"],
                stdin=theirs.fileno(),
                close_fds=True,
                pass_fds=[board],
                env=environment(spec),
            )
    except OSError:
        ours.close()
        raise
    send_spec(ours, spec.line(board=board))
    return process, ours


def environment(spec: WorkerSpec) -> dict[str, str]:
    """Return the environment of a child."""
    malloc = {name: str(wanted) for name, (_, wanted) in MALLOC.items()}
    return {**malloc, **os.environ, **spec.environ}


def send_spec(sock: socket.socket, line: bytes) -> None:
    """Send a child its first line."""
    with contextlib.suppress(OSError):  # one that died at once is found dead by its watch
        sock.sendall(line)
