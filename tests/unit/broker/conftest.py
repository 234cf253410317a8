"""A broker that listens nowhere, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from amqtask.broker import Broker
from tests.unit.broker.client import Client


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker()
    await made.start(host=None)
    yield made
    await made.stop()


@pytest.fixture
def connect(broker: Broker) -> Callable[..., Client]:
    """Makes clients that are logged in, with channel 1 open."""
    return lambda *args, **properties: Client(broker).login(*args, **properties)


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()
