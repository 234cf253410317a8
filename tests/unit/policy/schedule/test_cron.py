"""Cron expressions: which instants they mean, and what is said of wrong ones."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError
from amqtask.policy.schedule import Cron, Schedule, cron
from tests.unit.policy.schedule.changes import CHANGES, Fields, expected

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def instants(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    found, at = [], start
    while (following := schedule.next(at)) is not None and following <= end:
        assert following > at
        found.append(following)
        at = following
    return found


def walls(expression: str, zone: str, day: str) -> list[str]:
    """Return the times of one day at which it is due, on the wall, with their offsets."""
    tz = ZoneInfo(zone)
    start = datetime.combine(datetime.fromisoformat(day), time(), tzinfo=tz)
    end = datetime.combine(start.date() + timedelta(days=1), time(), tzinfo=tz)
    found = instants(cron(expression, tz=zone), start.astimezone(UTC) - timedelta(seconds=1), end)
    return [f"{each.astimezone(tz):%H:%M%z}" for each in found if each < end]


# -- the meaning of expressions -------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("* * * * *", ["2026-01-01T00:01", "2026-01-01T00:02"]),
        ("*/15 * * * *", ["2026-01-01T00:15", "2026-01-01T00:30"]),
        ("0 9 * * mon-fri", ["2026-01-01T09:00", "2026-01-02T09:00", "2026-01-05T09:00"]),
        ("0 0 13 * fri", ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00"]),
        ("0 0 L * *", ["2026-01-31T00:00", "2026-02-28T00:00"]),
        ("0 0 * * mon#2", ["2026-01-12T00:00", "2026-02-09T00:00"]),
        ("0 0 * * 5L", ["2026-01-30T00:00", "2026-02-27T00:00"]),
        ("0 12 29 2 *", ["2028-02-29T12:00", "2032-02-29T12:00"]),
        ("*/20 * * * * *", ["2026-01-01T00:00:20", "2026-01-01T00:00:40", "2026-01-01T00:01"]),
        ("@hourly", ["2026-01-01T01:00", "2026-01-01T02:00"]),
        ("@daily", ["2026-01-02T00:00", "2026-01-03T00:00"]),
        ("@midnight", ["2026-01-02T00:00"]),
        ("@weekly", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("@monthly", ["2026-02-01T00:00", "2026-03-01T00:00"]),
        ("@yearly", ["2027-01-01T00:00"]),
        ("@annually", ["2027-01-01T00:00"]),
    ],
)
def test_expression(expression: str, first: list[str]) -> None:
    """Each form is due when crontab(5) says."""
    schedule, at, found = cron(expression), NEW_YEAR, []
    for _ in first:
        following = schedule.next(at)
        assert following is not None
        found.append(following)
        at = following
    assert found == [datetime.fromisoformat(each).replace(tzinfo=UTC) for each in first]


def test_both_days_have_to_fit_when_said() -> None:
    """days='both' is the first Monday of a month, where cron would take every Monday too."""
    found = instants(cron("0 0 1-7 * mon", days="both"), NEW_YEAR, NEW_YEAR + timedelta(days=90))
    assert [f"{each:%m-%d}" for each in found] == ["01-05", "02-02", "03-02"]


def test_an_instant_between_seconds_is_followed_by_the_next_second() -> None:
    """Fractions of a second neither skip nor repeat an instant."""
    schedule = cron("* * * * * *")
    assert schedule.next(NEW_YEAR + timedelta(microseconds=1)) == NEW_YEAR + timedelta(seconds=1)
    assert schedule.next(NEW_YEAR - timedelta(microseconds=1)) == NEW_YEAR


def test_no_instant_after_the_last_year() -> None:
    """At the end of the calendar there is none, and no error."""
    assert cron("0 0 1 1 *", tz="Europe/Paris").next(datetime.max.replace(tzinfo=UTC)) is None


def test_instants_are_in_utc_whatever_the_zone_of_the_question() -> None:
    """The same instant asked in two zones has the same answer."""
    schedule = cron("0 9 * * *", tz="Asia/Tokyo")
    asked = NEW_YEAR.astimezone(ZoneInfo("America/New_York"))
    assert schedule.next(asked) == schedule.next(NEW_YEAR)
    assert str(schedule.next(asked)) == "2026-01-02 00:00:00+00:00"


# -- clocks that are changed ----------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "zone", "day", "due"),
    [
        # forward: 02:00 to 03:00 does not exist
        ("30 2 * * *", "Europe/Paris", "2026-03-29", ["03:00+0200"]),
        ("0,30 2 * * *", "Europe/Paris", "2026-03-29", ["03:00+0200"]),
        ("30 2,3 * * *", "Europe/Paris", "2026-03-29", ["03:00+0200", "03:30+0200"]),
        ("15 30 2 * * *", "Europe/Paris", "2026-03-29", ["03:00+0200"]),
        ("*/30 2 * * *", "Europe/Paris", "2026-03-29", []),
        ("0 1-3 * * *", "Europe/Paris", "2026-03-29", ["01:00+0100", "03:00+0200"]),
        ("0 */3 * * *", "Antarctica/Troll", "2026-03-29", ["00:00+0000", "03:00+0200"]),
        # back: 02:00 to 03:00 comes twice
        ("30 2 * * *", "Europe/Paris", "2026-10-25", ["02:30+0200"]),
        (
            "*/30 2 * * *",
            "Europe/Paris",
            "2026-10-25",
            ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"],
        ),
        ("0 1-3 * * *", "Europe/Paris", "2026-10-25", ["01:00+0200", "02:00+0200", "03:00+0100"]),
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01:30-0400"]),
        # by half an hour
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["02:30+1100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", ["01:45+1100"]),
        (
            "*/15 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-05",
            ["01:00+1100", "01:15+1100", "01:30+1100", "01:45+1100", "01:30+1030", "01:45+1030"],
        ),
        # at midnight: the day begins at 01:00
        ("0 0 * * *", "America/Havana", "2026-03-08", ["01:00-0400"]),
        # a day that does not exist
        ("0 12 30 12 *", "Pacific/Apia", "2011-12-31", ["00:00+1400"]),
    ],
)
def test_changed_clocks(expression: str, zone: str, day: str, due: list[str]) -> None:
    """The rows of the guide's table."""
    found = walls(expression, zone, day)
    assert [each for each in found if each in due or each < "04"] == due


def test_an_hourly_schedule_stays_hourly() -> None:
    """What runs through the hours has the same pause on every day of the year."""
    found = instants(
        cron("0 * * * *", tz="America/New_York"), NEW_YEAR, NEW_YEAR + timedelta(days=365)
    )
    assert {after - before for before, after in pairwise(found)} == {timedelta(hours=1)}


def _field(least: int, most: int) -> st.SearchStrategy[tuple[str, set[int]]]:
    numbers = st.sets(st.integers(least, most), min_size=1, max_size=4)
    listed = numbers.map(lambda found: (",".join(map(str, sorted(found))), found))
    step = st.integers(1, 20).map(lambda each: (f"*/{each}", set(range(least, most + 1)[::each])))
    span = st.tuples(st.integers(least, most), st.integers(least, most)).map(sorted)
    ranged = span.map(lambda ends: (f"{ends[0]}-{ends[1]}", set(range(ends[0], ends[1] + 1))))
    everything = st.just(("*", set(range(least, most + 1))))
    return everything | step | listed | ranged


# weeks and hours in which clocks are changed matter, so minutes are few
FIELDS = st.tuples(
    _field(0, 59), _field(0, 23), _field(1, 31), st.just(("*", set(range(1, 13)))), _field(0, 6)
).map(lambda parts: Fields(" ".join(text for text, _ in parts), *(found for _, found in parts)))


@given(FIELDS, st.sampled_from(CHANGES), st.integers(0, 100_000))
def test_any_expression_around_a_change_of_clocks(
    fields: Fields, change: tuple[str, object], seconds: int
) -> None:
    """It agrees with a walk through every minute of the days around it."""
    zone, day = change
    start = datetime.fromisoformat(f"{day}T00:00+00:00") - timedelta(days=1, seconds=seconds)
    end = start + timedelta(days=2, hours=12)
    found = instants(cron(fields.text, tz=zone), start, end)
    assert found == expected(fields, zone, start, end)


@given(FIELDS, st.sampled_from(CHANGES), st.integers(0, 200_000_000), st.integers(0, 10**9))
def test_a_later_question_never_has_an_earlier_answer(
    fields: Fields, change: tuple[str, object], micros: int, more: int
) -> None:
    """What the search for the last missed instant rests on."""
    zone, day = change
    schedule = cron(fields.text, tz=zone)
    at = datetime.fromisoformat(f"{day}T00:00+00:00") + timedelta(milliseconds=micros)
    first, second = schedule.next(at), schedule.next(at + timedelta(microseconds=more))
    assert first is None or second is None or first <= second


# -- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("0 25 * * *", "cron expression '0 25 * * *': hour '25' is not from 0 to 23"),
        ("60 * * * *", "minute '60' is not from 0 to 59"),
        ("0 0 0 * *", "day of month '0' is not from 1 to 31"),
        ("0 0 * 13 *", "month '13' is not from 1 to 12"),
        ("0 0 * mrz *", "month 'mrz' is not 1 to 12 or jan to dec, did you mean 'mar'?"),
        ("0 9 * * monday", "day of week 'monday' is not 0 to 7 or sun to sat, did you mean 'mon'?"),
        (
            "0 9 * * mon-fry",
            "day of week 'mon-fry' is not 0 to 7 or sun to sat, did you mean 'fri'?",
        ),
        ("0 9 * * 8", "day of week '8' is not from 0 to 7"),
        ("0 9 * * mon#6", "day of week 'mon#6' asks for day number '6' of the month, not 1 to 5"),
        ("0 9 * * mon#1/2", "day of week 'mon#1/2' has a step after a single day"),
        ("0 22-3 * * *", "hour '22-3' runs backwards: write 22-23,0-3"),
        ("0 9 * * fri-mon", "day of week 'fri-mon' runs backwards: write fri-sat,sun-mon"),
        ("*/0 * * * *", "minute '*/0' has the step '0', not a whole number above 0"),
        ("*/x * * * *", "minute '*/x' has the step 'x', not a whole number above 0"),
        ("1,,2 * * * *", "minute '' in '1,,2' is empty"),
        ("1- * * * *", "minute '1-' misses a value"),
        ("*5 * * * *", "minute '*5' has something beside the *"),
        ("0 x L * *", "hour 'x' is not 0 to 23"),
        ("99 0 0 * * *", "second '99' is not from 0 to 59"),
        ("0 9 * *", "has 4 fields, not 5 or 6"),
        ("9", "has 1 field, not 5 or 6"),
        ("", "cron expression '' has 0 fields, not 5 or 6"),
        ("@dayly", "cron expression '@dayly' is no alias, did you mean '@daily'?"),
        ("@reboot", "cron expression '@reboot' has no instant"),
        ("0 0 31 2 *", "asks for day 31 of a month with at most 29"),
        ("0 0 31 4,6 *", "asks for day 31 of a month with at most 30"),
        ("0 0 30-31 2 *", "asks for days that none of its months has"),
    ],
)
def test_wrong_expression(expression: str, text: str) -> None:
    """The error names the field, the part of it, and what is near."""
    with pytest.raises(ConfigurationError) as caught:
        cron(expression)
    assert text in str(caught.value)


def test_a_wrong_field_is_explained() -> None:
    """The hint says what the field takes."""
    with pytest.raises(ConfigurationError) as caught:
        cron("0 9 * * mon-fry")
    assert caught.value.hint == (
        "it takes 0 to 7 or sun to sat, a range as in mon-fri, a step as in */2, or several of "
        "them with commas"
    )


def test_days_that_never_fit_both() -> None:
    """What is never due within 50 years is refused where it is declared."""
    with pytest.raises(ConfigurationError, match="is never due within 50 years"):
        cron("0 0 30 2 mon", days="both")


def test_no_text() -> None:
    """A number is no expression."""
    with pytest.raises(ConfigurationError, match="cron expression is 5, not text"):
        cron(5)  # type: ignore[arg-type]


def test_wrong_days() -> None:
    """Only two words are known."""
    with pytest.raises(ConfigurationError, match="is 'each'"):
        cron("* * * * *", days="each")  # type: ignore[arg-type]


def test_unknown_zone() -> None:
    """A zone's name is checked, and a near one is named."""
    with pytest.raises(
        ConfigurationError,
        match="no time zone is called 'Europe/Pari', did you mean 'Europe/Paris'",
    ):
        cron("* * * * *", tz="Europe/Pari")


@given(st.text(alphabet="0123456789*/,-#LWlmonaz @", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text ends in another error."""
    try:
        schedule = cron(text)
    except ConfigurationError:
        return
    found = schedule.next(NEW_YEAR)
    assert found is None or found > NEW_YEAR


# -- as a value -----------------------------------------------------------------------


def test_zone_by_object_and_by_name() -> None:
    """A zone is kept by its name, so that it can be written down."""
    assert cron("0 9 * * *", tz=ZoneInfo("Asia/Tokyo")) == cron("0 9 * * *", tz="Asia/Tokyo")
    assert cron("0 9 * * *", tz=UTC).tz == "UTC"
    with pytest.raises(ConfigurationError, match="has no name"):
        cron("0 9 * * *", tz=datetime.now().astimezone().tzinfo)


def test_zone_of_the_app() -> None:
    """An expression without a zone takes the app's, one with a zone keeps its own."""
    assert cron("0 9 * * *").in_zone("Asia/Tokyo").tz == "Asia/Tokyo"
    assert cron("0 9 * * *", tz="UTC").in_zone("Asia/Tokyo").tz == "UTC"


def test_as_text_and_plain() -> None:
    """Both forms say all of it."""
    schedule = cron("0  0 1-7 * MON", tz="Europe/Paris", days="both")
    assert str(schedule) == "CRON_TZ=Europe/Paris CRON_DAYS=both 0 0 1-7 * MON"
    assert schedule.to_plain() == {
        "cron": "0 0 1-7 * MON",
        "tz": "Europe/Paris",
        "days": "both",
    }
    assert cron("@daily").to_plain() == {"cron": "@daily"}


def test_pickled() -> None:
    """It goes to other processes."""
    schedule = cron("0 9 * * *", tz="Europe/Paris")
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert again.next(NEW_YEAR) == schedule.next(NEW_YEAR)


def test_equal_expressions_share_what_was_parsed() -> None:
    """Ten thousand entries hold few sets of numbers."""
    one, two = cron("5 4 * * *"), cron("5 3 * * *")
    assert one._walls.minutes is two._walls.minutes
    assert Cron("5 4 * * *", "Asia/Tokyo")._walls is one._walls


def test_asking_changes_nothing() -> None:
    """One schedule may be asked from any thread, in any order."""
    schedule = cron("0 9 * * *")
    asked = [schedule.next(NEW_YEAR + timedelta(days=days)) for days in (9, 3, 9)]
    assert asked[0] == asked[2] != asked[1]
