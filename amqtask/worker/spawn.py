"""One child process: how it is started, what it says, how it ends.

    starting --ready--> consuming <--> waiting (not every queue is consumed)
        `----------------+-------------------+--take(rung)--> stopping --> ended

It has one socketpair to the supervisor; nothing else is shared but the run
board, which outlives it. Whether it is a fresh Python or a copy of a template
is for `amqtask.worker.starting` to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from amqtask.worker.board import Board, BoardEntry
from amqtask.worker.ladder import QUICK, Rung
from amqtask.worker.lines import MOST, Beat, pack, unpack
from amqtask.worker.spec import WorkerSpec
from amqtask.worker.starting import Start, start_python

log = logging.getLogger(__name__)

_WORDS = {Rung.WARM: "stop", Rung.CANCEL: "cancel", Rung.NOW: "now"}


class ChildProcess:
    """A spawned child and the supervisor's end of its socketpair.

    Args:
        spec: What it is to run.
        index: The place it fills.
        start: Starts it, with the descriptor of its run board; returns it with our end of its line.

    Attributes:
        pid: Its process id.
        started: `time.monotonic` at its start.
        ready: Whether it said that it consumes every queue.
        was_ready: Whether it ever did.
        rung: How far down the ladder it was told to go.
        beat: The last one.
        heard: `time.monotonic` when it last said anything.
        reasons: Why it does not consume, in its own words.
        counts: Jobs it settled, by outcome; known once it stopped.
        gave_up: Why it gives itself up; None while it does not.
        fate: Why the supervisor killed it; None while it did not.
        silent: Whether it was reported as silent.
        stopping: Whether it said that it stops.
        ending: `time.monotonic` when it said that it ends at once; None before.
        KIND: What the log calls it.
        AFTERMATH: What becomes of its work when it dies, for people.
    """

    KIND: ClassVar[str] = "child"
    AFTERMATH: ClassVar[str] = "what it ran is delivered again"

    def __init__(self, spec: WorkerSpec, index: int, start: Start = start_python) -> None:
        self.index = index
        self.started = self.heard = time.monotonic()
        self.ready = self.was_ready = self.silent = self.stopping = False
        self.rung = Rung.RUNNING
        self.beat = Beat()
        self.reasons: tuple[str, ...] = ("it starts",)
        self.counts: Counter[str] = Counter()
        self.gave_up: str | None = None
        self.fate: str | None = None
        self.ending: float | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._unsaid: list[bytes] = []
        self._ended: asyncio.Event = asyncio.Event()
        self._board = Board.create(spec.board_slots)
        try:
            self._process, self._sock = start(spec, self._board.fileno())
        except OSError:
            self._board.close()
            raise
        self.pid = self._process.pid

    async def watch(self, on_said: Callable[[ChildProcess], None]) -> int:
        """Follow it to its end; returns the exit code, negative for a signal.

        Args:
            on_said: Called after each thing it said.
        """
        reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=MOST)
        self._writer.write(b"".join(self._unsaid))
        reading = asyncio.create_task(self._read(reader, on_said))
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait([reading, ended], return_when=asyncio.FIRST_COMPLETED)
        # it ended, and somebody it started may hold its end of the line: read what is here
        await asyncio.wait([reading], timeout=0.1)
        reading.cancel()
        ended.cancel()
        code = await self._end()
        self._writer.close()
        return code

    async def _read(
        self, reader: asyncio.StreamReader, on_said: Callable[[ChildProcess], None]
    ) -> None:
        try:
            while line := await reader.readline():
                self._hear(unpack(line))
                on_said(self)
        except ConnectionError:
            log.debug("child.reset pid=%d", self.pid)
        except ValueError as error:
            log.error("child.unintelligible pid=%d error=%r: it is ended", self.pid, str(error))

    def _hear(self, said: dict[str, Any]) -> None:
        self.heard = time.monotonic()
        match said.get("event"):
            case "ready":
                self.ready = self.was_ready = True
                self.reasons = ()
            case "waiting":
                self.ready = False
                self.reasons = tuple(map(str, said.get("reasons", ())))
            case "beat":
                self.beat = Beat.read(said)
                if not self.ready and self.beat.reasons:
                    self.reasons = self.beat.reasons
            case "stopping":
                self.stopping = True
                self.ready = False
                self.rung = max(self.rung, Rung.WARM)
                self.reasons = ("it stops",)
            case "giving_up":
                self.ready = False
                self.ending = self.heard
                self.gave_up = str(said.get("reason", "?"))
                self.reasons = (f"it gives up: {self.gave_up}",)
            case "stopped":
                self.ending = self.heard
                self.counts = Counter(said.get("counts", {}))
            case other:
                log.debug("child.unknown_event pid=%d event=%r", self.pid, other)

    async def _end(self) -> int:
        """Wait for the end of a process whose line is gone; it is killed if it does not come."""
        pause, deadline = 0.005, time.monotonic() + QUICK
        while (code := self._process.poll()) is None:
            if time.monotonic() > deadline and self.fate is None:
                self.kill("it hung at its end")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.2)
        return code

    def has_ended(self) -> bool:
        """Look whether the process is gone; its line may be held open by what it started."""
        if self._process.poll() is not None:
            self._ended.set()
        return self._ended.is_set()

    def say(self, **fields: Any) -> None:
        """Tell it something; one that is gone does not mind."""
        if self._writer is None:
            self._unsaid.append(pack(**fields))
        elif not self._writer.is_closing():
            self._writer.write(pack(**fields))

    def take(self, rung: Rung) -> None:
        """Tell it to go down to this rung of the ladder."""
        if rung <= self.rung and rung is not Rung.WARM:
            return
        self.rung = max(self.rung, rung)
        if rung is Rung.KILL:
            self.kill("it did not end in time")
        else:
            self.say(do=_WORDS[rung])

    def kill(self, why: str) -> None:
        """End it for certain."""
        if self._process.poll() is None:
            self.fate = why
            log.warning("%s.killed pid=%d: %s", self.KIND, self.pid, why)
            self._process.kill()

    def dump(self) -> None:
        """Have a child that answers nothing write the stacks of all its threads."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)

    def ran(self) -> list[BoardEntry]:
        """Return what its run board shows: what runs, or ran when it ended."""
        return self._board.entries()

    def epitaph(self, code: int) -> str:
        """Return what is known of its end, for people."""
        return f"pid={self.pid} ran={describe(self.ran(), time.time())!r} {death(code)}"

    def close(self) -> None:
        """Let go of the board, once it has ended and been read."""
        self._board.close()


def death(code: int) -> str:
    """Return how a process ended, for people."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def describe(entries: list[BoardEntry], now: float) -> str:
    """Return what a board shows, for people.

    Args:
        entries: Its entries.
        now: `time.time`.
    """
    shown = [f"{entry.task}[{entry.id}] {max(0.0, now - entry.started):.1f}s" for entry in entries]
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return f"{', '.join(shown[:8])}{more}" or "nothing"
