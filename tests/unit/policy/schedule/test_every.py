"""Intervals and single instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError
from amqtask.policy.schedule import Every, Once, every, once
from amqtask.policy.schedule.every import spell

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)

INTERVALS = st.timedeltas(timedelta(seconds=0.1), timedelta(days=4000))
# without a zone, as hypothesis wants them
FIRST, LAST = datetime(1980, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC))


def test_full_intervals() -> None:
    """Restarts do not shift an interval: it is counted from a fixed instant."""
    found = every(minutes=5).next(NEW_YEAR + timedelta(minutes=7, seconds=3))
    assert found == NEW_YEAR + timedelta(minutes=10)


def test_an_instant_is_not_its_own_next() -> None:
    """Asked at an instant, it says the one after."""
    assert every(60).next(NEW_YEAR) == NEW_YEAR + timedelta(minutes=1)


def test_anchor() -> None:
    """Intervals count from the anchor, also before it."""
    schedule = every(hours=24, anchor="2026-06-01T07:30:00+02:00")
    assert schedule.next(NEW_YEAR) == NEW_YEAR + timedelta(hours=5, minutes=30)


def test_real_time() -> None:
    """A day is 24 hours, on days with a change of clocks too."""
    schedule = every(days=1)
    before = datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("Europe/Paris"))
    following = schedule.next(before)
    assert following == datetime(2026, 3, 29, 0, 0, tzinfo=UTC)


@given(INTERVALS, MOMENTS, MOMENTS)
def test_next_is_the_first_later_one(
    interval: timedelta, anchor: datetime, after: datetime
) -> None:
    """It lies on the grid, later than asked, by one interval at most."""
    found = Every(interval, anchor).next(after)
    assert found is not None
    assert (found - anchor) % interval == timedelta()
    assert after < found <= after + interval


def test_no_instant_after_the_last_year() -> None:
    """At the end of the calendar there is none, and no error."""
    assert every(days=1).next(datetime.max.replace(tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        (every(90), 90),
        (every(0.5), 0.5),
        (every(timedelta(hours=1)), 3600),
        (every(hours=1, minutes=30), 5400),
        (every("1h30m"), 5400),
        (every("1d 12h"), 129_600),
        (every("2w"), 1_209_600),
        (every("90 s"), 90),
        (every("5min"), 300),
        (every("0.25s"), 0.25),
    ],
)
def test_ways_to_say_it(schedule: Every, seconds: float) -> None:
    """Numbers, timedeltas, units and text."""
    assert schedule.interval.total_seconds() == seconds


@pytest.mark.parametrize("wrong", ["5 parsecs", "", "h", True, None, float("nan"), 1e300, [5]])
def test_no_interval(wrong: Any) -> None:
    """What is no interval is refused, with the ways to say one."""
    with pytest.raises(ConfigurationError, match=r"every\(\) got .* not an interval") as caught:
        every(wrong)
    assert "every(minutes=5)" in (caught.value.hint or "")


@pytest.mark.parametrize("short", [0, 0.05, -1, "0s"])
def test_too_short(short: Any) -> None:
    """A tenth of a second is the shortest."""
    with pytest.raises(ConfigurationError, match=r"interval .* of every\(\) is too short"):
        every(short)


def test_anchor_without_a_zone() -> None:
    """An instant that may mean two things is refused."""
    with pytest.raises(ConfigurationError, match=r"anchor of every\(\) .* no time zone"):
        every(60, anchor="2026-01-01T00:00:00")


@given(INTERVALS)
def test_text_is_read_again(interval: timedelta) -> None:
    """What `spell` writes means the same interval."""
    assert every(spell(interval)).interval == interval


def test_once() -> None:
    """Due at its instant, then never."""
    schedule = once("2026-12-01T09:00:00+01:00")
    at = datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert schedule == Once(at)
    assert schedule.next(NEW_YEAR) == at
    assert schedule.next(at - timedelta(microseconds=1)) == at
    assert schedule.next(at) is None


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (FIRST, "has no time zone"),
        ("2026-12-01T09:00", "has no time zone"),
        ("tomorrow", "is 'tomorrow', not an instant"),
        (5, "is 5, not an instant"),
        ("0001-01-01T00:00:00+10:00", "beyond the years 1 to 9999"),
    ],
)
def test_no_instant(wrong: Any, text: str) -> None:
    """An instant is aware, or text with an offset."""
    with pytest.raises(ConfigurationError, match=text):
        once(wrong)
