"""Places and the crew: who follows whom, who is warned of what, and how many there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from amqtask.worker.crew import HOPELESS, Crew
from amqtask.worker.ladder import Rung
from amqtask.worker.lines import GAVE_UP
from tests.helpers import aeventually
from tests.unit.worker.children import SPEC, FakeChild, Nursery


class Yard:
    """A crew of fake children, and what it called back."""

    def __init__(self, **said) -> None:
        self.nursery = Nursery()
        self.changes = self.hopeless = 0
        self.crew = Crew(
            replace(SPEC, **said),
            on_change=self._change,
            on_hopeless=self._give_up,
            spawn=self.nursery,
        )

    def _change(self) -> None:
        self.changes += 1

    def _give_up(self) -> None:
        self.hopeless += 1

    def working(self) -> Any:
        return self.crew.places[0].child

    def has(self, child: Any) -> bool:
        return child in list(self.crew.children())

    async def born(self, number: int) -> FakeChild:
        await aeventually(lambda: len(self.nursery.born) >= number)
        await asyncio.sleep(0)  # its watch begins
        return self.nursery.born[number - 1]

    async def filled(self, processes: int) -> list[FakeChild]:
        self.crew.resize(processes)
        children = [await self.born(number + 1) for number in range(processes)]
        for child in children:
            child.get_ready()
        return children

    async def end(self) -> None:
        self.crew.close()
        for child in self.crew.children():
            child.take(Rung.KILL)
        await self.crew.ended()


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    made = Yard()
    yield made
    await made.end()


async def test_a_child_that_dies_is_followed(yard: Yard, caplog):
    """After a pause another one starts; the log says how it ended and what it ran."""
    (child,) = await yard.filled(1)
    child.die(-11, "A")
    second = await yard.born(2)
    assert yard.crew.ready == 0
    assert "signal SIGSEGV: another one starts in" in caplog.text
    assert "ran='t.task[A] " in caplog.text
    second.get_ready()
    assert yard.crew.ready == 1
    assert child.closed


async def test_what_it_ran_is_suspect(yard: Yard):
    """The others are told at once, and those that follow when they start."""
    first, other = await yard.filled(2)
    first.die(-9, "A", "B")
    third = await yard.born(3)
    word = {
        "do": "suspect",
        "ids": ["A", "B"],
        "why": "it ran in a process that ended by signal SIGKILL",
    }
    assert other.words == third.words == [word]


async def test_one_that_gave_itself_up_is_followed_at_once(yard: Yard, caplog):
    """Exit code 75: its offender is settled, so nobody is suspect and nobody waits."""
    (child,) = await yard.filled(1)
    child.gave_up = "task 'x' ignores its limit"
    child.die(GAVE_UP, "A")
    second = await yard.born(2)
    assert second.words == []
    assert "child.gave_up" in caplog.text
    assert "another one starts at once" in caplog.text


async def test_children_that_never_get_ready_are_hopeless(yard: Yard):
    """So many in a row, while nobody works."""
    yard.crew.resize(HOPELESS)
    for number in range(HOPELESS):
        (await yard.born(number + 1)).die(1)
    await aeventually(lambda: yard.hopeless == 1)


async def test_one_that_works_is_hope(yard: Yard):
    """A place that cannot be filled does not end those that are."""
    yard.crew.resize(HOPELESS + 1)
    children = [await yard.born(number + 1) for number in range(HOPELESS + 1)]
    for child in children[:HOPELESS]:
        child.die(1)
    children[-1].get_ready()
    await yard.born(HOPELESS + 2)
    assert yard.hopeless == 0


async def test_a_start_that_the_system_refuses_is_tried_again(yard: Yard, caplog):
    """No memory or no descriptors left: the place stays, and is filled later."""
    (child,) = await yard.filled(1)
    yard.nursery.refuse = BlockingIOError(11, "Resource temporarily unavailable")
    child.die(-9)
    await aeventually(lambda: "child.not_started" in caplog.text)
    yard.nursery.refuse = None
    await yard.born(2)


async def test_a_replacement_is_ready_before_the_old_one_stops(yard: Yard):
    """The old one hears nothing until its successor consumes."""
    (old,) = await yard.filled(1)
    replacing = asyncio.create_task(yard.crew.replace(yard.crew.places[0]))
    fresh = await yard.born(2)
    assert old.at(Rung.RUNNING)
    assert yard.crew.ready == 1
    fresh.get_ready()
    assert await replacing
    assert old.at(Rung.WARM)
    assert yard.working() is fresh
    assert yard.crew.ready == 1


async def test_a_replacement_that_dies_changes_nothing(yard: Yard):
    """New code that does not even start leaves the old one at work."""
    (old,) = await yard.filled(1)
    replacing = asyncio.create_task(yard.crew.replace(yard.crew.places[0]))
    (await yard.born(2)).die(1)
    assert not await replacing
    assert old.at(Rung.RUNNING)
    assert yard.working() is old


async def test_a_replacement_that_is_late_is_ended(yard: Yard, caplog):
    """It has its time to get ready, and not more."""
    (old,) = await yard.filled(1)
    assert not await yard.crew.replace(yard.crew.places[0], patience=0.01)
    assert yard.nursery.last.at(Rung.NOW)
    assert yard.working() is old
    assert "child.not_ready" in caplog.text


async def test_the_old_one_dies_before_its_successor_is_ready(yard: Yard):
    """The successor takes the place at once, and is followed itself should it die."""
    (old,) = await yard.filled(1)
    replacing = asyncio.create_task(yard.crew.replace(yard.crew.places[0]))
    fresh = await yard.born(2)
    old.die(-9)
    assert await replacing
    assert yard.working() is fresh
    fresh.die(-9)
    await yard.born(3)


async def test_what_retires_goes_down_its_own_ladder():
    """A task that never ends does not keep a replaced process for ever."""
    yard = Yard(shutdown_timeout=0.0, cleanup_timeout=0.01)
    (old,) = await yard.filled(1)
    old.stubborn = True
    replacing = asyncio.create_task(yard.crew.replace(yard.crew.places[0]))
    (await yard.born(2)).get_ready()
    assert await replacing
    await aeventually(lambda: old.at(Rung.NOW))
    assert yard.has(old)
    await yard.end()


async def test_a_rolling_restart_is_one_after_the_other(yard: Yard):
    """The second is replaced once the first one's successor is ready."""
    first, second = await yard.filled(2)
    restarting = asyncio.create_task(yard.crew.restart())
    third = await yard.born(3)
    assert len(yard.nursery.born) == 3
    third.get_ready()
    fourth = await yard.born(4)
    assert first.at(Rung.WARM)
    assert second.at(Rung.RUNNING)
    fourth.get_ready()
    assert await restarting
    assert second.at(Rung.WARM)


async def test_a_rolling_restart_ends_at_the_first_that_fails(yard: Yard):
    """Broken code costs no child that works."""
    first, second = await yard.filled(2)
    restarting = asyncio.create_task(yard.crew.restart())
    (await yard.born(3)).die(1)
    assert not await restarting
    assert first.at(Rung.RUNNING)
    assert second.at(Rung.RUNNING)


async def test_fewer_places(yard: Yard):
    """The one with the least to do goes, and nobody follows it."""
    busy, idle = await yard.filled(2)
    busy.beat = replace(busy.beat, running=3)
    yard.crew.resize(1)
    assert idle.at(Rung.WARM)
    assert busy.at(Rung.RUNNING)
    await aeventually(lambda: not yard.has(idle))
    assert len(yard.nursery.born) == 2


async def test_closed_nobody_follows(yard: Yard):
    """Neither one that dies, nor one that pauses; one that did not end well is remembered."""
    first, second = await yard.filled(2)
    first.die(-9)
    await aeventually(lambda: yard.crew.places[0].child is None)
    yard.crew.close()
    second.stubborn = True
    second.take(Rung.WARM)
    second.die(3)
    await yard.crew.ended()
    assert len(yard.nursery.born) == 2
    assert yard.crew.failed


async def test_a_death_from_before_the_stop_is_none_of_its(yard: Yard, caplog):
    """Whether it was noticed in time or not: one that never began to stop did not fail to."""
    first, second = await yard.filled(2)
    yard.crew.close()
    first.die(-9)
    second.take(Rung.WARM)
    await yard.crew.ended()
    assert "signal SIGKILL: nobody follows it" in caplog.text
    assert not yard.crew.failed


async def test_counts_are_summed_up(yard: Yard):
    """What children settled is known when they have ended."""
    first, second = await yard.filled(2)
    for child in (first, second):
        child.counts["done"] += 2
    yard.crew.close()
    for child in (first, second):
        child.take(Rung.WARM)
    await yard.crew.ended()
    assert yard.crew.counts == {"done": 4}
    assert not yard.crew.failed
