"""Autoscaling decides within bounds: up for a backlog that lasts, down for idleness that lasts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from amqtask.worker.scaling import SURE, Load, Scaler, more, spare

LOAD = Load(processes=2, settled=True, slots=4, running=8, busy=True, backlog=100)
IDLE = replace(LOAD, running=0, busy=False, backlog=0)

loads = st.builds(
    Load,
    processes=st.integers(1, 12),
    settled=st.booleans(),
    slots=st.integers(1, 32),
    running=st.integers(0, 400),
    busy=st.booleans(),
    backlog=st.one_of(st.none(), st.integers(0, 100_000)),
)


def scaler(least: int = 1, most: int = 8) -> Scaler:
    return Scaler(least, most, idle=60.0)


def test_a_backlog_that_lasts_brings_more():
    """One look is not enough: a burst may be over by the next."""
    scale = scaler()
    assert [scale.look(now, LOAD) for now in range(SURE)] == [2] * (SURE - 1) + [4]


def test_as_many_as_the_backlog_is_worth():
    """At most as many again, at least one, and no more than it takes to hold what waits."""
    assert more(replace(LOAD, backlog=1)) == 1
    assert more(replace(LOAD, backlog=5, processes=8)) == 2
    assert more(replace(LOAD, backlog=10_000)) == 2


def test_free_slots_bring_nobody():
    """Messages that wait beside a free slot are on their way to it."""
    scale = scaler()
    free = replace(LOAD, busy=False, running=7)
    assert {scale.look(now, free) for now in range(100)} == {2}


def test_an_unknown_backlog_brings_nobody():
    """While the broker does not answer more processes would not consume either."""
    scale = scaler()
    assert {scale.look(now, replace(LOAD, backlog=None)) for now in range(10)} == {2}


def test_idleness_that_lasts_ends_one():
    """One at a time, each after the whole time."""
    scale = scaler()
    assert scale.look(0.0, IDLE) == 2
    assert scale.look(59.0, IDLE) == 2
    assert scale.look(60.0, IDLE) == 1


def test_work_in_between_starts_the_time_anew():
    """Only an unbroken idle time counts."""
    scale = scaler()
    scale.look(0.0, IDLE)
    scale.look(30.0, replace(IDLE, running=4))
    scale.look(31.0, IDLE)
    assert scale.look(90.0, IDLE) == 2
    assert scale.look(91.0, IDLE) == 1


def test_one_fewer_must_leave_room():
    """Work that would fill what is left keeps the process."""
    assert spare(replace(IDLE, running=3))
    assert not spare(replace(IDLE, running=4))
    assert not spare(replace(IDLE, processes=1))


def test_nothing_is_decided_while_it_changes():
    """A process that starts is no reason to start another one."""
    scale = scaler()
    unsettled = replace(LOAD, settled=False)
    assert {scale.look(now, unsettled) for now in range(100)} == {2}


@given(
    st.integers(1, 6),
    st.integers(0, 6),
    st.lists(st.tuples(st.floats(0, 100), loads), max_size=30),
)
def test_whatever_comes(least: int, span: int, looks: list[tuple[float, Load]]):
    """Always within bounds; more only for a backlog and no free slot; one fewer at a time."""
    most = least + span
    scale, now = Scaler(least, most, idle=60.0), 0.0
    for wait, load in looks:
        now += wait
        want = scale.look(now, load)
        assert least <= want <= most
        within = min(most, max(least, load.processes))
        if want > within:
            assert load.busy
            assert load.backlog
            assert load.settled
            assert want <= 2 * within
        if want < within:
            assert want == within - 1
            assert not load.busy
            assert not load.backlog


@given(st.integers(1, 8), st.floats(1, 100))
def test_it_comes_to_rest(start: int, wait: float):
    """Under an unchanging idle load it ends at the least and stays there."""
    scale, processes = scaler(2, 8), max(2, start)
    for step in range(600):
        processes = scale.look(step * wait, replace(IDLE, processes=processes))
    assert processes == 2
