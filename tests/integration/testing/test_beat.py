"""A beat in the sandbox: time that is advanced stops at each instant of a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from amqtask import App, cron, every, once
from amqtask.clock import wall
from amqtask.testing import Sandbox, sandbox

DAY = 86_400.0

#: When a call ran, by the test's time, and the instant that it was for.
Ran = tuple[float, float]


@pytest.fixture
def app() -> Iterator[App]:
    made = App("scheduled", broker="amqp://127.0.0.1:1/", environ={})
    yield made
    made.close()


@pytest.fixture
def ran(app: App) -> list[Ran]:
    """What a task `note` has noted."""
    found: list[Ran] = []

    @app.task(name="note", bind=True)
    def note(context) -> None:
        instant = datetime.fromisoformat(context.headers["x-amqtask-instant"])
        found.append((wall(), instant.timestamp()))

    return found


@pytest.fixture
def box(app: App) -> Iterator[Sandbox]:
    with sandbox(app) as made:
        made.freeze()
        yield made


def to_a_full(seconds: float, box: Sandbox, also: float = 0.0) -> None:
    """Advance to a time that is so much after a whole number of ``seconds``."""
    box.advance(seconds - box.now() % seconds + also)


def test_each_instant_is_fired_at_its_time(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """Every 10 s, advanced by 35 s: three times, and each call runs at its own instant."""
    app.schedule("tick", "note", every(seconds=10))
    to_a_full(10, box, also=1)
    with box.worker(app), box.beat(app) as beat:
        start = box.now() - 1
        box.advance(35)
        assert [instant - start for _, instant in ran] == pytest.approx([10, 20, 30], abs=0.001)
        assert [at for at, _ in ran] == pytest.approx([at for _, at in ran], abs=0.001)
        assert beat.counts == {"due": 3}
        box.assert_sent("note", times=3)
        assert box.now() == pytest.approx(start + 36, abs=0.1)


def test_an_instant_at_the_very_end_is_fired(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """And none before it."""
    app.schedule("tick", "note", every(seconds=10))
    to_a_full(10, box, also=1)
    with box.worker(app), box.beat(app):
        box.advance(8)
        assert ran == []
        box.advance(1)
        assert len(ran) == 1


def test_days_and_schedules_beside_delays(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """What a schedule brings and what a delay ends happens in the order of its time."""
    app.schedule("morning", "note", cron("0 9 * * *"))
    order: list[str] = []

    @app.task(name="later", schedule=cron("0 12 * * *"))
    def later() -> None:
        order.append("noon")
        evening.options(countdown=6 * 3600).delay()

    @app.task
    def evening() -> None:
        order.append("evening")

    to_a_full(DAY, box)
    with box.worker(app), box.beat(app):
        box.advance(2 * DAY)
    assert order == ["noon", "evening"] * 2
    assert [at % DAY / 3600 for at, _ in ran] == pytest.approx([9, 9], abs=0.001)


def test_what_is_added_at_run_time_counts(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """By the test, or by a task that runs while time is advanced."""

    @app.task(name="plan")
    def plan() -> None:
        at = datetime.fromtimestamp(wall() + 3600).astimezone()
        app.schedules.add("once", "note", once(at))

    with box.worker(app), box.beat(app):
        plan.options(countdown=1800).delay()
        box.advance(DAY)
        assert len(ran) == 1
        app.schedules.add("hourly", "note", every(hours=1))
        to_a_full(3600, box, also=1)
        box.advance(3 * 3600)
        assert len(ran) == 5


def test_drain_stops_at_schedules_too(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """It lasts as long as calls wait; what a schedule will bring is nothing to wait for."""
    app.schedule("hourly", "note", every(hours=1))

    @app.task(name="late")
    def late() -> None:
        pass

    to_a_full(3600, box, also=1)
    with box.worker(app) as worker, box.beat(app):
        late.options(countdown=3 * 3600).delay()
        worker.drain()
        assert len(ran) == 3


def test_one_of_two_beats_leads(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """The other one stands by, and takes over between two instants."""
    app.schedule("hourly", "note", every(hours=1))
    to_a_full(3600, box, also=1)
    with box.worker(app), box.beat(app, "second") as second:
        with box.beat(app, "first") as first:
            assert (second.leads, first.leads) == (True, False)
            box.advance(3600)
            second.stop()
            box.advance(3600)
            assert first.leads
            assert not second.running
        assert len(ran) == 2


def test_a_cut_costs_no_instant(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """Time waits until a beat leads again."""
    app.schedule("hourly", "note", every(hours=1))
    to_a_full(3600, box, also=1)
    with box.worker(app), box.beat(app):
        for _ in range(5):
            box.advance(3600)
            box.faults.cut_connections()
            box.advance(2 * 3600)
        instants = sorted({instant for _, instant in ran})
        assert instants == [instants[0] + 3600 * hour for hour in range(15)]
        assert {at - instant < 3600 for at, instant in ran} == {True}


async def test_in_a_coroutine(app: App, box: Sandbox, ran: list[Ran]) -> None:
    """It has a loop and a thread of its own."""
    app.schedule("soon", "note", every(seconds=1))
    to_a_full(1, box, also=0.5)
    async with box.worker(app) as worker, box.beat(app) as beat:
        assert beat.leads
        box.advance(2)
        await worker.arun_until_idle()
    assert len(ran) == 2
    assert not beat.running
