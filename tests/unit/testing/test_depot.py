"""Servers for a whole run of tests: started once, whoever asks; stopped at its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client

import pytest

from amqtask.errors import ConfigurationError
from amqtask.testing import servers
from amqtask.testing.servers import Server
from tests import depot
from tests.depot import Counter, Customer, Depot
from tests.helpers import TIMEOUT

MEMCACHED = Server("memcached", "memcached://127.0.0.1:1", "program", "1.6")


class Program:
    """Stands in for an installed program.

    Attributes:
        starts: How often it was started.
        runs: Whether it does.
        may_start: Holds up a start until it is set.
    """

    def __init__(self) -> None:
        self.starts = 0
        self.runs = False
        self.may_start = threading.Event()
        self.may_start.set()

    @contextmanager
    def __call__(self, name: str) -> Iterator[Server]:
        self.starts += 1
        if name != MEMCACHED.name:
            raise ConfigurationError(f"the program {name} is not installed")
        assert self.may_start.wait(TIMEOUT)
        self.runs = True
        yield MEMCACHED
        self.runs = False


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """The only program that is installed, where Docker is not."""
    made = Program()
    monkeypatch.setattr(servers, "docker_ready", lambda: False)
    monkeypatch.setattr(servers, "from_program", made)
    return made


def test_processes_that_ask_at_once_have_the_same_server(program: Program) -> None:
    """The second one waits for the start that the first one caused; the end stops it."""
    program.may_start.clear()
    made = Depot()
    counter = Counter(made)
    customers = [Customer(counter.address, counter.key) for _ in range(3)]
    with ThreadPoolExecutor(len(customers)) as pool:
        asked = [pool.submit(each.get, "memcached") for each in customers]
        program.may_start.set()
        assert [each.result(TIMEOUT) for each in asked] == [MEMCACHED] * 3
    assert made.get("memcached") == MEMCACHED
    assert program.starts == 1
    assert program.runs
    counter.close()
    made.close()
    assert not program.runs


def test_what_cannot_be_started_is_tried_once_and_said_to_all(program: Program) -> None:
    """Each process skips or fails with the same words, and none tries again."""
    made = Depot()
    counter = Counter(made)
    customer = Customer(counter.address, counter.key)
    said = "docker does not answer here; the program mysql is not installed"
    for source in (made, customer, customer):
        with pytest.raises(ConfigurationError) as caught:
            source.get("mysql")
        assert str(caught.value) == said
    assert program.starts == 1
    counter.close()
    made.close()


def test_who_goes_away_or_has_no_key_does_not_stop_the_counter(program: Program) -> None:
    """The next process is served."""
    made = Depot()
    counter = Counter(made)
    with suppress(Exception):
        Customer(counter.address, b"wrong").get("memcached")
    Client(counter.address, authkey=counter.key).close()
    assert Customer(counter.address, counter.key).get("memcached") == MEMCACHED
    counter.close()
    made.close()


def test_delayed_messages_of_all_processes_wait_in_one_place() -> None:
    """Each hears the same prefix, and the end knows that there is something to delete."""
    made = Depot()
    counter = Counter(made)
    before = made.delays
    asked = {Customer(counter.address, counter.key).delay_prefix() for _ in range(2)}
    assert (before, made.delays) == (False, True)
    assert asked == {made.delay_prefix()}
    counter.close()
    made.close()


class Project:
    """Stands in for pytest-docker's services of a project."""

    def port_for(self, service: str, port: int) -> int:
        return {"redis": 16379, "memcached": 21211}[service]


def test_docker_goes_first_and_one_project_has_all_servers(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is brought up at the first question and taken down at the end."""
    events: list[str] = []

    @contextmanager
    def project(**said: str) -> Iterator[Project]:
        events.append(said["docker_setup"])
        yield Project()
        events.append(said["docker_cleanup"])

    def answers(name: str, host: str, port: int, how: servers.How) -> Server:
        return Server(name, f"{host}:{port}", how)

    monkeypatch.setattr(servers, "docker_ready", lambda: True)
    monkeypatch.setattr(servers, "await_server", answers)
    monkeypatch.setattr(depot, "get_docker_services", project)
    monkeypatch.setattr(depot, "get_docker_ip", lambda: "127.0.0.1")
    made = Depot()
    assert made.get("redis") == Server("redis", "127.0.0.1:16379", "docker")
    assert made.get("memcached") == Server("memcached", "127.0.0.1:21211", "docker")
    services = {servers.compose_service(name)[0] for name in depot.DOCKER}
    up = f"up --quiet-pull --wait {' '.join(sorted(services))}"
    assert events == [up]
    made.close()
    assert events == [up, "down -v"]
    assert program.starts == 0


def test_a_project_that_does_not_come_up_leaves_the_program(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Docker said is in the error of what has no program either."""

    def project(**said: str) -> None:
        raise Exception("no space left on device")  # noqa: TRY002 - pytest-docker's way

    monkeypatch.setattr(servers, "docker_ready", lambda: True)
    monkeypatch.setattr(depot, "get_docker_services", project)
    made = Depot()
    assert made.get("memcached") == MEMCACHED
    with pytest.raises(ConfigurationError, match="did not start it: no space left on device; the"):
        made.get("mysql")
    made.close()
