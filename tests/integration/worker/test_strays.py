"""Delayed messages that came out of their levels while no queue was there: a worker sends them on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pika
import pytest

from amqtask import App
from amqtask.topology.delay import LEVELS, lost_name, ready_name
from amqtask.worker.strays import Strays, target_of
from amqtask.worker.strays import _Look as Look
from tests.helpers import eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line
from tests.servers import Names

DIGITS = ".".join("0" * LEVELS)


def _stray(line: Line, app: App, queue: str, id: str) -> None:
    """Have the last level hand out a call for a queue that is not bound."""
    line.channel.basic_publish(
        ready_name(app.settings.delay_prefix),
        f"{DIGITS}.{queue}",
        json.dumps([[id], {}, {}]).encode(),
        pika.BasicProperties(
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": "t.note", "id": id, "x-death": [{"count": 1}]},
            delivery_mode=2,
        ),
    )


@pytest.fixture
def levels(make_app: MakeApp, names: Names, line: Line) -> App:
    """An app whose delay levels exist, and are its own."""
    prefix = names.levels(names.exchange("strays"))
    app = make_app(names.queue("other"), delay_prefix=prefix)
    app.send_task("t.wake", countdown=0.05)
    return app


@pytest.fixture
def looking(levels: App) -> Iterator[Strays]:
    """Looks every tenth of a second."""
    strays = Strays(levels, [levels.settings.delay_prefix], [0.1 * n for n in range(1000)])
    io = levels.transport.io
    io.post(strays.start)
    yield strays
    asyncio.run(_closed(levels, strays))


async def _closed(app: App, strays: Strays) -> None:
    await asyncio.wrap_future(app.transport.io.submit(strays.close()))


def test_what_has_a_queue_again_is_run(
    levels: App, looking: Strays, make_app: MakeApp, names: Names, running: Running, line: Line
):
    """As after a boot of all nodes: its queue is there, the message was early by a moment."""
    queue, ran = names.queue("back"), []
    app = make_app(queue)

    @app.task(name="t.note")
    def note(id: str) -> None:
        ran.append(id)

    running(app)
    for number in range(5):
        _stray(line, levels, queue, f"S{number}")
    eventually(lambda: sorted(ran) == [f"S{number}" for number in range(5)])
    eventually(lambda: line.size(lost_name(levels.settings.delay_prefix)) == 0)


def test_a_look_sends_on_no_more_than_it_was_told_of(levels: App, names: Names, line: Line):
    """What comes meanwhile is the next look's: it would be sent on, given back, and sent on again."""
    there, lost = names.queue("there"), lost_name(levels.settings.delay_prefix)
    line.channel.queue_declare(there, durable=True)
    line.channel.queue_delete(there)
    for number in range(5):
        _stray(line, levels, there, f"S{number}")
    eventually(lambda: line.size(lost) == 5)
    line.channel.queue_declare(there, durable=True)

    async def look() -> None:
        channel = await (await levels.transport.link("consume").up()).channel()
        await Look(levels.transport.publish, channel, lost).send_on(1)
        await channel.close()

    levels.transport.link("consume").start()
    levels.transport.io.run(look(), 60)
    eventually(lambda: line.size(lost) == 4)
    assert line.size(there) == 1


def test_what_has_no_queue_stays(
    levels: App,
    looking: Strays,
    names: Names,
    line: Line,
    caplog: pytest.LogCaptureFixture,
):
    """It is told of, kept, and stops nothing behind it."""
    gone, there = names.queue("gone"), names.queue("there")
    line.channel.queue_declare(there, durable=True)
    _stray(line, levels, gone, "gone")
    line.channel.basic_publish(
        ready_name(levels.settings.delay_prefix), "no.digits", b"", pika.BasicProperties()
    )
    _stray(line, levels, there, "there")
    eventually(lambda: line.size(there) == 1)
    _, properties, body = line.channel.basic_get(there, auto_ack=True)
    assert body is not None
    assert properties is not None
    assert json.loads(body) == [["there"], {}, {}]
    assert properties.headers == {"task": "t.note", "id": "there"}
    # the first look may come before all of them are there
    eventually(lambda: f"'{gone}': 1" in caplog.text and "'no.digits': 1" in caplog.text)
    assert "delay.stranded" in caplog.text
    asyncio.run(_closed(levels, looking))
    eventually(lambda: line.size(lost_name(levels.settings.delay_prefix)) == 2)


@pytest.mark.parametrize("key", ["", "email", DIGITS, f"{DIGITS}.", f"8{DIGITS[1:]}.email"])
def test_keys_that_lead_nowhere(key: str):
    """They were not sent by a delay."""
    assert target_of(key) is None


def test_keys_that_lead_to_a_queue():
    """Its name may have dots."""
    assert target_of(f"1{DIGITS[1:]}.eu.email") == "eu.email"
