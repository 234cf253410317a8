"""A child process as the supervisor sees it: what it says, how it is told, how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from amqtask.worker import spawn
from amqtask.worker.board import BoardEntry
from amqtask.worker.ladder import Rung
from amqtask.worker.lines import MOST, pack, unpack
from amqtask.worker.spawn import ChildProcess, death, describe
from tests.helpers import aeventually
from tests.unit.worker.children import SPEC


class FakeProcess:
    """As `subprocess.Popen`, with the other end of the line."""

    pid = 4321

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.file = theirs.makefile("rwb", buffering=0)
        self.theirs = theirs
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.end(-9)

    def send_signal(self, number: int, /) -> None:
        self.end(-number)

    def say(self, **fields: Any) -> None:
        self.theirs.sendall(pack(**fields))

    def heard(self) -> dict[str, Any]:
        return unpack(self.file.readline())

    def hang_up(self) -> None:
        self.file.close()
        self.theirs.close()

    def end(self, code: int) -> None:
        self.code = code
        self.hang_up()


class Line:
    """A child, its fake process, and its watch."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.child = ChildProcess(SPEC, 0, lambda *_: (process, process.ours))
        self.changes = 0
        self.watch = asyncio.create_task(self.child.watch(self._changed))

    def _changed(self, _: ChildProcess) -> None:
        self.changes += 1

    async def said(self, **fields: Any) -> ChildProcess:
        before = self.changes
        self.process.say(**fields)
        await aeventually(lambda: self.changes == before + 1)
        return self.child

    async def code(self) -> int:
        async with asyncio.timeout(60):
            return await self.watch


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    process = FakeProcess()
    made = Line(process)
    yield made
    process.end(0)
    await made.watch
    made.child.close()


async def test_what_it_says(line: Line):
    """Each event is kept where the supervisor looks for it."""
    child = await line.said(event="waiting", reasons=["queue 'q': gone"])
    assert (child.ready, child.reasons) == (False, ("queue 'q': gone",))
    child = await line.said(event="ready")
    assert (child.ready, child.was_ready, child.reasons) == (True, True, ())
    child = await line.said(event="beat", running=3, rss=7, reasons=["stale"])
    assert (child.beat.running, child.beat.rss, child.reasons) == (3, 7, ())
    child = await line.said(event="giving_up", reason="task 'x' hangs")
    assert (child.gave_up, child.ready) == ("task 'x' hangs", False)
    child = await line.said(event="stopping", running=1)
    assert (child.rung, child.reasons) == (Rung.WARM, ("it stops",))
    child = await line.said(event="stopped", counts={"done": 2})
    assert (child.counts, child.ending is None) == ({"done": 2}, False)
    child = await line.said(event="of the future")
    assert child.counts == {"done": 2}


async def test_reasons_come_with_beats(line: Line):
    """What a consumer waits for may change without its state."""
    child = await line.said(event="waiting", reasons=["first"])
    child = await line.said(event="beat", reasons=["second"])
    assert child.reasons == ("second",)


async def test_it_is_told_in_order(line: Line):
    """What was said before its line was open comes first; each rung once, and never back up."""
    line.child.say(do="suspect", ids=["A"], why="died")
    await line.said(event="ready")
    for rung in (Rung.WARM, Rung.CANCEL, Rung.CANCEL, Rung.NOW, Rung.CANCEL):
        line.child.take(rung)
    await asyncio.sleep(0)
    assert line.process.heard() == {"do": "suspect", "ids": ["A"], "why": "died"}
    assert [line.process.heard()["do"] for _ in range(3)] == ["stop", "cancel", "now"]
    line.child.say(do="stacks")
    assert line.process.heard() == {"do": "stacks"}


async def test_its_end(line: Line):
    """The exit code, and nobody minds what it is told then."""
    await line.said(event="ready")
    line.process.end(3)
    assert await line.code() == 3
    line.child.say(do="stop")
    line.child.kill("too late")
    assert line.child.fate is None


async def test_an_end_that_its_line_does_not_show(line: Line):
    """What it started may hold the line open: the process itself is looked at."""
    await line.said(event="ready")
    assert not line.child.has_ended()
    line.process.code = -11
    assert line.child.has_ended()
    assert await line.code() == -11


async def test_a_line_that_ends_without_its_process(line: Line, monkeypatch, caplog):
    """It can be told nothing any more, so it is killed after a moment."""
    monkeypatch.setattr(spawn, "QUICK", 0.0)
    await line.said(event="ready")
    line.process.hang_up()
    assert await line.code() == -9
    assert "child.killed pid=4321: it hung at its end" in caplog.text


@pytest.mark.parametrize("rubbish", [b"hello\n", b"[]\n", b"x" * (MOST + 1)])
async def test_rubbish_ends_it(line: Line, monkeypatch, caplog, rubbish: bytes):
    """A task may have written to a descriptor that is not its own: nothing can be believed now."""
    monkeypatch.setattr(spawn, "QUICK", 0.0)
    await asyncio.to_thread(line.process.theirs.sendall, rubbish)
    assert await line.code() == -9
    assert "child.unintelligible pid=4321" in caplog.text


def test_deaths_for_people():
    """Signals by name."""
    assert death(3) == "exit code 3"
    assert death(-9) == "signal SIGKILL"
    assert death(-64) in ("signal SIGRTMAX", "signal 64")
    assert death(-200) == "signal 200"


def test_what_ran_for_people():
    """Task, id and time; not without end."""
    entries = [BoardEntry(str(number), "t", 100.0, None) for number in range(10)]
    assert describe([], 0.0) == "nothing"
    assert describe(entries[:1], 103.25) == "t[0] 3.2s"
    assert describe(entries, 103.0).endswith("t[7] 3.0s and 2 more")
