"""What goes away while a worker runs: connection, channel, queue. Work is repeated, never lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from amqtask import App
from amqtask.settings import redact_url
from tests.helpers import TIMEOUT, eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line, Worker
from tests.proxy import Proxy


@pytest.fixture
def proxy(broker: str) -> Iterator[Proxy]:
    proxy = Proxy(broker)
    yield proxy
    proxy.close()


@pytest.fixture
def beside(make_app: MakeApp, queue: str) -> App:
    """An app that goes straight to the broker: what it sends and hears is not cut."""
    return make_app(queue)


@pytest.fixture
def through(make_app: MakeApp, queue: str, proxy: Proxy) -> App:
    """An app whose connections lead through the proxy."""
    return make_app(queue, broker=proxy.url)


def _ready_again(worker: Worker) -> None:
    eventually(lambda: worker.node.ready, message="the worker did not consume again")


def _lease(worker: Worker) -> object:
    intake = worker.node._intake
    assert intake is not None
    return intake.consumers[0]._lease


def _has_another_lease(worker: Worker, than: object) -> bool:
    return _lease(worker) is not than and worker.node.ready


def _more_than(number: int, runs: Counter[int]) -> bool:
    return len(runs) > number


def test_repeats_only_what_was_in_flight(
    beside: App, through: App, queue, proxy: Proxy, running: Running, line: Line
):
    """Links cut in the middle of work: every call runs, and repeats are at most what was unsettled."""
    runs: Counter[int] = Counter()
    total, prefetch, cuts = 600, 20, 3

    @through.task(name="t.count", ignore_result=True)
    def count(number):
        runs[number] += 1
        time.sleep(0.001)

    worker = running(through, concurrency=4, prefetch=prefetch)
    with beside.pipeline():
        for number in range(total):
            beside.send_task("t.count", (number,), ignore_result=True)
    for cut in range(cuts):
        share = total * (cut + 1) // (cuts + 2)
        eventually(partial(_more_than, share, runs))
        before = _lease(worker)
        assert proxy.cut() >= 1
        eventually(partial(_has_another_lease, worker, before))
    eventually(lambda: len(runs) == total)
    eventually(lambda: line.size(queue) == 0 and worker.held == 0)
    repeats = sum(runs.values()) - total
    assert repeats <= cuts * prefetch
    assert line.size(f"{queue}.dead") == 0


def test_a_task_that_outlives_its_connection(
    beside: App, through: App, queue, proxy: Proxy, running: Running, line: Line
):
    """Its delivery belongs to somebody else by then: it runs again, and its late end is no ack."""
    gate = threading.Event()
    runs: list[int] = []

    @through.task(name="t.slow")
    def slow():
        runs.append(len(runs))
        if len(runs) == 1:
            assert gate.wait(TIMEOUT)
        return len(runs)

    worker = running(through, concurrency=2)
    result = beside.send_task("t.slow")
    eventually(lambda: runs)
    proxy.cut()
    eventually(lambda: len(runs) == 2)
    assert result.get(60) == 2
    gate.set()
    eventually(lambda: worker.node.counts["done"] == 2)
    eventually(lambda: worker.held == 0)
    assert line.size(queue) == 0


def test_a_retry_that_outlives_its_connection_is_sent_once(
    beside: App, through: App, queue, proxy: Proxy, running: Running, line: Line
):
    """A failure whose delivery is no longer ours has no successor of its own: that would be a second copy."""
    gate, runs = threading.Event(), []

    @through.task(name="t.flaky", bind=True, max_retries=5)
    def flaky(self):
        runs.append(self.attempt)
        if len(runs) == 1:
            assert gate.wait(TIMEOUT)
        if self.attempt == 1:
            self.retry(countdown=0.05)

    worker = running(through, concurrency=2)
    beside.send_task("t.flaky", ignore_result=True)
    eventually(lambda: runs)
    proxy.cut()
    eventually(lambda: len(runs) >= 2)
    gate.set()
    eventually(lambda: worker.node.counts["done"] == 1)
    eventually(lambda: worker.node.counts["lost"] == 1)
    assert sorted(runs) == [1, 1, 2]
    assert line.size(queue) == 0


def test_no_ack_before_the_result_is_safe(
    beside: App, through: App, queue, proxy: Proxy, running: Running, line: Line
):
    """A link that ends before the confirm of a result leaves the message in its queue: it is repeated."""
    runs = []

    @through.task(name="t.once")
    def once():
        runs.append(1)
        if len(runs) == 1:  # from here on the broker hears nothing of the result
            proxy.black_hole(requests=True, answers=False)
        return len(runs)

    worker = running(through, concurrency=1, prefetch=1)
    result = beside.send_task("t.once")
    eventually(lambda: runs)
    eventually(lambda: worker.node.running == 0)
    assert worker.held == 1
    assert worker.node.counts["done"] == 0
    proxy.cut()
    proxy.forward()
    eventually(lambda: len(runs) == 2)
    assert result.get(60) in (1, 2)
    eventually(lambda: line.size(queue) == 0 and worker.held == 0)


def test_no_ack_before_the_dead_letter_is_safe(
    beside: App, through: App, queue, proxy: Proxy, running: Running, line: Line
):
    """A failure that the broker has not confirmed is not gone: it is parked once the link is back."""
    runs = []

    @through.task(name="t.fails", ignore_result=True)
    def fails():
        runs.append(1)
        if len(runs) == 1:
            proxy.black_hole(requests=True, answers=False)
        raise ValueError("no")

    worker = running(through, concurrency=1, prefetch=1)
    beside.send_task("t.fails", ignore_result=True)
    eventually(lambda: runs)
    eventually(lambda: worker.node.running == 0)
    assert worker.held == 1
    assert worker.node.counts["failed"] == 0
    proxy.cut()
    proxy.forward()
    line.take(f"{queue}.dead", timeout=20)
    eventually(lambda: line.size(queue) == 0 and worker.held == 0)


def test_a_broker_that_is_down_for_a_while(
    beside: App, through: App, proxy: Proxy, running: Running
):
    """A worker that finds no broker is not ready, and consumes again once there is one."""

    @through.task(name="t.one")
    def one():
        return 1

    worker = running(through)
    proxy.down()
    eventually(lambda: not worker.node.ready)
    result = beside.send_task("t.one")
    intake = worker.node._intake
    assert intake is not None
    eventually(
        lambda: (
            redact_url(proxy.url.removesuffix("/")).split("@")[1] in str(intake.consumers[0].error)
        )
    )
    proxy.up()
    _ready_again(worker)
    assert result.get(60) == 1


def test_a_deleted_queue_is_made_again(app, queue, running: Running, line: Line):
    """The broker cancels the consumer; it declares the queue anew and goes on."""

    @app.task
    def one():
        return 1

    running(app)
    assert one.delay().get(60) == 1
    line.channel.queue_delete(queue)
    assert one.delay().get(60) == 1
    line.channel.queue_delete(queue)
    assert one.delay().get(60) == 1


def test_a_queue_deleted_under_running_tasks(app, queue, running: Running, line: Line):
    """A task that runs while its queue goes ends as if nothing had been."""
    gate = threading.Event()

    @app.task
    def slow():
        assert gate.wait(TIMEOUT)
        return 1

    worker = running(app)
    result = slow.delay()
    eventually(lambda: worker.node.running == 1)
    line.channel.queue_delete(queue)
    gate.set()
    assert result.get(60) == 1
    eventually(lambda: worker.node.counts["done"] == 1)
    _ready_again(worker)
    assert slow.delay().get(60) == 1


def test_a_dead_letter_queue_that_is_gone(app, queue, running: Running, line: Line):
    """What cannot be parked for want of its queue finds it made again."""

    @app.task
    def fails():
        raise ValueError("no")

    running(app)
    fails.delay()
    line.take(f"{queue}.dead")
    line.channel.queue_delete(f"{queue}.dead")
    result = fails.delay()
    assert isinstance(result.get(60, propagate=False), ValueError)
    line.take(f"{queue}.dead", timeout=20)


def test_a_body_larger_than_we_may_send_is_parked_all_the_same(
    make_app: MakeApp, queue, running: Running, line: Line
):
    """What another program could send must not circle for want of our own limit."""
    app = make_app(queue, max_message_size=2_000)
    runs = []

    @app.task(name="t.fails")
    def fails(text):
        runs.append(len(text))
        raise ValueError("no")

    @app.task
    def one():
        return 1

    worker = running(app, concurrency=1)
    line.call(queue, "t.fails", "x" * 5_000)
    _, body = line.take(f"{queue}.dead", timeout=20)
    assert len(body) > 5_000
    assert one.delay().get(60) == 1
    eventually(lambda: worker.held == 0)
    assert runs == [5_000]
