"""The supervisor's rounds: who is silent, hung, deaf or outgrown, and what is done about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from amqtask.worker.board import BoardEntry
from amqtask.worker.crew import Crew
from amqtask.worker.ladder import Rung
from amqtask.worker.lines import Beat
from amqtask.worker.rounds import (
    HANGING,
    LEAVING,
    LONG_OVERDUE,
    OVERDUE,
    SILENT,
    Rounds,
    outgrown,
    overdue,
)
from tests.helpers import aeventually
from tests.unit.worker.children import SPEC, FakeChild, Nursery

WALL = 1_000_000.0


def test_overdue():
    """Only what has a hard deadline, and only well beyond it."""
    entries = [
        BoardEntry("free", "t", WALL, None),
        BoardEntry("in time", "t", WALL, WALL - 4.9),
        BoardEntry("late", "t", WALL, WALL - 5.1),
    ]
    assert [entry.id for entry in overdue(entries, WALL, 5.0)] == ["late"]


@pytest.mark.parametrize(
    ("beat", "said", "reason"),
    [
        (Beat(finished=9), {}, None),
        (Beat(finished=9), {"max_tasks_per_child": 10}, None),
        (Beat(finished=10), {"max_tasks_per_child": 10}, "it has run 10 tasks"),
        (Beat(finished=1, rss=301 << 20), {"max_memory_per_child": 300 << 20}, "it holds 301 MiB"),
        (Beat(finished=1, rss=300 << 20), {"max_memory_per_child": 300 << 20}, None),
        # its successor would be as large
        (Beat(finished=0, rss=301 << 20), {"max_memory_per_child": 300 << 20}, None),
    ],
)
def test_outgrown(beat: Beat, said, reason: str | None):
    """Tasks and memory, each against its limit."""
    assert outgrown(beat, replace(SPEC, **said)) == reason


class Watchman:
    """Rounds at times that a test makes up."""

    def __init__(self, *, deaf_timeout: float = 300.0, **said) -> None:
        self.nursery = Nursery()
        spec = replace(SPEC, **said)
        self.crew = Crew(spec, on_change=lambda: None, on_hopeless=lambda: None, spawn=self.nursery)
        self.deaf: list[list[str]] = []
        self.rounds = Rounds(self.crew, spec, deaf_timeout=deaf_timeout, on_deaf=self.deaf.append)
        self.now = self.rounds._last

    async def filled(self, processes: int) -> list[FakeChild]:
        self.crew.resize(processes)
        await aeventually(lambda: len(self.nursery.born) == processes)
        for child in self.nursery.born:
            child.get_ready()
        return list(self.nursery.born)

    def go(self, seconds: float, *beating: FakeChild) -> None:
        """Make a round each second; those that beat are heard."""
        for _ in range(int(seconds)):
            self.now += 1.0
            for child in beating:
                child.heard = self.now
            self.rounds.look(self.now, WALL)

    async def end(self) -> None:
        self.rounds.close()
        self.crew.close()
        for child in self.crew.children():
            child.take(Rung.KILL)
        await self.crew.ended()


@pytest.fixture
async def watch() -> AsyncIterator[Callable[..., Watchman]]:
    made: list[Watchman] = []

    def make(**said) -> Watchman:
        made.append(Watchman(**said))
        return made[-1]

    yield make
    for each in made:
        await each.end()


async def test_a_silent_child_is_reported_once(watch, caplog):
    """The log says what it runs; it says again when it is heard, and does nothing else."""
    caplog.set_level("INFO")
    man = watch()
    first, second = await man.filled(2)
    first.entries = [BoardEntry("A", "t.long", WALL, None)]
    man.go(SILENT + 20, second)
    assert caplog.text.count("child.silent") == 1
    assert f"pid={first.pid}" in caplog.text
    assert "t.long[A]" in caplog.text
    assert first.fate is None
    man.go(2, first, second)
    assert caplog.text.count("child.heard_again") == 1


async def test_one_that_hangs_beyond_a_hard_deadline_is_killed(watch):
    """The offender does not run again anywhere; its neighbours are suspects."""
    man = watch()
    first, second = await man.filled(2)
    first.entries = [
        BoardEntry("late", "t.hog", WALL - 60, WALL - OVERDUE - 1),
        BoardEntry("beside", "t.calm", WALL - 60, None),
    ]
    man.go(OVERDUE + 2, second)
    assert first.fate is not None
    assert "t.hog[late]" in first.fate
    await aeventually(lambda: len(second.words) == 2)
    condemned, suspected = second.words
    assert condemned["do"] == "condemn"
    assert condemned["id"] == "late"
    assert suspected["do"] == "suspect"
    assert suspected["ids"] == ["beside"]


async def test_within_its_deadline_it_may_be_silent(watch):
    """Holding the interpreter is no crime while there is time."""
    man = watch()
    first, second = await man.filled(2)
    first.entries = [BoardEntry("A", "t.hog", WALL - 60, WALL - OVERDUE + 1)]
    man.go(30, second)
    assert first.fate is None


async def test_one_that_beats_gets_rid_of_its_task_itself(watch):
    """It is killed only when it has plainly failed to."""
    man = watch()
    first, second = await man.filled(2)
    first.entries = [BoardEntry("A", "t.hog", WALL - 60, WALL - LONG_OVERDUE + 1)]
    man.go(30, first, second)
    assert not first.has_ended()
    first.entries = [BoardEntry("A", "t.hog", WALL - 60, WALL - LONG_OVERDUE - 1)]
    man.go(2, first, second)
    assert first.has_ended()


async def test_one_that_hangs_at_its_end_is_killed(watch):
    """It said that nothing is left: it has a moment to be gone."""
    man = watch()
    first, second = await man.filled(2)
    first.ending = man.now
    man.go(HANGING, second)
    assert not first.has_ended()
    man.go(2, second)
    assert first.has_ended()
    assert first.fate == "it hung at its end"
    assert not first.silent


async def test_a_child_that_somebody_else_stops_is_followed(watch, caplog):
    """A long task in it leaves no gap; it retires as one that was replaced."""
    caplog.set_level("INFO")
    man = watch()
    first, second = await man.filled(2)
    first.stubborn, first.rung = True, Rung.WARM
    first.lose("it stops")
    man.go(LEAVING, first, second)
    assert len(man.nursery.born) == 2
    man.go(2, first, second)
    await aeventually(lambda: len(man.nursery.born) == 3)
    assert f"child.leaving pid={first.pid}" in caplog.text
    assert man.crew.places[0].child is man.nursery.born[2]
    man.go(10, first, second, man.nursery.born[2])
    assert len(man.nursery.born) == 3
    first.die(0)
    await aeventually(lambda: first not in list(man.crew.children()))


async def test_nobody_is_followed_once_the_crew_is_closed(watch, caplog):
    """A worker that stops waits for its long tasks, and says no more about them."""
    caplog.set_level("INFO")
    man = watch()
    first, second = await man.filled(2)
    man.crew.close()
    for child in (first, second):
        child.stubborn, child.rung = True, Rung.WARM
        child.lose("it stops")
    man.go(LEAVING + 5, first, second)
    assert len(man.nursery.born) == 2
    assert "child.leaving" not in caplog.text


async def test_a_machine_that_slept_blames_nobody(watch):
    """When the rounds themselves were late, silence counts from now."""
    man = watch()
    (child,) = await man.filled(1)
    child.entries = [BoardEntry("A", "t.hog", WALL - 60, WALL - 3600)]
    man.now += 3600.0
    man.go(OVERDUE)
    assert child.fate is None
    assert man.deaf == []


async def test_a_child_that_imports_is_not_silent(watch):
    """Beats begin once its app is there."""
    man = watch()
    man.crew.resize(1)
    await aeventually(lambda: man.nursery.born)
    child = man.nursery.last
    child.heard = child.started
    man.go(SILENT + 10)
    assert not child.silent


async def test_a_child_silent_for_half_the_deaf_timeout_is_killed(watch):
    """Whatever it does, its connection is gone long since."""
    man = watch(deaf_timeout=60.0)
    first, second = await man.filled(2)
    man.go(29, second)
    assert not first.has_ended()
    man.go(2, second)
    assert first.has_ended()
    assert man.deaf == []


async def test_a_child_that_does_not_consume_is_replaced_while_others_do(watch, caplog):
    """It is its own trouble then, and a new one may heal it."""
    caplog.set_level("INFO")
    man = watch(deaf_timeout=60.0)
    first, second = await man.filled(2)
    first.lose("queue 'email': channel closed")
    man.go(32, first, second)
    await aeventually(lambda: len(man.nursery.born) == 3)
    assert "queue 'email': channel closed, another one takes over" in caplog.text
    assert first.at(Rung.RUNNING)
    man.nursery.last.get_ready()
    await aeventually(lambda: first.at(Rung.WARM))


async def test_a_worker_that_does_not_consume_is_deaf(watch):
    """Nobody consumed for so long: called once, with each one's reasons."""
    man = watch(deaf_timeout=60.0)
    first, second = await man.filled(2)
    man.go(100, first, second)
    first.lose("queue 'email': gone")
    second.lose("queue 'email': gone")
    man.go(59, first, second)
    assert man.deaf == []
    man.go(3, first, second)
    reasons = [
        f"process {child.index} (pid {child.pid}): queue 'email': gone" for child in (first, second)
    ]
    assert man.deaf == [reasons]
    assert len(man.nursery.born) == 2


async def test_before_the_first_child_it_is_deaf_too(watch):
    """A broker that never answers counts as much as one that went away."""
    man = watch(deaf_timeout=60.0)
    man.go(62)
    assert man.deaf == [[]]


async def test_without_a_deaf_timeout_nobody_is_deaf(watch):
    """0 switches it off."""
    man = watch(deaf_timeout=0.0)
    (child,) = await man.filled(1)
    child.lose("gone")
    man.go(4000, child)
    assert man.deaf == []
    assert child.fate is None


async def test_one_child_at_a_time_is_recycled(watch):
    """Both are over the limit; the second waits for its turn."""
    man = watch(max_tasks_per_child=10)
    first, second = await man.filled(2)
    first.beat = second.beat = Beat(finished=10)
    man.go(5, first, second)
    await aeventually(lambda: len(man.nursery.born) == 3)
    third = man.nursery.last
    man.go(5, first, second, third)
    assert len(man.nursery.born) == 3
    assert first.at(Rung.RUNNING)
    assert second.at(Rung.RUNNING)
    third.get_ready()
    await aeventually(lambda: first.at(Rung.WARM))
    await aeventually(lambda: not man.rounds._replacing)
    man.go(1, second, third)
    await aeventually(lambda: len(man.nursery.born) == 4)
    assert second.at(Rung.RUNNING)


async def test_reasons(watch):
    """Each place that does not consume says why."""
    man = watch()
    first, second = await man.filled(2)
    assert man.rounds.reasons() == []
    second.die(-9)
    await aeventually(lambda: man.crew.places[1].child is None)
    first.silent = True
    assert man.rounds.reasons() == [
        f"process 0 (pid {first.pid}): silent",
        "process 1: died, another one starts soon",
    ]
