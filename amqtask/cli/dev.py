"""``amqtask dev``: a broker, a worker, and a new worker whenever the code has changed.

    broker --> worker runs --a file changed--> stopping (warm, at most `WARM` s) --> worker runs
                  |  `--it ended by itself--> down, until a file changes --^
                  `--Ctrl-C, SIGTERM--> worker stopped --> broker stopped --> exit 0

The worker is a process of its own, so that new code meets a fresh interpreter,
and broken code does not end this one. Its log comes here through a pipe and is
shown in colours; what tasks print goes straight to the terminal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from amqtask.broker import Broker
from amqtask.cli.colours import Painter
from amqtask.cli.watch import changes, has_watchfiles
from amqtask.errors import ConfigurationError
from amqtask.settings import redact_url

#: The port that clients look at when nothing names one.
PORT = 5672
#: Seconds a worker has to finish what runs when its code changed.
WARM = 5.0
#: Seconds it has to give back the rest after that; then it is killed.
QUICK = 5.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line said.

    Attributes:
        broker: A broker that runs already; None starts one.
        data: A folder for what that one keeps; None keeps all in memory.
        port: Where it listens; None takes the usual port, or another when that is taken.
        watch: Folders whose files are watched; empty watches none.
        worker: Arguments of ``amqtask worker``.
    """

    broker: str | None
    data: Path | None
    port: int | None
    watch: Sequence[Path]
    worker: Sequence[str]


def run_dev(wishes: Wishes) -> int:
    """Run until a signal ends it; returns the exit code.

    Raises:
        ConfigurationError: The broker cannot start.
    """
    return asyncio.run(_Dev(wishes).run())


class _Dev:
    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._paint = Painter(sys.stderr)
        self._ending = asyncio.Event()
        self._worker: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._environ = dict(os.environ)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ending.set)
        async with AsyncExitStack() as stack:
            await self._provide_broker(stack)
            async with asyncio.TaskGroup() as group:
                worker = group.create_task(self._keep_worker())
                await self._ending.wait()
                self._say("stopping: the worker finishes what runs; once more to stop at once")
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, self._hurry)
                worker.cancel()
        self._say("stopped")
        return 0

    # -- the broker -----------------------------------------------------------

    async def _provide_broker(self, stack: AsyncExitStack) -> None:
        """Find or start the broker, and say where it is and what that means for clients."""
        wishes, lines = self._wishes, []
        if wishes.broker is not None:
            url = wishes.broker
            given = os.environ.get("AMQTASK_BROKER") == url
            how = "from AMQTASK_BROKER" if given else "from --broker"
        else:
            broker = Broker(data=wishes.data, vhosts_on_demand=True)
            await self._start(broker)
            stack.push_async_callback(broker.stop)
            url = broker.url
            how = "embedded, " + ("all in memory" if not wishes.data else f"kept in {wishes.data}")
            if broker.port != PORT:
                if wishes.port is None:
                    lines.append(f"          port {PORT} is taken; --broker uses what runs there")
                lines.append(f"clients   export AMQTASK_BROKER={url}")
        self._environ["AMQTASK_BROKER"] = url
        # what tasks print shall be seen when it is printed
        self._environ.setdefault("PYTHONUNBUFFERED", "1")
        if wishes.watch:
            by = "" if has_watchfiles() else ", twice a second"
            lines.append(f"watches   {', '.join(map(_shown, wishes.watch))}{by}")
        for line in (f"broker    {redact_url(url)} ({how})", *lines):
            self._say(line)

    async def _start(self, broker: Broker) -> None:
        port = self._wishes.port
        try:
            await broker.start(port=PORT if port is None else port)
        except ConfigurationError:
            if port is not None or broker.data is not None:
                raise
            await broker.start(port=0)

    # -- the worker -----------------------------------------------------------

    async def _keep_worker(self) -> None:
        """Run a worker, and another one after each change, until cancelled."""
        changed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if self._wishes.watch:
                group.create_task(self._watch(changed))
            try:
                while True:
                    changed.clear()
                    await self._one_worker(changed)
                    await changed.wait()
            finally:
                await self._stop_worker(WARM if not self._ending.is_set() else None)

    async def _watch(self, changed: asyncio.Event) -> None:
        async for paths in changes(self._wishes.watch):
            names = ", ".join(_shown(path) for path in paths[:3])
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            self._say(f"changed: {names}{more}")
            changed.set()

    async def _one_worker(self, changed: asyncio.Event) -> None:
        """Run one worker until the code changes, or it ends by itself."""
        worker = self._worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "amqtask.cli.devchild", *self._wishes.worker,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environ,
            # Ctrl-C is this process's to hear; it tells the worker once
            start_new_session=True,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._show(worker))
        waiting = asyncio.create_task(changed.wait())
        ended = asyncio.create_task(worker.wait())
        try:
            await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await self._read_to_the_end()
                then = "a change starts it again" if self._wishes.watch else "stop with Ctrl-C"
                self._say(f"the worker ended with exit code {worker.returncode}: {then}")
            else:
                await self._stop_worker(WARM)
        finally:
            waiting.cancel()

    async def _stop_worker(self, warm: float | None) -> None:
        """Have it finish what runs, give back what takes longer, and end for certain.

        Args:
            warm: Seconds to finish what runs; None waits for as long as it takes.
        """
        worker = self._worker
        if worker is None or worker.returncode is not None:
            return
        for number, seconds in ((signal.SIGTERM, warm), (signal.SIGQUIT, QUICK)):
            _signal(worker, number)
            try:
                await asyncio.wait_for(worker.wait(), seconds)
            except TimeoutError:
                self._say("the worker takes too long: what runs is given back")
            else:
                break
        else:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            await worker.wait()
        await self._read_to_the_end()

    async def _read_to_the_end(self) -> None:
        """Show what a worker that has ended wrote last."""
        if self._reading is not None:
            # a process that a task started may hold the pipe for ever
            await asyncio.wait([self._reading], timeout=1.0)
            self._reading.cancel()

    def _hurry(self) -> None:
        if self._worker is not None:
            _signal(self._worker, signal.SIGTERM)

    async def _show(self, worker: asyncio.subprocess.Process) -> None:
        assert worker.stderr is not None
        while line := await _line(worker.stderr):
            self._paint.log(line.decode(errors="replace").rstrip("\n"))

    def _say(self, text: str) -> None:
        self._paint.own(text)


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or as much of it as the reader holds."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def _signal(worker: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        worker.send_signal(number)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
