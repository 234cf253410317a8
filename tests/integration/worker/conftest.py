"""Fixtures of the worker's tests: an app, workers in this process, a client that is not ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqtask import App, Queue
from tests.helpers import TIMEOUT
from tests.integration.worker.inprocess import Line, Worker, line_to
from tests.servers import Names

MakeApp = Callable[..., App]
Running = Callable[..., Worker]


@pytest.fixture
def delay_prefix() -> str:
    """Where delayed messages of these tests wait."""
    return Names().delay_prefix()


@pytest.fixture
def queue(names: Names) -> str:
    """A queue of the test's own."""
    return names.queue()


@pytest.fixture
def make_app(broker: str, delay_prefix: str) -> Iterator[MakeApp]:
    """Makes an app for some queues, the first is its default; results come back by rpc."""
    made: list[App] = []

    def make(*queues: str | Queue, **settings: Any) -> App:
        first = queues[0]
        said = {
            "broker": broker,
            "default_queue": first if isinstance(first, str) else first.name,
            "delay_prefix": delay_prefix,
            "backend": "rpc://",
            "publish_timeout": TIMEOUT,
            **settings,
        }
        app = App("worker-tests", queues=queues, environ={}, **said)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(make_app: MakeApp, queue: str) -> App:
    """An app with one queue, `queue`."""
    return make_app(queue)


@pytest.fixture
def running(make_app: MakeApp) -> Iterator[Running]:
    """Starts workers in this process; stops those that still run."""
    workers: list[Worker] = []

    def run(app: App, *queues: str, **said: Any) -> Worker:
        worker = Worker(app, *queues, **said)
        workers.append(worker)
        return worker.start()

    yield run
    for worker in workers:
        worker.stop()


@pytest.fixture
def line(broker: str) -> Iterator[Line]:
    """pika's blocking client on the same broker."""
    with line_to(broker) as line:
        yield line
