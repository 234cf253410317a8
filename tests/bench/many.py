"""Whether memory stays flat over a million results: ``python -m tests.bench.many redis://host``.

A worker's end stores, a caller's end waits for and reads, each in this one process. A tenth is for
warming up; what is used after that and at the end has to be alike.
"""

from __future__ import annotations

import argparse
import gc
import sys
import threading
import uuid

import psutil

from amqtask import AsyncResult
from amqtask.testing import servers
from tests.bench.result_sides import ANSWER, open_apps, ready, store
from tests.servers import Names

#: Results that are on their way at once.
ROUND = 2_000
#: MiB that may come on top after the warm-up: what an allocator keeps varies by as much.
ROOM = 4.0


def main() -> None:
    """Store, read and drop results, and say what memory did."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many", description=__doc__)
    parser.add_argument("url", help="the backend, as in the setting")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--broker", default="rabbitmq", choices=("rabbitmq", "rabbitmq4"))
    said = parser.parse_args()
    names = Names()
    with servers.find_or_start(said.broker) as broker:
        try:
            seen = _seen(said.url, broker.url, names.queue("bench"), said.count)
        finally:
            names.delete(broker.url)
    grown = seen[-1] - seen[0]
    threads = [each.name for each in threading.enumerate() if each.name.startswith("amqtask")]
    print(
        f"from {seen[0]:.1f} to {seen[-1]:.1f} MiB; threads left after close: {threads or 'none'}"
    )
    if grown > ROOM or threads:
        sys.exit(f"memory grew by {grown:.1f} MiB" if grown > ROOM else "threads are left")


def _seen(url: str, broker: str, queue: str, count: int) -> list[float]:
    """Return the MiB used at each tenth."""
    worker, caller = open_apps(url, broker, queue)
    backend = worker.backend
    assert backend is not None
    reply_to = ready(caller, queue)
    seen = []
    for part in range(1, 11):
        for _ in range(max(1, count // 10 // ROUND)):
            handles: list[AsyncResult[int]] = [
                caller.result(str(uuid.uuid4())) for _ in range(ROUND)
            ]
            store(backend, [handle.id for handle in handles], reply_to)
            got = [handle.get(ANSWER) for handle in handles]
            assert got == list(range(ROUND))
        gc.collect()
        seen.append(psutil.Process().memory_info().rss / 2**20)
        print(f"{part * count // 10:>9,} results: {seen[-1]:.1f} MiB", flush=True)
    for app in (worker, caller):
        app.close()
    return seen


if __name__ == "__main__":
    main()
