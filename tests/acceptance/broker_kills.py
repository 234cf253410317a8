"""``amqtask broker --data`` under load, killed again and again, and an account of every message.

    start --> publish, consume, ack, give back --> kill -9 at a random moment --+
      ^                                                                         |
      +-------------------------------------------------------------------------+
    in the end: take everything, and compare with what was confirmed and acked

One connection carries it all, so that what is safe follows from the order on the wire and not from
a clock: a confirm says that everything sent before its message is on disk, acks included.
"""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pika
import pika.exceptions
import pytest
from pamqp import commands

from tests.acceptance.program import ROOT, TIMEOUT
from tests.contract.broker.wire import Content, Gone, Wire
from tests.proxy import closed_port

#: A classic queue and a quorum queue, bound alike: every message is in both.
QUEUES = {"classic": "kept-classic", "quorum": "kept-quorum"}
_EXCHANGE = "kept"
#: Messages unconfirmed, and deliveries unacked in each queue, at most.
_WINDOW = 200
#: Seconds in which something that must not come would have come.
_QUIET = 0.3
_ANY_SIZE = resource.RLIM_INFINITY

C = TypeVar("C")
#: A message of a queue.
Copy = tuple[str, int]


class DataBroker:
    """The command, in a process that can be killed.

    Args:
        folder: For ``--data``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = closed_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self, largest: int | None = None) -> None:
        """Start it, without waiting for it.

        Args:
            largest: Octets that its files may have, as if the disk were full then.
        """
        command = [sys.executable, "-m", "amqtask", "broker", "--port", str(self.port)]
        with (self.folder.parent / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--data", str(self.folder)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=None if largest is None else partial(_limit_files, largest),
            )

    def make_room(self) -> None:
        """Take back the limit that it was started with."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (_ANY_SIZE, _ANY_SIZE))

    def connect(self) -> Wire:
        """Return a bare connection, as soon as it listens."""
        return self._connected(lambda: Wire(self.url).login().open_channel())

    def pika(self) -> pika.BlockingConnection:
        """Return a connection of pika, as soon as it listens."""
        return self._connected(lambda: pika.BlockingConnection(pika.URLParameters(self.url)))

    def _connected(self, connect: Callable[[], C]) -> C:
        assert self._process is not None
        deadline = time.monotonic() + TIMEOUT
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the broker did not start: {self.log[-2000:]}")
            with suppress(OSError, pika.exceptions.AMQPConnectionError):
                return connect()
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it for good."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.folder.parent / "broker.log").read_text()


def _limit_files(octets: int) -> None:
    # the hard limit stays: only so can room be made again
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, _ANY_SIZE))


@contextmanager
def data_broker(folder: Path) -> Iterator[DataBroker]:
    """Give a broker that does not run yet; it is killed at the end."""
    broker = DataBroker(folder)
    try:
        yield broker
    finally:
        broker.kill()


class Account:
    """What was sent, and what has to be true of it.

    Attributes:
        confirmed: Numbers of messages that the broker has confirmed.
        safe: Copies whose ack was sent before a message that is confirmed.
        again: How many copies came again after an ack that was not safe.
        faults: What must not have happened.
    """

    def __init__(self) -> None:
        self.published = 0
        self.confirmed: set[int] = set()
        self.acked: set[Copy] = set()
        self.safe: set[Copy] = set()
        self.again = 0
        #: Copies that are confirmed and not acked, and those that were so at a kill and have not
        #: come again since.
        self.waiting: set[Copy] = set()
        self.owed: set[Copy] = set()
        self.faults: list[str] = []

    def confirm(self, number: int, acks: list[Copy]) -> None:
        """Note a confirm, and the acks that were sent before its message."""
        self.confirmed.add(number)
        self.safe.update(acks)
        self.waiting.update({(queue, number) for queue in QUEUES} - self.acked)

    def came(self, copy: Copy) -> None:
        """Note a delivery."""
        self.owed.discard(copy)
        if copy in self.safe:
            self.faults.append(f"{copy} came again, whose ack was on disk")
        elif copy in self.acked:
            self.again += 1

    def ack(self, copy: Copy) -> None:
        """Note that a copy is acked, which is not to say that the broker has heard it."""
        self.acked.add(copy)
        self.waiting.discard(copy)

    def killed(self) -> None:
        """Note that everything that is not acked has to come, again or for the first time."""
        self.owed |= self.waiting

    @property
    def settled(self) -> bool:
        """Whether all that was confirmed is acked, and has come again where it had to."""
        return not self.owed and not self.waiting

    def check(self) -> None:
        """Fail unless all that was confirmed has come."""
        lost = sorted(self.owed | self.waiting)
        assert not lost, f"{len(lost)} confirmed messages are lost: {lost[:10]}"
        assert not self.faults, f"{len(self.faults)} faults: {self.faults[:10]}"


class Load:
    """One connection's life: it publishes and consumes until the broker is gone."""

    def __init__(self, wire: Wire, account: Account, rng: random.Random) -> None:
        self._wire = wire
        self._account = account
        self._rng = rng
        #: Numbers by publish tag, and the acks that were sent before each.
        self._open: deque[tuple[int, int, list[Copy]]] = deque()
        self._tag = 0
        self._acks: list[Copy] = []
        self._out: set[Copy] = set()

    def declare(self) -> None:
        """Make what is needed, and ask for confirms."""
        wire = self._wire
        fanout = commands.Exchange.Declare(exchange=_EXCHANGE, exchange_type="fanout", durable=True)
        wire.call(fanout, commands.Exchange.DeclareOk)
        for kind, queue in QUEUES.items():
            arguments: dict[str, Any] = {"x-queue-type": kind}
            if kind == "quorum":
                arguments["x-delivery-limit"] = -1
            wire.call(
                commands.Queue.Declare(queue=queue, durable=True, arguments=arguments),
                commands.Queue.DeclareOk,
            )
            bind = commands.Queue.Bind(queue=queue, exchange=_EXCHANGE)
            wire.call(bind, commands.Queue.BindOk)
        wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        wire.call(commands.Basic.Qos(0, _WINDOW), commands.Basic.QosOk)

    def consume(self) -> None:
        """Let deliveries come."""
        for kind, queue in QUEUES.items():
            # answers would come among confirms and deliveries
            self._wire.send(commands.Basic.Consume(queue=queue, consumer_tag=kind, nowait=True))

    def run(self, until: float) -> None:
        """Publish and consume until an instant of `time.monotonic`."""
        while time.monotonic() < until:
            self._publish()
            self._take()

    def drain(self) -> None:
        """Take and ack until nothing has to come any more, and a little longer."""
        last = time.monotonic()
        while time.monotonic() < last + (_QUIET if self._account.settled else TIMEOUT):
            if self._take(refuse=0.0):
                last = time.monotonic()

    def _publish(self) -> None:
        for _ in range(min(self._rng.randrange(1, 40), _WINDOW - len(self._open))):
            self._account.published = number = self._account.published + 1
            self._tag += 1
            self._open.append((self._tag, number, self._acks))
            self._acks = []
            body = b"%d %s" % (number, b"x" * self._rng.choice((0, 100, 3000)))
            properties = commands.Basic.Properties(delivery_mode=2)
            self._wire.publish(body, exchange=_EXCHANGE, properties=properties)

    def _take(self, refuse: float = 0.1) -> bool:
        """Handle what has come; False when nothing came."""
        if not select.select([self._wire], [], [], 0.05)[0]:
            return False
        for each in self._wire.arrived():
            if isinstance(each, Content):
                self._delivery(each, refuse)
            else:
                assert isinstance(each, commands.Basic.Ack), each
                self._confirm(each)
        return True

    def _delivery(self, content: Content, refuse: float) -> None:
        copy = content.method.consumer_tag, int(content.body.split()[0])
        tag = content.method.delivery_tag
        if copy in self._out:
            self._account.faults.append(f"{copy} came twice at once")
        self._account.came(copy)
        chance = self._rng.random()
        if chance < refuse / 2:
            self._wire.send(commands.Basic.Nack(tag, requeue=True))
        elif chance < refuse and len(self._out) < _WINDOW // 2:
            # kept unacked: it has to come again after the kill
            self._out.add(copy)
        else:
            self._wire.send(commands.Basic.Ack(tag))
            self._account.ack(copy)
            self._acks.append(copy)

    def _confirm(self, ack: commands.Basic.Ack) -> None:
        while self._open and self._open[0][0] <= (ack.delivery_tag or 0):
            assert ack.multiple or self._open[0][0] == ack.delivery_tag
            _, number, acks = self._open.popleft()
            self._account.confirm(number, acks)


def killed(broker: DataBroker, times: int, seed: int) -> Account:
    """Put load on a broker and kill it so many times; returns the account once all was taken."""
    rng = random.Random(seed)
    account = Account()
    for _ in range(times):
        broker.start()
        if rng.random() < 0.1:
            # while it is starting, or reading what it kept
            time.sleep(rng.uniform(0, 0.8))
            broker.kill()
            continue
        with broker.connect() as wire:
            load = Load(wire, account, rng)
            with suppress(Gone, OSError):
                load.declare()
                ends = time.monotonic() + rng.uniform(0, 0.6)
                if rng.random() < 0.4:
                    # messages pile up, and wait for a later life
                    load.run(min(ends, time.monotonic() + 0.2))
                load.consume()
                load.run(ends)
                # however slow the machine is, there has to be something to lose
                while not account.safe and time.monotonic() < ends + TIMEOUT:
                    load.run(time.monotonic() + 0.1)
                broker.kill()
                # what the socket still holds had left the broker before
                load.drain()
        broker.kill()
        account.killed()
    broker.start()
    with broker.connect() as wire:
        load = Load(wire, account, rng)
        load.declare()
        load.consume()
        load.drain()
    return account


def kills() -> int:
    """Return how often the broker is killed: ``AMQTASK_KILLS``, 50 for the full check."""
    return int(os.environ.get("AMQTASK_KILLS", "4"))
