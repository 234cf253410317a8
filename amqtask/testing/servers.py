"""Find the servers that tests and the demo need, or start private ones for as long as they run.

A checkout has to work at any desk, so a server is taken from where it is:

    variable -> usual port -> docker compose -> installed program -> one line of advice
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from amqtask.errors import ConfigurationError, near
from amqtask.testing import stores
from amqtask.testing.probes import probe_rabbitmq, probe_redis, probe_valkey

#: How a server was had.
How = Literal["environment", "running", "docker", "program"]

#: The compose file of a checkout; an installed package has none.
COMPOSE_FILE = Path(__file__).parents[2] / "docker" / "compose.yaml"

#: What ``AMQTASK_REQUIRE`` calls the cluster of three nodes that the chaos suite starts.
CLUSTER = "rabbitmq-cluster"

#: Seconds one look at a server may take.
PROBE_TIMEOUT = 5.0
#: Seconds a private server has from its start to its first answer, image download included.
START_TIMEOUT = 180.0
#: Seconds a private server has to end by itself.
STOP_TIMEOUT = 30.0

_LOOPBACK = "127.0.0.1"
#: Where rabbitmq-server is when PATH does not say. The first is no wrapper: Debian's wrapper on
#: PATH changes to another user and refuses all but root.
_PROGRAM_FOLDERS = (
    "/usr/lib/rabbitmq/bin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/sbin",
    "/usr/bin",
)
#: Runs a program until its own standard input ends, so that a server ends with the process that
#: started it, even when that one was killed. What does not end when it is asked to is killed with
#: all of its process group: a cluster's node may wait for others that are gone.
_GUARD = """
import os, signal, subprocess, sys, threading, time
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def end():
    os.read(0, 1)
    server.terminate()
    time.sleep(25)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=end, daemon=True).start()
sys.exit(server.wait())
"""

T = TypeVar("T")
#: A port and the guard of the program that will listen there.
_Started = tuple[int, subprocess.Popen[bytes]]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answered.

    Attributes:
        name: As for `find`.
        url: Where it is, with its credentials.
        how: From where it was had.
        version: What it calls itself, ``""`` where it does not say.
    """

    name: str
    url: str
    how: How
    version: str = ""


# -- the servers there are ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    service: str  # in the compose file
    ports: tuple[int, ...]  # in the order they are asked; the last is the protocol's own
    url: str
    probe: Callable[[io.BufferedRWPair, SplitResult], str]
    at_least: int = 0  # major version
    command: Callable[[int, Path], Sequence[str]] | None = None  # starts it; None: as below
    package: str = ""  # where its program is not called after the service

    @property
    def variable(self) -> str:
        return f"AMQTASK_TEST_{self.name.upper()}_URL"

    @property
    def program(self) -> str:
        return self.package or f"{self.service}-server"

    def ask(self, url: str) -> str:
        """Return the version of the server at this URL, or raise OSError with what is wrong."""
        parts = urlsplit(url)
        secure = parts.scheme in {"amqps", "rediss"}
        port = parts.port or (5671 if parts.scheme == "amqps" else self.ports[-1])
        where = parts.hostname or "localhost"
        with ExitStack() as stack:
            link = stack.enter_context(socket.create_connection((where, port), PROBE_TIMEOUT))
            if secure:
                context = ssl.create_default_context()
                link = stack.enter_context(context.wrap_socket(link, server_hostname=where))
            version = self.probe(stack.enter_context(link.makefile("rwb")), parts)
        if self.at_least and int(version.partition(".")[0] or 0) < self.at_least:
            raise ConnectionError(f"it is RabbitMQ {version}, {self.at_least} or later is asked")
        return version


_AMQP = "amqp://guest:guest@{}:{}/"
_KINDS = {
    kind.name: kind
    for kind in (
        _Kind("rabbitmq", "rabbitmq", (5672,), _AMQP, probe_rabbitmq),
        _Kind("rabbitmq4", "rabbitmq", (5674, 5672), _AMQP, probe_rabbitmq, at_least=4),
        _Kind("redis", "redis", (6379,), "redis://{}:{}/0", probe_redis),
        _Kind(
            "memcached",
            "memcached",
            (11211,),
            "memcached://{}:{}",
            stores.probe_memcached,
            command=stores.memcached_command,
            package="memcached",
        ),
        _Kind(
            "postgresql",
            "postgres",
            (5432,),
            "postgresql://postgres@{}:{}/postgres",
            stores.probe_postgresql,
            command=stores.postgresql_command,
            package="postgresql",
        ),
        _Kind(
            "mysql",
            "mariadb",
            (3306,),
            "mysql://root@{}:{}/test",
            stores.probe_mysql,
            command=stores.mysql_command,
            package="mariadb-server",
        ),
        _Kind(
            "mongodb",
            "mongodb",
            (27017,),
            "mongodb://{}:{}/",
            stores.probe_mongodb,
            package="mongod",
        ),
        _Kind("valkey", "valkey", (6380, 6379), "valkey://{}:{}/0", probe_valkey),
        _Kind(
            "cassandra",
            "cassandra",
            (9042,),
            "cassandra://{}:{}/",
            stores.probe_cassandra,
            package="cassandra",
        ),
        _Kind(
            "couchbase",
            "couchbase",
            (11210,),
            "couchbase://amqtask:amqtask@{}:{}/amqtask?network=external",
            stores.probe_couchbase,
            package="couchbase-server",
        ),
    )
}


def _kind(name: str) -> _Kind:
    try:
        return _KINDS[name]
    except KeyError:
        raise ConfigurationError(
            f"unknown server {name!r}{near(name, list(_KINDS))}",
            hint=f"known servers: {', '.join(_KINDS)}",
        ) from None


# -- finding ------------------------------------------------------------------


def find(name: str) -> Server | None:
    """Return the server of this name that runs already, or None.

    A server that the environment names has to answer: taking another one behind the user's
    back would test the wrong thing.

    Args:
        name: ``"rabbitmq"`` (any version), ``"rabbitmq4"`` (4 or later), ``"redis"``,
            ``"memcached"``, ``"postgresql"``, ``"mysql"`` (MariaDB, too), ``"mongodb"``,
            ``"valkey"``, ``"cassandra"`` or ``"couchbase"``.

    Raises:
        ConfigurationError: The name is unknown, or the variable names a server that does not
            answer.
    """
    kind = _kind(name)
    if url := os.environ.get(kind.variable):
        try:
            return Server(name, url, "environment", kind.ask(url))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the server that {kind.variable} names does not answer as {name}: {error}",
                hint="start it, correct the URL, or unset the variable",
            ) from error
    for port in kind.ports:
        url = kind.url.format(_LOOPBACK, port)
        # nothing there, or something else: the next place may have it
        with contextlib.suppress(OSError):
            return Server(name, url, "running", kind.ask(url))
    return None


def missing(name: str) -> str:
    """Return one line that says how to get a server that `find` did not find.

    Raises:
        ConfigurationError: The name is unknown.
    """
    kind = _kind(name)
    start = "start Docker" if COMPOSE_FILE.is_file() else f"start one on port {kind.ports[0]}"
    later = f" {kind.at_least} or later" if kind.at_least else ""
    return f"no {name} here: set {kind.variable}, {start}, or install {kind.program}{later}"


def required() -> frozenset[str]:
    """Return the names in ``AMQTASK_REQUIRE``: servers whose absence fails a test.

    Raises:
        ConfigurationError: It holds an unknown name, which would require nothing.
    """
    names = {name.strip() for name in os.environ.get("AMQTASK_REQUIRE", "").split(",")} - {""}
    return frozenset(name if name == CLUSTER else _kind(name).name for name in names)


@contextmanager
def find_or_start(name: str) -> Iterator[Server]:
    """Give a server for as long as the block runs, and stop it then if it was started here.

    Args:
        name: As for `find`.

    Yields:
        The server, which answers.

    Raises:
        ConfigurationError: There is none and none could be started; the hint says how to get one.

    Example:
        with find_or_start("rabbitmq") as server:
            app = App("demo", broker=server.url)
    """
    with ExitStack() as stack:
        server = find(name)
        tried = []
        for start in (from_docker, from_program):
            if server is None:
                try:
                    server = stack.enter_context(start(name))
                except ConfigurationError as error:
                    tried.append(str(error))
        if server is None:
            raise ConfigurationError(
                f"no {name} answers and none could be started: {'; '.join(tried)}",
                hint=missing(name),
            )
        yield server


# -- starting one from Docker -------------------------------------------------


@functools.cache
def docker_ready() -> bool:
    """Tell whether Docker's engine answers and has the compose command; asked once a process."""
    if not COMPOSE_FILE.is_file() or shutil.which("docker") is None:
        return False
    return all(_run(["docker", *words], 30)[0] == 0 for words in (["info"], ["compose", "version"]))


def compose_ports() -> dict[str, str]:
    """Return variables for the compose file that give each service a free port of this host.

    So that a private project does not meet whatever has the usual ports.
    """
    services = ("RABBITMQ", "RABBITMQ_UI", "REDIS", "POSTGRES", "MARIADB", "MEMCACHED", "MONGODB")
    more = ("VALKEY", "CASSANDRA", "COUCHBASE")
    names = [f"{service}_PORT" for service in (*services, *more)]
    with reserved_ports(len(names)) as ports:
        pass  # Docker's own listener wants them for itself alone
    return {f"AMQTASK_TEST_{name}": str(port) for name, port in zip(names, ports, strict=True)}


def compose_service(name: str) -> tuple[str, int]:
    """Return the service of the compose file that serves this name, and its port inside."""
    kind = _kind(name)
    return kind.service, kind.ports[-1]


def await_server(
    name: str,
    host: str,
    port: int,
    how: How,
    *,
    timeout: float = START_TIMEOUT,
    alive: Callable[[], bool] = lambda: True,
) -> Server:
    """Return the server at this address once it answers.

    Args:
        name: As for `find`.
        host: Name or address.
        port: Its port there.
        how: What `Server.how` shall say.
        timeout: Seconds to wait.
        alive: False when waiting on is of no use.

    Raises:
        ConfigurationError: It ended, or did not answer in time.
    """
    kind = _kind(name)
    url = kind.url.format(host, port)
    version = _poll(lambda: kind.ask(url), f"{name} on {host}:{port}", timeout, alive)
    return Server(name, url, how, version)


@contextmanager
def from_docker(name: str) -> Iterator[Server]:
    """Give a server from a compose project of its own, on free ports, and remove it afterwards.

    Raises:
        ConfigurationError: Docker does not work here, or the server did not start.
    """
    if not docker_ready():
        raise ConfigurationError("docker does not answer here")
    service, _ = compose_service(name)
    project = f"amqtask-{service}-{os.getpid()}"
    compose = ["docker", "compose", "-f", str(COMPOSE_FILE), "-p", project]
    ports = compose_ports()
    environ = {**os.environ, **ports}
    try:
        code, output = _run([*compose, "up", "-d", "--wait", service], START_TIMEOUT, environ)
        if code:
            raise ConfigurationError(f"docker did not start {service}: {output}")
        port = int(ports[f"AMQTASK_TEST_{service.upper()}_PORT"])
        yield await_server(name, _LOOPBACK, port, "docker", timeout=STOP_TIMEOUT)
    finally:
        _run([*compose, "down", "-v"], START_TIMEOUT, environ)


# -- starting an installed program --------------------------------------------


@contextmanager
def from_program(name: str, *, config: str = "") -> Iterator[Server]:
    """Give a private server from the installed program, and remove it and its data afterwards.

    It shares nothing with one of the system: own ports, own folder, no plugins, loopback only.

    Args:
        config: Text of its configuration file: ``advanced.config``, ``redis.conf``.

    Raises:
        ConfigurationError: The program is not installed, or did not start.
    """
    kind = _kind(name)
    run = _rabbitmq if kind.program == "rabbitmq-server" else _redis
    if kind.command is not None:
        run = _commanded
    elif kind.name not in ("rabbitmq", "rabbitmq4", "redis", "valkey"):
        raise ConfigurationError(f"a private {name} is not started from a program")
    with tempfile.TemporaryDirectory(prefix=f"amqtask-{name}-") as folder, ExitStack() as stack:
        port, guard = stack.enter_context(run(kind, Path(folder), config))
        try:
            server = await_server(
                name, _LOOPBACK, port, "program", alive=lambda: guard.poll() is None
            )
        except ConfigurationError as error:
            error.add_note((Path(folder) / "server.log").read_text(errors="replace")[-2000:])
            raise
        yield server


@contextmanager
def _redis(kind: _Kind, folder: Path, config: str) -> Iterator[_Started]:
    file = folder / "redis.conf"
    file.write_text(config)
    command = [_program(kind.program), str(file), "--bind", _LOOPBACK, "--save", ""]
    with reserved_ports(1) as (port,):
        command += ["--port", str(port), "--dir", str(folder)]
        with _guarded(command, folder, os.environ) as guard:
            yield port, guard


@contextmanager
def _commanded(kind: _Kind, folder: Path, config: str) -> Iterator[_Started]:
    assert kind.command is not None
    with (
        reserved_ports(1) as (port,),
        _guarded(kind.command(port, folder), folder, os.environ) as guard,
    ):
        yield port, guard


@contextmanager
def _rabbitmq(kind: _Kind, folder: Path, config: str) -> Iterator[_Started]:
    program, epmd = _program(kind.program), _program("epmd")
    with ExitStack() as stack:
        port, dist_port, epmd_port = stack.enter_context(reserved_ports(3))
        environ = _node_environ(folder, port, dist_port, epmd_port)
        if config:
            (folder / "advanced.config").write_text(config)
        # started here, because what needs it and finds none starts one that outlives the server
        stack.enter_context(_guarded([epmd, "-port", str(epmd_port)], folder, environ))
        address = (_LOOPBACK, epmd_port)
        _poll(lambda: socket.create_connection(address).close(), "epmd", STOP_TIMEOUT)
        _check_version(kind, program, environ)
        with _guarded([program], folder, environ) as guard:
            yield port, guard


def _node_environ(folder: Path, port: int, dist_port: int, epmd_port: int) -> dict[str, str]:
    """Return the environment of a private node, and write what it reads into its folder."""
    for file, text in (("plugins", "[]."), ("rabbitmq.conf", ""), ("environment", "")):
        (folder / file).write_text(text)
    foreign = ("RABBITMQ_", "ERL_")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return environ | {
        "HOME": str(folder),  # the cookie is made there
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": _LOOPBACK,
        "RABBITMQ_NODENAME": f"amqtask{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": _LOOPBACK,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}"
        ),
    }


def _check_version(kind: _Kind, program: str, environ: Mapping[str, str]) -> None:
    if not kind.at_least:
        return
    _, version = _run([str(Path(program).with_name("rabbitmqctl")), "version"], 60, environ)
    if not version[:1].isdecimal() or int(version.partition(".")[0]) < kind.at_least:
        raise ConfigurationError(
            f"the installed rabbitmq-server is {version}, {kind.at_least} or later is asked"
        )


def _program(name: str) -> str:
    first, *others = _PROGRAM_FOLDERS
    path = os.pathsep.join([first, os.environ.get("PATH", os.defpath), *others])
    found = shutil.which(name, path=path)
    if found is None:
        raise ConfigurationError(f"the program {name} is not installed")
    return found


@contextmanager
def _guarded(
    command: Sequence[str], folder: Path, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "server.log").open("ab") as log:
        guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD, *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environ),
            # of its own, so that Ctrl-C at a terminal reaches the tests before their server
            start_new_session=True,
        )
    try:
        yield guard
    finally:
        if guard.stdin is not None:
            guard.stdin.close()
        try:
            guard.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()


# -- small things -------------------------------------------------------------


def _poll(
    ask: Callable[[], T], what: str, timeout: float, alive: Callable[[], bool] = lambda: True
) -> T:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask()
        except OSError as error:
            if not alive():
                raise ConfigurationError(f"{what} ended before it answered") from error
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{what} did not answer in {timeout:g} s: {error}"
                ) from error
        time.sleep(0.05)


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Give ports of the loopback that the system hands to nobody else as long as the block runs.

    They are bound, and nothing listens on them, so a connection is refused. A server that is told
    such a port can listen there, again after a restart too: it only has to set SO_REUSEADDR, which
    all do that are started here, as does Python.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((_LOOPBACK, 0))
        yield [each.getsockname()[1] for each in sockets]


def _run(
    command: Sequence[str], timeout: float, environ: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Return a program's exit code and the last line it printed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return done.returncode, lines[-1] if lines else ""
