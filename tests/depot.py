"""Servers that a run of tests starts: one of each kind, for all of its processes.

    a test's process --name--> the run's first process --> docker compose, else the program installed
                     <-- the server, or why there is none --

pytest-xdist runs tests in several processes, any of which may end before the others: what it had
started would be gone under their feet, and each process would start its own. So the first process,
which outlives them, starts servers for all. Without pytest-xdist it asks itself.
"""

from __future__ import annotations

import os
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, Protocol

import pytest
from pytest_docker.plugin import get_docker_ip, get_docker_services

from amqtask.errors import ConfigurationError
from amqtask.testing import servers
from amqtask.testing.servers import Server

#: What one project of docker compose has for the tests.
DOCKER = (
    *("rabbitmq", "redis", "memcached", "postgresql", "mysql"),
    *("mongodb", "valkey", "cassandra", "couchbase"),
)
#: Seconds a process waits for a server: docker may be tried in vain, then the program.
_PATIENCE = 2.5 * servers.START_TIMEOUT
#: Asks for the delay prefix, as a name asks for a server.
_DELAY = "delay prefix"
_ADDRESS, _KEY = "amqtask-depot-address", "amqtask-depot-key"


class Source(Protocol):
    """Where a test's process has its servers from."""

    def get(self, name: str) -> Server:
        """Return a server that answers, started at the first question.

        Raises:
            ConfigurationError: There is no way to start one here, or it did not start.
        """

    def delay_prefix(self) -> str:
        """Return where delayed messages wait, on whatever broker, in all tests of this run."""


class Depot:
    """Starts servers, each once, and stops them at its end.

    Attributes:
        delays: Whether somebody asked for the delay prefix.
    """

    def __init__(self) -> None:
        self.delays = False
        self._prefix = f"test-{secrets.token_hex(4)}-delay"
        self._stack = ExitStack()
        self._locks = {name: threading.Lock() for name in (*DOCKER, "rabbitmq4", "docker")}
        self._had: dict[str, Any] = {}

    def get(self, name: str) -> Server:
        """Return a server, from docker compose or else from the installed program."""
        server: Server = self._once(name, lambda: self._start(name))
        return server

    def delay_prefix(self) -> str:
        """Return the prefix of the run's delay levels."""
        self.delays = True
        return self._prefix

    def close(self) -> None:
        """Stop all that was started."""
        self._stack.close()

    def _start(self, name: str) -> Server:
        tried: list[str] = []
        for start in (self._from_docker, self._from_program):
            try:
                return start(name)
            except ConfigurationError as error:
                tried.append(str(error))
        raise ConfigurationError("; ".join(tried))

    def _from_program(self, name: str) -> Server:
        server: Server = self._enter(servers.from_program(name))
        return server

    def _from_docker(self, name: str) -> Server:
        if not servers.docker_ready():
            raise ConfigurationError("docker does not answer here")
        project = self._once("docker", lambda: self._enter(_compose()))
        service, port = servers.compose_service(name)
        return servers.await_server(
            name, get_docker_ip(), project.port_for(service, port), "docker"
        )

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        with self._locks[name]:
            if name not in self._had:
                try:
                    self._had[name] = make()
                except ConfigurationError as error:
                    self._had[name] = error
            had = self._had[name]
        if isinstance(had, ConfigurationError):
            raise ConfigurationError(str(had))
        return had

    def _enter(self, context: AbstractContextManager[Any]) -> Any:
        # what is entered stays open: its own thread may be gone by the time it is closed
        return self._stack.enter_context(context)


@contextmanager
def _compose() -> Iterator[Any]:
    """Run one project for all tests, on ports of its own."""
    ports = (f"{key}={shlex.quote(port)}" for key, port in servers.compose_ports().items())
    # each server is waited for, too, until it does what is needed of it
    names = {servers.compose_service(name)[0] for name in DOCKER}
    with ExitStack() as stack:
        try:
            services = stack.enter_context(
                get_docker_services(
                    docker_compose_command=f"env {' '.join(ports)} docker compose",
                    docker_compose_file=str(servers.COMPOSE_FILE),
                    docker_compose_project_name=f"amqtask-tests-{os.getpid()}",
                    docker_setup=f"up --quiet-pull --wait {' '.join(sorted(names))}",
                    docker_cleanup="down -v",
                )
            )
        except Exception as error:  # pytest-docker raises a bare one, with the command's output
            raise ConfigurationError(f"docker did not start it: {error}") from error
        yield services


# -- across processes ---------------------------------------------------------


class Counter:
    """Where other processes ask for a depot's servers: one question a connection.

    Attributes:
        address: Of its socket.
        key: What who asks has to know.
    """

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._closed = threading.Event()
        self.key = secrets.token_bytes(16)
        self._listener = Listener(family="AF_UNIX", authkey=self.key)
        self.address = str(self._listener.address)
        self._serving = threading.Thread(target=self._serve, name="depot", daemon=True)
        self._serving.start()

    def close(self) -> None:
        """Take no more questions."""
        self._closed.set()
        Client(self.address, authkey=self.key).close()  # so that it looks
        self._serving.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            # who asks may be killed at any time, which is no reason to serve nobody else
            with suppress(AuthenticationError, OSError, EOFError):
                link = self._listener.accept()
                # asked once somebody is through: whoever closes waits to be let in, too
                if self._closed.is_set():
                    link.close()
                    return
                # the answer may take minutes, and others ask meanwhile
                threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: Connection[Any, Any]) -> None:
        with link, suppress(OSError, EOFError):
            name: str = link.recv()
            if name == _DELAY:
                link.send(self._depot.delay_prefix())
                return
            try:
                link.send(self._depot.get(name))
            except ConfigurationError as error:
                link.send(error)


class Customer:
    """Asks the run's first process."""

    def __init__(self, address: str, key: bytes) -> None:
        self._address = address
        self._key = key

    def get(self, name: str) -> Server:
        """Return a server from the run's first process."""
        answer: Server | ConfigurationError = self._ask(name)
        if isinstance(answer, ConfigurationError):
            raise answer
        return answer

    @cache  # noqa: B019 - there is one customer in a process
    def delay_prefix(self) -> str:
        """Return the prefix of the run's delay levels."""
        prefix: str = self._ask(_DELAY)
        return prefix

    def _ask(self, word: str) -> Any:
        with Client(self._address, authkey=self._key) as link:
            link.send(word)
            if not link.poll(_PATIENCE):
                raise ConfigurationError(
                    f"the run's first process gave no {word} in {_PATIENCE:g} s"
                )
            return link.recv()


# -- pytest -------------------------------------------------------------------

SOURCE = pytest.StashKey[Source]()
#: Only in the run's first process.
DEPOT = pytest.StashKey[Depot]()
_COUNTER = pytest.StashKey[Counter]()


def pytest_configure(config: pytest.Config) -> None:
    """Say where this process has its servers from."""
    told: dict[str, Any] | None = getattr(config, "workerinput", None)
    if told is not None:
        config.stash[SOURCE] = Customer(told[_ADDRESS], told[_KEY])
        return
    config.stash[SOURCE] = config.stash[DEPOT] = Depot()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist where to ask."""
    config: pytest.Config = node.config
    if _COUNTER not in config.stash:
        config.stash[_COUNTER] = Counter(config.stash[DEPOT])
    counter = config.stash[_COUNTER]
    node.workerinput |= {_ADDRESS: counter.address, _KEY: counter.key}


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started."""
    with ExitStack() as stack:
        if DEPOT in config.stash:
            stack.callback(config.stash[DEPOT].close)
        if _COUNTER in config.stash:
            stack.callback(config.stash[_COUNTER].close)
