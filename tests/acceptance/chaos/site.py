"""Everything that a run has to do with: brokers, the ways to them, workers, and what they wrote.

    clients --links--> nodes of the cluster <--links-- workers

A *link* is a proxy to each node, one set for each worker and one for the clients, so that a fault
can hit one of them alone. Where RabbitMQ is not installed the broker is one that runs already:
then it is nobody's to kill, and faults stop at the links.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
import pika.exceptions

from amqtask import App
from amqtask.testing import servers
from amqtask.topology.delay import delay_plan
from amqtask.topology.plan import DeclareQueue
from tests.acceptance.chaos.judge import Parked, Runs
from tests.acceptance.chaos.ledger import Reader
from tests.acceptance.chaos.tasks import EXPENDABLE, FOLDER
from tests.acceptance.chaos.workers import ROOT, Worker
from tests.cluster import Cluster, private_cluster
from tests.proxy import Proxy
from tests.servers import Names

#: What is set for workers and clients alike: heartbeats that fail soon, and a publish deadline
#: that no fault outlasts, so that a client's repeat always comes of a lost connection.
HEARTBEAT = 4
CONNECT_TIMEOUT = 5.0
PUBLISH_TIMEOUT = 90.0
PROCESSES = 2
CONCURRENCY = 6
PREFETCH = 12
#: Queues a worker consumes, each with a prefetch of its own.
QUEUES = 2
#: Seconds that a process has to be gone once nothing keeps it.
STOPPED = 60.0
#: Seconds between two looks at the ledger, and at the processes.
LOOK = 0.2
SAMPLE = 1.0

#: What quorum queues hold of messages that are on their way to a dead-letter exchange.
_HOLDERS = """
    Of = fun(Q) ->
        {ok, {_, O}, _} = ra:local_query(amqqueue:get_pid(Q), fun rabbit_fifo:overview/1),
        Count = maps:get(num_discarded, O, 0) + maps:get(num_discard_checked_out, O, 0),
        {rabbit_misc:rs(amqqueue:get_name(Q)), amqqueue:get_pid(Q), Count}
    end,
    Held = [Each || {_, _, Count} = Each <- [Of(Q) || Q <- rabbit_amqqueue:list(),
        amqqueue:is_quorum(Q)], Count > 0],
"""
_DISCARDED = _HOLDERS + "lists:sum([Count || {_, _, Count} <- Held])."
_HELD = _HOLDERS + "Held."
#: A new leader has a new dead-letter worker.
_MOVE = (
    _HOLDERS
    + """
    Move = fun(Pid) ->
        {ok, Members, Leader} = ra:members(Pid),
        ra:transfer_leadership(Leader, hd(Members -- [Leader]))
    end,
    [Move(Pid) || {_, Pid, _} <- Held].
"""
)


class Link:
    """The way of one worker, or of the clients, to each node."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.proxies = [Proxy(url) for url in urls]

    @property
    def urls(self) -> list[str]:
        """The nodes' URLs, as seen through it."""
        return [proxy.url for proxy in self.proxies]

    @property
    def connections(self) -> int:
        """Connections open now."""
        return sum(proxy.connections for proxy in self.proxies)

    @property
    def ended(self) -> int:
        """Connections that have ended so far."""
        return sum(proxy.accepted for proxy in self.proxies) - self.connections

    def each(self, act: Callable[[Proxy], object]) -> None:
        """Do something to the way to every node."""
        for proxy in self.proxies:
            act(proxy)


class Site:
    """What a run disturbs and looks at.

    Attributes:
        folder: Ledger and logs.
        workers: Each with a link of its own, in the same order as `links`.
        client: The clients' link.
        cluster: None where the broker is not ours to disturb.
        runs: What the ledger tells so far.
    """

    def __init__(
        self, folder: Path, at: Brokers, workers: int, concurrency: int, prefetch: int | None
    ) -> None:
        self.folder = folder
        self.cluster = at.cluster
        self.names = Names()
        self.queue = self.names.queue("chaos")
        self.expendable = self.names.queue("expendable")
        self._probe = self.names.queue("probe")
        self.delay_prefix = self.names.delay_prefix()
        self.exchange = self.names.exchange("tasks")
        self.dead_exchange = self.names.exchange("dead")
        self._urls = at.urls
        self.client = Link(at.urls)
        self.links = [Link(at.urls) for _ in range(workers)]
        ledger = folder / "ledger"
        ledger.mkdir()
        self._reader = Reader(ledger)
        self.runs = Runs()
        options = [
            *("--queues", f"{self.queue},{self.expendable}", "--processes", str(PROCESSES)),
            *("--concurrency", str(concurrency)),
            *(("--prefetch", str(prefetch)) if prefetch is not None else ()),
        ]
        self.workers = [self._worker(index, ledger, options) for index in range(workers)]
        self._reading = threading.Lock()  # `read` is called by the eye and at the end
        self._ending = threading.Event()
        self._eye = threading.Thread(target=self._watch, daemon=True, name="eye")
        self.trouble: list[str] = []

    def _worker(self, index: int, ledger: Path, options: Sequence[str]) -> Worker:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AMQTASK_")}
        environ = kept | {
            "AMQTASK_BROKER": ",".join(self.links[index].urls),
            "AMQTASK_DEFAULT_QUEUE": self.queue,
            "AMQTASK_EXCHANGE": self.exchange,
            "AMQTASK_DEAD_LETTER_EXCHANGE": self.dead_exchange,
            "AMQTASK_DELAY_PREFIX": self.delay_prefix,
            "AMQTASK_HEARTBEAT": str(HEARTBEAT),
            "AMQTASK_CONNECT_TIMEOUT": str(CONNECT_TIMEOUT),
            "AMQTASK_PUBLISH_TIMEOUT": str(PUBLISH_TIMEOUT),
            "PYTHONPATH": str(ROOT),
            FOLDER: str(ledger),
            EXPENDABLE: self.expendable,
        }
        return Worker(f"worker{index + 1}", self.folder, environ, options)

    def app(self) -> App:
        """Return an app for clients: it sends, and knows no task."""
        return App(
            "chaos clients",
            broker=self.client.urls,
            default_queue=self.queue,
            exchange=self.exchange,
            dead_letter_exchange=self.dead_exchange,
            delay_prefix=self.delay_prefix,
            heartbeat=HEARTBEAT,
            connect_timeout=CONNECT_TIMEOUT,
            publish_timeout=PUBLISH_TIMEOUT,
        )

    # -- looking ------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers, and the eye on all that goes on."""
        for worker in self.workers:
            worker.start()
        self._eye.start()

    def read(self) -> None:
        """Take in what the ledger has by now."""
        with self._reading:
            for event in self._reader.news():
                self.runs.add(event, self.supervisors)

    @property
    def supervisors(self) -> set[int]:
        """Pids of all supervisors there have been."""
        return {pid for worker in self.workers for pid in worker.supervisors}

    def settled(self) -> int:
        """Return how many calls are over."""
        return len(self.runs.settled)

    def silent(self, since: float) -> list[str]:
        """Name what has not begun a task since then: each worker process, or one that is missing.

        Args:
            since: `time.monotonic`.
        """
        found = []
        for worker in self.workers:
            children = worker.children
            if len(children) != PROCESSES:
                found.append(f"{worker.name} has {len(children)} of {PROCESSES} children")
            found += [
                f"{worker.name} pid {child.pid}"
                for child in children
                if self.runs.latest.get(child.pid, 0.0) <= since
            ]
        return found

    def _watch(self) -> None:
        due = 0.0
        while not self._ending.wait(LOOK):
            try:
                self.read()
                if time.monotonic() >= due:
                    due = time.monotonic() + SAMPLE
                    for worker in self.workers:
                        worker.look()
            except Exception as error:  # said at the end; the thread must not end in silence
                self.trouble.append(f"the eye on the run failed: {error!r}")
                raise

    # -- the broker -----------------------------------------------------------------

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Give a channel to a node that answers, past all proxies."""
        connection = _connect(self._urls)
        try:
            yield connection.channel()
        finally:
            with suppress(pika.exceptions.AMQPError):
                connection.close()

    def await_broker(self, timeout: float = 90.0) -> None:
        """Wait until the queue's leader confirms a message that it is handed."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with self.channel() as channel:
                    channel.confirm_delivery()
                    arguments = {"x-queue-type": "quorum", "x-max-length": 1}
                    channel.queue_declare(self._probe, durable=True, arguments=arguments)
                    channel.basic_publish("", self._probe, b"probe", mandatory=True)
                    channel.queue_declare(self.queue, passive=True)
                return
            except (pika.exceptions.AMQPError, OSError) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the broker did not come back: {error!r}") from error
                time.sleep(0.2)

    def empty(self) -> tuple[list[Parked], dict[str, str]]:
        """Take all messages out of all queues; the workers have ended.

        Returns:
            What was parked, and the queue of each other id.
        """
        parked: list[Parked] = []
        left: dict[str, str] = {}
        levels = [
            step.name
            for step in delay_plan(self.delay_prefix).steps
            if isinstance(step, DeclareQueue)
        ]
        connection = _connect(self._urls)
        for queue in (self.queue, self.expendable):
            parked += [
                Parked(message.message_id, _reason(message.headers or {}))
                for message in _all(connection, f"{queue}.dead")
            ]
        for queue in (self.queue, self.expendable, *levels, self.strand):
            left |= {each.message_id: queue for each in _all(connection, queue)}
        connection.close()
        return parked, left

    @property
    def strand(self) -> str:
        """Name of the queue that keeps delayed messages that no queue took."""
        return f"{self.delay_prefix}.lost"

    def between(self) -> int:
        """Return how many dead letters have left one queue and not reached the next.

        They are in no queue's count of messages, and no client can get them.
        """
        if self.cluster is None:
            return 0
        return int(self.cluster.nodes[0].evaluate(_DISCARDED))

    def move(self) -> str:
        """Have another node lead the queues that hold those dead letters; return which do."""
        if self.cluster is None:
            return ""
        held = self.cluster.nodes[0].evaluate(_HELD)
        self.cluster.nodes[0].evaluate(_MOVE)
        return held

    def close(self) -> None:
        """End whatever still runs."""
        self._ending.set()
        self._eye.join()
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
            for member in worker.alive():
                with suppress(Exception):
                    member.process.kill()
        for link in (self.client, *self.links):
            link.each(Proxy.close)
        with suppress(pika.exceptions.AMQPError, OSError):  # a cluster goes with all it has
            self.names.delete(self._urls[0])


def _connect(urls: Sequence[str]) -> pika.BlockingConnection:
    *others, last = urls
    for url in others:
        with suppress(pika.exceptions.AMQPError, OSError):
            return pika.BlockingConnection(_parameters(url))
    return pika.BlockingConnection(_parameters(last))


def _parameters(url: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.blocked_connection_timeout = 10.0
    return parameters


def _all(connection: pika.BlockingConnection, queue: str) -> Iterator[Any]:
    """Take all messages of a queue, of one that is gone none."""
    channel = connection.channel()
    with suppress(pika.exceptions.ChannelClosedByBroker):
        while True:
            method, properties, _ = channel.basic_get(queue, auto_ack=True)
            if method is None:
                break
            yield properties


def _reason(headers: dict[str, Any]) -> str:
    said = headers.get("amqtask-reason")
    if said is None and headers.get("x-death"):
        said = headers["x-death"][0].get("reason")
    return str(said)


@dataclass(frozen=True, slots=True)
class Brokers:
    """The broker of a run.

    Attributes:
        cluster: None where it is not ours to disturb.
    """

    urls: list[str]
    version: str
    cluster: Cluster | None


@contextmanager
def brokers(*, private: bool) -> Iterator[Brokers]:
    """Give brokers for as long as the block runs.

    Args:
        private: Whether a cluster of its own is started; else one is taken that runs already.
    """
    if private:
        with private_cluster() as cluster:
            yield Brokers(cluster.urls, cluster.version, cluster)
    else:
        with servers.find_or_start("rabbitmq") as server:
            yield Brokers([server.url], server.version, None)


@contextmanager
def site(
    at: Brokers, name: str, *, workers: int, concurrency: int, prefetch: int | None
) -> Iterator[Site]:
    """Give a site for as long as the block runs; its folder stays.

    Args:
        name: Of the folder, among others.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"amqtask-chaos-{name}-"))
    made = Site(folder, at, workers, concurrency, prefetch)
    try:
        yield made
    finally:
        made.close()
