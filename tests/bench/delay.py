"""How late delayed calls are, and what many that wait cost a worker.

``python -m tests.bench.delay [--calls 1000] [--longest 20] [--spread 10]
[--waiting 100000]``
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil

from amqtask.testing import servers
from tests.acceptance.delayed import Delays
from tests.acceptance.program import Program, Workshop, workshop_in
from tests.helpers import eventually
from tests.servers import Names

#: The promise for 0.1 to 20 s with 1,000 waiting: seconds of lateness in the middle, and at most.
MEDIAN, WORST = 0.05, 0.25
#: Seconds beyond the longest delay after which a call counts as lost.
GRACE = 120.0
_HOUR = 3600.0
#: Calls sent by one process: so many take well less than a program of the tests may.
_AT_ONCE = 5_000


def main() -> None:
    """Measure and show."""
    said = _arguments()
    with servers.find_or_start(said.broker) as server:
        names = Names()
        try:
            with (
                TemporaryDirectory(prefix="amqtask-bench-") as folder,
                workshop_in(Path(folder), server.url, names) as workshop,
            ):
                print(f"RabbitMQ {server.version}, load {os.getloadavg()[0]:.1f}")
                _measure(workshop, said)
        finally:
            names.delete(server.url)


def _measure(workshop: Workshop, said: argparse.Namespace) -> None:
    delays = Delays(workshop)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    delays.send(1, 0.1, 0.2)  # makes the levels
    eventually(lambda: delays.runs().total() == 1, timeout=GRACE)
    for spread in (said.spread, 0.0):
        _lateness(delays, said.calls, said.longest, spread)
    before = _memory(worker)
    for sent in range(0, said.waiting, _AT_ONCE):
        delays.send(min(_AT_ONCE, said.waiting - sent), _HOUR, 2 * _HOUR)
    print(f"memory of the worker: {before:.1f} MiB, with {said.waiting:,} waiting", end=" ")
    print(f"{_memory(worker):.1f} MiB")
    for spread in (said.spread, 0.0):
        _lateness(delays, said.calls, said.longest, spread, waiting=said.waiting)
    print(f"memory of the worker afterwards: {_memory(worker):.1f} MiB")
    worker.stop()


def _lateness(delays: Delays, calls: int, longest: float, spread: float, waiting: int = 0) -> None:
    known = delays.lateness()
    delays.send(calls, 0.1, longest, spread)
    eventually(lambda: len(delays.lateness()) >= len(known) + calls, timeout=longest + GRACE)
    late = delays.lateness()
    for value in known:
        late.remove(value)
    ninety_nine = late[int(len(late) * 0.99)]
    kept = "kept" if median(late) < MEDIAN and late[-1] < WORST and late[0] >= 0 else "NOT kept"
    print(
        f"{calls:,} calls of 0.1 to {longest:g} s, sent "
        f"{f'over {spread:g} s' if spread else 'at once'}, {waiting:,} others waiting: late by "
        f"{median(late) * 1e3:.0f} ms in the median, {ninety_nine * 1e3:.0f} ms p99, "
        f"{late[-1] * 1e3:.0f} ms at most, {late[0] * 1e3:.1f} ms at least: promise {kept}"
    )


def _memory(worker: Program) -> float:
    """Return what the supervisor and its children have in memory, in MiB."""
    processes = [psutil.Process(worker.process.pid), *worker.children()]
    return float(sum(process.memory_info().rss for process in processes)) / 2**20


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.delay", description=__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="calls whose lateness is measured")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds of the longest delay")
    parser.add_argument("--spread", type=float, default=10.0, help="seconds to send them over")
    parser.add_argument("--waiting", type=int, default=100_000, help="calls that wait for hours")
    parser.add_argument("--broker", default="rabbitmq", choices=("rabbitmq", "rabbitmq4"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
