"""The beat of a worker as its supervisor keeps it: what it says, and when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import cast

import pytest

from amqtask.worker.beatkeeper import HUNG, BeatKeeper, BeatProcess
from amqtask.worker.ladder import Rung
from tests.helpers import aeventually
from tests.unit.worker.children import SPEC, FakeBeat, Nursery
from tests.unit.worker.test_spawn import FakeProcess


class Yard:
    """A keeper of fake beats."""

    def __init__(self) -> None:
        self.nursery = Nursery(FakeBeat)
        self.keeper = BeatKeeper(partial(self.nursery, SPEC))

    async def leading(self, number: int = 1) -> FakeBeat:
        await aeventually(partial(self.nursery.counts, number))
        await asyncio.sleep(0)
        beat = cast(FakeBeat, self.nursery.last)
        beat.get_ready()
        return beat


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    made = Yard()
    made.keeper.open()
    yield made
    made.keeper.stop()
    await made.keeper.ended()


async def test_one_that_is_silent_for_long_is_killed_and_followed(yard: Yard):
    """Its lead went to another one long ago."""
    beat = await yard.leading()
    yard.keeper.look(lambda _: HUNG)
    assert not beat.has_ended()
    yard.keeper.look(lambda _: HUNG + 1)
    assert beat.fate == "it was silent for 61 s"
    await yard.leading(2)
    assert yard.keeper.status().ready


async def test_one_that_leads_and_does_not_tick_is_killed_and_followed(yard: Yard):
    """It holds the lead for nothing."""
    beat = await yard.leading()
    beat.dead = ("it leads, and has not looked at the clock for 61 s",)
    assert yard.keeper.status().dead == (f"beat (pid {beat.pid}): {beat.dead[0]}",)
    yard.keeper.look(lambda _: 0.0)
    assert beat.fate == beat.dead[0]
    await yard.leading(2)


async def test_one_with_new_code_gets_in_line_first(yard: Yard):
    """The one before hands over only then; where there is none, whoever starts next will do."""
    old = await yard.leading()
    restarting = asyncio.create_task(yard.keeper.restart())
    await aeventually(partial(yard.nursery.counts, 2))
    await asyncio.sleep(0)
    assert not old.at(Rung.WARM)
    new = await yard.leading(2)
    assert await restarting
    assert old.at(Rung.WARM)
    new.die(1)
    await aeventually(lambda: not list(yard.keeper.children()))
    assert await yard.keeper.restart()
    await yard.leading(3)


async def test_new_code_that_does_not_start_replaces_nobody(yard: Yard):
    """The old one goes on."""
    old = await yard.leading()
    restarting = asyncio.create_task(yard.keeper.restart())
    await aeventually(partial(yard.nursery.counts, 2))
    await asyncio.sleep(0)
    yard.nursery.last.die(1)
    assert not await restarting
    assert [beat.pid for beat in yard.keeper.children()] == [old.pid]


async def test_what_it_says():
    """How the beat is comes with each sign of life."""
    process = FakeProcess()
    beat = BeatProcess(SPEC, 0, lambda spec, _: (process, process.ours) if spec.beat else None)  # type: ignore[arg-type, return-value]
    changes: list[object] = []
    watch = asyncio.create_task(beat.watch(changes.append))
    assert beat.shown == {"role": "connecting"}
    process.say(event="beat", rss=7, shown={"role": "leading"}, dead=["it hangs"], reasons=[])
    await aeventually(lambda: changes)
    assert (beat.shown, beat.dead, beat.beat.rss) == ({"role": "leading"}, ("it hangs",), 7)
    process.end(0)
    assert await watch == 0
    assert beat.epitaph(1) == "pid=4321 exit code 1"
    beat.close()
