"""amqtask's side: each function is run in a process of its own, and returns what it measured."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from amqtask import Queue, chord
from tests.bench import tasks
from tests.bench.tasks import amark, app, echo, mark, noop, note, tally, total
from tests.bench.work import APART, clock, clocked, tail

#: Calls before the clock starts: connection, queue, caches.
WARM_UP = 500
#: Calls awaited together; more at once are no faster.
GATHERED = 1000


def pipelined(count: int) -> dict[str, Any]:
    """Publish from one plain thread, confirms pipelined."""
    _warm_up()
    began = clock()
    with app.pipeline() as pipeline:
        for _ in range(count):
            noop.delay()
    found = clocked(began, count)
    if pipeline.confirmed != count:
        raise AssertionError(f"{pipeline.confirmed} of {count} were confirmed")
    return found


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
    began = clock()
    for worker in workers:
        worker.join()
    return clocked(began, each * threads)


def awaited(count: int) -> dict[str, Any]:
    """Publish from a coroutine, each call awaited before the next."""
    _warm_up()

    async def main() -> dict[str, Any]:
        began = clock()
        for _ in range(count):
            await noop.adelay()
        return clocked(began, count)

    return asyncio.run(main())


def gathered(count: int) -> dict[str, Any]:
    """Publish from coroutines, many at a time."""
    _warm_up()

    async def main() -> dict[str, Any]:
        began = clock()
        for start in range(0, count, GATHERED):
            await asyncio.gather(*(noop.adelay() for _ in range(min(GATHERED, count - start))))
        return clocked(began, count)

    return asyncio.run(main())


def fill(count: int, marks: list[str], kind: str = "noop", size: int = 0) -> dict[str, Any]:
    """Fill the queue with tasks, with marks spread evenly among them.

    Args:
        marks: Files; the first is written before all other tasks, the last after them.
        kind: Name of the task.
        size: Characters of its argument; 0 for none.
    """
    task = getattr(tasks, kind)
    arguments = ("x" * size,) if size else ()
    marking = amark if task.is_async else mark
    gaps = max(1, len(marks) - 1)
    began = clock()
    with app.pipeline():
        marking.delay(marks[0])
        for path in marks[1:]:
            for _ in range(count // gaps):
                task.delay(*arguments)
            marking.delay(path)
    return clocked(began, count)


def spread(count: int, queues: list[str], marks: list[str]) -> dict[str, Any]:
    """Fill several queues evenly; the marks are written at the first task and at the last."""
    first, last = marks
    senders = [tally.options(queue=Queue(name)) for name in queues]
    began = clock()
    with app.pipeline():
        for number in range(count):
            senders[number % len(senders)].delay(first, last, count)
    return clocked(began, count)


def round_trips(count: int) -> dict[str, Any]:
    """Call and wait for the result, one after the other."""
    for number in range(20):
        echo.delay(number).get(timeout=30)
    seconds = []
    began = clock()
    for number in range(count):
        sent = time.perf_counter()
        if echo.delay(number).get(timeout=30) != number:
            raise AssertionError("the answer belongs to another call")
        seconds.append(time.perf_counter() - sent)
    return {**clocked(began, count), "tail": tail(seconds)}


def in_flight(count: int) -> dict[str, Any]:
    """Send all calls, then wait for all results."""
    echo.delay(0).get(timeout=30)
    began = clock()
    with app.pipeline():
        results = [echo.delay(number) for number in range(count)]
    for number, result in enumerate(results):
        if result.get(timeout=120) != number:
            raise AssertionError("the answer belongs to another call")
    return clocked(began, count)


def paced(count: int, path: str) -> dict[str, Any]:
    """Call now and then, so that the worker has nothing else to do."""
    began = clock()
    for left in reversed(range(count)):
        time.sleep(APART)
        note.delay(time.monotonic(), "" if left else path)
    return clocked(began, count)


def chords(count: int, size: int) -> dict[str, Any]:
    """Send chords, then wait for all results."""
    chord([echo.s(1)], total.s()).delay().get(timeout=30)
    began = clock()
    with app.pipeline():
        results = [
            chord([echo.s(number) for number in range(size)], total.s()).delay()
            for _ in range(count)
        ]
    for result in results:
        if result.get(timeout=240) != size * (size - 1) // 2:
            raise AssertionError("a body got other values")
    return clocked(began, count)


def _warm_up() -> None:
    with app.pipeline():
        for _ in range(WARM_UP):
            noop.delay()


def finish() -> None:
    """Disconnect."""
    app.close()
