"""Time that a test has jump: a beat fires what that brings, and a clock set back repeats nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from amqtask import App, cron, every
from amqtask.clock import telling
from amqtask.testing import Server, sandbox
from tests.helpers import eventually
from tests.integration.beat.conftest import Beating, MakeApp, RunningBeat

DAY = 86_400.0


@pytest.fixture
def broker(any_broker: Server) -> str:
    """One broker will do."""
    return any_broker.url


@pytest.fixture
def shop() -> Iterator[App]:
    """An app with a task that is due each morning."""
    made = App("time-travel", broker="amqp://127.0.0.1:1/", environ={})

    @made.task(name="greet", schedule=cron("0 9 * * *"))
    def greet() -> None:
        pass

    yield made
    made.close()


def _fired(beat: RunningBeat, count: int) -> bool:
    return sum(beat.counts.values()) == count


def test_days_pass_in_a_sandbox(shop: App) -> None:
    """A worker and a beat on a broker whose time is advanced: each morning is greeted."""
    with sandbox(shop) as box, box.worker(shop):
        beat = RunningBeat(shop, "traveller")
        try:
            eventually(lambda: beat.leads)
            for day in range(1, 4):
                box.advance(DAY)
                eventually(partial(_fired, beat, day))
            box.run_until_idle()
            assert shop.schedules.get("greet").fires == 3
        finally:
            beat.stop()


def test_a_clock_that_is_set_back_repeats_nothing(make_app: MakeApp, beating: Beating) -> None:
    """What was fired is not fired again; `rewind` has entries begin anew."""
    app = make_app()
    app.schedule("tick", "note", every(seconds=1))
    ahead = [0.0]
    with telling(lambda: time.time() + ahead[0]):
        beat = beating(app)
        eventually(lambda: beat.counts.get("due", 0) >= 2)
        ahead[0] = -3600.0
        eventually(lambda: app.schedules.status()["leader"] == "first")
        before = sum(beat.counts.values())
        names = app.schedules.rewind()
        assert list(names) == ["tick"]
        assert before <= sum(beat.counts.values())
        eventually(lambda: sum(beat.counts.values()) >= before + 2)
        assert beat.counts.get("caught_up", 0) == 0


def test_a_clock_that_is_set_forward_catches_up(make_app: MakeApp, beating: Beating) -> None:
    """An hour that was passed over: the latest instant of it is fired, the rest was missed."""
    app = make_app()
    app.schedule("tick", "note", every(seconds=10))
    ahead = [0.0]
    with telling(lambda: time.time() + ahead[0]):
        beat = beating(app)
        ahead[0] = 3600.0
        eventually(lambda: beat.counts.get("caught_up", 0) == 1)
        assert beat.counts["missed"] >= 20
