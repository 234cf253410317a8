"""Cancelled calls in a worker: dropped when they come up, ended where they run, known after a restart."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from amqtask import App, AsyncResult, TaskRevoked
from amqtask.errors import TaskCancelled
from amqtask.worker.job import Job
from tests.helpers import eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line, Worker
from tests.proxy import proxied
from tests.servers import Names

MakeCancelling = Callable[..., App]


@pytest.fixture
def make_cancelling(make_app: MakeApp, names: Names, queue: str) -> MakeCancelling:
    """Makes apps with a register of the test's own."""
    exchange = names.cancel_exchange()
    return lambda **said: make_app(queue, **{"cancel_exchange": exchange, **said})


@pytest.fixture
def app(make_cancelling: MakeCancelling) -> App:
    return make_cancelling()


def _revoked(result: AsyncResult[None]) -> bool:
    with pytest.raises(TaskRevoked) as caught:
        result.get(60)
    return "was cancelled" in str(caught.value) and result.state == "REVOKED"


def _known(worker: Worker, id_: str) -> bool:
    cancelled = worker.node._cancelled
    return cancelled is not None and cancelled.get(id_) is not None


def test_a_queued_call_is_dropped(
    app: App, queue: str, running: Running, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancelled while nobody was there: the worker that starts later never runs it."""
    runs: list[int] = []

    @app.task(name="t.note")
    def note(number: int) -> None:
        runs.append(number)

    results = [note.delay(number) for number in range(5)]
    results[1].cancel()
    app.cancel([results[3].id, "nobody-knows-this"])
    caplog.set_level(logging.INFO)
    worker = running(app)
    for number in (0, 2, 4):
        results[number].get(60)
    assert sorted(runs) == [0, 2, 4]
    assert _revoked(results[1])
    assert _revoked(results[3])
    eventually(lambda: line.size(queue) == 0 and worker.held == 0)
    assert line.size(f"{queue}.dead") == 0
    assert worker.node.counts["revoked"] == 2
    said = f"task.cancelled task=t.note id={results[1].id}: it does not run"
    eventually(lambda: said in caplog.text)


def test_without_results_it_is_dropped_too(
    make_cancelling: MakeCancelling, queue: str, running: Running, line: Line
) -> None:
    """Acked, and nothing else happens."""
    app = make_cancelling(backend=None)
    runs: list[int] = []

    @app.task(name="t.note")
    def note(number: int) -> None:
        runs.append(number)

    note.delay(1).cancel()
    note.delay(2)
    worker = running(app)
    eventually(lambda: runs == [2])
    eventually(lambda: line.size(queue) == 0 and worker.held == 0)
    assert line.size(f"{queue}.dead") == 0


def test_a_delayed_call_is_dropped_when_it_is_due(app: App, running: Running) -> None:
    """Nobody holds it meanwhile. Cancelled before it is sent, so that it cannot be due too soon."""
    runs: list[int] = []

    @app.task(name="t.note")
    def note(number: int) -> None:
        runs.append(number)

    worker = running(app)
    app.cancel("put-off")
    eventually(lambda: _known(worker, "put-off"))
    cancelled = note.options(countdown=0.3, task_id="put-off").delay(1)
    note.options(countdown=0.3).delay(2).get(60)
    assert _revoked(cancelled)
    assert runs == [2]


def test_a_call_that_waits_in_the_worker(app: App, running: Running) -> None:
    """Prefetched behind one that runs: it does not wait for its turn to be dropped."""
    gate = threading.Event()
    runs: list[str] = []

    @app.task(name="t.slow")
    def slow(name: str) -> None:
        runs.append(name)
        assert gate.wait(60)

    running(app, concurrency=1, prefetch=5)
    first = slow.delay("first")
    eventually(lambda: runs == ["first"])
    second = slow.delay("second")
    second.cancel()
    assert _revoked(second)
    gate.set()
    first.get(60)
    assert runs == ["first"]


def test_a_running_coroutine(app: App, running: Running) -> None:
    """It gets its cancellation, may clean up, and is not retried."""
    seen: list[str] = []

    @app.task(name="t.sleep", retry_on=[Exception], max_retries=5)
    async def sleep() -> None:
        seen.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cleaned up")
            raise

    running(app)
    result = sleep.delay()
    eventually(lambda: seen == ["begun"])
    result.cancel()
    assert _revoked(result)
    assert seen == ["begun", "cleaned up"]


def test_a_running_thread(app: App, running: Running) -> None:
    """A plain task gets `TaskCancelled` where it is, between two of its steps."""
    seen: list[str] = []

    @app.task(name="t.spin")
    def spin() -> None:
        seen.append("begun")
        try:
            while True:
                threading.Event().wait(0.01)
        except TaskCancelled:
            seen.append("cancelled")
            raise

    running(app)
    result = spin.delay()
    eventually(lambda: seen == ["begun"])
    app.cancel(result.id)
    assert _revoked(result)
    assert seen == ["begun", "cancelled"]


def test_an_ended_call_stays_as_it_ended(app: App, running: Running) -> None:
    """A cancel that comes too late changes nothing."""

    @app.task(name="t.one")
    def one() -> int:
        return 1

    worker = running(app)
    result = one.delay()
    assert result.get(60) == 1
    result.cancel()
    eventually(lambda: _known(worker, result.id))
    assert result.state == "SUCCESS"
    assert worker.node.counts["revoked"] == 0


def test_a_retry_of_a_cancelled_call_is_dropped(app: App, running: Running) -> None:
    """The record holds for every message of the call, not only for the one that waited first."""
    runs: list[int] = []
    gate = threading.Event()

    @app.task(name="t.flaky", bind=True)
    def flaky(self) -> None:
        runs.append(self.attempt)
        assert gate.wait(60)
        self.retry(countdown=0.1)

    worker = running(app)
    result = flaky.delay()
    eventually(lambda: runs == [1])
    # nobody consumes when it comes back, so that it is cancelled by then
    worker.begin_to_stop()
    eventually(lambda: not worker.node.ready)
    gate.set()
    eventually(worker.stopped)
    result.cancel()
    running(app)
    assert _revoked(result)
    assert runs == [1]


def test_cancelled_while_the_worker_was_cut_off(
    app: App, make_cancelling: MakeCancelling, broker: str, running: Running
) -> None:
    """It consumes nothing before it has read what it missed."""
    runs: list[int] = []
    with proxied(broker) as proxy:
        through = make_cancelling(broker=proxy.url)

        @through.task(name="t.note")
        def note(number: int) -> None:
            runs.append(number)

        worker = running(through)
        proxy.down()
        eventually(lambda: not worker.node.ready)
        first = app.send_task("t.note", (1,))
        second = app.send_task("t.note", (2,))
        first.cancel()
        proxy.up()
        second.get(60)
        assert _revoked(first)
        assert runs == [2]
        eventually(lambda: worker.held == 0)
        worker.stop()


def test_a_worker_without_a_register_works(
    make_cancelling: MakeCancelling,
    running: Running,
    caplog: pytest.LogCaptureFixture,
    names: Names,
) -> None:
    """Made by nobody, as somebody else's topology may be: said once, and tasks run."""
    running(make_cancelling()).stop()  # makes the queue
    app = make_cancelling(declare="never", cancel_exchange=names.exchange("nobody-made-this"))

    @app.task(name="t.one")
    def one() -> int:
        return 1

    running(app)
    eventually(lambda: "cancel.off" in caplog.text)
    assert "no exchange" in caplog.text
    assert one.delay().get(60) == 1


def test_cancelled_between_the_look_and_the_start(app: App, running: Running) -> None:
    """The record comes when the job is past the check and not among those that run yet: it is found."""
    seen: list[str] = []

    @app.task(name="t.sleep")
    async def sleep() -> None:
        seen.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    worker = running(app)
    executor = worker.node._executor
    admit = executor.admit

    def slowly(job: Job) -> bool:
        admitted = admit(job)
        app.cancel(job.id)
        eventually(lambda: _known(worker, job.id) and not worker.node._heard)
        return admitted

    executor.admit = slowly  # type: ignore[method-assign]
    assert _revoked(sleep.delay())
    assert seen == ["begun", "cancelled"]


def test_thousands_at_once(app: App, running: Running) -> None:
    """A burst of cancels finds the few calls that are here, and the worker goes on."""
    gate = threading.Event()
    runs: list[int] = []

    @app.task(name="t.slow")
    def slow(number: int) -> None:
        runs.append(number)
        assert gate.wait(60)

    worker = running(app, concurrency=1, prefetch=200)
    results = slow.delay_many([(number,) for number in range(200)])
    eventually(lambda: worker.held == 200)
    strangers = [f"stranger-{number}" for number in range(3000)]
    app.cancel([*strangers, *(result.id for result in results[1:])])
    assert _revoked(results[-1])
    gate.set()
    results[0].get(60)
    eventually(lambda: worker.node.counts["revoked"] == 199)
    assert runs == [0]
