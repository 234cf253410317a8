"""What the delay levels do on a real broker: the right queue, at the right time, nothing lost.

Tests that wait do so for the message and judge by the broker's own times where they can: how late
it is depends on how busy the machine is, so only "never early" is a hard bound.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import pytest

from amqtask import App, Binding, Queue
from amqtask.topology.delay import (
    LEVELS,
    TICK_MS,
    delay_route,
    level_name,
    level_queue,
    lost_name,
    ready_name,
)
from tests.contract.conftest import MakeApp, Running
from tests.contract.peers import Peer, waited_ms
from tests.helpers import aeventually
from tests.servers import Names

#: Seconds that the clocks of two processes on one machine may seem to differ.
CLOCK = 0.005


async def wake(app: App, *queues: str) -> None:
    """Have queues, levels and bindings made, by one delayed call to each queue."""
    async with app.pipeline():
        for queue in queues:
            await app.asend_task("wake", queue=queue, countdown=0.05)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.1, 0.35, 1.6, 3.2])
async def test_time_of_arrival(make_app: MakeApp, peer: Peer, names: Names, seconds: float):
    """At the edges of levels, and with many digits, a message is never early and arrives once."""
    queue = names.queue()
    app = make_app(queue)
    await wake(app, queue)
    await peer.take(queue)
    before = time.time()
    result = await app.asend_task("any.task", countdown=seconds)
    message = await peer.take(queue)
    arrived = time.time()
    assert message.headers["id"] == result.id
    assert arrived - before >= seconds - CLOCK
    # it waited once in each queue it came through; what sending took is off the delay, so the
    # digits are those of the time that was left then
    deaths = message.headers.get("x-death", [])
    assert all((death["reason"], death["count"]) == ("expired", 1) for death in deaths)
    waited = waited_ms(message.headers, app.settings.delay_prefix)
    assert waited <= -(-round(seconds * 1000) // TICK_MS) * TICK_MS
    assert waited / 1000 <= arrived - before
    assert await peer.size(queue) == 0


async def test_order_of_arrival(make_app: MakeApp, peer: Peer, names: Names):
    """Messages arrive by their delay, in whatever order they were sent."""
    queue = names.queue()
    app = make_app(queue)
    await wake(app, queue)
    await peer.take(queue)
    # far enough apart for a busy broker; sent together, so that the pauses are the broker's
    delays = [1.6, 0.1, 0.8]
    async with app.pipeline():
        for delay in delays:
            await app.asend_task("any.task", [delay], countdown=delay)
    arrived = [(await peer.take(queue)).headers["argsrepr"] for _ in delays]
    assert arrived == [f"({delay},)" for delay in sorted(delays)]


async def test_names_that_resemble_each_other(make_app: MakeApp, peer: Peer, names: Names):
    """A delayed message reaches the queue of exactly its name, once, and no other.

    Bindings that only look at the end of the key, as Celery's, give ``celery`` what is meant for
    ``eu.celery``.
    """
    word = names.queue("celery")
    queues = [
        word,
        *(names.queue(f"celery{end}") for end in (".eu", ".eu.celery", ".0", ".1.0", "-1", "..x")),
    ]
    # names that end with the whole first name: "eu.test-...-celery"
    queues += [names.also(f"{start}.{word}") for start in ("eu", "0", "1", "1.0", "a.b.c")]
    app = make_app(*queues)
    await wake(app, *queues)
    for queue in queues:
        await peer.take(queue)
    async with app.pipeline():
        for queue in queues:
            await app.asend_task("any.task", [queue], queue=queue, countdown=0.15)
    for queue in queues:
        assert (await peer.take(queue)).headers["argsrepr"] == f"({queue!r},)"
    # all arrived, so what went astray would be there as well
    assert [await peer.size(queue) for queue in queues] == [0] * len(queues)


async def test_retry_of_a_queue_bound_by_topics(
    make_app: MakeApp, running: Running, peer: Peer, names: Names
):
    """A retry comes back to the queue it was taken from, to none that shares a topic with it."""
    first, other = names.queue("first"), names.queue("other")
    topic = names("topic")
    app = make_app(
        Queue(first, bindings=(Binding("amqtask", f"{topic}.#"),)),
        Queue(other, bindings=(Binding("amqtask", f"{topic}.*"),)),
    )
    await wake(app, first, other)
    await peer.take(first)
    await peer.take(other)

    @app.task(bind=True, name="once.more")
    def once_more(self: Any) -> None:
        if not self.retries:
            self.retry(countdown=0.1)

    async with running(app, first) as node:
        await app.asend_task("once.more", routing_key=f"{topic}.mail")
        await aeventually(lambda: node.counts["done"] == 1)
    assert node.counts == {"again": 1, "done": 1}
    copy = await peer.take(other)
    assert copy.headers["retries"] == 0
    assert await peer.size(other) == 0


async def test_deleted_queue(make_app: MakeApp, peer: Peer, names: Names, delay_prefix: str):
    """Messages for a queue that was deleted meanwhile are kept as lost, and hold up no others.

    32 such messages would stop a level for everybody, if they stayed pending in it.
    """
    gone, there = names.queue("gone"), names.queue("there")
    app = make_app(gone, there)
    async with app.pipeline():
        lost = [
            await app.asend_task("any.task", [number], queue=gone, countdown=0.4)
            for number in range(40)
        ]
        later = await app.asend_task("any.task", queue=there, countdown=0.8)
    await peer.channel.queue_delete(gone)
    assert (await peer.take(there)).headers["id"] == later.id
    wanted = {result.id for result in lost}
    found: dict[str, Any] = {}
    while wanted - found.keys():
        message = await peer.take(lost_name(delay_prefix))
        found[message.headers["id"]] = message
    one = found[lost[7].id]
    assert one.body.startswith(b"[[7],{},")
    assert one.routing_key.endswith(f".{gone}")


async def test_queue_that_came_back(make_app: MakeApp, peer: Peer, names: Names):
    """A queue that was deleted and made anew gets delayed messages again, by the next delayed call."""
    queue = names.queue()
    app = make_app(queue)
    await wake(app, queue)
    await peer.take(queue)
    await peer.channel.queue_delete(queue)
    other = make_app(queue)
    result = await other.asend_task("any.task", countdown=0.1)
    assert (await peer.take(queue)).headers["id"] == result.id


async def test_other_clients_use_the_levels(
    make_app: MakeApp, peer: Peer, names: Names, delay_prefix: str
):
    """Any client can delay: it publishes to the level of the highest digit, with the digits as key."""
    queue = names.queue()
    app = make_app(queue)
    await wake(app, queue)
    await peer.take(queue)
    digits = "0." * (LEVELS - 2) + "1.2"  # 10 ticks
    before = time.time()
    await peer.send(
        queue,
        [[], {}, {}],
        {"task": "any.task", "id": "the-id"},
        exchange=level_name(1, delay_prefix),
        routing_key=f"{digits}.{queue}",
    )
    message = await peer.take(queue)
    assert time.time() - before >= 10 * TICK_MS / 1000 - CLOCK
    assert message.headers["id"] == "the-id"
    assert message.routing_key == f"{digits}.{queue}"
    assert message.exchange == ready_name(delay_prefix)
    # it is the route that the library itself would choose
    assert delay_route(0.5, queue, delay_prefix) == (
        level_name(1, delay_prefix),
        f"{digits}.{queue}",
    )


async def test_longest_delay(make_app: MakeApp, peer: Peer, names: Names, delay_prefix: str):
    """A call in six years is taken by the highest level, and stays there."""
    queue = names.queue()
    app = make_app(queue)
    top = level_queue(LEVELS - 1, 1, delay_prefix)
    await wake(app, queue)
    await peer.take(queue)
    before = await peer.size(top)
    result = await app.asend_task("any.task", countdown=6 * 365 * 86400)
    message = await peer.take(top)
    assert before == 0
    assert message.headers["id"] == result.id


async def test_many(make_app: MakeApp, peer: Peer, names: Names):
    """Five hundred delayed messages all arrive, each once, none before its ``eta``."""
    queue = names.queue()
    app = make_app(queue)
    await wake(app, queue)
    await peer.take(queue)
    arrived: list[tuple[str, float]] = []
    done = asyncio.Event()

    async def take(message: Any) -> None:
        eta = datetime.fromisoformat(message.headers["eta"]).timestamp()
        arrived.append((message.headers["id"], time.time() - eta))
        if len(arrived) >= 500:
            done.set()

    source = await peer.channel.get_queue(queue, ensure=False)
    tag = await source.consume(take, no_ack=True)
    async with app.pipeline():
        sent = {
            (await app.asend_task("any.task", countdown=0.1 + number % 20 / 20)).id
            for number in range(500)
        }
    async with asyncio.timeout(60):
        await done.wait()
    await source.cancel(tag)
    assert {id_ for id_, _ in arrived} == sent
    assert len(arrived) == 500
    assert min(late for _, late in arrived) >= -CLOCK
