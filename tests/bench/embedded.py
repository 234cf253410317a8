"""The embedded broker beside RabbitMQ: ``python -m tests.bench.embedded``.

One producer publishes with confirms, one consumer takes and acks each message by itself, both at
once and each in a process of its own. What a machine can do follows from the processor time that
the broker takes for a message, which other work on the machine does not distort.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from urllib.parse import urlsplit

import psutil
from rich.console import Console

from amqtask.testing import servers
from tests.bench.bare import WARM_UP
from tests.bench.measure import Case, Contender, Reading, measure
from tests.bench.place import ROOT, TIMEOUT, Place
from tests.bench.report import show
from tests.embedded import broker_process

EMBEDDED = "amqtask broker"
#: Messages a second that the embedded broker is meant to carry.
TARGET = 8_000
#: Messages unconfirmed, and deliveries unacked, at most.
WINDOW = 1_000


def main() -> None:
    """Measure and show."""
    said = _arguments()
    console = Console(width=max(Console().width, 150))
    with contextlib.ExitStack() as stack:
        rabbitmq = stack.enter_context(servers.find_or_start("rabbitmq"))
        urls = {f"RabbitMQ {rabbitmq.version}": rabbitmq.url}
        urls[EMBEDDED] = stack.enter_context(broker_process()).url
        if said.data:
            folder = str(said.data)
            urls[f"{EMBEDDED} --data"] = stack.enter_context(broker_process("--data", folder)).url
        places = {name: stack.enter_context(Place.at(url)) for name, url in urls.items()}
        for place in places.values():
            place.declare()
        loads: list[float] = []

        def progress(line: str) -> None:
            loads.append(os.getloadavg()[0])
            print(line, file=sys.stderr, flush=True)

        def clean() -> None:
            for place in places.values():
                place.clean()

        for clients, title in (("frames", "bare frames"), ("bare", "pika")):
            case = Case(
                clients,
                f"Publish, confirm, consume, ack with clients of {title}: {said.count:,} messages; "
                f"{EMBEDDED} is meant to carry {TARGET:,} a second",
                "",
                [
                    Contender(name, partial(_run, name, place, clients, said.count))
                    for name, place in places.items()
                ],
                next(iter(places)),
            )
            show(console, measure(case, said.rounds, progress, clean))
    console.print(
        f"{os.cpu_count()} processors; load average from {min(loads):.1f} to {max(loads):.1f}; CPU "
        "is the broker's, per message",
        highlight=False,
    )


def _run(name: str, place: Place, clients: str, count: int) -> Mapping[str, Reading]:
    cpu = _processor_time(place.url)
    before = cpu()
    count, seconds = relay(place, clients, count)
    used = cpu() - before
    place.check_empty()
    return {name: Reading(count, seconds, used or None)}


def relay(place: Place, clients: str, count: int) -> tuple[int, float]:
    """Send messages through a broker; returns how many, and the seconds it took.

    Args:
        clients: ``"frames"`` or ``"bare"``, the module whose clients do it.
    """
    consumer = {"url": place.url, "queue": place.queue, "count": count}
    producer = {**consumer, "exchange": place.exchange}
    if clients == "frames":
        with _side("frames", "consume", **consumer, prefetch=WINDOW) as taking:
            _line(taking)  # it consumes
            with _side("frames", "produce", **producer, window=WINDOW) as sending:
                began = json.loads(_line(sending))["began"]
            return count, json.loads(_line(taking))["ended"] - began
    # what pika's side sends to warm up is taken too
    consumer["count"] = count + WARM_UP
    with (
        _side("bare", "drain", **consumer, prefetch=WINDOW, coalesced=False) as taking,
        _side("bare", "pipelined", **producer),
    ):
        return count + WARM_UP, json.loads(_line(taking))["seconds"]


@contextlib.contextmanager
def _side(module: str, function: str, **arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run one side in a process of its own, and wait for its end."""
    call = [module, function, json.dumps(arguments)]
    command = [sys.executable, "-m", "tests.bench.side", *call]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        if process.wait(TIMEOUT):
            raise AssertionError(f"{module}.{function} failed")


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _processor_time(url: str) -> Callable[[], float]:
    """Return what tells the processor time of a broker on this machine; 0 where it is hidden."""
    port = urlsplit(url).port or 5672
    with contextlib.suppress(psutil.AccessDenied):
        for each in psutil.net_connections("tcp"):
            if each.laddr.port == port and each.status == psutil.CONN_LISTEN and each.pid:
                return partial(_used, psutil.Process(each.pid))
    return lambda: 0.0


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.embedded", description=__doc__)
    parser.add_argument("--count", type=int, default=40_000, help="messages in a reading")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each broker")
    parser.add_argument("--data", help="a folder: measure the embedded broker with --data, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
