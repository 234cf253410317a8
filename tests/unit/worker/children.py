"""Children that are no processes: they get ready, stop and die when a test says so."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from amqtask.worker.beatkeeper import BeatProcess
from amqtask.worker.board import BoardEntry
from amqtask.worker.ladder import Rung
from amqtask.worker.lines import Beat
from amqtask.worker.spawn import ChildProcess
from amqtask.worker.spec import WorkerSpec

_pids = itertools.count(1000)

SPEC = WorkerSpec(
    app="tasks:app",
    queues=(("email", None),),
    concurrency=4,
    prefetch=None,
    name="bee",
    loglevel="info",
)


class FakeChild:
    """As `ChildProcess`, but for the process. It obeys a warm stop at once, unless `stubborn`."""

    KIND = ChildProcess.KIND
    AFTERMATH = ChildProcess.AFTERMATH

    def __init__(self, spec: WorkerSpec, index: int) -> None:
        self.spec = spec
        self.index = index
        self.pid = next(_pids)
        self.started = time.monotonic()
        self.heard = self.started + 0.001
        self.ready = self.was_ready = self.silent = self.stubborn = self.stopping = False
        self.rung = Rung.RUNNING
        self.beat = Beat()
        self.reasons: tuple[str, ...] = ("it starts",)
        self.counts: Counter[str] = Counter()
        self.gave_up: str | None = None
        self.fate: str | None = None
        self.ending: float | None = None
        self.words: list[dict[str, Any]] = []
        self.entries: list[BoardEntry] = []
        self.dumped = self.closed = False
        self._on_said: Callable[[Any], None] = lambda _: None
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def watch(self, on_said: Callable[[Any], None]) -> int:
        self._on_said = on_said
        return await self._code

    def get_ready(self) -> None:
        self.ready = self.was_ready = True
        self.reasons = ()
        self._on_said(self)

    def lose(self, reason: str) -> None:
        self.ready = False
        self.reasons = (reason,)
        self._on_said(self)

    def die(self, code: int = -9, *ran: str) -> None:
        self.ready = False
        self.entries += [BoardEntry(each, "t.task", time.time(), None) for each in ran]
        if not self._code.done():
            self._code.set_result(code)

    def has_ended(self) -> bool:
        return self._code.done()

    def say(self, **fields: Any) -> None:
        self.words.append(fields)

    def at(self, rung: Rung) -> bool:
        """Whether it was told to go to this rung, and not further."""
        return self.rung is rung

    def take(self, rung: Rung) -> None:
        self.rung = max(self.rung, rung)
        self.ready = False
        if rung is Rung.KILL:
            self.kill("it did not end in time")
            return
        self.stopping = True
        if not self.stubborn:
            self.die(0)

    def kill(self, why: str) -> None:
        self.fate = why
        self.die(-9)

    def dump(self) -> None:
        self.dumped = True

    def ran(self) -> list[BoardEntry]:
        return self.entries

    def epitaph(self, code: int) -> str:
        return ChildProcess.epitaph(self, code)  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed = True


class FakeBeat(FakeChild):
    """As `BeatProcess`, but for the process."""

    KIND = BeatProcess.KIND
    AFTERMATH = BeatProcess.AFTERMATH

    def __init__(self, spec: WorkerSpec, index: int) -> None:
        super().__init__(spec, index)
        self.shown: dict[str, Any] = {}
        self.dead: tuple[str, ...] = ()

    def epitaph(self, code: int) -> str:
        return BeatProcess.epitaph(self, code)  # type: ignore[arg-type]


class Nursery:
    """Makes fake children and remembers them, oldest first."""

    def __init__(self, kind: type[FakeChild] = FakeChild) -> None:
        self._kind = kind
        self.born: list[FakeChild] = []
        self.refuse: OSError | None = None

    def __call__(self, spec: WorkerSpec, index: int) -> Any:
        if self.refuse is not None:
            raise self.refuse
        self.born.append(self._kind(spec, index))
        return self.born[-1]

    def counts(self, number: int) -> bool:
        """Whether so many were born."""
        return len(self.born) == number

    @property
    def last(self) -> FakeChild:
        return self.born[-1]
