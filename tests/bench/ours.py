"""amqtask's side: each function is run in a process of its own, and returns what it measured."""

from __future__ import annotations

import threading
import time
from typing import Any

from amqtask import chord
from tests.bench.tasks import amark, anoop, app, echo, mark, noop, total

#: Calls before the clock starts: connection, queue, caches.
WARM_UP = 500


def pipelined(count: int) -> dict[str, Any]:
    """Publish from one plain thread, confirms pipelined."""
    _warm_up()
    began, used = time.perf_counter(), time.process_time()
    with app.pipeline() as pipeline:
        for _ in range(count):
            noop.delay()
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    if pipeline.confirmed != count:
        raise AssertionError(f"{pipeline.confirmed} of {count} were confirmed")
    return {"count": count, "seconds": seconds, "cpu": cpu}


def one_by_one(count: int, threads: int) -> dict[str, Any]:
    """Publish from some threads, each waiting for its confirm before it goes on."""
    _warm_up()
    each = count // threads
    start = threading.Barrier(threads + 1)

    def publish() -> None:
        start.wait()
        for _ in range(each):
            noop.delay()

    workers = [threading.Thread(target=publish) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began, used = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.join()
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"count": each * threads, "seconds": seconds, "cpu": cpu}


def fill(count: int, marks: list[str], on_loop: bool) -> dict[str, Any]:
    """Fill the queue with no-op tasks, with marks spread evenly among them.

    Args:
        marks: Files; the first is written before all other tasks, the last after them.
        on_loop: Whether the tasks are async.
    """
    task, marking = (anoop, amark) if on_loop else (noop, mark)
    gaps = len(marks) - 1
    began, used = time.perf_counter(), time.process_time()
    with app.pipeline():
        marking.delay(marks[0])
        for path in marks[1:]:
            for _ in range(count // gaps):
                task.delay()
            marking.delay(path)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"count": count, "seconds": seconds, "cpu": cpu}


def round_trips(count: int) -> dict[str, Any]:
    """Call and wait for the result, one after the other."""
    for number in range(20):
        echo.delay(number).get(timeout=30)
    began, used = time.perf_counter(), time.process_time()
    for number in range(count):
        if echo.delay(number).get(timeout=30) != number:
            raise AssertionError("the answer belongs to another call")
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"count": count, "seconds": seconds, "cpu": cpu}


def in_flight(count: int) -> dict[str, Any]:
    """Send all calls, then wait for all results."""
    echo.delay(0).get(timeout=30)
    began, used = time.perf_counter(), time.process_time()
    with app.pipeline():
        results = [echo.delay(number) for number in range(count)]
    for number, result in enumerate(results):
        if result.get(timeout=120) != number:
            raise AssertionError("the answer belongs to another call")
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"count": count, "seconds": seconds, "cpu": cpu}


def chords(count: int, size: int) -> dict[str, Any]:
    """Send chords, then wait for all results."""
    chord([echo.s(1)], total.s()).delay().get(timeout=30)
    began, used = time.perf_counter(), time.process_time()
    with app.pipeline():
        results = [
            chord([echo.s(number) for number in range(size)], total.s()).delay()
            for _ in range(count)
        ]
    for result in results:
        if result.get(timeout=240) != size * (size - 1) // 2:
            raise AssertionError("a body got other values")
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"count": count, "seconds": seconds, "cpu": cpu}


def _warm_up() -> None:
    with app.pipeline():
        for _ in range(WARM_UP):
            noop.delay()


def finish() -> None:
    """Disconnect."""
    app.close()
