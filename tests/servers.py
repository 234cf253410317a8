"""Fixtures for real servers: found, started, or skipped with a line that says how to get them.

``AMQTASK_REQUIRE=rabbitmq,redis`` turns such a skip into a failure, so that a build machine
cannot pass by running nothing.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar, Literal

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from amqtask.errors import ConfigurationError
from amqtask.testing import servers
from amqtask.testing.servers import Server
from amqtask.topology.delay import delay_plan
from amqtask.topology.plan import DeclareExchange, DeclareQueue
from tests.depot import DEPOT, SOURCE
from tests.embedded import broker_process

#: The RabbitMQ version whose ways the embedded broker follows.
EMBEDDED_FOLLOWS = "4.0"
#: The vhost has no such entity, or another connection owns it exclusively and takes it along.
_GONE_OR_OWNED = {404, 405}


# -- servers ------------------------------------------------------------------


def _server(name: str, what: str) -> Any:
    """Make the fixture of a server: what runs, else what the run of tests starts for itself."""

    @pytest.fixture(scope="session", name=name)
    def server(pytestconfig: pytest.Config) -> Server:
        if (found := servers.find(name)) is not None:
            return found
        try:
            return pytestconfig.stash[SOURCE].get(name)
        except ConfigurationError as error:
            reason = f"{servers.missing(name)} ({error})"
        if name in servers.required():
            pytest.fail(f"AMQTASK_REQUIRE names {name}, but {reason}", pytrace=False)
        pytest.skip(reason)

    server.__doc__ = what
    return server


rabbitmq = _server("rabbitmq", "A RabbitMQ of any version.")
rabbitmq4 = _server("rabbitmq4", "A RabbitMQ 4 or later.")
redis = _server("redis", "A Redis.")
memcached = _server("memcached", "A memcached.")
postgresql = _server("postgresql", "A PostgreSQL whose user may make databases.")
mysql = _server("mysql", "A MySQL or MariaDB whose user may make databases.")
mongodb = _server("mongodb", "A MongoDB.")
valkey = _server("valkey", "A Valkey.")
cassandra = _server("cassandra", "A Cassandra whose user may make keyspaces.")
couchbase = _server("couchbase", "A Couchbase that has a bucket for the user.")


@pytest.fixture(scope="session", autouse=True)
def _until_the_end() -> Iterator[ExitStack]:
    """What is entered here ends after every other fixture: some delete what they made only then."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def embedded(_until_the_end: ExitStack) -> Server:
    """The embedded broker, which needs nothing but Python; one process for all tests."""
    broker = _until_the_end.enter_context(broker_process())
    return Server("embedded", broker.url, "program", EMBEDDED_FOLLOWS)


@pytest.fixture(scope="session")
def any_broker(request: pytest.FixtureRequest) -> Server:
    """A RabbitMQ where one runs, else the embedded broker: for what no broker makes a difference to."""
    server: Server = request.getfixturevalue("rabbitmq" if servers.find("rabbitmq") else "embedded")
    return server


@pytest.fixture(scope="session", params=["embedded", "rabbitmq", "rabbitmq4"])
def broker(request: pytest.FixtureRequest) -> str:
    """The URL of each broker in turn: what a contract test runs on."""
    server: Server = request.getfixturevalue(request.param)
    return server.url


# -- names --------------------------------------------------------------------


class Names:
    """Makes names that no other test has, and remembers them to delete what bears them.

    Attributes:
        shared_levels: Says where the delay levels are that all tests of a run share. Making and
            deleting 45 quorum queues takes half a second, each keeps three file handles of
            RabbitMQ's, and calls do not meet there, as each waits for a queue of its test's own.
            None outside of pytest: there each has its own.
    """

    shared_levels: ClassVar[Callable[[], str] | None] = None

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex[:8]
        self._queues: list[str] = []
        self._exchanges: list[str] = []

    def __call__(self, word: str = "name") -> str:
        """Return a name for a queue, an exchange or both."""
        name = self.queue(word)
        self._exchanges.append(name)
        return name

    def queue(self, word: str = "queue") -> str:
        """Return a name for a queue; its dead-letter queue is deleted with it."""
        name = f"test-{self._mark}-{word}"
        self._queues += [name, f"{name}.dead"]
        return name

    def also(self, queue: str) -> str:
        """Have a queue deleted, too, whose name is made otherwise."""
        self._queues += [queue, f"{queue}.dead"]
        return queue

    def also_exchange(self, exchange: str) -> str:
        """Have an exchange deleted, too, whose name is made otherwise."""
        self._exchanges.append(exchange)
        return exchange

    def exchange(self, word: str = "exchange") -> str:
        """Return a name for an exchange."""
        name = f"test-{self._mark}-{word}"
        self._exchanges.append(name)
        return name

    def cancel_exchange(self, word: str = "cancel") -> str:
        """Return a name for an exchange of cancelled calls; its register is deleted with it."""
        name = self.exchange(word)
        self._queues.append(f"{name}.register")
        return name

    def beat_queue(self, word: str = "beat") -> str:
        """Return a name for the queue that holds the state of beats."""
        return self.queue(word)

    def delay_prefix(self, word: str = "delay") -> str:
        """Return a prefix for delay levels: the run's, or of its own, whose levels are deleted."""
        if Names.shared_levels is not None:
            return Names.shared_levels()
        return self.levels(f"test-{self._mark}-{word}")

    def levels(self, prefix: str) -> str:
        """Have the levels deleted that this prefix has, and return it."""
        for step in delay_plan(prefix).steps:
            match step:
                case DeclareQueue(name=name):
                    self._queues.append(name)
                case DeclareExchange(name=name):
                    self._exchanges.append(name)
        return prefix

    def delete(self, url: str) -> None:
        """Delete everything that bears one of the names."""
        if not self._queues and not self._exchanges:
            return
        connection = pika.BlockingConnection(pika.URLParameters(url))
        with contextlib.closing(connection):
            channel = connection.channel()
            for queue in dict.fromkeys(self._queues):
                channel = _delete(connection, channel, "queue_delete", queue)
            for exchange in dict.fromkeys(self._exchanges):
                channel = _delete(connection, channel, "exchange_delete", exchange)


def _delete(
    connection: pika.BlockingConnection,
    channel: BlockingChannel,
    method: Literal["queue_delete", "exchange_delete"],
    name: str,
) -> BlockingChannel:
    try:
        getattr(channel, method)(name)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code not in _GONE_OR_OWNED:
            raise
        return connection.channel()
    return channel


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Iterator[Names]:
    """Unique names on the broker that the test uses."""
    if "broker" in request.fixturenames:
        url: str = request.getfixturevalue("broker")
    elif "any_broker" in request.fixturenames:
        url = request.getfixturevalue("any_broker").url
    elif "embedded" in request.fixturenames:
        url = request.getfixturevalue("embedded").url
    elif "rabbitmq4" in request.fixturenames and "rabbitmq" not in request.fixturenames:
        url = request.getfixturevalue("rabbitmq4").url
    else:
        url = request.getfixturevalue("rabbitmq").url
    made = Names()
    yield made
    made.delete(url)


# -- pytest -------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Let all tests of a run share their delay levels."""
    Names.shared_levels = lambda: config.stash[SOURCE].delay_prefix()


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete the run's delay levels, in its first process, before servers end that it started."""
    Names.shared_levels = None
    depot = config.stash.get(DEPOT, None)
    if depot is None or not depot.delays:
        return
    made = Names()
    made.levels(depot.delay_prefix())
    # an embedded broker has ended with them
    for server in filter(None, map(servers.find, ("rabbitmq", "rabbitmq4"))):
        made.delete(server.url)
