"""A RabbitMQ cluster of its own, from the installed package, for tests that kill its nodes.

    absent --start--> booting --answers--> up --kill, stop--> down --start--> booting ...

It shares nothing with a broker of the system: own ports, own epmd, own cookie, own folders, and
loopback only. Nodes find each other by a list in their configuration, so they boot side by side,
and each knows its own place again after it was killed. Every node has a guard that ends it with
the process that started it, also when that one was killed.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from amqtask.errors import ConfigurationError
from amqtask.testing import servers

#: Seconds that a node may take to do as it is told.
COMMAND_TIMEOUT = 60.0
#: Seconds after which a node hands on again a dead letter that no queue has confirmed: one that
#: was under way when a node went, or found no binding while one booted. RabbitMQ's own 180 would
#: have a test of delays wait for up to twice that.
RESEND = 30.0
_COOKIE = "amqtask-tests"
_ADVANCED = "[{{rabbit, [{{dead_letter_worker_publisher_confirm_timeout, {:.0f}}}]}}].\n"


class Node:
    """One broker of a cluster.

    Attributes:
        name: The Erlang node, such as ``amqtask40001@localhost``.
        url: Where it listens.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.name = environ["RABBITMQ_NODENAME"]
        self.port = int(environ["RABBITMQ_NODE_PORT"])
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._folder = folder
        self._environ = environ
        self._program = servers._program("rabbitmq-server")
        self._run = ExitStack()
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to boot; `await_up` waits for the end of it."""
        self._run.close()
        guarded = servers._guarded([self._program], self._folder, self._environ)
        self._guard = self._run.enter_context(guarded)

    def await_up(self) -> str:
        """Wait until it answers, and return its version.

        Raises:
            ConfigurationError: It ended, or did not answer in time; its log is in the notes.
        """
        try:
            server = servers.await_server(
                "rabbitmq", "127.0.0.1", self.port, "program", alive=self._alive
            )
        except ConfigurationError as error:
            error.add_note(self.log[-2000:])
            raise
        return server.version

    def kill(self) -> None:
        """End it with SIGKILL, as a machine that loses its power."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._gone()

    def stop(self) -> None:
        """End it in good order: it leaves what it led to the others first."""
        for process in self._processes():
            if process.name() == "beam.smp":
                process.terminate()
        self._gone()

    @property
    def log(self) -> str:
        """What it has written."""
        return (self._folder / "server.log").read_text(errors="replace")

    def evaluate(self, expression: str) -> str:
        """Have the node evaluate an Erlang expression and return the value as it prints it.

        RabbitMQ's own tools do the same, but start an Erlang machine for each command.

        Raises:
            AssertionError: It could not.
        """
        done = subprocess.run(
            [_erl_call(), "-sname", self.name, "-c", _COOKIE, "-e"],
            env=dict(self._environ),
            input=f"{expression}\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_TIMEOUT,
            check=False,
            text=True,
        )
        said = done.stdout.strip()
        assert said.startswith("{ok, "), f"{self.name} does not evaluate {expression!r}: {said}"
        return said.removeprefix("{ok, ").removesuffix("}")

    def _alive(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def _processes(self) -> list[psutil.Process]:
        if self._guard is None or self._guard.poll() is not None:
            return []
        found: list[psutil.Process] = psutil.Process(self._guard.pid).children(recursive=True)
        return found

    def _gone(self) -> None:
        if self._guard is not None:
            self._guard.wait(servers.STOP_TIMEOUT)
        self._run.close()


class Cluster:
    """Nodes that replicate quorum queues among them.

    Attributes:
        nodes: In the order of their ports; any of them may be down.
        version: Of RabbitMQ.
        folder: What they keep and write.
    """

    def __init__(self, nodes: list[Node], folder: Path) -> None:
        self.nodes = nodes
        self.version = ""
        self.folder = folder

    @property
    def urls(self) -> list[str]:
        """Where the nodes listen."""
        return [node.url for node in self.nodes]

    def start(self) -> None:
        """Boot all nodes side by side, and wait until they are one cluster."""
        self.each(Node.start)
        for node in self.nodes:
            self.version = node.await_up()
        deadline = time.monotonic() + servers.START_TIMEOUT
        while (size := self.size()) != len(self.nodes):
            if time.monotonic() > deadline:
                raise ConfigurationError(f"{size} of {len(self.nodes)} nodes found each other")

    def size(self) -> int:
        """Return how many nodes the first one sees running, itself among them."""
        return int(self.nodes[0].evaluate("length(rabbit_nodes:all_running())."))

    def split(self, node: Node) -> None:
        """Cut a node off from the others, as a network that fails between them; clients keep theirs.

        It needs no rights over a network: nodes that do not know each other's cookie are strangers.
        """
        others = self._others(node)
        node.evaluate(
            f"[begin erlang:set_cookie(N, split), erlang:disconnect_node(N) end {others}]."
        )
        self._wait_until_it_sees(node, 0)

    def heal(self, node: Node) -> None:
        """Join a node that was cut off with the others again."""
        others = self._others(node)
        node.evaluate(
            f"[begin erlang:set_cookie(N, '{_COOKIE}'), net_kernel:connect_node(N) end {others}]."
        )
        self._wait_until_it_sees(node, len(self.nodes) - 1)

    def _others(self, node: Node) -> str:
        names = ", ".join(f"'{each.name}'" for each in self.nodes if each is not node)
        return f"|| N <- [{names}]"

    @staticmethod
    def _wait_until_it_sees(node: Node, count: int) -> None:
        deadline = time.monotonic() + COMMAND_TIMEOUT
        while (seen := node.evaluate("length(nodes()).")) != str(count):
            assert time.monotonic() < deadline, f"{node.name} sees {seen} nodes, not {count}"

    def each(self, act: Callable[[Node], object]) -> None:
        """Do something to every node in turn."""
        for node in self.nodes:
            act(node)


def _erl_call() -> str:
    """Return the program that speaks to an Erlang node, which comes with Erlang."""
    erl = Path(servers._program("erl")).resolve()
    for folder in (erl.parent, *erl.parents[:2]):
        for found in sorted(folder.glob("erts-*/bin/erl_call")) or [folder / "erl_call"]:
            if found.is_file():
                return str(found)
    raise ConfigurationError(f"erl_call is not beside {erl}: install Erlang's erl_interface")


@contextmanager
def private_cluster(count: int = 3) -> Iterator[Cluster]:
    """Give a cluster for as long as the block runs, and remove it and its data afterwards.

    Raises:
        ConfigurationError: RabbitMQ is not installed, or did not start.
    """
    servers._program("rabbitmq-server")
    _erl_call()
    epmd = servers._program("epmd")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amqtask-cluster-")))
        cookie = folder / ".erlang.cookie"
        cookie.write_text(_COOKIE)
        cookie.chmod(0o400)
        ports = stack.enter_context(servers.reserved_ports(2 * count + 1))
        environs = []
        for index in range(count):
            own = folder / f"node{index + 1}"
            own.mkdir()
            environ = servers._node_environ(own, ports[index], ports[count + index], ports[-1])
            environs.append(environ | {"HOME": str(folder)})
        names = [environ["RABBITMQ_NODENAME"] for environ in environs]
        for environ in environs:
            Path(environ["RABBITMQ_CONFIG_FILE"]).write_text(_configuration(names))
            advanced = Path(environ["RABBITMQ_ADVANCED_CONFIG_FILE"])
            advanced.write_text(_ADVANCED.format(RESEND * 1000))
        # one for all, before the first node starts one that outlives it
        stack.enter_context(servers._guarded([epmd, "-port", str(ports[-1])], folder, environs[0]))
        nodes = [Node(Path(each["RABBITMQ_CONFIG_FILE"]).parent, each) for each in environs]
        cluster = Cluster(nodes, folder)
        # nothing they hold is needed any more, and good order takes them half a minute
        stack.callback(cluster.each, Node.kill)
        cluster.start()
        yield cluster


def _configuration(names: list[str]) -> str:
    lines = ["cluster_formation.peer_discovery_backend = classic_config"]
    lines += [
        f"cluster_formation.classic_config.nodes.{index} = {name}"
        for index, name in enumerate(names, 1)
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes of the test's own."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(private_cluster(3))
        except ConfigurationError as error:
            if {"rabbitmq", servers.CLUSTER} & servers.required():
                raise
            pytest.skip(str(error))
        yield made
