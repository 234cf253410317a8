"""The process that runs isolated tasks: ``python -m amqtask.worker.pools.runner``, started by a node.

    importing --READY--> idle --RUN--> BEGUN, running --OUTCOME--> idle
        `--BROKEN            `----------- socket ends -----------------> gone

Tasks run in the main thread, so that a signal reaches their code; a second
thread reads what the node says. The process ends with its socket, in the
middle of a task too, and on Linux with its parent, so none is ever orphaned.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import pickle
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from amqtask.app import App
from amqtask.context import Context, _current
from amqtask.discovery import find_app
from amqtask.errors import MessageError, SoftTimeLimitExceeded, TaskCancelled
from amqtask.message import accepted, decode
from amqtask.message.model import Message
from amqtask.worker.logs import set_up_logging
from amqtask.worker.outcome import Done, Failed, conclude, policy_of
from amqtask.worker.pools import carry, frames
from amqtask.worker.pools.frames import NUMBER_BYTES, Kind
from amqtask.worker.pools.loop import Driver
from amqtask.worker.pools.signals import POKE, STACKS
from amqtask.workflow.advance import heard

log = logging.getLogger(__name__)

#: Exit code of a runner whose task closed the way back to the node.
UNHEARD = 74
#: Seconds between two looks at the socket.
_LOOK = 1.0
#: Seconds that what the app leaves running may hold up the end.
_LAST_WORDS = 3.0
#: Seconds that a report of progress has to arrive before the outcome goes.
_LAST_REPORT = 3.0
_PR_SET_PDEATHSIG = 1
#: Of -1000 to 1000: when memory runs out, the kernel takes the highest.
_OOM_SCORE = "500"


class Line:
    """The socket to the node, as long as it is that: a task may close or replace any descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._identity = self._look()
        self._pid = os.getpid()

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame; when that cannot be, end: the node sees it, and accounts for it."""
        if os.getpid() != self._pid:
            os._exit(0)  # a copy that the task made of its process, and let run into our code
        self._check()
        try:
            frames.send(self._sock, kind, payload)
        except OSError:
            os._exit(UNHEARD)

    def hear(self) -> tuple[Kind, bytes]:
        """Wait for a frame; raises EOFError when the node is gone."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while not poll.poll(_LOOK * 1000):
            self._check()  # a descriptor that is closed under a wait does not end it
        self._check()
        return frames.receive(self._sock)

    def _check(self) -> None:
        try:
            if self._look() == self._identity:
                return
        except OSError:
            pass  # closed, and not in use again: as good as another one
        os._exit(UNHEARD)

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino


class Desk:
    """Runs one call after the other, and has them interrupted.

    Threads: `run` in the main thread, `interrupt` in the one that reads.
    """

    def __init__(self, app: App, host: str) -> None:
        settings = app.settings
        self._app = app
        self._host = host
        self._accepted = accepted(settings.accept_content)
        self._max_decoded_size = settings.max_decoded_size
        self._timezone = settings.zone
        self._loop: asyncio.Runner | None = None
        self._number = 0
        # what the signal's handler raises, and only while a plain task's code runs
        self._open = False
        self._asked: tuple[int, type[BaseException]] | None = None
        self._driver: Driver | None = None
        self._task: asyncio.Task[Any] | None = None
        signal.signal(POKE, self._poked)

    def run(self, number: int, given: tuple[Any, ...]) -> bytes:
        """Run a call; returns what `carry.pack` makes of its outcome."""
        fields, queue, exchange, routing_key, redelivered, wanted, soft = given
        self._number = number
        try:
            call = decode(
                Message(*fields),
                self._accepted,
                max_decoded_size=self._max_decoded_size,
                timezone=self._timezone,
            )
            call = heard(call)
            task = self._app.tasks[call.task]
            policy = policy_of(task, call)
        except MessageError as unfit:  # this process has another app than its node
            return carry.pack(Failed(unfit, unfit.reason), wanted=wanted, memory=memory())
        context = Context(self._app, call, queue, exchange, routing_key, redelivered, self._host)
        token = _current.set(context)
        value, error = self._await(task, context) if task.is_async else self._call(task, context)
        _current.reset(token)
        trail = context.trail
        if trail.reporter is not None:  # the node stores the outcome: no report may come after it
            trail.reporter.close(_LAST_REPORT)
        outcome = (
            Done(value)
            if error is None
            else conclude(error, call, policy, soft, time.time(), random.random)
        )
        return carry.pack(
            outcome, wanted=wanted, memory=memory(), children=trail.children, added=trail.added
        )

    def interrupt(self, kind: Kind, number: int) -> None:
        """Raise what ``kind`` stands for in the call of that number."""
        if number != self._number:
            return
        if self._loop is not None and self._task is not None:
            driver, cancel = self._driver, self._task.cancel
            interrupt = driver.interrupt if kind is Kind.SOFT and driver is not None else cancel
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.get_loop().call_soon_threadsafe(interrupt)
            return
        self._asked = number, SoftTimeLimitExceeded if kind is Kind.SOFT else TaskCancelled
        signal.pthread_kill(threading.main_thread().ident or 0, POKE)

    def close(self) -> None:
        """End the loop, if there is one, and the app's connections."""
        if self._loop is not None:
            self._loop.close()
        self._app.close(1.0)

    def _call(self, task: Any, context: Context) -> tuple[Any, BaseException | None]:
        # nothing between a call's return and a plain assignment can be interrupted
        try:
            self._open = True
            self._poked()
            value = task.run(context)
            self._open = False
        except BaseException as error:  # whatever user code raises is its outcome
            self._open = False
            return None, error
        return value, None

    def _await(self, task: Any, context: Context) -> tuple[Any, BaseException | None]:
        if self._loop is None:
            self._loop = asyncio.Runner()

        async def main() -> tuple[Any, BaseException | None]:
            self._task = asyncio.current_task()
            try:
                self._driver = Driver(task.run(context))
                return await self._driver, None
            except BaseException as error:  # as above
                return None, error
            finally:
                self._task = self._driver = None

        # a Runner keeps the context of its first call, and with it that call's current_task
        return self._loop.run(main(), context=copy_context())

    def _poked(self, number: int = 0, frame: FrameType | None = None) -> None:
        asked = self._asked
        if self._open and asked is not None and asked[0] == self._number:
            self._asked = None
            raise asked[1]


def main() -> None:
    """Run a runner on the socket whose descriptor is the first argument."""
    try:
        sock = socket.socket(fileno=int(sys.argv[1]))
        sock.getpeername()
    except (IndexError, ValueError, OSError):
        raise SystemExit(
            "amqtask.worker.pools.runner is started by a worker, not by hand"
        ) from None
    sock.set_inheritable(False)
    line = Line(sock)
    try:
        _, said = line.hear()
    except EOFError:
        return
    spec: dict[str, Any] = pickle.loads(said)  # noqa: S301 - the node's own words
    _prepare(spec, [int(word) for word in sys.argv[2:3]])
    desk = _open_desk(spec, line)
    if desk is None:
        return
    inbox: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(line, desk, inbox, busy), daemon=True).start()
    line.say(Kind.READY)
    while (order := inbox.get()) is not None:
        number, call = order
        line.say(Kind.BEGUN)
        line.say(Kind.OUTCOME, desk.run(number, pickle.loads(call)))  # noqa: S301 - as above
        busy.clear()
    desk.close()


def _listen(
    line: Line, desk: Desk, inbox: SimpleQueue[tuple[int, bytes] | None], busy: threading.Event
) -> None:
    """Hear the node; when it is gone, end, whatever runs."""
    try:
        while True:
            kind, payload = line.hear()
            number = int.from_bytes(payload[:NUMBER_BYTES], "big")
            if kind is Kind.RUN:
                busy.set()
                inbox.put((number, payload[NUMBER_BYTES:]))
            else:
                desk.interrupt(kind, number)
    except (EOFError, ValueError):
        if busy.is_set():
            os._exit(0)
        inbox.put(None)
        time.sleep(_LAST_WORDS)
        os._exit(0)


def _prepare(spec: dict[str, Any], stacks: list[int]) -> None:
    """Make this process die with its parent and before it, and deaf to signals meant for that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):  # a container may forbid it
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    if os.getppid() != spec["parent"]:
        os._exit(0)  # it died before it could take us along
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # not SIG_IGN, which what a task starts would inherit
        signal.signal(number, _not_for_us)
    faulthandler.enable()  # a segfault says where
    for file in stacks:
        os.set_inheritable(file, False)
        faulthandler.register(STACKS, file=file, all_threads=False)
    sys.path[:] = spec["path"]
    set_up_logging(spec["loglevel"])


def _open_desk(spec: dict[str, Any], line: Line) -> Desk | None:
    try:
        return Desk(find_app(spec["app"]), spec["host"])
    except BaseException:  # an app may raise anything while it is imported
        line.say(Kind.BROKEN, traceback.format_exc().encode("utf-8", "replace"))
        return None


def _not_for_us(number: int, frame: FrameType | None) -> None:
    log.debug("runner.signal number=%d: the worker decides when a runner ends", number)


def memory() -> int:
    """Return the bytes of memory this process has now; 0 where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    # under its own name, by which tracebacks leave its frames out
    from amqtask.worker.pools.runner import main as main_by_name

    main_by_name()
