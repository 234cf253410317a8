"""The prefetch that fits the pace: within bounds, and calm."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqtask import App
from amqtask.worker import intake as module
from amqtask.worker.intake import (
    AHEAD,
    MOST,
    MOST_BYTES,
    Intake,
    bursting_prefetch,
    fitting_prefetch,
)
from tests.helpers import aeventually
from tests.unit.worker.fakes import delivery

slots = st.integers(1, 500)
current = st.integers(1, 4096)
delivered = st.integers(0, 200_000)
size = st.integers(0, 1 << 40)


@given(slots, current, delivered, size)
@example(16, 16, 0, 0)
@example(1, 1, 1, 1 << 40)
@example(500, 4096, 200_000, 0)
def test_bounds(slots, current, delivered, size):
    """A new prefetch gives each slot a delivery, and holds neither too many nor too much."""
    new = fitting_prefetch(slots, current, delivered, size)
    if new != current:
        assert new >= slots
        assert new <= max(slots, MOST)
        if delivered and size:
            assert new <= max(slots, 1, int(MOST_BYTES / (size / delivered)))


@given(slots, current, delivered, size)
def test_calm(slots, current, delivered, size):
    """At an even pace it changes once and then stays: each change costs a cancel and a consume."""
    first = fitting_prefetch(slots, current, delivered, size)
    assert fitting_prefetch(slots, first, delivered, size) == first


@given(slots, st.integers(1, 200_000), st.floats(0.75, 1.4))
def test_a_small_change_of_pace_changes_nothing(slots, delivered, factor):
    """Half more or a quarter less is no reason to consume anew, from the fit itself on."""
    fit = fitting_prefetch(slots, 1, delivered, 0)
    want = max(slots, min(MOST, slots + int(delivered * AHEAD)))
    if want >= 4:
        later = max(slots, min(MOST, slots + int(delivered * factor * AHEAD)))
        if fit // 2 < later < fit * 2:
            assert fitting_prefetch(slots, fit, int(delivered * factor), 0) == fit


@pytest.mark.parametrize(
    ("slots", "current", "delivered", "size", "fitting"),
    [
        (16, 16, 0, 0, 16),  # nothing came
        (16, 16, 40, 4_000, 16),  # 26 would do: not off by two yet
        (16, 16, 400, 40_000, 128),  # 116, rounded up
        (16, 128, 400, 40_000, 128),  # it stays
        (16, 128, 0, 0, 16),  # a pause, or long tasks: no hoard
        (16, 16, 20_000, 2_000_000, 1024),  # never more than MOST
        (16, 16, 1_000, 1_000 * 1024 * 1024, 32),  # large bodies: 32 MiB of them
        (1, 1, 3, 300, 1),  # slow tasks, one slot
        (2000, 2000, 50_000, 0, 2000),  # more slots than MOST
    ],
)
def test_examples(slots, current, delivered, size, fitting):
    """What the rule means in numbers."""
    assert fitting_prefetch(slots, current, delivered, size) == fitting


@given(slots, current, delivered, size)
@example(16, 1, 200_000, 0)
def test_a_glance_never_takes_away(slots, current, delivered, size):
    """It sees too little of the pace for that; what it gives is within the same bounds."""
    new = bursting_prefetch(slots, current, delivered, size)
    assert new >= current
    assert new <= max(current, slots, MOST)


@pytest.mark.parametrize(
    ("slots", "current", "delivered", "size", "fitting"),
    [
        (16, 16, 0, 0, 16),  # nothing came
        (16, 16, 16, 1_600, 16),  # all of it may be here still: slow tasks
        (16, 16, 24, 2_400, 16),  # 8 are done: not off by two
        (16, 16, 150, 15_000, 256),  # 134 are done, so 134 more, rounded up
        (16, 256, 300, 30_000, 256),  # most of it came because there was room
        (16, 16, 2_000, 200_000, 1024),  # never more than MOST
        (16, 16, 200, 200 * 1024 * 1024, 32),  # large bodies: 32 MiB of them
    ],
)
def test_glances(slots, current, delivered, size, fitting):
    """What it means in numbers."""
    assert bursting_prefetch(slots, current, delivered, size) == fitting


def _intake(monkeypatch: pytest.MonkeyPatch, **numbers: float) -> Intake:
    for name, value in numbers.items():
        monkeypatch.setattr(module, name, value)

    async def before(_: object) -> None: ...

    made = Intake(
        App("intake", environ={}),
        {"q": 4},
        prefetch=None,
        submit=lambda _: None,
        before=before,
        on_change=lambda: None,
    )
    made.consumers[0].consuming = True
    return made


def _deliver(intake: Intake, count: int) -> None:
    for _ in range(count):
        intake.consumers[0]._on_delivery(delivery())


async def test_a_burst_is_followed_before_its_second_is_over(monkeypatch: pytest.MonkeyPatch):
    """At a glance: the second is never over here."""
    intake = _intake(monkeypatch, GLANCES=1_000_000)
    _deliver(intake, 100)
    await aeventually(lambda: intake.consumers[0].prefetch == 128)
    await intake.stop()


async def test_slow_tasks_hold_no_more_than_there_are_slots(monkeypatch: pytest.MonkeyPatch):
    """What came fills the slots, and says nothing about a pace."""
    intake = _intake(monkeypatch, GLANCE=0.001)
    _deliver(intake, 4)
    await aeventually(lambda: intake._look is None)
    assert intake.consumers[0].prefetch == 4


async def test_a_second_without_deliveries_takes_it_back(monkeypatch: pytest.MonkeyPatch):
    """And then there is nothing to look at any more."""
    intake = _intake(monkeypatch, GLANCE=0.001)
    _deliver(intake, 100)
    await aeventually(lambda: intake._look is None)
    assert intake.consumers[0].prefetch == 4
