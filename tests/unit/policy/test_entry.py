"""Entries: what they hold, what is refused, and their plain form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqtask.errors import ConfigurationError
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import Once, cron, every, once

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def entry(**fields: Any) -> Entry:
    return Entry(**{"name": "e", "schedule": every(60), "task": "t", **fields})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": ""}, "an entry is called ''"),
        ({"name": "x" * 201}, "an entry is called 'xxx"),
        ({"name": "a\nb"}, r"an entry is called 'a\\nb'"),
        ({"name": 5}, "an entry is called 5"),
        ({"task": ""}, "task of entry 'e' is ''"),
        ({"task": None}, "task of entry 'e' is None"),
        ({"args": "text"}, "args of entry 'e' is 'text', not a list of arguments"),
        ({"kwargs": [1]}, r"kwargs of entry 'e' is \[1\], not arguments by name"),
        ({"kwargs": {1: 2}}, "kwargs of entry 'e' has a key that is no text"),
        ({"options": "queue"}, "options of entry 'e' is 'queue'"),
        ({"jitter": -1}, "jitter of entry 'e' is -1, not a number of seconds from 0 up"),
        ({"jitter": None}, "jitter of entry 'e' is None"),
        ({"expires": "soon"}, "expires of entry 'e' is 'soon'"),
        ({"window": float("inf"), "catch_up": "all"}, "window of entry 'e' is inf"),
        ({"window": True, "catch_up": "all"}, "window of entry 'e' is True"),
        ({"overlap": "skipp"}, "overlap of entry 'e' is 'skipp', did you mean 'skip'?"),
        ({"catch_up": "every"}, "catch_up of entry 'e' is 'every'"),
        ({"origin": "moon"}, "origin of entry 'e' is 'moon'"),
        ({"paused": "yes"}, "paused of entry 'e' is 'yes', not true or false"),
        ({"start": "noon"}, "start of entry 'e' is 'noon', not an instant"),
        ({"end": datetime(2026, 1, 1)}, "end of entry 'e' is .* no time zone"),  # noqa: DTZ001
        ({"start": NOON, "end": NOON - timedelta(1)}, "entry 'e' ends at .* before it starts"),
        ({"catch_up": "all"}, "entry 'e' catches up all instants, without a bound"),
        ({"catch_up": "none", "window": 5}, "entry 'e' has a window, but catches up nothing"),
    ],
)
def test_refused(fields: dict[str, Any], text: str) -> None:
    """The error names entry, field and value."""
    with pytest.raises(ConfigurationError, match=text.replace("?", r"\?")):
        entry(**fields)


def test_seconds_may_be_timedeltas() -> None:
    """As everywhere."""
    found = entry(jitter=timedelta(minutes=1), expires=timedelta(hours=1), window=timedelta(days=1))
    assert (found.jitter, found.expires, found.window) == (60, 3600, 86400)


def test_only_what_was_said_is_written() -> None:
    """Defaults are left out, and so is where it came from."""
    assert entry().to_plain() == {"schedule": {"every": 60}, "task": "t"}
    full = entry(
        schedule=cron("0 9 * * *", tz="Asia/Tokyo"),
        args=[1],
        kwargs={"a": 2},
        options={"queue": "q"},
        jitter=5,
        start=NOON,
        end=NOON,
        expires=60,
        overlap="skip",
        catch_up="all",
        window=90,
        paused=True,
        origin="dynamic",
    )
    assert full.to_plain() == {
        "schedule": {"cron": "0 9 * * *", "tz": "Asia/Tokyo"},
        "task": "t",
        "args": [1],
        "kwargs": {"a": 2},
        "options": {"queue": "q"},
        "jitter": 5,
        "start": "2026-06-01T12:00:00+00:00",
        "end": "2026-06-01T12:00:00+00:00",
        "expires": 60,
        "overlap": "skip",
        "catch_up": "all",
        "window": 90,
        "paused": True,
    }
    assert Entry.from_plain("e", full.to_plain()) == full


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        (5, "entry 'e' is 5, not a table"),
        ({"task": "t"}, "entry 'e' has no schedule"),
        ({"schedule": 5}, "entry 'e' has no task"),
        ({"schedule": 5, "task": "t", "crom": 5}, "entry 'e' has the key 'crom'"),
        ({"schedule": 5, "task": "t", "origin": "code"}, "entry 'e' has the key 'origin'"),
        ({"schedule": "0 9 * *", "task": "t"}, "entry 'e': cron expression '0 9 \\* \\*' has 4 fields"),
        ({"schedule": 5, "task": "t", "args": "ab"}, "args of entry 'e' is 'ab'"),
    ],
)  # fmt: skip
def test_plain_that_is_refused(plain: Any, text: str) -> None:
    """What comes over the wire or from a file is checked as what code says."""
    with pytest.raises(ConfigurationError, match=text):
        Entry.from_plain("e", plain)


def test_zone() -> None:
    """A cron expression without one takes the app's; nothing else changes."""
    found = entry(schedule=cron("0 9 * * *")).in_zone("Asia/Tokyo")
    assert found.schedule == cron("0 9 * * *", tz="Asia/Tokyo")
    assert entry().in_zone("Asia/Tokyo") == entry()


def test_form_follows_the_instants() -> None:
    """It changes with the schedule and its start, and with nothing else."""
    form = entry().form
    assert entry(args=(1,), jitter=5, paused=True, end=NOON).form == form
    assert entry(schedule=every(61)).form != form
    assert entry(start=NOON).form != form


def test_start_is_an_instant_if_the_schedule_says_so() -> None:
    """Both ends belong to it."""
    found = entry(schedule=Once(NOON), start=NOON, end=NOON)
    assert found.due_after(NOON - timedelta(days=9)) == NOON
    assert (
        entry(schedule=once(NOON), end=NOON - timedelta(1)).due_after(NOON - timedelta(2)) is None
    )
    assert (
        entry(schedule=once(NOON), start=NOON + timedelta(1)).due_after(NOON - timedelta(2)) is None
    )
