"""Dramatiq. Best: no confirms. Safe: confirms. It always acks after the run."""

from __future__ import annotations

import threading
import time
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.bench import work
from tests.bench.peers import said
from tests.bench.work import APART, clock, clocked

WARM_UP = 200
_said = said()

broker = RabbitmqBroker(url=_said.url, confirm_delivery=_said.safe)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=_said.queue, max_retries=0)
def noop() -> None:
    """Do nothing."""


@dramatiq.actor(queue_name=_said.queue, max_retries=0)
def take(text: str) -> None:
    """Do nothing with an argument."""


@dramatiq.actor(queue_name=_said.queue, max_retries=0)
def mix() -> None:
    """Wait and compute."""
    work.mix()


@dramatiq.actor(queue_name=_said.queue, max_retries=0)
def note(sent: float, path: str) -> None:
    """Note how long ago it was sent."""
    work.note_start(sent, path)


@dramatiq.actor(queue_name=_said.queue, max_retries=0)
def mark(path: str) -> None:
    """Write down when the stream of tasks came to here."""
    work.write_mark(path)


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


def fill(count: int, marks: list[str], kind: str, size: int) -> dict[str, Any]:
    """Fill the queue with tasks, with marks spread evenly among them."""
    actor, arguments = globals()[kind], ("x" * size,) if size else ()
    gaps = max(1, len(marks) - 1)
    began = clock()
    mark.send(marks[0])
    for path in marks[1:]:
        for _ in range(count // gaps):
            actor.send(*arguments)
        mark.send(path)
    return clocked(began, count)


def paced(count: int, path: str) -> dict[str, Any]:
    """Call now and then, so that the worker has nothing else to do."""
    began = clock()
    for left in reversed(range(count)):
        time.sleep(APART)
        note.send(time.monotonic(), "" if left else path)
    return clocked(began, count)


def finish() -> None:
    """Disconnect."""
    broker.close()
