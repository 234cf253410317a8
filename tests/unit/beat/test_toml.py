"""Entries as TOML: what is written is read again, and what people write is understood."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.beat.toml import dump_entries, load_entries
from amqtask.errors import ConfigurationError
from amqtask.policy.entry import CatchUp, Entry, Overlap
from amqtask.policy.schedule import cron, every
from tests.unit.policy.schedule.test_read import SCHEDULES

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)

# lone surrogates too: JSON holds them
TEXT = st.text(st.characters(), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.just(NOON)
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(min_size=1, max_size=20).filter(str.isprintable)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    catch_up: CatchUp = draw(st.sampled_from(get_args(CatchUp)))
    window = draw(st.floats(0, 1e6)) if catch_up == "all" else None
    return Entry(
        draw(NAMES),
        draw(SCHEDULES),
        draw(st.text("abc._", min_size=1)),
        args=tuple(draw(st.lists(VALUES, max_size=3))),
        kwargs=draw(st.dictionaries(TEXT, VALUES, max_size=3)),
        options=draw(st.just({}) | st.just({"queue": "reports", "priority": 3})),
        jitter=draw(st.just(0.0) | st.floats(0, 1e6)),
        start=draw(st.none() | st.just(NOON)),
        end=draw(st.none() | st.just(NOON + timedelta(days=1, microseconds=5))),
        expires=draw(st.none() | st.floats(0, 1e6)),
        overlap=draw(st.sampled_from(get_args(Overlap))),
        catch_up=catch_up,
        window=window,
        paused=draw(st.booleans()),
        origin="dynamic",
    )


@given(st.lists(entries(), max_size=4, unique_by=lambda entry: entry.name))
def test_there_and_back(found: list[Entry]) -> None:
    """Nothing is lost or changed on the way, and the order is kept."""
    assert load_entries(dump_entries(found), tz="UTC") == [entry.in_zone("UTC") for entry in found]


def test_the_form() -> None:
    """As people would write it."""
    entry = Entry(
        "nightly report",
        cron("0 3 * * *", tz="Europe/Paris"),
        "shop.report",
        args=(30, "sales"),
        kwargs={"rate": Decimal("0.5"), "to": ["a@b.example"]},
        options={"queue": "reports"},
        catch_up="all",
        window=3600,
    )
    assert dump_entries([entry, Entry("poll", every("1h30m"), "shop.poll", args=(None,))]) == (
        '[entries."nightly report"]\n'
        'schedule = { cron = "0 3 * * *", tz = "Europe/Paris" }\n'
        'task = "shop.report"\n'
        'args = [30, "sales"]\n'
        'kwargs = { rate = { __type__ = "decimal", __value__ = "0.5" }, to = ["a@b.example"] }\n'
        'options = { queue = "reports" }\n'
        'catch_up = "all"\n'
        "window = 3600\n"
        "\n"
        "[entries.poll]\n"
        "schedule = { every = 5400 }\n"
        'task = "shop.poll"\n'
        'args_json = "[null]"\n'
    )


def test_written_by_hand() -> None:
    """Text for schedules, TOML's own dates, and the app's zone."""
    found = load_entries(
        """
        [entries.report]
        task = "shop.report"
        schedule = "0 9 * * mon-fri"
        start = 2026-06-01T12:00:00Z
        args = [2026-01-02, 2026-06-01T12:00:00Z, 07:30:00]
        """,
        tz="Asia/Tokyo",
    )
    assert found == [
        Entry(
            "report",
            cron("0 9 * * mon-fri", tz="Asia/Tokyo"),
            "shop.report",
            args=(date(2026, 1, 2), NOON, time(7, 30)),
            start=NOON,
            origin="dynamic",
        )
    ]


def test_code_entries_become_dynamic() -> None:
    """A file says nothing of where an entry came from."""
    entry = Entry("a", every(60), "t", kwargs={"id": UUID(int=7)})
    assert load_entries(dump_entries([entry]), tz="UTC") == [replace(entry, origin="dynamic")]


def test_nothing() -> None:
    """No entries make an empty text, which holds no entries."""
    assert dump_entries([]) == ""
    assert load_entries("", tz="UTC") == []


def test_arguments_that_no_json_holds() -> None:
    """They may be sent by an app whose serializer is pickle, and cannot be exported."""
    with pytest.raises(ConfigurationError, match="args of entry 'a' cannot be written"):
        dump_entries([Entry("a", every(60), "t", args=(object(),))])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[entries", "entries.toml is not valid TOML"),
        ("a = 1", "entries.toml has 'a', which is no table of entries"),
        ("entries = 1", "entries.toml has 'entries', which is no table of entries"),
        ("[entries]\na = 1", "entry 'a' is 1"),
        ("[entries.a]\ntask = 't'", "entry 'a' has no schedule"),
        ("[entries.a]\nschedule = 60", "entry 'a' has no task"),
        ("[entries.a]\nschedule = 60\ntask = 't'\njiter = 1", "did you mean 'jitter'?"),
        ("[entries.a]\nschedule = '0 25 * * *'\ntask = 't'", "entry 'a': cron expression .* hour '25'"),
        ("[entries.a]\nschedule = 60\ntask = 't'\nargs_json = '['", "args_json of entry 'a' cannot be read"),
        ("[entries.a]\nschedule = 60\ntask = 't'\nargs_json = 5", "args_json of entry 'a' cannot be read"),
        ("[entries.a]\nschedule = 60\ntask = 't'\nargs = []\nargs_json = '[]'", "has both args and args_json"),
        ("[entries.a]\nschedule = 60\ntask = 't'\nargs_json = '[]'\nargs = []", "has both args and args_json"),
        ("[entries.a]\nschedule = 60\ntask = 't'\nargs_json = '5'", "args of entry 'a' is 5"),
    ],
)  # fmt: skip
def test_wrong(text: str, error: str) -> None:
    """The error names file, entry and key."""
    with pytest.raises(ConfigurationError, match=error.replace("?", r"\?")):
        load_entries(text, tz="UTC", where="entries.toml")


@given(TEXT)
def test_any_text_is_valid_toml(text: str) -> None:
    """Quotes, backslashes and control characters included."""
    assert tomllib.loads(dump_entries([Entry("a", every(60), "t", args=(text,))]))
