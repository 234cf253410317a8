"""Dramatiq. Best: no confirms. Safe: confirms. It always acks after the run."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.bench.peers import clock, clocked, said, write_mark

WARM_UP = 200
_said = said()

broker = RabbitmqBroker(url=_said.url, confirm_delivery=_said.safe)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=_said.queue, max_retries=0)
def noop() -> None:
    """Do nothing."""


@dramatiq.actor(queue_name=_said.queue, max_retries=0)
def mark(path: str) -> None:
    """Write down when the stream of tasks came to here."""
    write_mark(path)


def bulk(count: int) -> dict[str, Any]:
    """Publish from one thread."""
    for _ in range(WARM_UP):
        noop.send()
    began = clock()
    for _ in range(count):
        noop.send()
    return clocked(began, count)


def one_by_one(count: int, threads: int) -> dict[str, Any]:
    """Publish from some threads; each has a connection of its own, as the library has it."""
    each = count // threads
    start = threading.Barrier(threads + 1)

    def publish() -> None:
        noop.send()
        start.wait()
        for _ in range(each):
            noop.send()

    workers = [threading.Thread(target=publish) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = clock()
    for worker in workers:
        worker.join()
    return clocked(began, each * threads)


def fill(count: int, marks: list[str], on_loop: bool) -> dict[str, Any]:
    """Fill the queue with no-op tasks, with marks spread evenly among them."""
    assert not on_loop, "an async actor costs a thread besides"
    gaps = len(marks) - 1
    began = clock()
    mark.send(marks[0])
    for path in marks[1:]:
        for _ in range(count // gaps):
            noop.send()
        mark.send(path)
    return clocked(began, count)


def finish() -> None:
    """Disconnect."""
    broker.close()
