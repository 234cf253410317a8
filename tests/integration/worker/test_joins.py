"""Chords on RabbitMQ alone, with real workers: what a queue of a chord leaves, and gives up."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pika
import pytest

from amqtask import App, ChordError, chord
from amqtask.workflow import join_queue
from amqtask.workflow.join_queue import PREFIX
from amqtask.workflow.open_joins import OpenJoins
from tests.helpers import TIMEOUT, eventually
from tests.integration.worker.inprocess import Worker
from tests.servers import Names

Running = Callable[..., Worker]
MakeApp = Callable[..., App]


def _queue_of(names: Names, handle: object) -> str:
    group = handle.parent  # type: ignore[attr-defined]
    return names.also(PREFIX + group.id)


def _messages(url: str, queue: str) -> int | None:
    """Return what is in a queue; None when it is not there."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        found = connection.channel().queue_declare(queue, passive=True)
        count: int = found.method.message_count
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return None
    finally:
        connection.close()
    return count


def test_a_chord_that_was_joined_leaves_nothing(
    app: App, running: Running, names: Names, broker: str
) -> None:
    """Its queue is deleted once the body is safe."""

    @app.task(name="same")
    def same(value: int) -> int:
        return value

    @app.task(name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    running(app)
    handle = chord([same.s(number) for number in range(5)], total.s()).delay()
    queue = _queue_of(names, handle)
    assert handle.get(timeout=TIMEOUT) == 10
    eventually(lambda: _messages(broker, queue) is None)


def test_a_chord_that_nobody_completes_is_given_up(
    make_app: MakeApp, running: Running, names: Names, queue: str, broker: str
) -> None:
    """The broker keeps the time; any worker of the body's queue then ends the body as failed."""
    idle = names.queue("idle")
    app = make_app(queue, idle, join_expires=1.5)

    @app.task(name="same")
    def same(value: int) -> int:
        return value

    worker = running(app, queue)
    members = [same.s(1), same.s(2).set(queue=idle), same.s(3).set(queue=idle)]
    handle = chord(members, same.s()).delay()
    held = _queue_of(names, handle)
    with pytest.raises(ChordError, match=r"none yet of members (0, )?1, 2"):
        handle.get(timeout=3 * TIMEOUT)
    eventually(lambda: _messages(broker, held) is None)
    # they come after all: nobody waits for them, and nothing is left of them
    late = running(app, idle)
    eventually(lambda: late.node.counts["done"] == 2)
    assert _messages(broker, held) is None
    assert worker.node.counts["failed"] == 0


def test_the_time_is_counted_from_the_last_part(
    make_app: MakeApp, running: Running, names: Names, queue: str, broker: str
) -> None:
    """An alarm that comes too early comes again, and ends the chord then."""
    idle, exchange = names.queue("idle"), names.exchange()
    names.also(f"{exchange}.joins")
    app = make_app(queue, idle, join_expires=8.0, exchange=exchange)

    @app.task(name="same")
    def same(value: int) -> int:
        return value

    running(app, queue)
    members = [same.s(1).set(countdown=3), same.s(2).set(queue=idle)]
    handle = chord(members, same.s()).delay()
    held = _queue_of(names, handle)
    # the part, and one in the place of the alarm that rang
    eventually(lambda: _messages(broker, held) == 2, timeout=TIMEOUT)
    with pytest.raises(ChordError, match=r"none yet of member(s 0,)? 1"):
        handle.get(timeout=3 * TIMEOUT)
    eventually(lambda: _messages(broker, held) is None)


def test_a_chord_that_waits_for_long_is_listed_until_it_ends(
    make_app: MakeApp,
    running: Running,
    names: Names,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker hands its first alarm to a worker, which notes it and goes on."""
    monkeypatch.setattr(join_queue, "LISTED_AFTER", 0.1)
    idle, exchange = names.queue("idle"), names.exchange()
    names.also(f"{exchange}.joins")
    app = make_app(queue, idle, exchange=exchange)

    @app.task(name="same")
    def same(value: object) -> object:
        return value

    running(app, queue)
    handle = chord([same.s(1), same.s(2).set(queue=idle)], same.s()).delay()
    _queue_of(names, handle)
    joins = OpenJoins(app)
    row = eventually(lambda: next(iter(joins.list()), None))
    assert row is not None
    assert (row.body_id, row.waiting.size, row.task) == (handle.id, 2, "same")
    running(app, idle)
    assert handle.get(timeout=TIMEOUT) == [1, 2]
    eventually(lambda: joins.list() == [])


def test_a_member_that_expires_in_its_queue_fails_the_body(
    make_app: MakeApp, running: Running, names: Names, queue: str, broker: str
) -> None:
    """The broker must not drop it: nobody would tell the others."""
    app = make_app(queue)

    @app.task(name="same")
    def same(value: int) -> int:
        return value

    handle = chord([same.s(1), same.s(2).set(expires=0.1)], same.s()).delay()
    _queue_of(names, handle)
    eventually(lambda: _messages(broker, queue) == 2)
    threading.Event().wait(0.3)
    running(app)
    with pytest.raises(ChordError, match="member 1 of chord .* was cancelled or expired"):
        handle.get(timeout=TIMEOUT)
