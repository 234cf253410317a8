"""Entries as code declares them, and what is refused there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amqtask import App, ConfigurationError, Entry, Queue, RetryPolicy, cron, every
from amqtask.entries import call_options, check


def make(**settings: Any) -> App:
    return App("shop", environ={}, **settings)


@pytest.fixture
def app() -> App:
    return make()


def report(kind: str, days: int = 7) -> None:
    """Report on something."""


class Signed:
    """What ``task.s(...)`` makes, by its looks."""

    def as_dict(self) -> dict[str, Any]:
        options = {"queue": "q"}
        return {"task": "report", "args": ["sales"], "kwargs": {"days": 1}, "options": options}


# -- declaring ------------------------------------------------------------------------


def test_at_the_task(app: App) -> None:
    """A task says when it is called; the entry has its name."""

    @app.task(schedule=cron("0 9 * * mon-fri", tz="Europe/Paris"), name="clean")
    def clean() -> None: ...

    entry = app.entries.get("clean")
    assert entry == Entry("clean", cron("0 9 * * mon-fri", tz="Europe/Paris"), "clean")
    assert clean.defaults.queue is None


def test_at_a_task_that_takes_arguments(app: App) -> None:
    """Nobody would give them."""
    with pytest.raises(ConfigurationError, match="entry 'report': .*missing.*'kind'"):
        app.task(schedule=60, name="report")(report)


@pytest.mark.parametrize(
    "what",
    [
        "task",
        "name",
        "tuple",
        "options",
        "signature",
        "object",
    ],
)
def test_what_is_called(app: App, what: str) -> None:
    """A task, its name, a tuple, a task with options, a signature."""
    task = app.task(name="report")(report)
    forms: dict[str, tuple[Any, dict[str, Any]]] = {
        "task": (task, {"args": ["sales"], "kwargs": {"days": 1}, "queue": "q"}),
        "name": ("report", {"args": ["sales"], "kwargs": {"days": 1}, "queue": "q"}),
        "tuple": ((task, ["sales"], {"days": 1}), {"queue": "q"}),
        "options": (task.options(queue="q"), {"args": ["sales"], "kwargs": {"days": 1}}),
        "signature": (
            {"task": "report", "args": ["sales"], "kwargs": {"days": 1}, "options": {"queue": "q"},
             "subtask_type": None, "immutable": False},
            {},
        ),
        "object": (Signed(), {}),
    }  # fmt: skip
    called, said = forms[what]
    entry = app.schedule("sales report", called, every(minutes=5), **said)
    assert entry == app.entries.get("sales report")
    assert entry == Entry(
        "sales report",
        every(300),
        "report",
        args=("sales",),
        kwargs={"days": 1},
        options={"queue": "q"},
    )


def test_all_that_can_be_said(app: App) -> None:
    """Fields of the entry, and options of its calls as plain data."""
    entry = app.schedule(
        "r",
        "report",
        timedelta(hours=1),
        args=("x",),
        jitter=timedelta(seconds=30),
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2027, 1, 1, tzinfo=UTC),
        expires=600,
        overlap="cancel_running",
        catch_up="all",
        window=3600,
        paused=True,
        queue=Queue("reports"),
        retry=RetryPolicy(max_retries=5),
        headers={"tenant": 7},
        priority=3,
    )
    assert (entry.jitter, entry.expires, entry.overlap, entry.window) == (
        30,
        600,
        "cancel_running",
        3600,
    )
    assert entry.options == {
        "queue": "reports",
        "retry": RetryPolicy(max_retries=5).to_header(),
        "headers": {"tenant": 7},
        "priority": 3,
    }
    assert "reports" in app.queues
    said = call_options(entry)
    assert (said.retry, said.expires, said.queue) == (RetryPolicy(max_retries=5), 600, "reports")


def test_zone_of_the_app() -> None:
    """Wall-clock times are those of the setting `timezone`."""
    app = make(timezone="Asia/Tokyo")
    assert app.schedule("a", "t", "0 9 * * *").schedule == cron("0 9 * * *", tz="Asia/Tokyo")


def test_declared_again(app: App) -> None:
    """The same twice, as when a module is imported under two names, is one entry."""
    for _ in range(2):
        app.schedule("a", "t", 60)
    assert len(app.entries) == 1
    assert "a" in app.entries
    with pytest.raises(ConfigurationError, match="two entries are called 'a': task 't', every 1m"):
        app.schedule("a", "t", 61)


# -- settings -------------------------------------------------------------------------


def test_beat_schedule_as_celery_has_it() -> None:
    """The setting of a Celery app is read as it is."""
    app = make(
        beat_schedule={
            "every-30": {"task": "t", "schedule": 30.0, "args": (16, 16), "relative": True},
            "nightly": {
                "task": "clean",
                "schedule": timedelta(days=1),
                "kwargs": None,
                "options": {"queue": "slow", "expires": 15.0},
            },
        }
    )
    assert list(app.entries) == [
        Entry("every-30", every(30), "t", args=(16, 16)),
        Entry("nightly", every(86400), "clean", options={"queue": "slow"}, expires=15.0),
    ]


def test_beat_schedule_in_a_file(tmp_path: Path) -> None:
    """It may stand in pyproject.toml, where schedules are tables or text."""
    path = tmp_path / "pyproject.toml"
    path.write_text(
        "[tool.amqtask.beat_schedule.nightly]\n"
        'task = "clean"\nschedule = { cron = "0 3 * * *", tz = "UTC" }\ncatch_up = "none"\n'
        "[tool.amqtask.beat_schedule.poll]\n"
        'task = "poll"\nschedule = "every 5m"\n'
    )
    app = App("shop", environ={}, pyproject=path)
    assert list(app.entries) == [
        Entry("nightly", cron("0 3 * * *", tz="UTC"), "clean", catch_up="none"),
        Entry("poll", every(300), "poll"),
    ]


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ({"a": 5}, "entry 'a' of beat_schedule is 5"),
        ({"a": {"task": "t"}}, "entry 'a' of beat_schedule has no schedule"),
        ({"a": {"schedule": 5}}, "entry 'a' of beat_schedule has no task"),
        (
            {"a": {"task": "t", "schedule": 5, "argz": []}},
            "has the key 'argz', did you mean 'args'?",
        ),
        (
            {"a": {"task": "t", "schedule": "0 25 * * *"}},
            "entry 'a': cron .* hour '25' is not from 0",
        ),
        (
            {"a": {"task": "t", "schedule": 5, "options": {"kew": 1}}},
            "entry 'a' has no option 'kew'",
        ),
        ([], "setting 'beat_schedule' .* is "),
    ],
)
def test_wrong_beat_schedule(schedule: Any, text: str) -> None:
    """It fails when the app is made, with the entry named."""
    with pytest.raises(ConfigurationError, match=text.replace("?", r"\?")):
        make(beat_schedule=schedule)


# -- refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"when": "0 9 * * mon-fry"}, "entry 'a': cron expression .* day of week 'mon-fry'"),
        ({"when": None}, "entry 'a': schedule is None"),
        ({"what": 5}, "entry 'a' calls 5"),
        ({"what": ("t", 1)}, "args of entry 'a' is 1"),
        ({"what": {"task": "celery.chain", "kwargs": {"tasks": []}}}, "it calls a workflow"),
        ({"jiter": 5}, "entry 'a' has no option 'jiter', did you mean 'jitter'?"),
        ({"eta": datetime(2026, 1, 1, tzinfo=UTC)}, "entry 'a': an entry has no option 'eta'"),
        ({"task_id": "x"}, "an entry has no option 'task_id'"),
        ({"call_timeout": 5}, "an entry has no option 'call_timeout'"),
        ({"what": {"task": "t", "options": {"link": [1]}}}, "an entry has no option 'link'"),
        ({"priority": 300}, "entry 'a': priority=300 is not from 0 to 255"),
        ({"expires": datetime(2026, 1, 1, tzinfo=UTC)}, "entry 'a' expires at an instant"),
        ({"args": [object()]}, "entry 'a': .*does not serialise as json"),
        ({"overlap": "skip"}, "overlap 'skip' cannot be told: no result backend keeps"),
    ],
)
def test_refused(app: App, said: dict[str, Any], text: str) -> None:
    """Where it is declared, in words that name the entry."""
    said = {"what": "t", "when": 60, **said}
    with pytest.raises(ConfigurationError, match=text.replace("?", r"\?")):
        app.schedule("a", said.pop("what"), said.pop("when"), **said)
    assert len(app.entries) == 0


def test_arguments_that_do_not_fit(app: App) -> None:
    """A task that is known says so at once."""
    task = app.task(name="report")(report)
    with pytest.raises(ConfigurationError, match="entry 'a': task 'report': .*'kind'") as caught:
        app.schedule("a", task, 60)
    assert "report(kind: str" in (caught.value.hint or "").replace("'str'", "str")


def test_overlap_needs_to_know() -> None:
    """A backend that stores knows whether a call runs; one that only replies does not."""
    stored = make(backend="memory://")
    assert stored.schedule("a", "t", 60, overlap="skip").overlap == "skip"
    with pytest.raises(ConfigurationError, match="the task's results are ignored"):
        stored.schedule("b", "t", 60, overlap="skip", ignore_result=True)
    quiet = stored.task(name="quiet", ignore_result=True)(lambda: None)
    with pytest.raises(ConfigurationError, match="the task's results are ignored"):
        stored.schedule("c", quiet, 60, overlap="skip")
    with pytest.raises(ConfigurationError, match="no result backend keeps"):
        make(backend="rpc://").schedule("a", "t", 60, overlap="skip")


def test_entries_from_elsewhere_are_checked_alike(app: App) -> None:
    """Those that are added at run time, for one."""
    entry = Entry.from_plain("a", {"task": "t", "schedule": 60, "options": {"kew": 1}})
    with pytest.raises(ConfigurationError, match="entry 'a': unknown option 'kew'"):
        check(app, entry)
