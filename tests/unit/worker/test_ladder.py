"""The shutdown ladder: each signal and each deadline goes one rung down, never up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.worker.ladder import Descent, Ladder, Rung
from tests.helpers import aeventually


def ladder(warm: float | None = 60.0) -> Ladder:
    return Ladder(warm=warm, cleanup=5.0, quick=2.0)


def test_one_signal_and_patience():
    """Warm until its deadline, then cancel, now, kill; nothing presses after that."""
    steps = ladder()
    assert steps.tick(0.0) is Rung.RUNNING
    assert steps.due is None
    assert steps.press(0.0) is Rung.WARM
    assert steps.tick(59.9) is Rung.WARM
    assert steps.tick(60.0) is Rung.CANCEL
    assert steps.tick(64.9) is Rung.CANCEL
    assert steps.tick(65.0) is Rung.NOW
    assert steps.tick(67.0) is Rung.KILL
    assert steps.due is None
    assert steps.tick(1e9) is Rung.KILL


def test_without_a_deadline_warm_holds():
    """No shutdown timeout: only another signal goes on."""
    steps = ladder(warm=None)
    steps.press(0.0)
    assert steps.due is None
    assert steps.tick(1e9) is Rung.WARM
    assert steps.press(1e9) is Rung.CANCEL


def test_each_signal_is_one_rung():
    """Four signals kill; a fifth changes nothing."""
    steps = ladder()
    rungs = [steps.press(0.0) for _ in range(5)]
    assert rungs == [Rung.WARM, Rung.CANCEL, Rung.NOW, Rung.KILL, Rung.KILL]


def test_a_cold_signal_skips_rungs():
    """SIGQUIT goes to `now` at least, and one further when it is there already."""
    steps = ladder()
    assert steps.press(0.0, Rung.NOW) is Rung.NOW
    assert steps.press(0.0, Rung.NOW) is Rung.KILL


@given(
    st.one_of(st.none(), st.floats(0, 100)),
    st.lists(st.tuples(st.sampled_from(["press", "quit", "tick"]), st.floats(0, 50))),
)
def test_it_only_goes_down(warm: float | None, events: list[tuple[str, float]]):
    """Whatever comes: never a rung up, and a deadline is never before the present."""
    steps = ladder(warm)
    now, last = 0.0, Rung.RUNNING
    for event, wait in events:
        now += wait
        if event == "tick":
            rung = steps.tick(now)
            assert rung <= last + 1
        else:
            rung = steps.press(now, Rung.NOW if event == "quit" else Rung.WARM)
            assert rung > last or rung is Rung.KILL
        assert rung >= last
        assert steps.due is None or steps.due >= now
        last = rung


class Walker:
    def __init__(self) -> None:
        self.took: list[Rung] = []

    def take(self, rung: Rung) -> None:
        self.took.append(rung)


async def test_a_descent_goes_by_itself():
    """Deadlines pass without anybody calling; each rung is logged, then taken by all."""
    walkers, logged = [Walker(), Walker()], []
    descent = Descent(
        Ladder(warm=0.01, cleanup=0.01, quick=0.01),
        lambda: walkers,
        lambda rung: logged.append(rung),
    )
    descent.press()
    assert logged == [Rung.WARM]
    await aeventually(lambda: descent.rung is Rung.KILL)
    descent.press()
    whole = [Rung.WARM, Rung.CANCEL, Rung.NOW, Rung.KILL]
    assert logged == walkers[0].took == walkers[1].took == whole


async def test_a_closed_descent_stands_still():
    """Once everybody has ended nothing is told to anybody."""
    walker = Walker()
    descent = Descent(Ladder(warm=0.0, cleanup=0.0, quick=0.0), lambda: [walker])
    descent.press()
    descent.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert walker.took == [Rung.WARM]


@pytest.mark.parametrize("rung", list(Rung))
def test_rungs_are_ordered(rung: Rung):
    """A larger rung is ruder, so `max` is the one that counts."""
    assert max(Rung.RUNNING, rung) is rung
