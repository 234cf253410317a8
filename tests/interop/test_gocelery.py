"""Protocol 1, which gocelery and old clients of other languages send, by hand.

Source:
    gocelery ``amqp_broker.go`` (``SendCeleryMessage``) and ``message.go`` (``TaskMessage``):
    no headers, no ids in the properties, all in a dict body, its own exchange.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from amqtask import App, Context, Queue
from tests.helpers import eventually
from tests.interop.conftest import MakeApp
from tests.interop.sides import running
from tests.servers import Names


class Go:
    """Sends as gocelery's client does."""

    def __init__(self, channel: BlockingChannel, queue: str, exchange: str) -> None:
        self._channel = channel
        self._route = exchange, queue
        channel.queue_declare(queue, durable=True)
        channel.exchange_declare(exchange, "direct", durable=True, auto_delete=True)
        channel.queue_bind(queue, exchange, queue)

    def delay(self, task: str, *args: Any, **changed: Any) -> str:
        """Send a call and return its id."""
        body = {
            "id": str(uuid.uuid4()),
            "task": task,
            "args": args,
            "kwargs": {},
            "retries": 0,
            "eta": None,
            "expires": None,
            **changed,
        }
        properties = pika.BasicProperties(
            delivery_mode=2, timestamp=int(time.time()), content_type="application/json"
        )
        self._channel.basic_publish(*self._route, json.dumps(body).encode(), properties)
        return str(body["id"])


@pytest.fixture
def go(broker: str, names: Names) -> Iterator[Go]:
    """A client like gocelery, and its queue."""
    with pika.BlockingConnection(pika.URLParameters(broker)) as connection:
        yield Go(connection.channel(), names.queue("go"), names.exchange("default"))


@pytest.fixture
def app(go: Go, make_app: MakeApp) -> App:
    """An app whose queue is the one gocelery declared."""
    return make_app(go._route[1], backend=None)


def test_call(go: Go, app: App):
    """A call is run with its arguments, under its id, and waits in a queue without arguments."""
    seen: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    @app.task(bind=True, name="worker.add")
    def add(self: Context, *args: Any, **kwargs: Any) -> None:
        seen.append((self.id, args, kwargs))

    first = go.delay("worker.add", 5456, 2878)
    second = go.delay("worker.add", kwargs={"a": 1})
    with running(app, app.settings.default_queue):
        eventually(lambda: len(seen) == 2)
    assert sorted(seen) == sorted([(first, (5456, 2878), {}), (second, (), {"a": 1})])


def test_async_task(go: Go, app: App):
    """A coroutine function is found by the name in the body, too."""
    seen: list[int] = []

    @app.task(name="worker.add")
    async def add(a: int, b: int) -> None:
        seen.append(a + b)

    go.delay("worker.add", 1, 2)
    with running(app, app.settings.default_queue):
        eventually(lambda: seen == [3])


def test_retry(go: Go, app: App):
    """A retry becomes a message of protocol 2 with the same id and arguments."""
    seen: list[tuple[str, int, int, int]] = []

    @app.task(bind=True, name="worker.add")
    def add(self: Context, a: int) -> None:
        seen.append((self.id, self.retries, self.call.protocol, a))
        if self.retries < 2:
            self.retry(countdown=0.05)

    id_ = go.delay("worker.add", 7)
    with running(app, app.settings.default_queue) as node:
        eventually(lambda: node.counts["done"] == 1)
    assert seen == [(id_, 0, 1, 7), (id_, 1, 2, 7), (id_, 2, 2, 7)]


def test_eta_with_offset(go: Go, app: App):
    """An ``eta`` as Go writes it, with a local offset, is honoured."""
    started: list[float] = []

    @app.task(name="worker.note")
    def note() -> None:
        started.append(time.time())

    # RFC 3339 has whole seconds
    eta = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
    go.delay("worker.note", eta=eta.astimezone(timezone(timedelta(hours=9))).isoformat())
    with running(app, app.settings.default_queue) as node:
        eventually(lambda: node.counts["done"] == 1)
    assert started[0] >= eta.timestamp() - 0.05


def test_expired(go: Go, app: App):
    """What expired is not started."""
    seen: list[int] = []

    @app.task(name="worker.add")
    def add(a: int) -> None:
        seen.append(a)

    go.delay("worker.add", 1, expires="2020-01-01T00:00:00Z")
    go.delay("worker.add", 2)
    with running(app, app.settings.default_queue) as node:
        eventually(lambda: node.counts["done"] == 1 and node.counts["failed"] == 1)
    assert seen == [2]


def test_parked(go: Go, make_app: MakeApp, names: Names, broker: str):
    """One that fails is parked byte for byte, so that it can be sent again."""
    name = names.queue("ours")
    app = make_app(Queue(name), backend=None)

    @app.task(name="worker.fail")
    def fail() -> None:
        raise ValueError("no")

    body = json.dumps({"id": "the-id", "task": "worker.fail", "args": [], "kwargs": {}}).encode()
    with running(app, name) as node, pika.BlockingConnection(pika.URLParameters(broker)) as link:
        channel = link.channel()
        channel.basic_publish("", name, body, pika.BasicProperties(content_type="application/json"))
        eventually(lambda: node.counts["failed"] == 1)
        _, properties, parked = channel.basic_get(f"{name}.dead", auto_ack=True)
    assert parked == body
    assert properties is not None
    assert properties.headers["amqtask-reason"] == "failed"
    assert properties.headers["amqtask-exception"] == "ValueError: no"
