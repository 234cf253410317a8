"""Celery's schedules, as our beats read them: the same instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask import App, Entry
from amqtask.policy.schedule import Schedule, cron, every, read_schedule

_celery = pytest.importorskip(
    "celery.schedules", reason='Celery is not installed: pip install "amqtask[interop]"'
)
crontab, celery_schedule = _celery.crontab, _celery.schedule
signature = pytest.importorskip("celery.canvas").signature

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("form", "meant"),
    [
        (crontab(), cron("* * * * *")),
        (crontab(minute=0), cron("0 * * * *")),
        (crontab(minute="*/15"), cron("*/15 * * * *")),
        (crontab(minute=0, hour="*/3"), cron("0 */3 * * *")),
        (
            crontab(minute=0, hour="*/3,8-17"),
            cron("0 0,3,6,8,9,10,11,12,13,14,15,16,17,18,21 * * *"),
        ),
        (crontab(hour=7, minute=30, day_of_week="mon"), cron("30 7 * * 1")),
        (crontab(hour=7, minute=30, day_of_week="monday,sunday"), cron("30 7 * * 0,1")),
        (crontab(minute=0, hour="22-2"), cron("0 0,1,2,22,23 * * *")),
        (crontab(0, 0, day_of_month="2-30/3"), cron("0 0 2,5,8,11,14,17,20,23,26,29 * *")),
        (crontab(0, 0, month_of_year="*/3"), cron("0 0 * */3 *")),
        (
            crontab(0, 0, day_of_month="1-7", day_of_week=1),
            cron("0 0 1,2,3,4,5,6,7 * 1", days="both"),
        ),
        (crontab(minute={0, 30}, hour=[1, 2]), cron("0,30 1,2 * * *")),
        (celery_schedule(30), every(30)),
        (celery_schedule(timedelta(hours=1), relative=True), every(hours=1)),
    ],
)
def test_celery_forms(form: Any, meant: Schedule) -> None:
    """Celery's objects are read by their looks."""
    assert read_schedule(form) == meant


@given(
    st.sampled_from(["*", "0", "*/7", "5-25/4", "59"]),
    st.sampled_from(["*", "3", "*/5", "22-4"]),
    st.sampled_from(["*", "1", "*/2", "sat-mon"]),
    st.sampled_from(["*", "31", "*/10", "1-7"]),
    st.sampled_from(["*", "2", "*/4", "11-1"]),
    st.integers(0, 365 * 86_400),
)
def test_celery_crontab_is_due_when_celery_says(
    minute: str, hour: str, weekday: str, day: str, month: str, seconds: int
) -> None:
    """In UTC, where clocks never change, both find the same next instant."""
    try:
        form = crontab(minute, hour, weekday, day, month)
    except ValueError:  # such a day does not exist
        return
    form.tz = timezone.utc  # noqa: UP017 - Celery looks for the one that it knows
    at = (NEW_YEAR + timedelta(seconds=seconds)).replace(microsecond=0)
    form.nowfun = lambda: at
    assert read_schedule(form).next(at) == at + form.remaining_estimate(at)


def test_zone_of_a_crontab_s_own() -> None:
    """django-celery-beat gives its crontabs a zone."""
    form = crontab(0, 9)
    form.tz = timezone.utc  # noqa: UP017 - as above
    assert read_schedule(form, "Asia/Tokyo") == cron("0 9 * * *", tz="UTC")


def test_celery_signature_as_an_entry() -> None:
    """What Celery's users give to add_periodic_task."""
    app = App("interop", environ={})
    what = signature("t", args=(1,), kwargs={"a": 2}, queue="q", expires=60)
    entry = app.schedule("a", what, crontab(minute=0))
    assert entry == Entry(
        "a",
        cron("0 * * * *", tz="UTC"),
        "t",
        args=(1,),
        kwargs={"a": 2},
        options={"queue": "q"},
        expires=60,
    )
