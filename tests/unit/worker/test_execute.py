"""One delivery through the steps: whatever it holds and whatever the task does, it gets an outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask import (
    App,
    ContentDisallowed,
    Ignore,
    MalformedMessage,
    Retry,
    RetryPolicy,
    TaskRevoked,
    UnknownTask,
    current_task,
)
from amqtask.policy.retry import RETRY_HEADER
from amqtask.worker.execute import Executor, Job
from amqtask.worker.outcome import Again, Done, Failed, Ignored, Outcome, Revoked, Verdict
from tests.unit.worker.fakes import delivery


class Bench:
    """An executor whose settled jobs are collected."""

    def __init__(self, **settings: Any) -> None:
        self.app = App("bench", environ={}, **settings)
        self.settled: list[Job] = []
        self.executor = Executor(self.app, "host", self.settled.append)

    def run(self, *args: Any, **said: Any) -> Job:
        """Take a delivery through all steps, as a thread or the loop would."""
        job = Job(delivery(*args, **said))
        task = self.app.tasks.get(str(job.delivery.message.headers.get("task")))
        if task is not None and task.is_async:
            asyncio.run(self.executor.run_async(job))
        else:
            self.executor.run_sync(job)
        assert self.settled == [job]
        assert self.executor.running == set()
        self.settled.clear()
        return job


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(params=["plain", "async"])
def task(request, bench: Bench) -> Callable[[Callable[..., Any]], object]:
    """Registers a function, or a coroutine function of it, as ``t.task``."""

    def register(function: Callable[..., Any]) -> object:
        if request.param == "plain":
            return bench.app.task(name="t.task")(function)

        async def coroutine(*args: Any) -> Any:
            await asyncio.sleep(0)
            return function(*args)

        return bench.app.task(name="t.task")(coroutine)

    return register


def test_a_value(bench: Bench, task):
    """What the function returns is the outcome, with the time it took."""
    task(lambda a, b: a + b)
    job = bench.run("t.task", 2, 3)
    assert job.outcome == Done(5)
    assert 0 < job.started <= job.ended
    assert 0 <= job.runtime < 5


def test_the_context_is_there_while_it_runs(bench: Bench, task):
    """current_task knows message and place, and is gone afterwards."""
    seen: list[tuple[object, ...]] = []

    def look():
        seen.append((current_task.id, current_task.queue, current_task.exchange))
        seen.append((current_task.routing_key, current_task.hostname, len(bench.executor.running)))

    task(look)
    bench.run()
    assert seen == [("A", "q", "amqtask"), ("q.topic", "host", 1)]
    assert not current_task


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), StopIteration()],
)
def test_any_exception_is_an_outcome(bench: Bench, task, error):
    """Nothing that user code raises leaves the executor."""

    def fails():
        raise error

    task(fails)
    job = bench.run()
    assert isinstance(job.outcome, Failed)
    assert job.outcome.reason == "failed"
    assert job.outcome.traceback


def test_signals(bench: Bench, task):
    """Retry and Ignore reach the decision though they are no Exceptions."""
    signals: list[BaseException] = [Retry(countdown=2), Ignore()]

    def task_code():
        raise signals.pop(0)

    task(task_code)
    again = bench.run().outcome
    assert isinstance(again, Again)
    assert again.delay == 2
    assert bench.run().outcome == Ignored()


@pytest.mark.parametrize("countdown", ["soon", 1e30, [1]])
def test_a_retry_that_makes_no_sense_fails(bench: Bench, task, countdown):
    """What is wrong with it is the outcome; the executor does not raise, or its slot would be lost."""

    def task_code():
        raise Retry(countdown=countdown)

    task(task_code)
    failed = bench.run().outcome
    assert isinstance(failed, Failed)
    assert failed.reason == "failed"
    assert isinstance(failed.error, (TypeError, ValueError, OverflowError))
    assert failed.traceback


def test_arguments_that_do_not_fit(bench: Bench, task):
    """A TypeError like any other."""
    task(lambda a: a)
    failed = bench.run("t.task", 1, 2).outcome
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, TypeError)


@pytest.mark.parametrize(
    ("said", "error", "reason"),
    [
        ({"body": b"{"}, MalformedMessage, "malformed"),
        ({"properties": {"content_type": None}}, MalformedMessage, "malformed"),
        ({"properties": {"content_type": "text/plain"}}, ContentDisallowed, "content_disallowed"),
        ({"task": "t.other"}, UnknownTask, "unknown_task"),
        ({RETRY_HEADER: "often"}, MalformedMessage, "malformed"),
    ],
)
def test_what_cannot_run_is_not_started(bench: Bench, said, error, reason):
    """It fails with the reason for the dead-letter header, and no code runs."""

    @bench.app.task(name="t.task")
    def never():
        raise AssertionError("it must not run")

    job = bench.run(**said)
    assert isinstance(job.outcome, Failed)
    assert type(job.outcome.error) is error
    assert job.outcome.reason == reason
    assert job.outcome.traceback is None
    assert job.started == 0


def test_the_policy_of_the_task(bench: Bench):
    """A failure is retried by the task's policy."""

    @bench.app.task(name="t.task", retry=RetryPolicy(on=(ValueError,), backoff=7, jitter=False))
    def fails():
        raise ValueError

    again = bench.run().outcome
    assert isinstance(again, Again)
    assert (again.delay, again.retries) == (7, 1)


def test_the_policy_of_the_call_wins(bench: Bench):
    """The header of the call stands above the task's policy."""

    @bench.app.task(name="t.task", retry=RetryPolicy(on=(ValueError,), backoff=7))
    def fails():
        raise ValueError

    header = RetryPolicy(max_retries=0, on=(ValueError,)).to_header()
    failed = bench.run(**{RETRY_HEADER: header}).outcome
    assert isinstance(failed, Failed)
    assert failed.reason == "retries_exhausted"


def test_expired(bench: Bench, task):
    """A call past its expires is revoked instead of run."""
    task(lambda: pytest.fail("it must not run"))
    failed = bench.run(expires=(datetime.now(UTC) - timedelta(seconds=1)).isoformat()).outcome
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, TaskRevoked)
    assert (failed.reason, failed.revoked, failed.traceback) == ("expired", True, None)


def test_expired_goes_before_early(bench: Bench, task):
    """A call that expires before its eta is not sent round again."""
    task(lambda: pytest.fail("it must not run"))
    now = datetime.now(UTC)
    failed = bench.run(
        eta=(now + timedelta(hours=1)).isoformat(),
        expires=(now - timedelta(seconds=1)).isoformat(),
    ).outcome
    assert isinstance(failed, Failed)


def test_early(bench: Bench, task):
    """A call before its eta is sent round, with its count of retries."""
    task(lambda: pytest.fail("it must not run"))
    eta = datetime.now(UTC) + timedelta(hours=1)
    again = bench.run(eta=eta.isoformat(), retries=2).outcome
    assert isinstance(again, Again)
    assert (again.eta, again.retries, again.error) == (eta, 2, None)
    assert 3590 < again.delay <= 3600


def test_in_time(bench: Bench, task):
    """Eta past and expires ahead: it runs."""
    task(lambda: "ran")
    now = datetime.now(UTC)
    job = bench.run(
        eta=(now - timedelta(hours=1)).isoformat(), expires=(now + timedelta(hours=1)).isoformat()
    )
    assert job.outcome == Done("ran")


def test_a_job_that_was_taken_while_it_ran(bench: Bench, task):
    """A stop that gave it back has decided its outcome: its own end decides nothing any more."""
    job = Job(delivery())
    task(lambda: bench.executor.claim(job))
    run = bench.executor.run_async if bench.app.tasks["t.task"].is_async else None
    asyncio.run(run(job)) if run is not None else bench.executor.run_sync(job)
    assert job.outcome is None
    assert bench.settled == []


def test_decoding_happens_once(bench: Bench, task):
    """A job that was decoded to find its task is not decoded again."""
    task(lambda: "ran")
    job = Job(delivery())
    bench.executor.decode(job)
    call = job.call
    assert call is not None
    bench.executor.decode(job)
    assert job.call is call


def test_the_start_is_logged_for_debugging(bench: Bench, task, caplog):
    """Task, id and attempt, at DEBUG."""
    task(lambda: None)
    with caplog.at_level(logging.DEBUG, logger="amqtask.task"):
        bench.run(retries=1)
    assert "task.started task=t.task id=A attempt=2" in caplog.messages


plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9)
tables = st.recursive(
    plain | st.binary(max_size=9) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
fields = st.sampled_from(
    ["id", "task", "eta", "expires", "retries", "timelimit", "compression", "stamps", RETRY_HEADER]
)


@given(
    headers=st.dictionaries(fields | st.text(max_size=5), tables, max_size=6),
    body=st.binary(max_size=60) | st.sampled_from([b"[[],{},{}]", b'{"task":"t.task","id":"A"}']),
    kind=st.sampled_from(
        ["application/json", "application/x-msgpack", "application/x-python-serialize", "x", None]
    ),
)
def test_no_message_leaves_without_an_outcome(headers, body, kind):
    """Whatever headers and body hold, the executor answers with an outcome and raises nothing."""
    bench = Bench(accept_content=["json", "msgpack", "pickle"])

    @bench.app.task(name="t.task")
    def runs(*args, **kwargs):
        return None

    job = Job(delivery(body=body, properties={"content_type": kind}))
    job.delivery.message.headers.update(headers)  # type: ignore[attr-defined]
    bench.executor.run_sync(job)
    assert bench.settled == [job]
    assert isinstance(job.outcome, (Done, Failed, Again))


# -- what comes between ----------------------------------------------------------------


def test_a_check_may_decide_instead(bench: Bench, task):
    """The first that says something is heard; the code does not run."""
    task(lambda: pytest.fail("it must not run"))
    asked: list[str] = []

    def check(name: str, outcome: Outcome | None) -> Callable[[Job], Outcome | None]:
        def ask(job: Job) -> Outcome | None:
            asked.append(f"{name} {job.id}")
            return outcome

        return ask

    bench.executor.checks += [
        check("first", None),
        check("second", Revoked("cancelled")),
        check("third", Ignored()),
    ]
    assert bench.run().outcome == Revoked("cancelled")
    assert asked == ["first A", "second A"]


def test_a_job_that_was_asked_to_end_while_it_waited(bench: Bench, task):
    """It does not begin."""
    task(lambda: pytest.fail("it must not run"))
    job = Job(delivery())
    job.verdict = Verdict.CANCELLED
    bench.executor.run_sync(job)
    assert job.outcome == Revoked("cancelled")
    assert bench.settled == [job]


def test_a_job_over_its_hard_limit_is_timed_out_however_it_ends(bench: Bench, task):
    """Its value comes too late."""

    def late():
        job.verdict = Verdict.TIMEOUT
        return 1

    job = Job(delivery(timelimit=[2, None]))
    task(late)
    run = bench.executor.run_async if bench.app.tasks["t.task"].is_async else None
    asyncio.run(run(job)) if run is not None else bench.executor.run_sync(job)
    assert isinstance(job.outcome, Failed)
    assert job.outcome.reason == "timeout"
    assert str(job.outcome.error) == "task 't.task' (id A) ran over its hard limit of 2 s"
