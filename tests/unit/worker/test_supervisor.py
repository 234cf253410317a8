"""The supervisor with children that are no processes: signals, exit codes, what it tells."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from amqtask import App
from amqtask.errors import AccessRefused
from amqtask.worker import supervisor as module
from amqtask.worker.crew import HOPELESS
from amqtask.worker.ladder import Rung
from amqtask.worker.lines import Beat
from amqtask.worker.rounds import ROUND
from amqtask.worker.supervisor import DEAF, Supervisor, reap_strangers
from tests.helpers import aeventually
from tests.unit.worker.children import SPEC, FakeBeat, FakeChild, Nursery


class Ear:
    """A notifier that notes each word it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, word: str) -> Callable[..., None]:
        return lambda *_: self.told.append(word)


class Desk:
    """A supervisor that runs, and its fake children."""

    def __init__(
        self, *, processes: int = 2, deaf_timeout: float = 0.0, beat: bool = False, **said: Any
    ) -> None:
        self.nursery = Nursery()
        self.beats = Nursery(FakeBeat)
        self.ear = Ear()
        self.supervisor = Supervisor(
            App("desk", environ={}),
            replace(SPEC, **said),
            processes=processes,
            beat=beat,
            deaf_timeout=deaf_timeout,
            notifier=self.ear,  # type: ignore[arg-type]
            spawn=self.nursery,
            spawn_beat=self.beats,
        )
        self.running = asyncio.create_task(self.supervisor.run())

    async def ready(self) -> list[FakeChild]:
        born = self.nursery.born
        await aeventually(lambda: len(born) == self.supervisor._processes)
        await asyncio.sleep(0)
        for child in born:
            child.get_ready()
        return list(born)

    async def code(self) -> int:
        async with asyncio.timeout(60):
            return await self.running


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch, caplog) -> AsyncIterator[Callable[..., Desk]]:
    caplog.set_level("INFO")
    made: list[Desk] = []

    async def declared(*_: object) -> None:
        return None

    def make(**said: Any) -> Desk:
        made.append(Desk(**said))
        return made[-1]

    monkeypatch.setattr(module, "declare_topology", declared)
    yield make
    for each in made:
        while not each.running.done():
            each.supervisor._stop("signal=TEST", Rung.KILL)
            await asyncio.sleep(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        asyncio.get_running_loop().remove_signal_handler(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_warm(desk, caplog, number: signal.Signals):
    """Children stop as asked; exit code 0."""
    made = desk()
    first, second = await made.ready()
    assert "worker.ready name=bee processes=2" in caplog.text
    os.kill(os.getpid(), number)
    assert await made.code() == 0
    assert first.at(Rung.WARM)
    assert second.at(Rung.WARM)
    assert f"worker.stopping signal={number.name}: finishing what runs" in caplog.text


async def test_each_further_signal_is_ruder(desk, caplog):
    """Warm, cancel, now, kill; a process that had to be killed did not end well."""
    made = desk(processes=1)
    (child,) = await made.ready()
    child.stubborn = True
    for rung in (Rung.WARM, Rung.CANCEL, Rung.NOW):
        os.kill(os.getpid(), signal.SIGTERM)
        await aeventually(partial(child.at, rung))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await made.code() == 1
    words = ("worker.stopping ", "worker.cancelling ", "worker.stopping_now ", "worker.killing ")
    assert [caplog.text.count(word) for word in words] == [1, 1, 1, 1]


async def test_quit_is_cold(desk):
    """SIGQUIT gives back at once, without a warm stop before."""
    made = desk(processes=1)
    (child,) = await made.ready()
    child.stubborn = True
    os.kill(os.getpid(), signal.SIGQUIT)
    await aeventually(lambda: child.at(Rung.NOW))
    child.die(0)
    assert await made.code() == 0


async def test_the_ladder_goes_on_by_itself(desk, caplog):
    """One signal is enough for a worker that has a deadline."""
    made = desk(processes=1, shutdown_timeout=0.0, cleanup_timeout=0.01)
    (child,) = await made.ready()
    child.stubborn = True
    os.kill(os.getpid(), signal.SIGTERM)
    await aeventually(lambda: child.at(Rung.NOW))
    child.die(0)
    assert await made.code() == 0
    assert "worker.cancelling reason=timeout" in caplog.text
    assert "worker.stopping_now reason=timeout" in caplog.text


async def test_hangup_replaces_every_child(desk, caplog):
    """One after the other; the service manager hears of the beginning and the end."""
    made = desk()
    first, second = await made.ready()
    os.kill(os.getpid(), signal.SIGHUP)
    for number in (3, 4):
        await aeventually(partial(made.nursery.counts, number))
        await asyncio.sleep(0)
        made.nursery.last.get_ready()
    await aeventually(lambda: "worker.restarted processes=2" in caplog.text)
    assert first.at(Rung.WARM)
    assert second.at(Rung.WARM)
    assert not made.running.done()
    told = [word for word in made.ear.told if word in ("ready", "reloading")]
    assert told == ["ready", "reloading", "ready"]


async def test_hangup_while_it_stops_is_ignored(desk, caplog):
    """There is nothing to restart then."""
    made = desk(processes=1)
    (child,) = await made.ready()
    child.stubborn = True
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
    await aeventually(lambda: "worker.restart_ignored" in caplog.text)
    child.die(0)
    assert await made.code() == 0


async def test_stacks_are_asked_of_all(desk):
    """A child that is silent cannot be asked: it is made to by a signal of its own."""
    made = desk()
    first, second = await made.ready()
    second.silent = True
    os.kill(os.getpid(), signal.SIGUSR1)
    await aeventually(lambda: first.words == [{"do": "stacks"}])
    assert not first.dumped
    assert second.dumped
    assert second.words == []


async def test_children_that_never_get_ready_end_it(desk, caplog):
    """Exit code 1, and the log says to look above."""
    made = desk(processes=HOPELESS)
    await aeventually(lambda: len(made.nursery.born) == HOPELESS)
    await asyncio.sleep(0)
    for child in list(made.nursery.born):
        child.die(1)
    assert await made.code() == 1
    assert "worker.hopeless" in caplog.text


async def test_what_cannot_be_declared_ends_it(desk, monkeypatch, caplog):
    """Exit code 1, with what to do about it, before any child is started."""

    async def refuse(*_: object) -> None:
        raise AccessRefused("broker refused", hint="check the password")

    monkeypatch.setattr(module, "declare_topology", refuse)
    made = desk()
    assert await made.code() == 1
    assert made.nursery.born == []
    assert "worker.cannot_start error=broker refused\ncheck the password" in caplog.text


async def test_a_deaf_worker_ends_by_its_own_code(desk, caplog):
    """The log has the reasons, and tasks get a bounded time."""
    made = desk(processes=1)
    (child,) = await made.ready()
    child.lose("queue 'email': gone")
    made.supervisor._on_deaf(["process 0: queue 'email': gone"])
    assert await made.code() == DEAF
    assert "worker.deaf" in caplog.text
    assert "queue 'email': gone" in caplog.text
    assert "worker.stopping reason=deaf" in caplog.text


async def test_waiting_for_a_broker_is_deaf_too(desk, monkeypatch, caplog):
    """A worker that never came to consume ends as one that stopped to."""

    async def wait(*said: Any) -> None:
        said[2]("broker does not answer")
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "declare_topology", wait)
    made = desk(deaf_timeout=0.5 * ROUND)
    assert await made.code() == DEAF
    assert "broker does not answer" in caplog.text
    assert made.nursery.born == []


async def test_status(desk):
    """Alive as long as all tick, ready once all consume; reasons say who does not."""
    made = desk()
    assert made.supervisor.status().deaf == ("it starts",)
    first, second = await made.ready()
    status = made.supervisor.status()
    assert (status.live, status.ready, status.name) == (True, True, "bee")
    assert [child["pid"] for child in status.children] == [first.pid, second.pid]
    second.lose("queue 'email': gone")
    assert made.supervisor.status().deaf == (f"process 1 (pid {second.pid}): queue 'email': gone",)
    first.heard -= 100.0
    made.supervisor._rounds._fresh -= 100.0
    second.beat = Beat(blocked=61.0)
    dead = made.supervisor.status().dead
    assert dead[0].startswith(f"process 0 (pid {first.pid}): silent for")
    assert dead[1] == f"process 1 (pid {second.pid}): its event loop is blocked for 61 s"
    made.supervisor._stop("signal=TEST")
    assert made.supervisor.status().deaf == ("it stops",)
    assert await made.code() == 0


async def test_no_beat_is_kept_unless_it_is_wanted(desk):
    """None is started, and nothing is told of it."""
    made = desk()
    children = await made.ready()
    assert made.beats.born == []
    assert len(made.supervisor.status().children) == len(children)


async def test_a_beat_is_kept_beside_the_children(desk, caplog):
    """It counts for readiness, is followed when it dies, stops with the rest, and costs no exit code."""
    made = desk(processes=1, beat=True)
    (child,) = await made.ready()
    (beat,) = cast(list[FakeBeat], made.beats.born)
    assert made.supervisor.status().deaf == ("beat: it starts",)
    beat.get_ready()
    beat.shown = {"role": "leading"}
    status = made.supervisor.status()
    assert (status.ready, status.live) == (True, True)
    assert status.children[1] == {"pid": beat.pid, "role": "leading", "rss": 0}
    beat.die(-9)
    await aeventually(lambda: "beat.died" in caplog.text)
    assert made.supervisor.status().deaf == ("beat: died, another one starts soon",)
    assert f"beat.died pid={beat.pid} signal SIGKILL: another one starts in" in caplog.text
    await aeventually(partial(made.beats.counts, 2))
    await asyncio.sleep(0)
    made.beats.last.stubborn = True
    os.kill(os.getpid(), signal.SIGTERM)
    await aeventually(lambda: made.beats.last.at(Rung.WARM))
    assert made.supervisor.status().deaf == ("it stops",)
    made.beats.last.kill("it hung")
    assert await made.code() == 0
    assert child.at(Rung.WARM)


async def test_hangup_replaces_the_beat_last(desk, caplog):
    """Once every child has new code, which knows what the new schedule calls."""
    made = desk(processes=1, beat=True)
    await made.ready()
    (old,) = made.beats.born
    old.get_ready()
    os.kill(os.getpid(), signal.SIGHUP)
    await aeventually(partial(made.nursery.counts, 2))
    await asyncio.sleep(0)
    assert made.beats.born == [old]
    made.nursery.last.get_ready()
    await aeventually(partial(made.beats.counts, 2))
    await asyncio.sleep(0)
    assert not old.at(Rung.WARM)
    made.beats.last.get_ready()
    await aeventually(lambda: old.at(Rung.WARM))
    await aeventually(lambda: "worker.restarted" in caplog.text)


async def test_a_terminal_that_closes_ends_it(desk, monkeypatch, caplog):
    """SIGHUP that comes because the terminal is gone is no wish for a restart."""
    made = desk(processes=1)
    await made.ready()
    made.supervisor._terminal = True
    monkeypatch.setattr(os, "isatty", lambda _: False)
    os.kill(os.getpid(), signal.SIGHUP)
    assert await made.code() == 0
    assert "worker.stopping signal=SIGHUP" in caplog.text


def test_what_others_left_is_collected():
    """Nobody else waits for an orphan that is ours; a child of our own is left to its watch."""
    stranger = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", ""], {})
    os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT)  # it has ended
    reap_strangers({stranger})
    os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT)
    reap_strangers(set())
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT)
