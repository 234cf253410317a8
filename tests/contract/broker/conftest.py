"""The brokers under contract, and connections to them that end with the test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import aio_pika
import pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue
from pika.adapters.blocking_connection import BlockingChannel

from amqtask.testing.servers import Server
from tests.contract.broker.clients import declare_dead_lettering
from tests.contract.broker.differences import Difference
from tests.contract.broker.wire import Wire
from tests.helpers import TIMEOUT
from tests.servers import Names

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ContractBroker:
    """A broker that the suite runs on.

    Attributes:
        name: ``"embedded"``, ``"rabbitmq"`` or ``"rabbitmq4"``.
        url: Where it is.
        version: The RabbitMQ version whose ways it has.
    """

    name: str
    url: str
    version: tuple[int, int]

    def expects(self, difference: Difference[T]) -> T:
        """Return which side of a difference holds here."""
        return difference.at(self.version)


@pytest.fixture(scope="session", params=["embedded", "rabbitmq", "rabbitmq4"])
def contract_broker(request: pytest.FixtureRequest) -> ContractBroker:
    """Each broker in turn."""
    found: Server = request.getfixturevalue(request.param)
    major, minor, *_ = found.version.split(".")
    return ContractBroker(found.name, found.url, (int(major), int(minor)))


@pytest.fixture
def url(contract_broker: ContractBroker) -> str:
    return contract_broker.url


@pytest.fixture
def here(url: str) -> str:
    """How the broker's texts name the vhost: most of them end with it."""
    return f"in vhost '{unquote(urlsplit(url).path[1:]) or '/'}'"


@pytest.fixture
def names(url: str) -> Iterator[Names]:
    """Unique names; what bears one is deleted after the test."""
    made = Names()
    yield made
    made.delete(url)


@pytest.fixture
def connect(url: str, names: Names) -> Iterator[Callable[[], pika.BlockingConnection]]:
    """Makes connections of pika."""
    with ExitStack() as stack:

        def make() -> pika.BlockingConnection:
            connection = pika.BlockingConnection(pika.URLParameters(url))
            stack.callback(_close, connection)
            return connection

        yield make


def _close(connection: pika.BlockingConnection) -> None:
    # many a test ends with the broker having closed it
    with contextlib.suppress(pika.exceptions.AMQPError):
        connection.close()


@pytest.fixture
def connection(connect: Callable[[], pika.BlockingConnection]) -> pika.BlockingConnection:
    return connect()


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel with confirms, so that a message is in its queue once it is published."""
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


@pytest.fixture
def dial(url: str, names: Names) -> Iterator[Callable[[], Wire]]:
    """Makes bare connections, which have sent nothing yet."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Wire(url))


@pytest.fixture
def wire(dial: Callable[[], Wire]) -> Wire:
    """A bare connection with channel 1 open."""
    return dial().login().open_channel()


@pytest.fixture
async def aconnection(url: str, names: Names) -> AsyncIterator[AbstractConnection]:
    """A connection of aio-pika."""
    connection = await aio_pika.connect(url, timeout=TIMEOUT)
    async with connection:
        yield connection


@pytest.fixture
async def achannel(aconnection: AbstractConnection) -> AbstractChannel:
    """A channel of aio-pika, with confirms."""
    return await aconnection.channel(on_return_raises=False)


@pytest.fixture
async def adeclare(
    achannel: AbstractChannel, names: Names
) -> Callable[..., Awaitable[AbstractQueue]]:
    """Declares a queue of a type with arguments, on aio-pika's channel."""

    async def make(kind: str = "classic", word: str = "queue", **options: Any) -> AbstractQueue:
        extra = {f"x-{key.replace('_', '-')}": value for key, value in options.items()}
        return await achannel.declare_queue(
            names.queue(word), durable=True, arguments={"x-queue-type": kind, **extra}
        )

    return make


# -- queues -------------------------------------------------------------------


@pytest.fixture
def queue(channel: BlockingChannel, names: Names) -> Callable[..., str]:
    """Declares a durable queue, and returns its name."""

    def make(kind: str = "classic") -> str:
        name = names.queue()
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        return name

    return make


@pytest.fixture
def dead_lettered(channel: BlockingChannel, names: Names) -> Callable[..., tuple[str, str]]:
    """Declares a queue whose dead letters go to another one, and returns the names of both."""

    def make(kind: str = "classic", **arguments: Any) -> tuple[str, str]:
        name = names.queue()
        dead = f"{name}.dead"
        declare_dead_lettering(channel, name, dead, kind, **arguments)
        channel.queue_declare(dead, durable=True)
        return name, dead

    return make
