"""The supervisor's end of a template: how children come to be as copies of one process.

    none --fork, start--> open --spawn--> open
                            |--spawn, as the last--> none: it is that child now
                            `--it died--> none

Where there is none, children are started as fresh Pythons, which takes longer
and more memory, and works as well. See `amqtask.worker.template` for what is
on the other end.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

from amqtask.worker.spec import WorkerSpec
from amqtask.worker.starting import Process, Starter, environment, send_spec, start_python
from amqtask.worker.template import BECOME, FORK, MOST, READY, alone, serve, settle_memory

log = logging.getLogger(__name__)

#: Seconds that a template has to make a child: it does nothing else.
ANSWER = 5.0
#: Seconds that one has to start and import what it is to share.
START = 60.0
_PR_SET_CHILD_SUBREAPER = 36


class Copy:
    """A process that a template made: as much of `subprocess.Popen` as a child needs.

    It is this process's child, by way of `adopt`, so its id stays its own until
    its end was seen here.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._wait(os.WNOHANG)
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end."""
        if self._code is None:
            self._wait(0)

    def _wait(self, options: int) -> None:
        try:
            found, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # something else waited for it: no good end
            self._code = 1
        else:
            self._code = os.waitstatus_to_exitcode(status) if found else None


class Template:
    """A process to copy children from.

    Args:
        process: It.
        line: Our end of its line.
    """

    def __init__(self, process: Copy | subprocess.Popen[bytes], line: socket.socket) -> None:
        self._process = process
        self._line = line
        self.pid = process.pid

    @classmethod
    def fork(cls) -> Template | None:
        """Copy this process as it is now; None where a copy would not be sound, or is not to be had.

        It is sound while there is one thread and no event loop.
        """
        if not alone():
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settle_memory()
        try:
            pid = os.fork()
        except OSError as error:
            log.warning("template.not_forked error=%r: processes start by themselves", str(error))
            ours.close()
            theirs.close()
            return None
        if not pid:
            ours.close()
            serve(theirs)
        theirs.close()
        return cls(Copy(pid), ours)

    @classmethod
    async def start(cls, app: str | None, path: tuple[str, ...]) -> Template | None:
        """Start one as a fresh Python, with the code as it is now; None when that fails.

        Args:
            app: An app that it is to import, or None.
            path: Its ``sys.path`` when it does.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = _start_template(theirs.fileno())
        template = cls(process, ours)
        said = b""
        try:
            with suppress(OSError):  # it is late, or has ended; why is in the log
                ours.send(json.dumps({"app": app, "path": path}).encode())
                ours.setblocking(False)
                async with asyncio.timeout(START):
                    said = await asyncio.get_running_loop().sock_recv(ours, MOST)
        finally:
            if said != READY:
                template.close()
        return template if said == READY else None

    def spawn(
        self, spec: WorkerSpec, board: int, *, last: bool = False
    ) -> tuple[Process, socket.socket]:
        """Make a child, and return it with our end of its line.

        Args:
            spec: What it is to run.
            board: Descriptor of its run board.
            last: Have the template itself become the child; it can make none after that.

        Raises:
            OSError: There is no child.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._line.settimeout(ANSWER)
                word = BECOME if last else FORK
                socket.send_fds(self._line, [word], [theirs.fileno(), board])
            pid = _pid(self._line.recv(MOST).decode())
        except OSError:
            ours.close()
            raise
        send_spec(ours, spec.line(board=board, environ=environment(spec)))
        if last:
            self._line.close()
        return self._process if last else Copy(pid), ours

    def has_ended(self) -> bool:
        """Look whether its process is gone."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End it; its children go on."""
        self._line.close()
        self._process.kill()  # it has nothing to tidy up
        self._process.wait()


class Forks(Starter):
    """Starts children: as copies of a template while there is one, else as fresh Pythons.

    Args:
        template: What there is to begin with.
        app: What a later one is to import: an app, or None for our own code alone.
        most: How many are wanted of it: it becomes the last of them itself. None keeps it.
    """

    def __init__(
        self, template: Template | None = None, *, app: str | None = None, most: int | None = None
    ) -> None:
        self.adopts = template is not None and adopt()
        if template is not None and not self.adopts:
            template.close()
        self._template = template if self.adopts else None
        self._app = app
        self._most = self._wanted = most

    @property
    def pids(self) -> set[int]:
        """The template's process, where there is one."""
        return set() if self._template is None else {self._template.pid}

    def __call__(self, spec: WorkerSpec, board: int) -> tuple[Process, socket.socket]:
        """Start a child; see `Starter`."""
        template = self._template
        if template is not None:
            last = self._wanted == 1
            try:
                made = template.spawn(spec, board, last=last)
            except OSError as error:
                log.warning("template.failed error=%r: processes start by themselves", str(error))
                self.close()
            else:
                if last:
                    self._template = None
                elif self._wanted is not None:
                    self._wanted -= 1
                return made
        return start_python(spec, board)

    def look(self) -> None:
        """Let go of a template that has died."""
        if self._template is not None and self._template.has_ended():
            log.warning("template.died pid=%d: processes start by themselves", self._template.pid)
            self._template = None

    async def renew(self, spec: WorkerSpec) -> None:
        """Have a new template, with the code as it is now, where there was one at the start."""
        self.close()
        if self.adopts:
            self._wanted = self._most
            self._template = await Template.start(self._app, spec.path)
            if self._template is None:
                log.warning("template.not_started: processes start by themselves")

    def close(self) -> None:
        """End the template; children go on."""
        template, self._template = self._template, None
        if template is not None:
            template.close()


def _start_template(line: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "amqtask.worker.template"], stdin=line)


def _pid(said: str) -> int:
    if not said.isdecimal():
        raise OSError(said[1:] or "it is gone")
    return int(said)


def adopt() -> bool:
    """Become the parent of what is orphaned below; returns whether that can be here.

    Source: PR_SET_CHILD_SUBREAPER in prctl(2), Linux 3.4.
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
