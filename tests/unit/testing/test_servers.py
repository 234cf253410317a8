"""Finding servers: what each one is asked, what counts as an answer, and what an error says."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pamqp import commands, frame

from amqtask.errors import ConfigurationError
from amqtask.testing import probes, servers
from amqtask.testing.servers import Server

AMQP = urlsplit("amqp://ada:l%40ve@broker.example:5672/shop%2Feu")


class Wire(io.BufferedRWPair):
    """A connection whose other side has said all it will say."""

    def __init__(self, answers: bytes) -> None:
        self.sent = io.BytesIO()
        super().__init__(io.BytesIO(answers), self.sent)

    def methods(self) -> list[object]:
        """Return what was sent after the protocol header."""
        rest = self.sent.getvalue()[8:]
        found: list[object] = []
        while rest:
            size, _, method = frame.unmarshal(rest)
            found.append(method)
            rest = rest[size:]
        return found


def answers(*methods: frame.FrameTypes) -> bytes:
    return b"".join(frame.marshal(method, 0) for method in methods)


START = commands.Connection.Start(server_properties={"version": "4.0.5"})
TUNE = commands.Connection.Tune(2047, 131072, 60)
OPENED = (commands.Connection.OpenOk(), commands.Connection.CloseOk())


# -- asking -------------------------------------------------------------------


def test_a_broker_is_one_that_lets_us_in() -> None:
    """The probe logs in, opens the URL's virtual host, closes, and returns the version."""
    wire = Wire(answers(START, TUNE, *OPENED))

    assert probes.probe_rabbitmq(wire, AMQP) == "4.0.5"

    start_ok, tune_ok, opened, closed = wire.methods()
    assert wire.sent.getvalue()[:8] == b"AMQP\x00\x00\x09\x01"
    assert isinstance(start_ok, commands.Connection.StartOk)
    assert start_ok.response == "\0ada\0l@ve"
    assert isinstance(tune_ok, commands.Connection.TuneOk)
    assert (tune_ok.channel_max, tune_ok.frame_max) == (2047, 131072)
    assert isinstance(opened, commands.Connection.Open)
    assert opened.virtual_host == "shop/eu"
    assert isinstance(closed, commands.Connection.Close)


@pytest.mark.parametrize("url", ["amqp://localhost", "amqp://localhost/", "amqp://localhost/%2F"])
def test_a_url_without_details_means_the_guest_and_the_default_vhost(url: str) -> None:
    """What a URL leaves out is guest, guest and the virtual host ``/``."""
    wire = Wire(answers(START, TUNE, *OPENED))

    probes.probe_rabbitmq(wire, urlsplit(url))

    start_ok, _, opened, _ = wire.methods()
    assert isinstance(start_ok, commands.Connection.StartOk)
    assert start_ok.response == "\0guest\0guest"
    assert isinstance(opened, commands.Connection.Open)
    assert opened.virtual_host == "/"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", "it closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak AMQP 0-9-1"),
        (b"AMQP\x00\x01\x00\x00", "it does not speak AMQP 0-9-1"),
        (b"\x01\x00\x00", "it does not speak AMQP 0-9-1"),
        (answers(START)[:20], "it does not speak AMQP 0-9-1"),
        (answers(START), "it closed the connection"),
        (
            answers(START, commands.Connection.Close(403, "ACCESS_REFUSED", 0, 0)),
            "it answers 403 'ACCESS_REFUSED'",
        ),
        (answers(TUNE), "it answers Tune instead of Start"),
    ],
)
def test_what_does_not_let_us_in_is_no_broker(said: bytes, error: str) -> None:
    """Whatever answers otherwise than a broker that lets us in is refused, with the reason."""
    with pytest.raises(ConnectionError) as caught:
        probes.probe_rabbitmq(Wire(said), AMQP)

    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("url", "said", "sent"),
    [
        ("redis://localhost/0", b"+PONG\r\n", b"*1\r\n$4\r\nPING\r\n"),
        (
            "redis://:s3cret@localhost/0",
            b"+OK\r\n+PONG\r\n",
            b"*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n*1\r\n$4\r\nPING\r\n",
        ),
        (
            "redis://ada:l%40ve@localhost/0",
            b"+OK\r\n+PONG\r\n",
            b"*3\r\n$4\r\nAUTH\r\n$3\r\nada\r\n$4\r\nl@ve\r\n*1\r\n$4\r\nPING\r\n",
        ),
    ],
)
def test_redis_is_what_answers_a_ping(url: str, said: bytes, sent: bytes) -> None:
    """The probe logs in when the URL has a password, then pings."""
    wire = Wire(said)

    assert probes.probe_redis(wire, urlsplit(url)) == ""
    assert wire.sent.getvalue() == sent


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"-NOAUTH Authentication required.\r\n", "it answers 'NOAUTH Authentication required.'"),
        (b"ERROR\r\n", "it does not speak Redis's protocol"),
        (b"", "it does not speak Redis's protocol"),
    ],
)
def test_what_does_not_answer_a_ping_is_no_redis(said: bytes, error: str) -> None:
    """A refusal and a foreign protocol are told apart."""
    with pytest.raises(ConnectionError) as caught:
        probes.probe_redis(Wire(said), urlsplit("redis://localhost"))

    assert str(caught.value) == error


# -- finding ------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("AMQTASK_")]:
        monkeypatch.delenv(key)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """URL and version of the servers that run."""
    there: dict[str, str] = {}

    def connect(address: tuple[str, int], timeout: float) -> Link:
        assert timeout == servers.PROBE_TIMEOUT
        host, port = address
        for url, version in there.items():
            parts = urlsplit(url)
            if (parts.hostname, parts.port) == (host, port):
                return Link(parts.scheme, version)
        raise ConnectionRefusedError("connection refused")

    monkeypatch.setattr(socket, "create_connection", connect)
    return there


class Link:
    """What stands for a socket to a server of this scheme and version."""

    def __init__(self, scheme: str, version: str) -> None:
        start = commands.Connection.Start(server_properties={"version": version})
        self._said = b"+PONG\r\n" if scheme == "redis" else answers(start, TUNE, *OPENED)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def makefile(self, mode: str) -> Wire:
        assert mode == "rwb"
        return Wire(self._said)


@pytest.mark.parametrize(
    ("name", "url", "version"),
    [
        ("rabbitmq", "amqp://guest:guest@127.0.0.1:5672/", "3.10.8"),
        ("rabbitmq4", "amqp://guest:guest@127.0.0.1:5674/", "4.0.5"),
        ("redis", "redis://127.0.0.1:6379/0", ""),
    ],
)
def test_a_server_on_its_usual_port_is_found(
    name: str, url: str, version: str, running: dict[str, str]
) -> None:
    """Without a variable the usual port is asked."""
    running[url] = version

    assert servers.find(name) == Server(name, url, "running", version)


def test_rabbitmq4_is_not_an_older_one(running: dict[str, str]) -> None:
    """A 3.x on the usual port is passed over; a 4.x there is taken."""
    url = "amqp://guest:guest@127.0.0.1:5672/"
    running[url] = "3.13.7"
    assert servers.find("rabbitmq4") is None

    running[url] = "4.1.0"
    assert servers.find("rabbitmq4") == Server("rabbitmq4", url, "running", "4.1.0")


@pytest.mark.parametrize(
    "name",
    [
        *("rabbitmq", "rabbitmq4", "redis", "memcached", "postgresql", "mysql"),
        *("mongodb", "valkey", "cassandra", "couchbase"),
    ],
)
@pytest.mark.usefixtures("running")
def test_nothing_is_found_where_nothing_runs(name: str) -> None:
    """An absent server is None, not an error."""
    assert servers.find(name) is None


def test_the_variable_goes_before_the_usual_port(
    monkeypatch: pytest.MonkeyPatch, running: dict[str, str]
) -> None:
    """A server named by its variable is taken though another one runs on the usual port."""
    mine = "amqp://ada:love@broker.example:7000/shop"
    running.update({mine: "3.13.7", "amqp://guest:guest@127.0.0.1:5672/": "3.10.8"})
    monkeypatch.setenv("AMQTASK_TEST_RABBITMQ_URL", mine)

    assert servers.find("rabbitmq") == Server("rabbitmq", mine, "environment", "3.13.7")


def test_a_variable_that_names_a_dead_server_is_an_error_without_the_password(
    monkeypatch: pytest.MonkeyPatch, running: dict[str, str]
) -> None:
    """No other server stands in for the one that was named; the error keeps the password."""
    running["amqp://guest:guest@127.0.0.1:5672/"] = "3.10.8"
    monkeypatch.setenv("AMQTASK_TEST_RABBITMQ_URL", "amqp://ada:s3cret@broker.example/")

    with pytest.raises(ConfigurationError) as caught:
        servers.find("rabbitmq")

    assert str(caught.value) == (
        "the server that AMQTASK_TEST_RABBITMQ_URL names does not answer as rabbitmq: "
        "connection refused"
    )
    assert caught.value.hint == "start it, correct the URL, or unset the variable"


def test_a_variable_that_names_too_old_a_server_is_an_error(
    monkeypatch: pytest.MonkeyPatch, running: dict[str, str]
) -> None:
    """The error says which version was found and which is asked."""
    url = "amqp://guest:guest@broker.example:5672/"
    running[url] = "3.13.7"
    monkeypatch.setenv("AMQTASK_TEST_RABBITMQ4_URL", url)

    with pytest.raises(ConfigurationError) as caught:
        servers.find("rabbitmq4")

    assert str(caught.value) == (
        "the server that AMQTASK_TEST_RABBITMQ4_URL names does not answer as rabbitmq4: "
        "it is RabbitMQ 3.13.7, 4 or later is asked"
    )


@pytest.mark.parametrize("ask", [servers.find, servers.missing])
def test_an_unknown_name_is_an_error_with_a_near_one(ask: object) -> None:
    """A mistyped name is told with the one that was meant."""
    assert callable(ask)
    with pytest.raises(ConfigurationError) as caught:
        ask("rabitmq")

    assert str(caught.value) == "unknown server 'rabitmq', did you mean 'rabbitmq'?"
    assert caught.value.hint == (
        "known servers: rabbitmq, rabbitmq4, redis, memcached, postgresql, mysql, mongodb, "
        "valkey, cassandra, couchbase"
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "rabbitmq",
            "set AMQTASK_TEST_RABBITMQ_URL, start Docker, or install rabbitmq-server",
        ),
        (
            "rabbitmq4",
            "set AMQTASK_TEST_RABBITMQ4_URL, start Docker, or install rabbitmq-server 4 or later",
        ),
        (
            "redis",
            "set AMQTASK_TEST_REDIS_URL, start Docker, or install redis-server",
        ),
    ],
)
def test_one_line_says_how_to_get_a_server(name: str, advice: str) -> None:
    """The line that a skipped test shows names the variable, Docker and the package."""
    assert servers.missing(name) == f"no {name} here: {advice}"


def test_docker_is_not_advised_where_there_is_no_compose_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Installed without the checkout, there is nothing for Docker to start."""
    monkeypatch.setattr(servers, "COMPOSE_FILE", tmp_path / "compose.yaml")

    assert servers.missing("redis") == (
        "no redis here: set AMQTASK_TEST_REDIS_URL, start one on port 6379, or install redis-server"
    )


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", []),
        ("redis", ["redis"]),
        (" rabbitmq4, redis ,", ["rabbitmq4", "redis"]),
        ("rabbitmq-cluster", ["rabbitmq-cluster"]),
    ],
)
def test_required_names_come_from_a_comma_list(
    value: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blanks and empty places in ``AMQTASK_REQUIRE`` do not count."""
    monkeypatch.setenv("AMQTASK_REQUIRE", value)

    assert servers.required() == frozenset(names)


def test_requiring_an_unknown_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped name in ``AMQTASK_REQUIRE`` would require nothing, so it fails."""
    monkeypatch.setenv("AMQTASK_REQUIRE", "rabbitmq,rediss")

    with pytest.raises(ConfigurationError) as caught:
        servers.required()

    assert str(caught.value) == "unknown server 'rediss', did you mean 'redis'?"


# -- starting -----------------------------------------------------------------


def _refuse(name: str) -> AbstractContextManager[Server]:
    raise ConfigurationError(f"cannot start {name}")


def test_a_running_server_is_given_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, running: dict[str, str]
) -> None:
    """Nothing is started while something answers."""
    running["redis://127.0.0.1:6379/0"] = ""
    monkeypatch.setattr(servers, "from_docker", _refuse)
    monkeypatch.setattr(servers, "from_program", _refuse)

    with servers.find_or_start("redis") as server:
        assert server == Server("redis", "redis://127.0.0.1:6379/0", "running")


@pytest.mark.usefixtures("running")
def test_docker_goes_before_the_program_and_what_was_started_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next way is tried where one fails, and its server ends with the block."""
    events: list[str] = []

    def docker(name: str) -> AbstractContextManager[Server]:
        events.append("docker")
        return _refuse(name)

    @contextmanager
    def program(name: str) -> Iterator[Server]:
        events.append("program")
        yield Server(name, "redis://127.0.0.1:7000/0", "program")
        events.append("stopped")

    monkeypatch.setattr(servers, "from_docker", docker)
    monkeypatch.setattr(servers, "from_program", program)

    with servers.find_or_start("redis") as server:
        assert server.how == "program"
        assert events == ["docker", "program"]
    assert events == ["docker", "program", "stopped"]


@pytest.mark.usefixtures("running")
def test_a_server_that_cannot_be_had_is_an_error_that_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error lists each way that failed; the hint says how to get one."""
    monkeypatch.setattr(servers, "docker_ready", lambda: False)
    monkeypatch.setattr(servers, "_PROGRAM_FOLDERS", ("/nowhere",))
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ConfigurationError) as caught, servers.find_or_start("rabbitmq"):
        pytest.fail("there is no server")

    assert str(caught.value) == (
        "no rabbitmq answers and none could be started: "
        "docker does not answer here; the program rabbitmq-server is not installed"
    )
    assert caught.value.hint == servers.missing("rabbitmq")


@pytest.mark.usefixtures("running")
def test_a_program_that_ends_at_once_is_an_error_with_what_it_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody waits for a server that has ended already; its output comes with the error."""
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho bad directive\n")
    program.chmod(0o755)
    monkeypatch.setattr(servers, "_PROGRAM_FOLDERS", (str(tmp_path),))

    with (
        pytest.raises(ConfigurationError) as caught,
        servers.from_program("redis"),
    ):
        pytest.fail("there is no server")

    assert str(caught.value).endswith(" ended before it answered")
    assert caught.value.__notes__ == ["bad directive\n"]


def test_compose_gets_free_ports_under_names_that_are_no_settings() -> None:
    """Each service has a port of its own, in variables that Settings leaves alone."""
    ports = servers.compose_ports()

    assert len(set(ports.values())) == len(ports)
    assert all(f"${{{name}:-" in servers.COMPOSE_FILE.read_text() for name in ports)
    assert all(name.startswith("AMQTASK_TEST_") for name in ports)
