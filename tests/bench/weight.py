"""How light the embedded broker is: ``python -m tests.bench.weight``.

Start-up in process, a thousand connections at once, memory over a million messages, and what a
thousand brokers leave behind when they were started and stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from tempfile import TemporaryDirectory

import psutil

from amqtask.broker import Broker
from tests.bench.embedded import relay
from tests.bench.place import Place
from tests.contract.broker.wire import Wire
from tests.embedded import broker_process, lives

#: Tells what the broker adds to a program that uses amqtask.
_IMPORT = (
    "import amqtask, time; began = time.process_time(); import amqtask.broker; "
    "print(time.process_time() - began)"
)
_MIB = 2**20


def main() -> None:
    """Measure and print."""
    said = _arguments()
    checks: dict[str, Callable[[], None]] = {
        "start": _start,
        "connections": lambda: _connections(said.connections),
        "memory": lambda: _memory(said.messages),
        "lives": lambda: _lives(said.lives),
    }
    for name in said.only.split(",") if said.only else checks:
        checks[name]()


def _start() -> None:
    """Time starting a broker until it listens, and importing it."""

    async def once() -> float:
        began = time.perf_counter()
        async with Broker():
            return time.perf_counter() - began

    times = sorted(asyncio.run(once()) * 1e3 for _ in range(50))
    with TemporaryDirectory() as folder:
        # compiled modules, as an installed package has them
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        _, *imports = [
            float(subprocess.check_output([sys.executable, "-c", _IMPORT], env=environment)) * 1e3
            for _ in range(6)
        ]
    print(
        f"start-up in process: {median(times):.2f} ms in the median of {len(times)}, "
        f"{times[-1]:.2f} ms at most; importing it beside amqtask takes {median(imports):.0f} ms "
        "of processor time"
    )


def _connections(count: int) -> None:
    """Hold many connections at once, each with an open channel."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with broker_process() as broker, ExitStack() as stack:
        process = psutil.Process(broker.pid)
        before = process.memory_info().rss
        began = time.perf_counter()
        for _ in range(count):
            stack.enter_context(Wire(broker.url)).login().open_channel()
        seconds = time.perf_counter() - began
        each = (process.memory_info().rss - before) / count / 1024
        print(
            f"{count:,} connections at once, opened one after the other in {seconds:.1f} s: "
            f"{each:.1f} KiB each"
        )


def _memory(count: int) -> None:
    """Carry many messages, and look at the broker's memory."""
    tenth = max(1, count // 10)
    with broker_process() as broker, Place.at(broker.url) as place:
        process = psutil.Process(broker.pid)
        place.declare()
        seen = []
        for _ in range(10):
            relay(place, "frames", tenth)
            seen.append(process.memory_info().rss / _MIB)
    shown = ", ".join(f"{each:.1f}" for each in seen)
    print(f"memory after each {tenth:,} of {count:,} messages, in MiB: {shown}")


def _lives(count: int) -> None:
    """Start and stop brokers, each with a client, and count what is left."""
    sockets, threads, tasks = asyncio.run(lives(count))
    print(
        f"{count:,} brokers started and stopped, half of them in threads: {sockets} descriptors, "
        f"{threads} threads and {tasks} tasks more than before"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.weight", description=__doc__)
    parser.add_argument("--only", default="", help="start, connections, memory, lives")
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--lives", type=int, default=1_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
