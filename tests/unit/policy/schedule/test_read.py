"""The forms in which a schedule may be given: ours, as text and data, Celery's, anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError
from amqtask.policy.schedule import (
    Cron,
    Every,
    Once,
    Schedule,
    cron,
    every,
    once,
    read,
    read_schedule,
    schedule_from_plain,
)

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)

# without a zone, as hypothesis wants them
FIRST, LAST = datetime(1980, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001

SCHEDULES = st.one_of(
    st.builds(
        Cron,
        st.sampled_from(["0 9 * * mon-fri", "@daily", "*/5 * * * * *", "0 0 L * *"]),
        st.sampled_from([None, "UTC", "Europe/Paris"]),
        st.sampled_from(["either", "both"]),
    ),
    st.builds(
        Every,
        st.timedeltas(timedelta(seconds=0.1), timedelta(days=4000)),
        st.datetimes(FIRST, LAST, timezones=st.just(UTC)),
    ),
    st.builds(Once, st.datetimes(FIRST, LAST, timezones=st.just(UTC))),
)


@dataclass
class Fridays:
    """A schedule as a user writes one."""

    hour: int = 17

    def next(self, after: datetime) -> datetime | None:
        at = after.replace(hour=self.hour, minute=0, second=0, microsecond=0)
        while at <= after or at.isoweekday() != 5:
            at += timedelta(days=1)
        return at

    def to_plain(self) -> Mapping[str, Any]:
        return {"fridays": self.hour}


@given(SCHEDULES)
def test_plain_and_text_are_read_again(schedule: Schedule) -> None:
    """Both forms of a schedule mean the same schedule."""
    assert schedule_from_plain(schedule.to_plain()) == schedule
    assert read_schedule(str(schedule)) == schedule
    assert read_schedule(schedule) is schedule


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (30, every(30)),
        (0.5, every(0.5)),
        (timedelta(minutes=2), every(minutes=2)),
        (datetime(2026, 5, 1, tzinfo=UTC), once("2026-05-01T00:00:00Z")),
        ("@daily", cron("@daily")),
        ("0 9 * * mon-fri", cron("0 9 * * mon-fri")),
        ("CRON_TZ=Asia/Tokyo 0 9 * * *", cron("0 9 * * *", tz="Asia/Tokyo")),
        ("every 5m", every(minutes=5)),
        ("every 1h from 2026-01-01T00:10:00Z", every(hours=1, anchor="2026-01-01T00:10:00Z")),
        ("once 2026-05-01T02:00:00+02:00", once("2026-05-01T00:00:00Z")),
        ({"every": "5m"}, every(minutes=5)),
        ({"cron": "0 9 * * *", "tz": "Asia/Tokyo"}, cron("0 9 * * *", tz="Asia/Tokyo")),
    ],
)
def test_forms(value: Any, meant: Schedule) -> None:
    """Each form, by itself and as an entry of settings has it."""
    assert read_schedule(value) == meant


def test_zone_that_the_app_gives() -> None:
    """Only wall-clock times without a zone take it."""
    assert read_schedule("0 9 * * *", "Asia/Tokyo") == cron("0 9 * * *", tz="Asia/Tokyo")
    assert read_schedule(cron("0 9 * * *", tz="UTC"), "Asia/Tokyo") == cron("0 9 * * *", tz="UTC")
    assert read_schedule(60, "Asia/Tokyo") == every(60)


# -- Celery's -------------------------------------------------------------------------


@dataclass
class Solar:
    """What Celery's ``solar`` looks like, which is not made without the package ephem."""

    event: str
    lat: float
    lon: float


def test_solar_without_a_plug_in() -> None:
    """What needs another package says so."""
    with pytest.raises(ConfigurationError, match="goes by the sun") as caught:
        read_schedule(Solar("sunset", 48.85, 2.35))
    assert "'solar' in the entry point group amqtask.schedules" in (caught.value.hint or "")


def test_solar_by_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-in gets what Celery's object says."""
    _offer(monkeypatch, "solar", "solar_schedule")
    found = read_schedule(Solar("sunset", 48.85, 2.35))
    assert found == Fridays(48)


# -- of others ------------------------------------------------------------------------


def solar_schedule(plain: Mapping[str, Any]) -> Schedule:
    return Fridays(int(plain["solar"]["lat"]))


def fridays(plain: Mapping[str, Any]) -> Schedule:
    return Fridays(plain["fridays"])


def broken(plain: Mapping[str, Any]) -> Schedule:
    raise RuntimeError("no tables of the moon")


def useless(plain: Mapping[str, Any]) -> object:
    return 5


def _offer(monkeypatch: pytest.MonkeyPatch, kind: str, function: str) -> None:
    point = EntryPoint(kind, f"{__name__}:{function}", read.ENTRY_POINTS)
    # the test's own module need not be importable by its name
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.attr])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])


def test_a_schedule_of_your_own() -> None:
    """Whatever has both methods is one."""
    assert read_schedule(Fridays()) == Fridays()
    assert Fridays().next(NEW_YEAR) == datetime(2026, 1, 2, 17, tzinfo=UTC)


def test_a_kind_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point reads it from plain data."""
    _offer(monkeypatch, "fridays", "fridays")
    assert schedule_from_plain({"fridays": 12}) == Fridays(12)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("broken", "cannot be read by .*: no tables of the moon"),
        ("useless", "what .* made is 5"),
    ],
)
def test_a_kind_that_fails(monkeypatch: pytest.MonkeyPatch, function: str, text: str) -> None:
    """Whatever a plug-in does, the error says which one."""
    _offer(monkeypatch, "moon", function)
    with pytest.raises(ConfigurationError, match=text):
        schedule_from_plain({"moon": "full"})


class OnlyNext:
    def next(self, after: datetime) -> datetime | None:
        return None


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (None, "schedule is None"),
        (True, "schedule is True"),
        (object, "schedule is the class object"),
        (Fridays, "schedule is the class Fridays"),
        (OnlyNext(), r"has no method to_plain\(\)"),
        ({}, r"schedule {} is of no known kind"),
        ({"crom": "0 9 * * *"}, "is of no known kind, did you mean 'cron'?"),
        ({"cron": "0 9 * * *", "timezone": "UTC"}, "has the key 'timezone'"),
        ({"every": 5, "ancher": 5}, "has the key 'ancher', did you mean 'anchor'?"),
        ("every now and then", r"every\(\) got"),
        ("once upon", "not an instant"),
        ("often", "has 1 field, not 5 or 6"),
    ],
)
def test_no_schedule(wrong: Any, text: str) -> None:
    """The error says what it is, and what would be one."""
    with pytest.raises(ConfigurationError, match=text.replace("?", r"\?")):
        read_schedule(wrong)
