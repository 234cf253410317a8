"""Retries: by the task's word, by themselves, how often, and what travels with them."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from amqtask import (
    Context,
    Ignore,
    Queue,
    Reject,
    RemoteError,
    RetriesExhausted,
    Retry,
    RetryPolicy,
    current_task,
)
from amqtask.policy.retry import RETRY_HEADER
from amqtask.worker.node import Node
from tests.helpers import eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line
from tests.servers import Names

QUICK = RetryPolicy(max_retries=5, on=(OSError,), backoff=0.05, factor=1, jitter=False)


def test_attempts_are_counted_over_five_retries(
    app, queue, running: Running, line: Line, monkeypatch
):
    """Header, context and attempt agree in each run; what the broker wrote is never sent again."""
    seen = []
    deliveries = []
    submit = Node._submit

    def note(node, delivery):
        deliveries.append(delivery.message.headers)
        submit(node, delivery)

    monkeypatch.setattr(Node, "_submit", note)

    @app.task(bind=True, retry=QUICK)
    def flaky(self: Context):
        seen.append((self.retries, self.attempt, self.id))
        if self.attempt < 6:
            raise OSError("not yet")
        return "done"

    running(app)
    result = flaky.options(headers={"tenant": "acme"}).delay()
    assert result.get(60) == "done"
    assert seen == [(n, n + 1, result.id) for n in range(6)]
    assert [d["retries"] for d in deliveries] == list(range(6))
    assert [d["tenant"] for d in deliveries] == ["acme"] * 6
    for headers in deliveries:
        # one stay in one delay level is all that the broker can have noted since it was published
        assert [death["count"] for death in headers.get("x-death", ())] in ([], [1])
    assert line.size(f"{queue}.dead") == 0


def test_retry_exhausts(app, queue, running: Running, line: Line):
    """After max_retries the last error is the outcome, and the message is parked with its history."""

    @app.task(retry=RetryPolicy(max_retries=2, on=(OSError,), backoff=0.05, jitter=False))
    def broken():
        raise OSError(5, "disk on fire")

    worker = running(app)
    result = broken.options(task_id="A").delay()
    with pytest.raises(OSError, match="disk on fire"):
        result.get(60)
    properties, body = line.take(f"{queue}.dead")
    headers = properties.headers
    assert headers["amqtask-reason"] == "retries_exhausted"
    assert headers["amqtask-attempts"] == 3
    assert headers["amqtask-exception"] == "OSError: [Errno 5] disk on fire"
    assert headers["amqtask-traceback"].startswith("Traceback (most recent call last):")
    assert headers["amqtask-queue"] == queue
    assert headers["amqtask-host"] == "test-worker"
    assert headers["retries"] == 2
    assert body == b'[[],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    eventually(lambda: dict(worker.node.counts) == {"again": 2, "failed": 1})


def test_errors_outside_the_policy_are_final(app, running: Running):
    """Only what ``on`` names is retried, and not what ``not_on`` names."""
    runs = []

    @app.task(
        retry=RetryPolicy(
            max_retries=3, on=(OSError,), not_on=(FileNotFoundError,), backoff=0.05, jitter=False
        )
    )
    def task(kind):
        runs.append(kind)
        raise {"value": ValueError, "missing": FileNotFoundError}[kind]("no")

    running(app)
    with pytest.raises(ValueError, match="no"):
        task.delay("value").get(60)
    with pytest.raises(FileNotFoundError):
        task.delay("missing").get(60)
    assert runs == ["value", "missing"]


def test_async_tasks_are_retried_too(app, running: Running):
    """A coroutine function's error goes the same way."""

    @app.task(retry=QUICK)
    async def flaky():
        if current_task.retries < 1:
            raise ConnectionError("not yet")
        return current_task.attempt

    running(app)
    assert flaky.delay().get(60) == 2


def test_a_call_carries_its_own_policy(app, running: Running):
    """options(retry=...) goes with the message and wins over the task's policy."""

    @app.task(max_retries=0)
    def flaky():
        if current_task.retries < 2:
            raise TimeoutError("slow")
        return RETRY_HEADER in current_task.headers, current_task.retries

    running(app)
    policy = RetryPolicy(max_retries=2, on=("builtins.TimeoutError",), backoff=0.05, jitter=False)
    has_header, retries = flaky.options(retry=policy).delay().get(60)
    assert (has_header, retries) == (True, 2)
    with pytest.raises(TimeoutError):
        flaky.delay().get(60)


def test_a_policy_that_is_none_is_malformed(app, queue, running: Running, line: Line):
    """A retry header that nobody can read parks the message before it runs."""

    @app.task(name="t.one")
    def one():
        raise AssertionError("it must not run")

    running(app)
    line.call(queue, "t.one", **{RETRY_HEADER: {"max_retries": "many"}})
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "malformed"
    assert properties.headers["amqtask-attempts"] == 0
    assert properties.headers["amqtask-exception"] == (
        f"MalformedMessage: header {RETRY_HEADER!r} is not a retry policy: "
        "max_retries of the retry policy is 'many'"
    )


@pytest.mark.parametrize("how", ["countdown", "eta", "backoff"])
def test_retry_by_the_tasks_word(app, running: Running, how):
    """``Retry`` waits for its countdown, until its eta, or for the policy's back-off."""
    runs = []

    @app.task(bind=True, retry=RetryPolicy(backoff=0.3, jitter=False))
    def task(self: Context):
        runs.append(time.time())
        if self.retries:
            return "done"
        match how:
            case "countdown":
                raise Retry("later", countdown=0.3)
            case "eta":
                return self.retry(eta=datetime.now(UTC) + timedelta(seconds=0.3))
            case _:
                return self.retry("later")

    running(app)
    assert task.delay().get(60) == "done"
    assert runs[1] - runs[0] >= 0.29  # the clock is read twice, a little apart


def test_state_while_it_waits_for_a_retry(app, running: Running):
    """The caller sees RETRY and the error that made it necessary, until the outcome is there."""

    @app.task(bind=True)
    def task(self: Context):
        if not self.retries:
            self.retry("the other side is busy", countdown=1.0)
        return "done"

    running(app)
    result = task.delay()
    eventually(lambda: result.state == "RETRY")
    assert not result.ready()
    assert isinstance(result.result, RemoteError)
    assert result.result.exc_type == "Retry"
    assert "the other side is busy" in str(result.result)
    assert result.get(60) == "done"
    assert result.successful()


def test_retry_with_an_error_ends_in_that_error(app, queue, running: Running, line: Line):
    """``retry(exc=...)`` after the last retry fails with ``exc``."""

    @app.task(bind=True, max_retries=1)
    def task(self: Context):
        try:
            os.environ["NO_SUCH_CUSTOMER"]
        except KeyError as error:
            self.retry(exc=error, countdown=0.05)

    running(app)
    with pytest.raises(KeyError, match="CUSTOMER"):
        task.delay().get(60)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "retries_exhausted"
    assert properties.headers["amqtask-exception"] == "KeyError: 'NO_SUCH_CUSTOMER'"


def test_retry_without_an_error_ends_in_retries_exhausted(app, running: Running):
    """Without one there is an error of ours that says what was asked for."""

    @app.task(bind=True, name="t.stubborn")
    def task(self: Context):
        self.retry("never ready", countdown=0.05, max_retries=1)

    running(app)
    with pytest.raises(RetriesExhausted) as caught:
        task.options(task_id="A").delay().get(60)
    assert str(caught.value) == (
        "task 't.stubborn' (id A) asked for a retry after its 1 retries: never ready"
    )


@pytest.mark.parametrize("countdown", ["soon", 1e30, 1e12])
def test_retry_that_cannot_be_is_a_failure(app, queue, running: Running, line: Line, countdown):
    """A countdown that is no number, or beyond all calendars, fails the task and frees its slot."""

    @app.task(bind=True)
    def task(self: Context, ask):
        if ask:
            raise Retry(countdown=countdown)
        return "alive"

    running(app, concurrency=1)
    result = task.delay(True)
    assert isinstance(result.get(60, propagate=False), Exception)
    assert result.failed()
    line.take(f"{queue}.dead")
    assert task.delay(False).get(60) == "alive"


def test_except_exception_does_not_swallow_signals(app, running: Running):
    """A task that catches every Exception still retries when it says so."""

    @app.task(bind=True)
    def task(self: Context):
        try:
            if not self.retries:
                self.retry(countdown=0.05)
        except Exception:
            return "swallowed"
        return self.attempt

    running(app)
    assert task.delay().get(60) == 2


def test_ignore_leaves_no_outcome(app, queue, running: Running, line: Line):
    """``Ignore`` acks, and neither result nor dead letter follows."""

    @app.task
    def task():
        raise Ignore

    worker = running(app)
    result = task.delay()
    eventually(lambda: worker.node.counts["ignored"] == 1)
    eventually(lambda: worker.held == 0)
    assert result.state == "PENDING"
    assert line.size(queue) == 0
    assert line.size(f"{queue}.dead") == 0


def test_reject_parks(app, queue, running: Running, line: Line):
    """``Reject`` parks the message with its reason, without a retry."""

    @app.task(retry=QUICK)
    def task(n):
        raise Reject(f"order {n} is not ours")

    running(app)
    result = task.delay(7)
    with pytest.raises(RemoteError) as caught:
        result.get(60)
    assert caught.value.exc_type == "Reject"
    properties, body = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "rejected"
    assert properties.headers["amqtask-exception"] == "Reject: order 7 is not ours"
    assert body.startswith(b"[[7],{},")


def test_reject_with_requeue_gives_it_back(app, queue, running: Running, line: Line):
    """``Reject(requeue=True)`` is delivered again, marked as redelivered."""

    @app.task(bind=True)
    def task(self: Context):
        if not self.redelivered:
            raise Reject("not on this machine", requeue=True)
        return [self.retries, self.redelivered]

    worker = running(app)
    assert task.delay().get(60) == [0, True]
    assert worker.node.counts["returned"] == 1
    assert line.size(f"{queue}.dead") == 0


def test_what_is_always_returned_ends_in_the_dead_letter_queue(
    make_app: MakeApp, queue, running: Running, line: Line
):
    """The broker parks a message after its delivery limit: nothing loops for ever."""
    app = make_app(queue, delivery_limit=3)
    runs = []

    @app.task
    def task():
        runs.append(1)
        raise Reject(requeue=True)

    running(app)
    task.delay()
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["x-death"][0]["reason"] == "delivery_limit"
    assert len(runs) == 4


def test_retries_go_back_to_their_own_queue(make_app: MakeApp, names: Names, running: Running):
    """A topic that two queues got is retried only by the one whose task failed."""
    left, right = names.queue("left"), names.queue("right")
    exchange = names.exchange()
    app = make_app(left, right, exchange=exchange)
    runs = []

    @app.task(bind=True, name="t.both")
    def task(self: Context):
        runs.append((self.queue, self.attempt))
        if self.queue == left and self.attempt < 2:
            self.retry(countdown=0.05)

    both = make_app(
        Queue(left, bindings=(f"{left}.#", "topic.#")),
        Queue(right, bindings=(f"{right}.#", "topic.#")),
        exchange=exchange,
    )
    both.tasks.add(task)
    worker = running(both, left, right)
    both.send_task("t.both", routing_key="topic.x")
    eventually(lambda: worker.node.counts["done"] == 2)
    assert sorted(runs) == [(left, 1), (left, 2), (right, 1)]


@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
def test_retries_keep_the_bytes(
    make_app: MakeApp, queue, running: Running, serializer, compression
):
    """A retry sends the same body on, whatever it was written and packed with."""
    app = make_app(queue, accept_content=["json", "msgpack", "pickle"])

    @app.task(bind=True)
    def task(self: Context, text):
        if not self.retries:
            self.retry(countdown=0.05)
        return len(text)

    running(app)
    call = task.options(serializer=serializer, compression=compression)
    assert call.delay("x" * 5000).get(60) == 5000
