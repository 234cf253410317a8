"""The state purged, damaged, deleted, doubled, or written by a later version."""

from __future__ import annotations

import logging
import random
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from amqtask import App, cron, every
from amqtask.beat import handover
from amqtask.beat.plan import Mark
from amqtask.beat.state import State, snapshot
from tests.helpers import eventually
from tests.integration.beat.conftest import Beating, MakeApp, RunningBeat
from tests.integration.worker.inprocess import Line


def declare(app: App) -> None:
    """Due each second, and caught up for an hour: what would storm if all were forgotten."""
    app.schedule("tick", "note", every(seconds=1), catch_up="all", window=3600)


def run_and_stop(beating: Beating, app: App) -> RunningBeat:
    beat = beating(app)
    app.schedules.add("mine", "note", every(hours=1))
    eventually(lambda: beat.counts.get("due", 0) >= 2)
    beat.stop()
    return beat


def assert_no_storm(beat: RunningBeat) -> None:
    """It fires as time goes on, and nothing of before."""
    eventually(lambda: beat.counts.get("due", 0) >= 2)
    assert "caught_up" not in beat.counts


def test_a_purged_queue_begins_a_new_state(
    app: App, beating: Beating, line: Line, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, entries of the code fire from now on, and what was added is gone."""
    declare(app)
    run_and_stop(beating, app)
    eventually(lambda: line.size(state) == 1)
    line.channel.queue_purge(state)
    with caplog.at_level(logging.WARNING, logger="amqtask.beat"):
        beat = beating(app, "next")
    assert "it is there, and empty; was it purged?" in caplog.text
    assert_no_storm(beat)
    assert [each.name for each in app.schedules.list()] == ["tick"]


def test_purging_while_a_beat_leads_takes_nothing(
    app: App, beating: Beating, line: Line, state: str
) -> None:
    """The leader holds the state, so there is nothing in the queue to be purged."""
    declare(app)
    beat = beating(app)
    app.schedules.add("mine", "note", every(hours=1))
    line.channel.queue_purge(state)
    before = beat.counts.get("due", 0)
    eventually(lambda: beat.counts.get("due", 0) >= before + 2)
    beat.stop()
    beating(app, "next")
    assert {each.name for each in app.schedules.list()} == {"tick", "mine"}


def test_a_damaged_state_is_parked(
    app: App, beating: Beating, line: Line, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As it is, with the reason, in a queue of its own; and a new state begins."""
    declare(app)
    run_and_stop(beating, app)
    eventually(lambda: line.size(state) == 1)
    line.channel.queue_purge(state)
    line.send(state, b'{"v": 1, "seq": 5, "marks": {"tick": "yesterday"}}')
    with caplog.at_level(logging.ERROR, logger="amqtask.beat"):
        beat = beating(app, "next")
    assert f"parked in '{state}.dead'" in caplog.text
    assert "what it held was damaged, so a new state begins" in caplog.text
    assert_no_storm(beat)
    props, body = line.take(f"{state}.dead")
    assert body == b'{"v": 1, "seq": 5, "marks": {"tick": "yesterday"}}'
    assert props.headers is not None
    assert props.headers["amqtask-reason"] == "malformed_state"
    beat.stop()
    eventually(lambda: line.size(state) == 1)


def test_junk_beside_the_state_costs_nothing(
    app: App, beating: Beating, line: Line, state: str
) -> None:
    """The record that can be read is the state, whatever else is there; also while one leads."""
    declare(app)
    run_and_stop(beating, app)
    line.send(state, b"junk")
    beat = beating(app, "next")
    assert {each.name for each in app.schedules.list()} == {"tick", "mine"}
    line.send(state, b"more junk")
    before = beat.counts.get("due", 0)
    eventually(lambda: beat.counts.get("due", 0) >= before + 2)
    beat.stop()
    eventually(lambda: line.size(state) == 1)


def test_of_two_states_the_higher_number_counts(
    app: App, beating: Beating, line: Line, state: str
) -> None:
    """As a leader leaves them that dies between writing one and acking the other."""
    declare(app)
    beating(app).stop()
    eventually(lambda: line.size(state) == 1)
    line.channel.queue_purge(state)
    now = datetime.now(UTC)
    mark = Mark(now, app.entries.get("tick").form, now, 5)  # type: ignore[union-attr]
    table = {"schedule": {"every": 3600}, "task": "note"}
    newer = snapshot(State(8, {"tick": mark}, {"new": table}))
    older = snapshot(State(7, {"tick": mark}, {"old": table}))
    line.send(state, newer.body)
    line.send(state, older.body)
    beat = beating(app, "next")
    assert {each.name for each in app.schedules.list()} == {"tick", "new"}
    beat.stop()
    eventually(lambda: line.size(state) == 1)


def test_a_state_of_a_later_version_is_left_alone(
    app: App, beating: Beating, line: Line, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A beat that cannot read it fires nothing, says so, and leaves it for others."""
    declare(app)
    beating(app).stop()
    eventually(lambda: line.size(state) == 1)
    line.channel.queue_purge(state)
    body = orjson.dumps({"v": 99, "seq": 1, "marks": {}})
    line.send(state, body)
    with caplog.at_level(logging.ERROR, logger="amqtask.beat"):
        beat = RunningBeat(app, "old")
        try:
            eventually(lambda: "beat.state_later" in caplog.text)
            assert not beat.leads
            assert beat.counts == {}
        finally:
            beat.stop()
    assert "it has version 99" in caplog.text
    # basic.get is refused by a queue with a single active consumer
    _, _, found = next(line.channel.consume(state, auto_ack=True, inactivity_timeout=30))
    assert found == body


def test_a_deleted_queue_is_made_anew_from_memory(
    make_app: MakeApp,
    beating: Beating,
    line: Line,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever led remembers, whoever leads next: nothing that was added is lost."""
    monkeypatch.setattr(handover, "REMEMBER", 20.0)
    first, second = make_app(), make_app()
    for each in (first, second):
        declare(each)
    beats = [beating(first, "first"), beating(second, "second", leads=False)]
    first.schedules.add("mine", "note", every(hours=1))
    line.channel.queue_delete(state)
    eventually(lambda: any(beat.leads for beat in beats), timeout=120)
    eventually(lambda: sum(beat.counts.get("due", 0) for beat in beats) > 5, timeout=120)
    first.schedules.timeout = 60.0
    assert {each.name for each in first.schedules.list()} == {"tick", "mine"}


def test_entries_that_the_next_code_lacks_are_named(
    make_app: MakeApp, beating: Beating, caplog: pytest.LogCaptureFixture
) -> None:
    """After a deploy that drops one, or when two apps of one name have different schedules."""
    old, new = make_app(), make_app()
    declare(old)
    old.schedule("dropped", "note", every(seconds=1))
    declare(new)
    beat = beating(old)
    eventually(lambda: beat.counts.get("due", 0) >= 2)
    beat.stop()
    with caplog.at_level(logging.WARNING, logger="amqtask.beat"):
        beating(new, "next")
        eventually(lambda: "beat.left_behind" in caplog.text)
    assert "entries=['dropped']: the leader before had them" in caplog.text


def test_a_lost_connection_is_a_lost_lead(make_app: MakeApp, beating: Beating) -> None:
    """The other one goes on where it ended, and the one that lost it is back in line."""
    first, second = make_app(), make_app()
    for each in (first, second):
        declare(each)
    leader, other = beating(first, "first"), beating(second, "second", leads=False)
    eventually(lambda: leader.counts.get("due", 0) >= 1)
    leader.abort()
    eventually(lambda: other.leads)
    eventually(lambda: leader.role == "standby")
    assert not leader.leads


def test_what_a_former_leader_knows_is_adopted(
    app: App, beating: Beating, line: Line, state: str
) -> None:
    """A record that comes while another one leads adds what is not known, and takes nothing."""
    declare(app)
    beat = beating(app)
    app.schedules.add("mine", "note", every(hours=1))
    future = datetime.now(UTC) + timedelta(seconds=3)
    mark = Mark(future, app.entries.get("tick").form, future, 5)  # type: ignore[union-attr]
    table = {"schedule": {"cron": "0 0 29 2 *"}, "task": "note"}  # not due meanwhile
    line.send(state, snapshot(State(10**6, {"tick": mark}, {"theirs": table})).body)
    eventually(
        lambda: {each.name for each in app.schedules.list()} == {"tick", "mine", "theirs"},
    )
    assert app.schedules.status()["seq"] > 10**6
    # what the other one has fired already is not fired again
    count = beat.counts.get("due", 0)
    eventually(lambda: beat.counts.get("due", 0) > count)
    assert datetime.now(UTC) > future


def test_a_large_state_is_handed_over_in_parts(
    make_app: MakeApp, beating: Beating, line: Line, queue: str, state: str
) -> None:
    """A snapshot and the notes behind it: the next leader knows what the last one fired."""
    chance = random.Random(1)
    names = [chance.randbytes(32).hex() for _ in range(300)]
    apps = make_app(), make_app()
    for each in apps:
        each.schedule("tick", "note", every(seconds=1), catch_up="all", window=3600)
        for name in names:
            each.schedule(name, "note", cron("0 0 1 1 *"))
    first = beating(apps[0])
    eventually(lambda: first.counts.get("due", 0) >= 3)
    first.stop()
    eventually(lambda: line.size(state) >= 3)  # one would be a snapshot alone
    second = beating(apps[1], "second")
    eventually(lambda: sum(second.counts.values()) >= 2)
    count = sum(first.counts.values()) + sum(second.counts.values())
    found = [line.take(queue)[0].headers for _ in range(count)]
    instants = [datetime.fromisoformat((headers or {})["x-amqtask-instant"]) for headers in found]
    assert instants == sorted(set(instants))
    assert instants[-1] - instants[0] == timedelta(seconds=count - 1)
