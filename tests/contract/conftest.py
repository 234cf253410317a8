"""Fixtures of the contract tests: an app, a worker in this process, and a client that is not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aio_pika
import pytest

from amqtask import App, Queue
from amqtask.worker import Node
from tests.contract.peers import Peer
from tests.helpers import TIMEOUT, aeventually
from tests.servers import Names

MakeApp = Callable[..., App]
Running = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture
def delay_prefix() -> str:
    """Where delayed messages of these tests wait."""
    return Names().delay_prefix()


@pytest.fixture
def make_app(broker: str, delay_prefix: str) -> Iterator[MakeApp]:
    """Makes an app for some queues; the first is its default queue."""
    made: list[App] = []

    def make(*queues: str | Queue, **settings: Any) -> App:
        first = queues[0]
        said = {
            "default_queue": first if isinstance(first, str) else first.name,
            "delay_prefix": delay_prefix,
            **settings,
        }
        app = App("contract", broker=broker, queues=queues, environ={}, **said)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def running() -> Running:
    """Runs an app's worker in this process, for the length of an ``async with``."""

    @asynccontextmanager
    async def run(app: App, *queues: str, **said: Any) -> AsyncIterator[Node]:
        node = Node(app, queues, **{"name": "contract-worker", **said})
        await node.start()
        try:
            await aeventually(lambda: node.ready, message="the worker did not consume")
            yield node
        finally:
            await node.stop()

    return run


@pytest.fixture
async def peer(broker: str) -> AsyncIterator[Peer]:
    """A client on aio-pika."""
    connection = await aio_pika.connect(broker, timeout=TIMEOUT)
    async with connection:
        yield Peer(await connection.channel())
