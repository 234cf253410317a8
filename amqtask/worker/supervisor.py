"""The process a user starts: it prepares the broker, starts the children and watches them.

    preparing --topology declared--> running --SIGTERM, SIGINT--> stopping --> exit 0
        |                               |                            `--second signal--> quick
        `--refused, mismatch--> exit 1  `--a child dies--> another is started, with back-off
                                           `--none ever gets ready--> exit 1

Children are spawned, never forked: each has one socketpair of its own to the
supervisor and shares nothing with the others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from amqtask.app import App
from amqtask.errors import (
    AccessRefused,
    AmqtaskError,
    ChannelClosed,
    ConfigurationError,
    TransportError,
)
from amqtask.transport import Session
from amqtask.transport.backoff import Backoff
from amqtask.transport.declare import declare

log = logging.getLogger(__name__)

#: Children in a row that may die before they get ready.
HOPELESS = 5
#: Seconds a child has to end after it was told to be quick.
QUICK = 5.0


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a child has to know.

    Attributes:
        app: ``module:attribute`` to import it from.
        queues: Names of the queues to consume.
        path: ``sys.path`` of the supervisor.
    """

    app: str
    queues: tuple[str, ...]
    concurrency: int
    prefetch: int | None
    name: str
    loglevel: str
    path: list[str] = field(default_factory=lambda: list(sys.path))


class _ChildProcess:
    """One spawned child and the supervisor's end of its socketpair."""

    def __init__(self, spec: WorkerSpec, index: int) -> None:
        self.index = index
        self.ready = False
        self.was_ready = False
        self.counts: Counter[str] = Counter()
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "amqtask.worker.child"],
                stdin=theirs.fileno(),
                close_fds=True,
            )
        finally:
            theirs.close()
        self._sock = ours
        self._sock.sendall(json.dumps(asdict(spec)).encode() + b"\n")
        self.pid = self._process.pid

    async def lines(self) -> Any:
        """Yield what the child says, until it ends."""
        reader, writer = await asyncio.open_connection(sock=self._sock)
        try:
            while line := await reader.readline():
                yield json.loads(line)
        except ConnectionResetError:
            log.debug("child.reset pid=%d", self.pid)
        finally:
            writer.close()

    async def wait(self) -> int:
        """Wait for its end and return the exit code; negative for a signal."""
        return await asyncio.to_thread(self._process.wait)

    def say(self, word: str) -> None:
        """Send a word; a child that is gone does not mind."""
        try:
            self._sock.sendall(f"{word}\n".encode())
        except OSError:
            log.debug("child.gone pid=%d", self.pid)

    def kill(self) -> None:
        """End it for certain."""
        self._process.kill()


class Supervisor:
    """Runs ``processes`` children until a signal says otherwise.

    Args:
        app: The app, imported; used for the topology and the banner only.
        spec: What each child is given.
        processes: How many children.
    """

    def __init__(self, app: App, spec: WorkerSpec, *, processes: int) -> None:
        self._app = app
        self._spec = spec
        self._processes = processes
        self._children: set[_ChildProcess] = set()
        self._stopping = asyncio.Event()
        self._signals = 0
        self._fruitless = 0
        self._announced = False
        self.counts: Counter[str] = Counter()

    async def run(self) -> int:
        """Run until stopped; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if not await self._prepare():
            return 0 if self._stopping.is_set() else 1
        results = await asyncio.gather(*(self._keep(index) for index in range(self._processes)))
        log.info("worker.stopped counts=%s", dict(self.counts))
        return max(results)

    # -- before the first child -------------------------------------------------------

    async def _prepare(self) -> bool:
        """Declare the topology once, so that what is wrong with it is said once, at the start."""
        preparing = asyncio.create_task(self._declare())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([preparing, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not preparing.done():
            preparing.cancel()
            return False
        try:
            await preparing
        except AmqtaskError as error:
            log.error(
                "worker.cannot_start error=%s%s", error, f"\n{error.hint}" if error.hint else ""
            )
            return False
        return True

    async def _declare(self) -> None:
        backoff = Backoff(first=0.5, cap=5.0)
        # a worker runs without cancelling where it may not have it, and says so by itself
        plan = self._app.topology(self._spec.queues, cancelling=False)
        urls = self._app.transport.urls
        while True:
            for url in urls:
                try:
                    session = await Session.open(
                        url,
                        epoch=0,
                        name=f"{self._app.name} prepare",
                        heartbeat=self._app.settings.heartbeat,
                        timeout=self._app.settings.connect_timeout,
                    )
                    try:
                        await declare(session, plan)
                    finally:
                        await session.close()
                except (AccessRefused, ConfigurationError, ChannelClosed):
                    raise
                except TransportError as error:
                    log.warning("worker.waiting error=%r", str(error))
                else:
                    return
            await asyncio.sleep(backoff.next())

    # -- one place for a child, filled again and again ----------------------------------

    async def _keep(self, index: int) -> int:
        """Keep a child running in this place; returns the place's exit code."""
        backoff = Backoff(first=0.2, cap=10.0)
        while not self._stopping.is_set():
            child = _ChildProcess(self._spec, index)
            self._children.add(child)
            started = time.monotonic()
            async for said in child.lines():
                self._on_said(child, said)
            code = await child.wait()
            self._children.discard(child)
            self.counts.update(child.counts)
            if self._stopping.is_set():
                return 0 if code == 0 or self._signals > 1 else 1
            if child.was_ready:
                self._fruitless = 0
                if time.monotonic() - started > 10.0:
                    backoff.reset()
            elif self._give_up(child, code):
                return 1
            wait = backoff.next()
            log.error(
                "child.died pid=%d %s: another one starts in %.1f s, what it ran is delivered again",
                child.pid,
                _death(code),
                wait,
            )
            await self._pause(wait)
        return 0

    def _give_up(self, child: _ChildProcess, code: int) -> bool:
        self._fruitless += 1
        if self._fruitless < HOPELESS:
            return False
        log.error(
            "worker.hopeless: %d children in a row died before they consumed (the last, pid %d, %s); "
            "see their output above",
            self._fruitless,
            child.pid,
            _death(code),
        )
        self._stop_children("stop")
        return True

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _on_said(self, child: _ChildProcess, said: dict[str, Any]) -> None:
        event = said.get("event")
        if event in ("ready", "waiting"):
            child.ready = event == "ready"
            child.was_ready |= child.ready
            self._announce()
        elif event == "stopped":
            child.counts = Counter(said["counts"])

    def _announce(self) -> None:
        ready = sum(child.ready for child in self._children)
        if ready == self._processes and not self._announced:
            self._announced = True
            log.info("worker.ready name=%s processes=%d", self._spec.name, ready)

    # -- stopping -------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            log.info(
                "worker.stopping signal=%s: finishing what runs, giving back the rest; "
                "once more to stop at once",
                name,
            )
            self._stop_children("stop")
        elif self._signals == 2:
            log.warning("worker.stopping_now signal=%s: giving back what runs", name)
            self._stop_children("now")
            asyncio.get_running_loop().call_later(QUICK, self._kill_children)
        else:
            self._kill_children()

    def _stop_children(self, word: str) -> None:
        self._stopping.set()
        for child in self._children:
            child.say(word)

    def _kill_children(self) -> None:
        for child in self._children:
            log.warning("child.killed pid=%d: it did not end in time", child.pid)
            child.kill()


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
