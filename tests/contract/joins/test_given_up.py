"""Chords that nobody completes are seen, and given up once."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis as redis_py

from amqtask import App
from amqtask.backends.chords import ON_RECORD, OpenChord
from amqtask.clock import wall
from amqtask.errors import (
    BackendError,
    ConnectionLost,
)
from amqtask.transport.declare import declare
from amqtask.workflow import join_queue
from amqtask.workflow.join_queue import PREFIX
from amqtask.workflow.ports import EXPIRE
from tests.contract.backends.places import PREFIX as STORE_PREFIX
from tests.contract.joins.shop import (
    Chord,
    Shop,
)
from tests.helpers import TIMEOUT, eventually
from tests.integration.worker.inprocess import line_to


def test_an_alarm_gives_up_what_nothing_comes_for(make_shop: Any) -> None:
    """The error names who is missing, the queue goes, and late parts are left."""
    shop = make_shop("embedded", join_expires=0.2)
    chord = shop.chord(4)
    chord.part(1)
    time.sleep(1.3)  # timestamps on the wire have whole seconds
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    (error,) = chord.follow.failures
    assert "1 of 4 parts came, none yet of members 0, 2, 3" in str(error)
    for index in range(4):
        chord.part(index)
    assert chord.follow.bodies == []


def test_an_alarm_that_comes_while_parts_come_waits_on(queues: Shop) -> None:
    """`join_expires` counts from the last part."""
    chord = queues.chord(2)
    chord.part(0)
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    assert chord.follow.failures == []
    chord.part(1)
    assert chord.follow.bodies == [[0, 1]]
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    assert (len(chord.follow.bodies), chord.follow.failures) == (1, [])


def test_an_alarm_ends_a_failed_chord_without_a_second_failure(make_shop: Any) -> None:
    """Its queue was only kept for a member that is sent back."""
    shop = make_shop("embedded", join_expires=1.0)
    chord = shop.chord(2)
    chord.part(0, error=ValueError("bad"))
    chord.part(1)
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    chord.part(0, value="late")
    assert len(chord.follow.failures) == 1
    assert chord.follow.bodies == []


def test_a_chord_that_waits_for_long_is_listed(queues: Shop) -> None:
    """Its first alarm notes it; whoever reads the list leaves out what has no queue any more."""
    waits, ends = queues.chord(3), queues.chord(1)
    waits.part(1)
    for chord in (waits, ends):
        assert chord.id not in queues.listed()
        _ring(queues, chord)
        chord.alarm()
    assert {waits.id, ends.id} <= queues.listed().keys()
    ends.part(0)
    row = queues.listed()[waits.id]
    assert (row.kept, row.came, row.waiting.size) == ("broker", 1, 3)
    assert (row.task, row.body_id) == ("t.body", "body")
    assert 0 <= wall() - row.waiting.opened < TIMEOUT
    assert row.due > wall() + 80_000
    assert ends.id not in queues.listed()
    assert waits.id in queues.listed()


def test_a_chord_is_shown_however_long_it_has_waited(queues: Shop) -> None:
    """From its alarm, and once that has rung from what is in its place."""
    chord = queues.chord(3)
    chord.part(1)
    early = queues.find(chord)
    _ring(queues, chord)
    with pytest.raises(BackendError, match="on its way to a worker"):
        queues.find(chord)
    chord.alarm()
    late = queues.find(chord)
    for row in (early, late):
        assert row is not None
        assert (row.came, list(row.missing or ())) == (1, [0, 2])
        assert (row.task, row.waiting.size) == ("t.body", 3)
    for index in (0, 2):
        chord.part(index)
    assert queues.find(chord) is None
    assert chord.follow.bodies == [[0, 1, 2]]


def _ring(shop: Shop, chord: Chord) -> None:
    """Take the alarm out of the queue, as the broker does when its time has come."""
    with line_to(shop.broker) as line:
        line.channel.basic_get(PREFIX + chord.id, auto_ack=True)


def test_the_first_alarm_rings_before_the_chord_is_given_up(
    make_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is when the chord gets on the list."""
    monkeypatch.setattr(join_queue, "LISTED_AFTER", 0.01)
    shop = make_shop("embedded")
    shop.apps[0].transport.io.run(_declared(shop.apps[0]), TIMEOUT)
    shop.chord(2)
    with line_to(shop.broker) as line:
        properties, _ = line.take(shop.apps[0].settings.default_queue)
    assert properties.headers is not None
    assert properties.headers["task"] == EXPIRE


async def _declared(app: App) -> None:
    link = app.transport.link("publish")
    link.start()
    await declare(await link.up(), app.topology())


# -- given up ---------------------------------------------------------------------------


def test_a_chord_is_given_up_by_hand(any_listing: Shop) -> None:
    """Though its time is not over; what comes later is left."""
    chord = any_listing.chord(3)
    chord.part(1)
    chord.alarm(by_hand=True)
    (error,) = chord.follow.failures
    assert "was given up by hand: 1 of 3 parts came, none yet of members 0, 2" in str(error)
    assert any_listing.find(chord) is None
    chord.alarm(by_hand=True)
    for index in range(3):
        chord.part(index)
    assert (len(chord.follow.failures), chord.follow.bodies) == (1, [])


def test_a_chord_that_ended_is_not_given_up(any_listing: Shop) -> None:
    """Nor is one that failed, whose body has ended."""
    joined, failed = any_listing.chord(2), any_listing.chord(2)
    for index in range(2):
        joined.part(index)
        failed.part(index, error=ValueError("bad"))
    for chord in (joined, failed):
        chord.alarm(by_hand=True)
    assert (joined.follow.bodies, joined.follow.failures) == ([[0, 1]], [])
    assert len(failed.follow.failures) == 1


def test_a_chord_whose_end_was_not_safe_is_given_up_by_the_next_alarm(any_listing: Shop) -> None:
    """The alarm is a message: whoever dies over it leaves it to another worker."""
    chord = any_listing.chord(2)
    chord.part(0)
    chord.follow.refuse_failures.append(ConnectionLost("gone"))
    with pytest.raises(ConnectionLost, match="gone"):
        chord.alarm(by_hand=True)
    assert chord.follow.failures == []
    chord.alarm(by_hand=True, worker=1)
    assert len(chord.follow.failures) == 1


def test_a_chord_that_nobody_knows_is_not_given_up(any_listing: Shop) -> None:
    """Its alarm came twice, say, and the second one after all traces of its end were gone."""
    chord = any_listing.chord(2, opened=False)
    chord.alarm(by_hand=True)
    assert chord.follow.failures == []


def test_open_chords_are_on_record(listing: Shop) -> None:
    """From the opening to the end, with when they are given up."""
    chord, other = listing.chord(2), listing.chord(1)
    other.part(0, error=ValueError("bad"))
    chord.part(1)
    rows = listing.listed()
    assert other.id not in rows
    row = rows[chord.id]
    assert (row.kept, row.came, row.waiting.size, row.task) == ("store", 1, 2, "t.body")
    assert row.due == pytest.approx(row.waiting.opened + 1.0, abs=1.1)
    found = listing.find(chord)
    assert found is not None
    assert found.waiting == row.waiting
    chord.part(0)
    assert chord.id not in listing.listed()
    assert listing.find(chord) is None


def test_who_takes_an_overdue_chord_has_it_for_a_while(listing: Shop) -> None:
    """Nobody else gets it before the claim ends, and then somebody does."""
    chord = listing.chord(2)
    due = wall() + 2.0
    assert chord.id not in _taken_chords(listing, wall() - 10.0, due)
    assert chord.id in _taken_chords(listing, due, due + 60.0)
    assert chord.id not in _taken_chords(listing, due, due + 60.0)
    assert chord.id not in _taken_chords(listing, due + 59.0, due + 60.0)
    assert chord.id in _taken_chords(listing, due + 60.0, due + 120.0)
    listing.register.put_off([chord.id, "unknown"], due + 200.0)
    assert chord.id not in _taken_chords(listing, due + 150.0, due + 200.0)
    assert chord.id in _taken_chords(listing, due + 200.0, due + 250.0)
    listing.register.drop(chord.id)
    listing.register.drop(chord.id)
    assert chord.id not in _taken_chords(listing, due + 999.0, due + 1000.0)
    assert listing.register.find("unknown") is None


def _taken_chords(shop: Shop, now: float, until: float) -> dict[str, OpenChord]:
    return {each.group_id: each for each in shop.register.take(now, until, 1000)}


def test_chords_of_another_home_are_left(make_shop: Any) -> None:
    """Apps of another broker may use the same store, and have queues of their own."""
    ours, theirs = make_shop("redis"), make_shop("redis")
    chord = ours.chord(1)
    assert chord.id in ours.listed()
    assert chord.id not in theirs.listed()


def test_a_chord_of_which_no_part_came_is_given_up(listing: Shop) -> None:
    """All members were lost, and there is nobody else to tell."""
    chord = listing.chord(2)
    eventually(lambda: _taken_chords(listing, wall(), wall() + 60.0).get(chord.id))
    chord.alarm()
    (error,) = chord.follow.failures
    assert "was given up after 1 s: 0 of 2 parts came, none yet of members 0, 1" in str(error)
    assert chord.id not in listing.listed()


def test_what_was_added_on_the_way_may_be_what_is_missing(any_listing: Shop) -> None:
    """The header is complete then."""
    chord = any_listing.chord(1)
    chord.part(0, extra=2)
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.alarm(by_hand=True)
    (error,) = chord.follow.failures
    assert "2 of 3 parts came, none yet of 1 added on the way" in str(error)


def test_a_part_in_redis_puts_off_that_its_chord_is_given_up(make_shop: Any) -> None:
    """For as long as a chord waits; whoever finds it too early puts it down for later."""
    shop = make_shop("redis", join_expires=600.0)
    chord = shop.chord(2)
    late = wall() + 900.0
    assert chord.id in _taken_chords(shop, late, late)
    chord.part(0)
    assert chord.id not in _taken_chords(shop, late, late)
    assert shop.listed()[chord.id].due > late + 500.0
    chord.alarm()
    assert chord.follow.failures == []


def test_a_chord_that_a_celery_worker_ended_is_not_given_up(
    make_shop: Any, request: pytest.FixtureRequest
) -> None:
    """It deletes the size, and knows nothing of the register."""
    shop = make_shop("redis")
    chord = shop.chord(2)
    client: Any = redis_py.Redis.from_url(request.getfixturevalue("redis").url)
    assert client.delete(f"{STORE_PREFIX}_celery-taskset-meta-{chord.id}.s") == 1
    client.close()
    assert chord.id not in shop.listed()
    chord.alarm(by_hand=True)
    assert chord.follow.failures == []
    assert shop.register.find(chord.id) is None


def test_chords_that_only_celery_workers_see_do_not_pile_up(make_shop: Any) -> None:
    """Who opens a chord strikes off what has been overdue for as long as a record is kept."""
    shop = make_shop("redis")
    shop.register.note(OpenChord("old", b"{}", wall() - ON_RECORD - 60.0), 600.0)
    shop.register.note(OpenChord("late", b"{}", wall() - ON_RECORD + 600.0), 600.0)
    chord = shop.chord(1)
    assert [each.group_id for each in shop.register.list(9)] == ["late", chord.id]


def test_a_record_that_redis_has_dropped_is_named(
    make_shop: Any, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """No worker was there for longer than it is kept: nobody knows what the body was."""
    shop = make_shop("redis")
    chord = shop.chord(2)
    client: Any = redis_py.Redis.from_url(request.getfixturevalue("redis").url)
    assert client.delete(f"{STORE_PREFIX}_celery-taskset-meta-{chord.id}.b") == 1
    client.close()
    assert _taken_chords(shop, wall() + 90_000.0, wall() + 90_001.0) == {}
    assert f"chord.off_record group={chord.id}" in caplog.text
    assert chord.id not in shop.listed()


def test_a_store_that_cannot_list_says_so(make_shop: Any) -> None:
    """And which ones can."""
    shop = make_shop("memcached")
    shop.chord(1).part(0)
    with pytest.raises(BackendError, match="cannot tell which chords are open"):
        shop.listed()
