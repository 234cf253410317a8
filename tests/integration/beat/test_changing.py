"""Schedules seen and changed at run time, by the API and from the command line's other side."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from amqtask import App, cron, every
from amqtask.errors import ConfigurationError, NoAnswer
from amqtask.testing import Server
from tests.helpers import eventually
from tests.integration.beat.conftest import Beating, MakeApp
from tests.integration.worker.inprocess import Line


@pytest.fixture
def broker(any_broker: Server) -> str:
    """One broker: how beats share a queue is tested on all of them, in `test_state_loss`."""
    return any_broker.url


def test_entries_are_told_apart_and_changed(
    app: App, beating: Beating, line: Line, queue: str
) -> None:
    """Those of the code are paused and run; those added here are edited and removed too."""
    app.schedule("coded", "note", cron("0 9 * * mon-fri", tz="Europe/Paris"), args=["coded"])
    beating(app)
    schedules = app.schedules
    added = schedules.add("added", "note", every(hours=1), args=["added"], jitter=5)
    assert (added.origin, added.task, added.paused, added.last) == ("dynamic", "note", False, None)
    assert added.next is not None
    assert {each.name: each.origin for each in schedules.list()} == {
        "coded": "code",
        "added": "dynamic",
    }

    edited = schedules.edit("added", schedule="every 2h", jitter=None, catch_up="none")
    assert edited.schedule == "every 2h"
    assert edited.plain == {
        "schedule": {"every": 7200},
        "task": "note",
        "args": ["added"],
        "catch_up": "none",
    }

    assert schedules.pause("coded").paused
    assert schedules.get("coded").next is None
    assert schedules.resume("coded").next is not None

    id_ = schedules.run_now("coded")
    props, body = line.take(queue)
    assert props.headers is not None
    assert props.headers["id"] == id_
    assert props.headers["x-amqtask-entry"] == "coded"
    assert body.startswith(b'[["coded"]')
    assert schedules.get("coded").fires == 1

    schedules.remove("added")
    assert [each.name for each in schedules.list()] == ["coded"]
    assert schedules.status()["leader"] == "first"


def test_what_is_wrong_is_refused_with_the_reason(app: App, beating: Beating) -> None:
    """Unknown names, names of the code, names that are taken, and tables that are no entries."""
    app.schedule("report", "note", every(hours=1))
    beating(app)
    schedules = app.schedules
    with pytest.raises(ConfigurationError, match="there is no entry 'reprot', did you mean 'rep"):
        schedules.pause("reprot")
    for change in (
        lambda: schedules.remove("report"),
        lambda: schedules.edit("report", jitter=5),
        lambda: schedules.add("report", "note", every(5)),
    ):
        with pytest.raises(ConfigurationError, match="entry 'report' is declared in code") as told:
            change()
        assert told.value.hint == ("change it there; at run time it can be paused, resumed and run")
    schedules.add("mine", "note", every(60))
    with pytest.raises(ConfigurationError, match="there is an entry 'mine' already"):
        schedules.add("mine", "note", every(60))
    schedules.add("mine", "note", every(90), replace=True)
    with pytest.raises(ConfigurationError, match="entry 'bad' has the key 'shedule'"):
        schedules.put({"bad": {"shedule": "every 5m", "task": "note"}, "good": {}})
    assert {each.name for each in schedules.list()} == {"report", "mine"}


async def test_the_same_awaited(app: App, beating: Beating) -> None:
    """Every method has its awaited twin, and the loop goes on meanwhile."""
    await asyncio.to_thread(beating, app)
    schedules = app.schedules
    await schedules.aadd("mine", "note", every(60), args=[datetime(2026, 1, 1, tzinfo=UTC)])
    assert (await schedules.aget("mine")).plain["args"] == [datetime(2026, 1, 1, tzinfo=UTC)]
    await schedules.aedit("mine", expires=5)
    await schedules.apause("mine")
    (info,) = await schedules.alist()
    assert info.paused
    await schedules.aresume("mine")
    await schedules.arun_now("mine")
    await schedules.aput({"other": {"schedule": "@daily", "task": "note"}})
    assert await schedules.arewind() == []
    assert (await schedules.astatus())["entries"] == 2
    await schedules.aremove("mine")
    assert [each.name for each in await schedules.alist()] == ["other"]


def test_nobody_there_is_said(app: App) -> None:
    """Without a beat that leads a request ends in a clear error, in time."""
    app.schedules.timeout = 0.5
    with pytest.raises(NoAnswer, match="nobody answers: a leading beat of app 'beat-tests'"):
        app.schedules.list()


def test_changes_outlive_their_beat(make_app: MakeApp, beating: Beating) -> None:
    """What was added and paused is there for the next leader, and the one after a restart."""
    first, second = make_app(), make_app()
    for each in (first, second):
        each.schedule("coded", "note", every(hours=1))
    leader = beating(first, "first")
    other = beating(second, "second", leads=False)
    first.schedules.add("mine", "note", every(hours=1))
    first.schedules.pause("coded")
    leader.stop()
    eventually(lambda: other.leads)
    assert first.schedules.status()["leader"] == "second"
    other.stop()
    beating(first, "third")
    found = {each.name: each.paused for each in first.schedules.list()}
    assert found == {"mine": False, "coded": True}


def test_code_takes_a_name_that_was_added(make_app: MakeApp, beating: Beating) -> None:
    """A new version of the code declares a name that was added at run time: code counts."""
    old, new = make_app(), make_app()
    leader = beating(old)
    old.schedules.add("report", "note", every(hours=1))
    leader.stop()
    new.schedule("report", "note", every(hours=2))
    leader = beating(new)
    (info,) = new.schedules.list()
    assert (info.origin, info.schedule) == ("code", "every 2h")
    new.schedules.remove("report")
    leader.stop()
    beating(old)
    assert list(old.schedules.list()) == []
