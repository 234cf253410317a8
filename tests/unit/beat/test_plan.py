"""What to fire: on time, late, after a gap, with clocks that jump."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.beat.plan import (
    COUNTED,
    GRACE,
    MOST,
    Decision,
    Fire,
    Mark,
    current_mark,
    decide,
    fire_now,
    plan,
)
from amqtask.errors import ConfigurationError, MalformedMessage
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import cron, every, once

APP = "shop"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def entry(schedule: Any = None, **fields: Any) -> Entry:
    return Entry(fields.pop("name", "e"), schedule or every(60), "tasks.t", **fields)


def decided(at: datetime, now: datetime, each: Entry) -> Decision:
    """Decide an entry whose instants up to ``at`` are decided."""
    return decide(APP, each, Mark(at, each.form), now)


def instants(fires: Iterator[Fire] | tuple[Fire, ...]) -> list[str]:
    return [f"{fire.instant:%H:%M:%S}" for fire in fires]


# -- on time --------------------------------------------------------------------------


def test_nothing_before_the_instant() -> None:
    """It says when to look again: at the instant itself."""
    found = decided(NOON, NOON + timedelta(seconds=59), entry())
    assert found.fires == ()
    assert found.wake == NOON + MINUTE


def test_due_at_the_instant() -> None:
    """The mark moves on to it, and so does the next look."""
    found = decided(NOON, NOON + MINUTE, entry())
    assert instants(found.fires) == ["12:01:00"]
    assert found.fires[0].reason == "due"
    assert found.mark == Mark(NOON + MINUTE, entry().form, NOON + MINUTE, 1)
    assert found.wake == NOON + 2 * MINUTE


def test_what_is_a_little_late_is_on_time() -> None:
    """All that came due within the grace is fired, whatever the policy: a leader may change."""
    each = entry(every(2), catch_up="none")
    found = decided(NOON, NOON + timedelta(seconds=7), each)
    assert instants(found.fires) == ["12:00:02", "12:00:04", "12:00:06"]
    assert {fire.reason for fire in found.fires} == {"due"}
    assert found.missed is None


def test_a_new_entry_begins_now() -> None:
    """No instant before it was there is due."""
    mark = current_mark(entry(once(NOON)), None, NOON)
    found = decide(APP, entry(once(NOON)), mark, NOON)
    assert found.fires == ()
    assert found.ended


def test_an_entry_with_another_schedule_begins_now() -> None:
    """A daily entry that becomes one of each minute does not catch up minutes of the night."""
    daily = entry(cron("0 0 * * *"))
    mark = Mark(NOON - 12 * HOUR, daily.form, NOON - 12 * HOUR, 7, True)
    assert current_mark(entry(every(60)), mark, NOON) == Mark(
        NOON, entry(every(60)).form, NOON - 12 * HOUR, 7, True
    )
    assert current_mark(daily, mark, NOON) is mark


def test_start_and_end_belong_to_it() -> None:
    """Both may be instants."""
    each = entry(start=NOON + MINUTE, end=NOON + 3 * MINUTE)
    now, found = NOON, []
    decision = decided(NOON, NOON, each)
    while not decision.ended:
        assert now < NOON + 10 * MINUTE
        now += timedelta(seconds=30)
        decision = decide(APP, each, decision.mark, now)
        found += instants(decision.fires)
    assert found == ["12:01:00", "12:02:00", "12:03:00"]
    assert decision.ended
    assert decision.wake is None


def test_paused() -> None:
    """A paused entry fires nothing; what is said at run time counts more than the declaration."""
    each = entry(paused=True)
    later = NOON + HOUR
    assert decide(APP, each, Mark(NOON, each.form), later).fires == ()
    assert decide(APP, each, Mark(NOON, each.form, paused=False), later).fires
    assert decide(APP, entry(), Mark(NOON, each.form, paused=True), later).fires == ()


# -- ids ------------------------------------------------------------------------------


def test_an_id_is_made_of_app_entry_and_instant() -> None:
    """The same wherever and whenever it is worked out; what it is, must never change."""
    each = entry(name="nightly")
    assert each.fire_id(APP, NOON) == "b64b5fc6-7e72-58de-aa0d-ada1bbb8edc6"
    other = [
        each.fire_id("other", NOON),
        entry(name="other").fire_id(APP, NOON),
        each.fire_id(APP, NOON + timedelta(microseconds=1)),
    ]
    assert len({each.fire_id(APP, NOON), *other}) == 4


def test_each_fire_names_the_one_before() -> None:
    """So that an overlap can be seen; across decisions too."""
    each = entry(every(2))
    first = decided(NOON, NOON + timedelta(seconds=4), each)
    second = decide(APP, each, first.mark, NOON + timedelta(seconds=6))
    fires = [*first.fires, *second.fires]
    assert [fire.previous for fire in fires] == [None, fires[0].id, fires[1].id]


def test_headers_say_entry_and_instant() -> None:
    """A task, a log or a result store can tell what a call was for."""
    fire = decided(NOON, NOON + MINUTE, entry(name="nightly")).fires[0]
    assert fire.headers() == {
        "x-amqtask-entry": "nightly",
        "x-amqtask-instant": "2026-06-01T12:01:00+00:00",
        "periodic_task_name": "nightly",
    }


def test_run_now() -> None:
    """It is a fire of its own: the schedule goes on as before."""
    each = entry(jitter=30)
    mark = Mark(NOON, each.form, NOON, 1)
    fire, after = fire_now(APP, each, mark, NOON + timedelta(seconds=5))
    assert (fire.reason, fire.at) == ("run_now", NOON + timedelta(seconds=5))
    assert fire.previous == each.fire_id(APP, NOON)
    assert after == Mark(NOON, each.form, NOON + timedelta(seconds=5), 2)


# -- jitter ---------------------------------------------------------------------------


def test_jitter_is_the_same_everywhere_and_differs_by_instant() -> None:
    """Entry and instant alone decide it, within its bound."""
    each = entry(jitter=30)
    found = [each.late_by(NOON + count * MINUTE) for count in range(200)]
    assert found == [entry(jitter=30).late_by(NOON + count * MINUTE) for count in range(200)]
    assert len(set(found)) == 200
    assert timedelta() <= min(found) < timedelta(seconds=3)
    assert timedelta(seconds=27) < max(found) < timedelta(seconds=30)


def test_jitter_delays_the_fire_and_not_the_instant() -> None:
    """The id is that of the instant."""
    each = entry(jitter=30)
    late = each.late_by(NOON + MINUTE)
    early = decided(NOON, NOON + MINUTE + late - timedelta(microseconds=1), each)
    assert early.fires == ()
    assert early.wake == NOON + MINUTE + late
    fire = decided(NOON, NOON + MINUTE + late, each).fires[0]
    assert (fire.instant, fire.at) == (NOON + MINUTE, NOON + MINUTE + late)


def test_jitter_longer_than_the_interval_keeps_the_order() -> None:
    """An instant is never fired before one that was due earlier."""
    each = entry(every(1), jitter=20)
    now, mark, found = NOON, Mark(NOON, each.form), []
    while now < NOON + 2 * MINUTE:
        decision = decide(APP, each, mark, now)
        mark, now = decision.mark, now + timedelta(milliseconds=700)
        found += [fire.instant for fire in decision.fires]
    assert found == [NOON + timedelta(seconds=count) for count in range(1, len(found) + 1)]
    assert len(found) >= 99


# -- what was missed ------------------------------------------------------------------


def test_catch_up_latest() -> None:
    """After an hour without a beat: the last instant, and what is in the grace anyway."""
    found = decided(NOON, NOON + HOUR + timedelta(seconds=3), entry())
    assert instants(found.fires) == ["12:59:00", "13:00:00"]
    assert [fire.reason for fire in found.fires] == ["caught_up", "due"]
    assert found.missed is not None
    assert (found.missed.first, found.missed.before) == (NOON + MINUTE, NOON + 59 * MINUTE)
    assert found.missed.count == COUNTED


def test_catch_up_none() -> None:
    """What was missed is said, and left."""
    found = decided(NOON, NOON + 4.5 * MINUTE, entry(catch_up="none"))
    assert found.fires == ()
    assert found.missed is not None
    assert found.missed.count == 4
    assert found.mark.at == NOON + 4 * MINUTE
    assert found.wake == NOON + 5 * MINUTE


def test_catch_up_all() -> None:
    """Each of them, the oldest first."""
    found = decided(NOON, NOON + 4.5 * MINUTE, entry(catch_up="all", window=3600))
    assert instants(found.fires) == ["12:01:00", "12:02:00", "12:03:00", "12:04:00"]
    assert {fire.reason for fire in found.fires} == {"caught_up"}
    assert found.missed is None


def test_window_of_all() -> None:
    """What lies before the window is missed; its border belongs to it."""
    found = decided(NOON, NOON + 10.5 * MINUTE, entry(catch_up="all", window=150))
    assert instants(found.fires) == ["12:08:00", "12:09:00", "12:10:00"]
    assert found.missed is not None
    assert found.missed.count == 7


def test_window_of_latest() -> None:
    """A call of yesterday is not wanted today."""
    each = entry(cron("0 9 * * *"), window=3600)
    found = decided(NOON - 24 * HOUR, NOON, each)
    assert found.fires == ()
    assert found.missed is not None
    assert found.missed.count == 1
    assert instants(decided(NOON - 24 * HOUR, NOON - 2.5 * HOUR, each).fires) == ["09:00:00"]


def test_nothing_in_the_window() -> None:
    """All instants are before it."""
    each = entry(cron("0 9 * * *"), catch_up="all", window=3600)
    found = decided(NOON - 49 * HOUR, NOON, each)
    assert found.fires == ()
    assert found.missed is not None
    assert found.missed.count == 2


def test_many_are_caught_up_bit_by_bit() -> None:
    """A decision has a bound, and the next one goes on at once."""
    each = entry(every(1), catch_up="all", window=7200)
    now, mark, found = NOON + HOUR, Mark(NOON, each.form), []
    for _ in range(100):
        decision = decide(APP, each, mark, now)
        assert len(decision.fires) <= MOST
        found += [fire.instant for fire in decision.fires]
        mark = decision.mark
        if decision.wake != now:
            break
    assert found == [NOON + timedelta(seconds=count) for count in range(1, 3601)]


def test_the_last_missed_instant_is_found_among_millions() -> None:
    """Ten years of seconds cost a few dozen questions."""
    asked = 0

    class Counting:
        def next(self, after: datetime) -> datetime | None:
            nonlocal asked
            asked += 1
            return every(1).next(after)

        def to_plain(self) -> dict[str, Any]:
            return {"counting": 1}

    found = decided(NOON - timedelta(days=3650), NOON, entry(Counting()))
    assert found.fires[0].instant == NOON - GRACE
    assert asked < 120


def test_once_is_caught_up() -> None:
    """It was to be fired while no beat ran."""
    found = decided(NOON - HOUR, NOON + HOUR, entry(once(NOON)))
    assert instants(found.fires) == ["12:00:00"]
    assert found.fires[0].reason == "caught_up"
    assert found.ended


# -- clocks that jump -----------------------------------------------------------------


def test_back() -> None:
    """Nothing is fired again, and nothing until the clock has made it up."""
    first = decided(NOON, NOON + MINUTE, entry())
    back = decide(APP, entry(), first.mark, NOON - HOUR)
    assert back.fires == ()
    assert back.mark == first.mark
    assert back.wake == NOON + 2 * MINUTE


CATCH_UPS = st.sampled_from([{"catch_up": "none"}, {"catch_up": "latest"}, {"catch_up": "latest", "window": 900}, {"catch_up": "all", "window": 1800}])  # fmt: skip
SCHEDULES = st.one_of(
    st.integers(1, 4000).map(every),
    st.sampled_from(["*/7 * * * *", "0 12 * * *", "*/30 * * * * *", "15 12-14 * * *"]).map(cron),
    st.integers(0, 7200).map(lambda late: once(NOON + timedelta(seconds=late))),
)
ENTRIES = st.builds(
    lambda name, schedule, catch_up, jitter: entry(schedule, name=name, jitter=jitter, **catch_up),
    st.text("abc", min_size=1, max_size=3),
    SCHEDULES,
    CATCH_UPS,
    st.sampled_from([0, 0.5, 40]),
)
#: Seconds between two looks at the clock; some of them go back.
STEPS = st.lists(
    st.floats(0, 5) | st.floats(0, 300) | st.floats(-4000, 4000), min_size=1, max_size=40
)


@given(st.lists(ENTRIES, max_size=4, unique_by=lambda each: each.name), STEPS)
def test_whatever_the_clock_does(entries: list[Entry], steps: list[float]) -> None:
    """No instant is fired twice or early, in order, and each fired one is one of the schedule's."""
    now, marks = NOON, plan(APP, entries, {}, NOON).marks
    fired: dict[str, list[datetime]] = {each.name: [] for each in entries}
    for step in steps:
        now += timedelta(seconds=step)
        found = plan(APP, entries, marks, now)
        marks = found.marks
        for fire in found.fires:
            assert fire.at <= now
            assert fire.id == fire.entry.fire_id(APP, fire.instant)
            assert fire.entry.due_after(fire.instant - timedelta(microseconds=1)) == fire.instant
            fired[fire.entry.name].append(fire.instant)
    for found_instants in fired.values():
        assert all(before < after for before, after in itertools.pairwise(found_instants))


@given(
    st.lists(SCHEDULES, max_size=3),
    st.sampled_from([0, 0.5, 40]),
    st.lists(st.floats(0, 5) | st.floats(0, 1700), min_size=1, max_size=40),
)
def test_none_is_missed_that_is_to_be_caught_up(
    schedules: list[Any], jitter: float, steps: list[float]
) -> None:
    """With a clock that goes forward, and gaps within the window, each instant is fired once."""
    entries = [
        entry(each, name=str(index), jitter=jitter, catch_up="all", window=1800)
        for index, each in enumerate(schedules)
    ]
    now, marks = NOON, plan(APP, entries, {}, NOON).marks
    fired: dict[str, list[datetime]] = {each.name: [] for each in entries}
    for step in steps:
        now += timedelta(seconds=step)
        while True:
            found = plan(APP, entries, marks, now)
            marks = found.marks
            for fire in found.fires:
                fired[fire.entry.name].append(fire.instant)
            if found.wake is None or found.wake > now:
                break
    for each in entries:
        due, at = [], each.due_after(NOON)
        while at is not None and at + each.late_by(at) <= now:
            due.append(at)
            at = each.due_after(at)
        assert fired[each.name] == due


# -- schedules of others --------------------------------------------------------------


class Standing:
    """A schedule that does not move on."""

    def next(self, after: datetime) -> datetime | None:
        return after

    def to_plain(self) -> dict[str, Any]:
        return {"standing": 1}


class Naive(Standing):
    def next(self, after: datetime) -> datetime | None:
        return after.replace(tzinfo=None) + MINUTE


@pytest.mark.parametrize("schedule", [Standing(), Naive()])
def test_a_schedule_that_breaks_its_promise(schedule: Standing) -> None:
    """It is said which one, rather than looping for ever."""
    with pytest.raises((ConfigurationError, TypeError)) as caught:
        decided(NOON, NOON + HOUR, entry(schedule))
    assert "schedule of entry 'e' says that" in str(caught.value)


# -- marks ----------------------------------------------------------------------------

MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(
    st.builds(
        Mark,
        MOMENTS,
        st.text(max_size=12),
        st.none() | MOMENTS,
        st.integers(0, 2**60),
        st.none() | st.booleans(),
    )
)
def test_mark_there_and_back(mark: Mark) -> None:
    """Nothing of it is lost on the way, microseconds included."""
    assert Mark.from_plain(mark.to_plain()) == mark


@pytest.mark.parametrize(
    "plain",
    [None, [], 5, [1, "f", None, 0], [1.5, "f", None, 0, None], [1, 2, None, 0, None],
     [1, "f", None, True, None], [1, "f", "x", 0, None], [10**30, "f", None, 0, None],
     [1, "f", None, 0, "yes"]],
)  # fmt: skip
def test_no_mark(plain: Any) -> None:
    """What is not a mark is said to be none."""
    with pytest.raises(MalformedMessage, match="is not the mark of an entry"):
        Mark.from_plain(plain)
