"""Fixtures for real servers: found, started, or skipped with a line that says how to get them.

``AMQTASK_REQUIRE=rabbitmq,redis`` turns such a skip into a failure, so that a build machine
cannot pass by running nothing.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from amqtask.errors import ConfigurationError
from amqtask.testing import servers
from amqtask.testing.servers import Server
from amqtask.topology.delay import delay_plan
from amqtask.topology.plan import DeclareExchange, DeclareQueue
from tests.embedded import broker_process

#: The RabbitMQ version whose ways the embedded broker follows.
EMBEDDED_FOLLOWS = "4.0"
#: What one project of docker compose has for the tests.
DOCKER = ("rabbitmq", "redis", "memcached", "postgresql", "mysql", "mongodb")
#: The vhost has no such entity, or another connection owns it exclusively and takes it along.
_GONE_OR_OWNED = {404, 405}


# -- docker -------------------------------------------------------------------
# pytest-docker's docker_services raises where Docker does not work, so only _from_docker asks for
# it, and only after docker_ready().


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(servers.COMPOSE_FILE)


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return f"amqtask-tests-{os.getpid()}"


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    ports = (f"{key}={shlex.quote(port)}" for key, port in servers.compose_ports().items())
    return f"env {' '.join(ports)} docker compose"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    # each server's own fixture waits for what it needs of it
    names = {servers.compose_service(name)[0] for name in DOCKER}
    return [f"up --quiet-pull --wait {' '.join(sorted(names))}"]


def _from_docker(name: str, request: pytest.FixtureRequest) -> Server:
    if not servers.docker_ready():
        raise ConfigurationError("docker does not answer here")
    try:
        services = request.getfixturevalue("docker_services")
    except Exception as error:  # pytest-docker raises a bare one, with the command's output
        raise ConfigurationError(f"docker did not start it: {error}") from error
    service, port = servers.compose_service(name)
    host = request.getfixturevalue("docker_ip")
    return servers.await_server(name, host, services.port_for(service, port), "docker")


# -- servers ------------------------------------------------------------------


@contextmanager
def _server(name: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    with ExitStack() as stack:
        server = servers.find(name)
        tried: list[str] = []
        if server is None:
            try:
                server = _from_docker(name, request)
            except ConfigurationError as error:
                tried.append(str(error))
        if server is None:
            try:
                server = stack.enter_context(servers.from_program(name))
            except ConfigurationError as error:
                tried.append(str(error))
        if server is None:
            reason = f"{servers.missing(name)} ({'; '.join(tried)})"
            if name in servers.required():
                pytest.fail(f"AMQTASK_REQUIRE names {name}, but {reason}", pytrace=False)
            pytest.skip(reason)
        yield server


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A RabbitMQ of any version."""
    with _server("rabbitmq", request) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq4(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A RabbitMQ 4 or later."""
    with _server("rabbitmq4", request) as server:
        yield server


@pytest.fixture(scope="session")
def redis(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Redis."""
    with _server("redis", request) as server:
        yield server


@pytest.fixture(scope="session")
def memcached(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A memcached."""
    with _server("memcached", request) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A PostgreSQL whose user may make databases."""
    with _server("postgresql", request) as server:
        yield server


@pytest.fixture(scope="session")
def mysql(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A MySQL or MariaDB whose user may make databases."""
    with _server("mysql", request) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A MongoDB."""
    with _server("mongodb", request) as server:
        yield server


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
    """Makes names that no other test has, and remembers them to delete what bears them."""

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

    def delay_prefix(self, word: str = "delay") -> str:
        """Return a prefix for delay levels; the levels' queues and exchanges are deleted."""
        prefix = f"test-{self._mark}-{word}"
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
