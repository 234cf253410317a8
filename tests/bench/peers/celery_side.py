"""Celery. Best: no confirms, acked before the run, as it comes. Safe: confirms, acked after it."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

from celery import Celery, chord

from tests.bench import work
from tests.bench.peers import said
from tests.bench.work import APART, clock, clocked, tail

WARM_UP = 200
_said = said()

app = Celery("bench", broker=_said.url, backend=_said.results or None)
app.conf.update(
    task_default_queue=_said.queue,
    broker_transport_options={"confirm_publish": _said.safe},
    task_acks_late=_said.safe,
    task_ignore_result=not _said.results,
    # what its documentation advises for many short tasks
    worker_prefetch_multiplier=4 if _said.safe else 128,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def noop() -> None:
    """Do nothing."""


@app.task
def take(text: str) -> None:
    """Do nothing with an argument."""


@app.task
def mix() -> None:
    """Wait and compute."""
    work.mix()


@app.task
def note(sent: float, path: str) -> None:
    """Note how long ago it was sent."""
    work.note_start(sent, path)


@app.task
def echo(value: int) -> int:
    """Answer."""
    return value


@app.task
def total(values: list[int]) -> int:
    """Add up."""
    return sum(values)


@app.task
def mark(path: str) -> None:
    """Write down when the stream of tasks came to here."""
    work.write_mark(path)


def bulk(count: int) -> dict[str, Any]:
    """Publish from one thread, on one producer held all the time."""
    with app.producer_or_acquire() as producer:
        for _ in range(WARM_UP):
            noop.apply_async(producer=producer)
        began = clock()
        for _ in range(count):
            noop.apply_async(producer=producer)
        return clocked(began, count)


def one_by_one(count: int, threads: int) -> dict[str, Any]:
    """Publish from some threads, as ``delay`` does it."""
    each = count // threads
    start = threading.Barrier(threads + 1)

    def publish() -> None:
        noop.delay()
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


def fill(count: int, marks: list[str], kind: str, size: int) -> dict[str, Any]:
    """Fill the queue with tasks, with marks spread evenly among them."""
    task, arguments = globals()[kind], ("x" * size,) if size else ()
    gaps = max(1, len(marks) - 1)
    began = clock()
    with app.producer_or_acquire() as producer:
        mark.apply_async((marks[0],), producer=producer)
        for path in marks[1:]:
            for _ in range(count // gaps):
                task.apply_async(arguments, producer=producer)
            mark.apply_async((path,), producer=producer)
    return clocked(began, count)


def paced(count: int, path: str) -> dict[str, Any]:
    """Call now and then, so that the worker has nothing else to do."""
    began = clock()
    for left in reversed(range(count)):
        time.sleep(APART)
        note.delay(time.monotonic(), "" if left else path)
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
    results = [echo.delay(number) for number in range(count)]
    for number, result in enumerate(results):
        if result.get(timeout=120) != number:
            raise AssertionError("the answer belongs to another call")
    return clocked(began, count)


def chords(count: int, size: int) -> dict[str, Any]:
    """Send chords, then wait for all results."""
    chord([echo.s(1)], total.s()).delay().get(timeout=240)
    began = clock()
    results = [
        chord([echo.s(number) for number in range(size)], total.s()).delay() for _ in range(count)
    ]
    for result in results:
        if result.get(timeout=240) != size * (size - 1) // 2:
            raise AssertionError("a body got other values")
    return clocked(began, count)


def finish() -> None:
    """Disconnect."""
    gc.collect()  # results unsubscribe when they go, which is too late at the very end
    app.close()
