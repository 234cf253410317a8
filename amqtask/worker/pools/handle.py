"""A runner as its node sees it: a process that runs one call at a time, and can be killed.

    starting --READY--> idle --RUN--> taken --BEGUN--> running --OUTCOME--> idle
       |--BROKEN           |             |                |
       `-------------------+-------------+----------------+--its end, by whatever--> dead

Its end is seen in two ways. The socket may end before the process does, when a
task closes every descriptor; and the process before the socket, when a task
has forked and the copy lives on. Either is the end: what is left is killed.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqtask.worker.pools import frames
from amqtask.worker.pools.frames import Kind
from amqtask.worker.pools.signals import STACKS

#: Seconds that an app may take to be imported.
START_TIMEOUT = 120.0
#: Seconds that a runner has to end when it is told to.
END_TIMEOUT = 5.0
#: Seconds that a frame may make no way: then the one who writes it is not there any more.
STALLED = 30.0
#: Seconds that a runner has to write down its stack.
STACK_TIMEOUT = 0.5
#: Stands for the exit code of a process whose end somebody else has been told of.
_UNKNOWN = 1000
#: Seconds between two looks at a process, where its end cannot be waited for.
_LOOK = 0.25


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        begun: Whether the task's code may have run.
        exit_code: None when a signal ended it.
        signal: Name of that signal.
        peak_memory: Bytes it had at most; None where that is not known.
        deaf: It had closed its socket to the worker, and was killed for it.
    """

    begun: bool
    exit_code: int | None
    signal: str | None
    peak_memory: int | None
    deaf: bool = False

    def __str__(self) -> str:
        how = f"signal {self.signal}" if self.signal else f"exit code {self.exit_code}"
        if self.signal is None and self.exit_code is None:
            how = "how is not known, as something else in the worker has waited for its end"
        if self.deaf:
            how = "it closed its connection to the worker and was killed"
        if self.peak_memory is None:
            return how
        return f"{how}, peak memory {self.peak_memory / 1e6:.0f} MB"


class RunnerDied(Exception):
    """The runner is dead, and with it what it ran."""

    def __init__(self, death: Death) -> None:
        super().__init__(str(death))
        self.death = death


class RunnerBroken(Exception):
    """The runner cannot start; the text says why."""


class Runner:
    """One runner.

    Args:
        spec: What it has to know, plain values; see `amqtask.worker.pools.runner`.

    Threads: one thread makes, starts, uses and closes it, and must outlive it: on
    Linux a runner dies with the thread that made it. `kill` from any thread.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._lock = threading.Lock()  # held for moments only
        self._sending = threading.Lock()
        self._returncode: int | None = None
        self._number = 0
        self._begun = False
        self._deaf = False
        self._peak: int | None = None
        self._peak_before = _peak_memory()
        ours, theirs = socket.socketpair()
        self._stacks = os.memfd_create("amqtask-stacks") if hasattr(os, "memfd_create") else None
        passed = [theirs.fileno(), *([] if self._stacks is None else [self._stacks])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "amqtask.worker.pools.runner", *map(str, passed)],
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                # a group of its own: Ctrl-C is not for it, and what it started is killed with it
                process_group=0,
            )
        except BaseException:
            ours.close()
            self._close_stacks()
            raise
        finally:
            theirs.close()
        self._sock = ours
        self._sock.settimeout(STALLED)
        self._pidfd = _pidfd(self._process.pid)
        self._spec = spec
        self.pid = self._process.pid

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until it can take calls.

        Raises:
            RunnerBroken: It cannot; it is gone.
            RunnerDied: It died.
        """
        self._send(Kind.SPEC, pickle.dumps({**self._spec, "parent": os.getpid()}))
        if not self._await_word(timeout) and not self._ended():
            self._bury()
            raise RunnerBroken(f"it was not ready within {timeout:g} s")
        kind, payload = self._next()
        if kind is Kind.BROKEN:
            self._bury()
            raise RunnerBroken(payload.decode("utf-8", "replace"))

    def next(self) -> RunnerRun:
        """Return the way to the next call."""
        with self._lock:
            self._number += 1
            return RunnerRun(self, self._number)

    def run(self, run: RunnerRun, call: bytes, begun: Callable[[], None]) -> bytes:
        """Run a call; returns its outcome as `carry.pack` wrote it.

        Args:
            begun: Called when its code is about to run.

        Raises:
            RunnerDied: It died, before or while it ran.
        """
        self._begun = False
        try:
            self._send(Kind.RUN, _numbered(run.number) + call)
            kind, payload = self._next()
            if kind is Kind.BEGUN:
                self._begun = True
                begun()
                kind, payload = self._next()
            if kind is not Kind.OUTCOME:  # a frame out of turn: it is not in its right mind
                raise RunnerDied(self._bury())
            return payload
        finally:
            with self._lock:
                self._number += 1  # what is said to that call from now on is not for the next

    def say(self, kind: Kind, number: int) -> None:
        """Say something about the call of that number, unless it has ended."""
        with self._lock:
            if self._returncode is not None or number != self._number:
                return
        # not waited for: a runner that does not read has no ear for it either
        if self._sending.acquire(timeout=1.0):
            try:
                frames.send(self._sock, kind, _numbered(number))
            except OSError:
                return  # it is ending, and whoever waits for it will see that
            finally:
                self._sending.release()

    def kill(self, number: int | None = None) -> None:
        """Kill it and what it started; with a number, only while that call runs."""
        with self._lock:
            if self._returncode is None and number in (None, self._number):
                _kill_group(self.pid)

    def stack(self) -> str:
        """Return where it is; it writes that down on a signal, even while it computes in C."""
        with self._lock:
            if self._stacks is None:
                return "  not known on this system\n"
            if self._returncode is not None:
                return "  it has ended\n"
            file = os.dup(self._stacks)
            before = size = os.fstat(file).st_size
            os.kill(self.pid, STACKS)
        try:
            deadline = time.monotonic() + STACK_TIMEOUT
            while time.monotonic() < deadline:
                time.sleep(0.01)
                last, size = size, os.fstat(file).st_size
                if size == last != before:  # it grows no more
                    break
            text = os.pread(file, size - before, before).decode("utf-8", "replace")
        finally:
            os.close(file)
        return text or "  it did not answer\n"

    def close(self) -> None:
        """Have it end, and kill it when it takes its time."""
        self._sock.close()
        self._await_end(END_TIMEOUT)
        self._bury()

    # -- inside -----------------------------------------------------------------------

    def _send(self, kind: Kind, payload: bytes) -> None:
        try:
            with self._sending:
                frames.send(self._sock, kind, payload)
        except OSError:
            raise RunnerDied(self._bury()) from None

    def _next(self) -> tuple[Kind, bytes]:
        if not self._await_word(None):
            raise RunnerDied(self._bury())
        try:
            return frames.receive(self._sock)
        except (EOFError, ValueError):
            raise RunnerDied(self._bury()) from None

    def _await_word(self, timeout: float | None) -> bool:
        """Wait until it says something; returns False when it is dead or the time is up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            look = left if self._pidfd is not None else min(_LOOK, left or _LOOK)
            ready = [fd for fd, _ in poll.poll(None if look is None else look * 1000)]
            if self._sock.fileno() in ready:
                return True
            if self._ended():
                return False

    def _await_end(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not self._ended():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._pidfd is None:
                time.sleep(min(left, 0.02))
            else:
                poll = select.poll()
                poll.register(self._pidfd, select.POLLIN)
                poll.poll(left * 1000)
        return True

    def _ended(self) -> bool:
        """Tell whether the process has ended, and leave it to be buried."""
        if self._returncode is not None:
            return True
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # user code has waited for any child, and got ours
            return True
        return found is not None

    def _bury(self) -> Death:
        """Make sure that it is dead, and return how it died."""
        if self._returncode is None:
            # its socket may end a moment before it does; afterwards it is deaf, and of no use
            self._deaf = not self._await_end(_LOOK)
            with self._lock:
                _kill_group(self.pid)  # also what it leaves behind
                self._returncode = self._process.returncode = self._reap()
                self._close_stacks()
            self._sock.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
        code = self._returncode
        return Death(
            self._begun,
            code if 0 <= code < _UNKNOWN else None,
            signal_name(-code) if code < 0 else None,
            self._peak,
            self._deaf,
        )

    def _reap(self) -> int:
        """Take its end off the system, and return its exit code, negative for a signal."""
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            return _UNKNOWN
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self._peak = peak if peak > self._peak_before else None
        return os.waitstatus_to_exitcode(status)

    def _close_stacks(self) -> None:
        if self._stacks is not None:
            os.close(self._stacks)
            self._stacks = None


class RunnerRun:
    """The way to a call that a runner runs; its verbs from any thread."""

    __slots__ = ("_runner", "number")

    def __init__(self, runner: Runner, number: int) -> None:
        self._runner = runner
        self.number = number

    def soft(self) -> None:
        """Raise `SoftTimeLimitExceeded` in it."""
        self._runner.say(Kind.SOFT, self.number)

    def cancel(self) -> None:
        """Ask it to end."""
        self._runner.say(Kind.CANCEL, self.number)

    def kill(self) -> bool:
        """Kill the runner under it."""
        self._runner.kill(self.number)
        return True

    def stack(self) -> str:
        """Return where it is."""
        return self._runner.stack()


def _numbered(number: int) -> bytes:
    return number.to_bytes(frames.NUMBER_BYTES, "big")


def signal_name(number: int) -> str:
    """Return a signal's name, or its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # none left; the latter is what macOS says of one that has ended


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or forbidden in this container
        return None


def _peak_memory() -> int:
    """Return this process's peak memory: on Linux a new process is charged with it from the start."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
