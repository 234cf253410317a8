"""Stopping: warm gives back what has not started and finishes what runs; quick gives back both."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.helpers import TIMEOUT, aeventually, eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line, Worker

pytestmark = pytest.mark.parametrize("kind", ["plain", "async"])


class Gate:
    """Holds tasks, plain or async, until it is opened."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.ended: list[int] = []
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def plain(self, number: int) -> int:
        self.started.append(number)
        assert self._open.wait(TIMEOUT)
        self.ended.append(number)
        return number

    async def coroutine(self, number: int) -> int:
        self.started.append(number)
        await aeventually(self._open.is_set)
        self.ended.append(number)
        return number


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def held(app, gate: Gate, kind):
    """A task that waits at the gate."""

    @app.task(name="t.held")
    def plain(number):
        return gate.plain(number)

    @app.task(name="t.held.async")
    async def coroutine(number):
        return await gate.coroutine(number)

    return plain if kind == "plain" else coroutine


def test_warm_stop_finishes_what_runs_and_gives_back_the_rest(
    app, queue, gate: Gate, held, running: Running, line: Line
):
    """What has started ends with its result; what has not is back in the queue, at once."""
    worker = running(app, concurrency=2, prefetch=10)
    results = [held.delay(number) for number in range(5)]
    eventually(lambda: len(gate.started) == 2)
    worker.begin_to_stop()
    eventually(lambda: line.size(queue) == 3)
    assert not worker.stopped()
    gate.open()
    eventually(worker.stopped)
    done = sorted(gate.ended)
    assert len(done) == 2
    assert [results[number].get(60) for number in done] == done
    assert worker.node.counts["done"] == 2
    assert line.size(queue) == 3
    running(app)
    assert [result.get(60) for result in results] == list(range(5))
    assert sorted(gate.ended) == list(range(5))


def test_warm_stop_waits_for_outcomes(app, queue, gate: Gate, held, running: Running, line: Line):
    """A stop that comes with many tasks on their way loses none and repeats none."""
    worker = running(app, concurrency=4, prefetch=50)
    gate.open()
    results = held.delay_many([(number,) for number in range(200)])
    eventually(lambda: len(gate.ended) >= 20)
    worker.stop()
    # what was given back is there again once the broker has written that down
    eventually(lambda: line.size(queue) == 200 - worker.node.counts["done"])
    running(app)
    assert [result.get(60) for result in results] == list(range(200))
    assert sorted(gate.ended) == list(range(200))


def test_warm_stop_of_an_idle_worker(app, queue, gate: Gate, held, running: Running, line: Line):
    """There is nothing to wait for, and a call sent afterwards waits for the next worker."""
    worker = running(app)
    worker.stop()
    assert not worker.node.ready
    result = held.delay(1)
    assert line.size(queue) == 1
    gate.open()
    running(app)
    assert result.get(60) == 1


def test_quick_stop_gives_back_what_runs(
    app, queue, gate: Gate, held, running: Running, line: Line
):
    """A quick stop does not wait: everything is back in the queue, and nothing of it counts twice."""
    worker = running(app, concurrency=2, prefetch=10)
    results = [held.delay(number) for number in range(5)]
    eventually(lambda: len(gate.started) == 2)
    worker.stop_now()
    eventually(lambda: line.size(queue) == 5)
    assert worker.node.counts["done"] == 0
    gate.open()
    running(app)
    assert [result.get(60) for result in results] == list(range(5))
    assert line.size(f"{queue}.dead") == 0


def test_quick_stop_after_a_warm_one(app, queue, gate: Gate, held, running: Running, line: Line):
    """The second order overtakes the first, which waits for a task that does not end."""
    worker = running(app, concurrency=1, prefetch=5)
    for number in range(3):
        held.delay(number)
    eventually(lambda: len(gate.started) == 1)
    worker.begin_to_stop()
    eventually(lambda: line.size(queue) == 2)
    worker._stopping.cancel()
    worker.stop_now()
    eventually(lambda: line.size(queue) == 3)
    gate.open()
    running(app)
    eventually(lambda: line.size(queue) == 0)
    eventually(lambda: len(set(gate.ended)) == 3)


def test_a_stop_while_it_starts_leaves_no_consumer(
    make_app: MakeApp, queue, gate: Gate, held, line: Line
):
    """A stop that comes before consume-ok cancels that consumer too: nothing is taken any more."""
    app = make_app(queue)
    Worker(app, queue).start().stop()  # makes the queue
    for _ in range(5):
        worker = Worker(app, queue)
        worker.run(worker.node.start())
        worker.begin_to_stop()
        eventually(worker.stopped)
        worker.stop()
    app.close()
    eventually(lambda: line.channel.queue_declare(queue, passive=True).method.consumer_count == 0)
    held.delay(1)
    eventually(lambda: line.size(queue) == 1)
    assert gate.started == []


def test_cancellation_runs_the_tasks_clean_up(
    app, queue, gate: Gate, held, kind, running: Running, line: Line
):
    """A quick stop cancels coroutines, so that their finally blocks run; threads are left behind."""
    cleaned = []

    @app.task(name="t.careful")
    async def careful():
        gate.started.append(0)
        try:
            await asyncio.sleep(TIMEOUT * 3)
        finally:
            cleaned.append(1)

    worker = running(app)
    task = careful.delay if kind == "async" else lambda: held.delay(0)
    task()
    eventually(lambda: gate.started)
    worker.stop_now()
    assert cleaned == ([1] if kind == "async" else [])
    eventually(lambda: line.size(queue) == 1)
    assert line.size(f"{queue}.dead") == 0
    gate.open()
