"""Countdown, eta and expires: nothing is early, and nothing that waits is held by a worker."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from amqtask import TaskRevoked
from tests.helpers import eventually
from tests.integration.worker.conftest import Running
from tests.integration.worker.inprocess import Line

#: What the two readings of the clock may be apart, and the worker's own tolerance for an eta.
TOLERANCE = 0.055


def _iso(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_countdown_and_eta(app, running: Running):
    """A delayed call starts when its time has come, and not before."""

    @app.task
    def now():
        return time.time()

    running(app)
    sent = time.time()
    short = now.options(countdown=0.3).delay()
    at = datetime.now(UTC) + timedelta(seconds=0.5)
    exact = now.options(eta=at).delay()
    assert short.get(60) - sent >= 0.295
    assert exact.get(60) >= at.timestamp() - 0.005


def test_an_eta_in_the_past_starts_at_once(app, running: Running):
    """There is nothing to wait for."""

    @app.task
    def one():
        return 1

    running(app)
    assert one.options(eta=datetime.now(UTC) - timedelta(days=1)).delay().get(60) == 1
    assert one.options(countdown=0).delay().get(60) == 1


def test_an_eta_that_came_early_waits_in_the_broker(app, queue, running: Running, line: Line):
    """Celery sends eta as a header only: the worker passes it to the delay levels, and holds nothing.

    One slot and a prefetch of one: if it held the message, the call behind it would not run.
    """
    ran = {}

    @app.task(name="t.now")
    def now(word):
        ran[word] = time.time()

    worker = running(app, concurrency=1, prefetch=1)
    due = time.time() + 5.0  # they have to arrive before
    for number in range(3):
        line.call(queue, "t.now", f"late {number}", id=f"L{number}", eta=_iso(5.0))
    line.call(queue, "t.now", "plain", id="P")
    eventually(lambda: "plain" in ran)
    eventually(lambda: worker.node.counts["again"] == 3)
    eventually(lambda: worker.held == 0)
    assert line.size(queue) == 0
    eventually(lambda: len(ran) == 4)
    assert min(ran[f"late {number}"] for number in range(3)) >= due - TOLERANCE
    eventually(lambda: worker.node.counts["done"] == 4)


def test_waiting_is_no_attempt(app, queue, running: Running, line: Line):
    """A message that only came early keeps its retries and its eta."""
    seen = []

    @app.task(bind=True, name="t.about")
    def about(self):
        seen.append((self.attempt, self.call.eta.isoformat()))

    running(app)
    eta = _iso(0.4)
    line.call(queue, "t.about", eta=eta, retries=2)
    eventually(lambda: seen)
    assert seen == [(3, eta)]


def test_expired_before_its_start(app, queue, running: Running, line: Line):
    """A call past its expires is not run: it is parked, and its caller sees it revoked."""

    @app.task(name="t.never")
    def never():
        raise AssertionError("it must not run")

    worker = running(app)
    result = app.result("A")
    assert app.backend is not None
    line.send(
        queue,
        [[], {}, {}],
        {"task": "t.never", "id": "A", "expires": _iso(-1)},
        reply_to=app.backend.reply_to(),
        correlation_id="A",
    )
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "expired"
    assert properties.headers["amqtask-exception"] == "TaskRevoked: expired"
    assert properties.headers["amqtask-attempts"] == 0
    assert "amqtask-traceback" not in properties.headers
    with pytest.raises(TaskRevoked) as caught:
        result.get(60)
    assert str(caught.value) == "expired"
    assert result.state == "REVOKED"
    eventually(lambda: worker.node.counts["failed"] == 1)


def test_expires_while_it_waits(app, queue, running: Running, line: Line):
    """A delay longer than expires ends parked; one that is shorter runs."""

    @app.task
    def one():
        return 1

    running(app)
    late = one.options(countdown=0.6, expires=0.2).delay()
    assert one.options(countdown=0.2, expires=30).delay().get(60) == 1
    with pytest.raises(TaskRevoked):
        late.get(60)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "expired"


def test_expires_while_no_worker_is_there(app, queue, running: Running, line: Line):
    """The broker parks what nobody took in time and nobody asks for; no worker runs it later."""
    ran = []

    @app.task
    def task():
        ran.append(1)

    running(app).stop()
    task.options(expires=0.2, ignore_result=True).delay()
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["x-death"][0]["reason"] == "expired"
    running(app)
    assert line.size(queue) == 0
    assert ran == []


def test_whoever_waits_hears_that_a_call_has_expired(app, queue, running: Running, line: Line):
    """However late a worker comes to it: only a worker can tell."""

    @app.task
    def task():
        raise AssertionError("it runs")

    running(app).stop()
    result = task.options(expires=0).delay()
    running(app)
    with pytest.raises(TaskRevoked, match="expired"):
        result.get(60)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "expired"


def test_a_naive_eta_is_read_in_the_apps_time_zone(make_app, queue, running: Running, line: Line):
    """A time without an offset means the setting's zone, as Celery takes it."""
    app = make_app(queue, timezone="Asia/Tokyo")
    seen = []

    @app.task(bind=True, name="t.about")
    def about(self):
        seen.append(self.call.eta)

    running(app)
    line.call(queue, "t.about", eta="2020-01-02T09:00:00")
    assert eventually(lambda: seen) == [datetime(2020, 1, 2, tzinfo=UTC)]
