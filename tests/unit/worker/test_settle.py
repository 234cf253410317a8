"""Settling: the outcome is safe before the ack, and what cannot be made safe is not acked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqtask import App, MessageTooLarge, Nacked, PublishTimeout, Queue, WorkerLost
from amqtask.errors import EncodeError
from amqtask.message.model import Message
from amqtask.policy.retry import RetryPolicy
from amqtask.transport import Publication
from amqtask.worker.execute import Executor, Job
from amqtask.worker.outcome import (
    Again,
    Done,
    Failed,
    GivenBack,
    Ignored,
    Outcome,
    Replaced,
    Returned,
    Revoked,
)
from amqtask.worker.settle import Settler
from tests.unit.worker.fakes import FakeLease, delivery

ETA = datetime(2026, 11, 23, tzinfo=UTC)


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Loop:
    """Stands for the I/O loop's timers: they ring when a test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []

    def call_later(self, wait: float, function: Callable[..., object], *args: Any) -> None:
        self.timers.append((wait, function, args))

    def ring(self) -> float:
        wait, function, args = self.timers.pop(0)
        function(*args)
        return wait


class IO:
    """Stands for the I/O thread: what is posted happens at once."""

    def __init__(self) -> None:
        self.loop = Loop()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)


class Transport:
    """Collects publications; a test confirms them or has them fail."""

    def __init__(self) -> None:
        self.io = IO()
        self.sent: list[Publication] = []

    def publish(self, publication: Publication) -> None:
        self.sent.append(publication)

    def answer(self, error: Exception | None = None) -> Message:
        """Give the oldest publication its outcome, and return its message."""
        publication = self.sent.pop(0)
        publication.finish(error)  # type: ignore[arg-type]
        return publication.message


class Backend:
    """Keeps what is stored; a test confirms it or has it fail."""

    def __init__(self) -> None:
        self.saved: list[tuple[Any, str, str]] = []
        self._waiting: list[Callable[[Exception | None], object]] = []

    def save(self, meta: Any, *, reply_to: str, correlation_id: str, done: Any) -> None:
        if isinstance(meta.result, set):
            raise EncodeError("cannot encode the result: set")
        self.saved.append((meta, reply_to, correlation_id))
        self._waiting.append(done)

    def answer(self, error: Exception | None = None) -> None:
        self._waiting.pop(0)(error)


class Desk:
    """A settler with everything around it stood in for."""

    def __init__(
        self, *, backend: bool = True, queue: Queue | None = None, **settings: Any
    ) -> None:
        self.app = App("desk", environ={}, queues=[queue or "q"], **settings)
        self.app.task(name="t.task")(lambda: None)
        self.transport, self.backend = Transport(), Backend() if backend else None
        self.lease = FakeLease()
        self.app.transport = self.transport  # type: ignore[assignment]
        self.app._backend = self.backend  # type: ignore[assignment]
        self.settler = Settler(self.app, "host")
        self._executor = Executor(self.app, "host", lambda _: None)

    def settle(self, outcome: Outcome, **said: Any) -> Job:
        """Settle a job that ended so."""
        job = Job(delivery(lease=self.lease, **said))
        self._executor.admit(job)
        job.started, job.ended = 1.0, 1.5
        job.outcome = outcome
        self.settler.settle(job)
        return job

    @property
    def settled(self) -> list[str]:
        return [verb for verb, _ in self.lease.settled]

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.settler.counts)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -- in the order that loses nothing --------------------------------------------------


def test_a_value_without_a_backend_is_acked_at_once():
    """There is nothing to make safe."""
    desk = Desk(backend=False)
    desk.settle(Done(5))
    assert desk.settled == ["ack"]
    assert desk.counts == {"done": 1}
    assert desk.settler.pending == 0


def test_a_value_is_stored_before_the_ack(desk: Desk):
    """The ack waits for the backend's word."""
    desk.settle(Done(5), properties={"reply_to": "replies", "correlation_id": "C"})
    assert desk.settled == []
    assert desk.settler.pending == 1
    assert desk.backend is not None
    meta, reply_to, correlation_id = desk.backend.saved[0]
    assert (meta.task_id, meta.status, meta.result, meta.traceback) == ("A", "SUCCESS", 5, None)
    assert (reply_to, correlation_id) == ("replies", "C")
    desk.backend.answer()
    assert desk.settled == ["ack"]
    assert desk.settler.pending == 0


def test_a_retry_is_confirmed_before_the_ack(desk: Desk):
    """Its state is told meanwhile, but nobody waits for that."""
    desk.settle(Again(2.0, ETA, 1, ValueError("busy")))
    assert desk.backend is not None
    assert desk.backend.saved[0][0].status == "RETRY"
    assert desk.backend.saved[0][0].date_done is None
    assert desk.settled == []
    message = desk.transport.answer()
    assert message.headers["retries"] == 1
    assert message.headers["eta"] == ETA.isoformat()
    assert desk.settled == ["ack"]
    assert desk.counts == {"again": 1}


def test_a_call_that_came_early_tells_no_state(desk: Desk):
    """It has not run: there is nothing to tell."""
    desk.settle(Again(2.0, ETA, 0, None))
    assert desk.backend is not None
    assert desk.backend.saved == []
    desk.transport.answer()
    assert desk.settled == ["ack"]


def test_a_retry_goes_into_the_delay_levels(desk: Desk):
    """Two seconds are 39 or 40 ticks: the level that counts by 8, and the queue behind the digits."""
    desk.settle(Again(2.0, in_seconds(2.0), 1, None))
    publication = desk.transport.sent[0]
    assert publication.exchange == "amqtask.delay.level01"
    assert publication.routing_key.startswith("0." * 24)
    assert publication.routing_key.endswith(".q")
    assert publication.task == "t.task"


def test_a_retry_without_delay_goes_straight_to_its_queue(desk: Desk):
    """Over the default exchange, so that no other queue gets a copy."""
    desk.settle(Again(0.0, ETA, 1, ValueError()))
    assert (desk.transport.sent[0].exchange, desk.transport.sent[0].routing_key) == ("", "q")


def test_a_failure_is_parked_then_told_then_acked(desk: Desk):
    """In this order, each step once the one before is safe."""
    desk.settle(Failed(ValueError("no"), "failed", "Traceback ..."), retries=2)
    assert desk.backend is not None
    assert desk.backend.saved == []
    publication = desk.transport.sent[0]
    assert (publication.exchange, publication.routing_key) == ("amqtask.dead", "q")
    message = desk.transport.answer()
    assert message.headers["amqtask-reason"] == "failed"
    assert message.headers["amqtask-attempts"] == 3
    assert desk.settled == []
    meta = desk.backend.saved[0][0]
    assert (meta.status, meta.traceback) == ("FAILURE", "Traceback ...")
    assert meta.result["exc_type"] == "ValueError"
    desk.backend.answer()
    assert desk.settled == ["ack"]
    assert desk.counts == {"failed": 1}


def test_what_expired_is_told_as_revoked(desk: Desk):
    """REVOKED, not FAILURE."""
    desk.settle(Failed(ValueError("expired"), "expired", revoked=True))
    desk.transport.answer()
    assert desk.backend is not None
    assert desk.backend.saved[0][0].status == "REVOKED"


def test_a_queue_without_dead_letters(desk: Desk):
    """With dead_letter=False a failure is only told."""
    desk = Desk(queue=Queue("q", dead_letter=False))
    desk.settle(Failed(ValueError("no"), "failed"))
    assert desk.transport.sent == []
    assert desk.backend is not None
    desk.backend.answer()
    assert desk.settled == ["ack"]


def test_ignored_and_returned(desk: Desk):
    """Neither is told; the one is acked, the other rejected back to its queue."""
    desk.settle(Ignored())
    desk.settle(Returned())
    assert desk.settled == ["ack", "reject True"]
    assert desk.counts == {"ignored": 1, "returned": 1}
    assert desk.transport.sent == []


def test_what_a_stop_ended_is_given_back(desk: Desk):
    """Not as a failure: the broker may not count it."""
    desk.settle(GivenBack())
    assert desk.settled == ["nack True"]
    assert desk.counts == {"given_back": 1}


def test_what_was_cancelled(desk: Desk):
    """The caller is told, and it is not parked: nobody wants it any more."""
    desk.settle(Revoked("cancelled"))
    assert desk.settled == []
    assert desk.backend is not None
    meta, _, _ = desk.backend.saved[-1]
    assert (meta.status, meta.result["exc_type"]) == ("REVOKED", "TaskRevokedError")
    assert meta.result["exc_message"] == ["task 't.task' (id A) was cancelled"]
    desk.backend.answer()
    assert desk.settled == ["ack"]
    assert desk.transport.sent == []


def test_a_death_is_counted_in_the_message(desk: Desk):
    """The next try has the count, and the same number of retries."""
    desk.settle(Again(1.0, ETA, 2, WorkerLost("it died"), crashes=2), retries=2)
    message = desk.transport.answer()
    assert (message.headers["amqtask-crashes"], message.headers["retries"]) == (2, 2)
    assert desk.settled == ["ack"]


@pytest.mark.parametrize(("error", "kept"), [(None, 2), (OSError(), None)])
def test_what_becomes_of_the_count(desk: Desk, error, kept):
    """A call that only came early keeps it; an attempt that came to its end clears it."""
    desk.settle(Again(1.0, ETA, 2, error), **{"amqtask-crashes": 2})
    assert desk.transport.answer().headers.get("amqtask-crashes") == kept


def test_what_is_known_of_a_death_is_parked_with_it(desk: Desk):
    """In headers of their own."""
    desk.settle(Failed(WorkerLost("it died"), "worker_lost", details={"amqtask-signal": "SIGBUS"}))
    message = desk.transport.answer()
    assert message.headers["amqtask-signal"] == "SIGBUS"
    assert message.headers["amqtask-reason"] == "worker_lost"


def test_who_waits_for_the_settlement_is_told(desk: Desk):
    """Once it is safe, and not before."""
    told = []
    job = Job(delivery(lease=desk.lease))
    job.after = lambda: told.append(list(desk.settled))
    job.outcome = Failed(ValueError(), "failed")
    desk.settler.settle(job)
    assert told == []
    desk.transport.answer()
    assert told == [["ack"]]


@pytest.mark.parametrize(
    ("setting", "task", "call", "told"),
    [
        (False, None, None, True),
        (True, None, None, False),
        (True, False, None, True),
        (False, True, None, False),
        (False, True, False, True),
        (True, False, True, False),
    ],
)
def test_ignore_result(setting, task, call, told):
    """The call's word goes before the task's, that before the setting."""
    desk = Desk(ignore_result=setting)
    desk.app.tasks._tasks.clear()
    desk.app.task(name="t.task", ignore_result=task)(lambda: None)
    desk.settle(Done(5), **({} if call is None else {"ignore_result": call}))
    assert desk.backend is not None
    assert bool(desk.backend.saved) == told


# -- what cannot be made safe -----------------------------------------------------------


def test_a_publish_that_fails_is_tried_again(desk: Desk):
    """While the delivery is ours it is tried again and again, and not acked before."""
    desk.settle(Again(1.0, ETA, 1, None))
    for _ in range(4):
        desk.transport.answer(Nacked("full"))
        assert desk.settled == []
        desk.transport.io.loop.ring()
    desk.transport.answer()
    assert desk.settled == ["ack"]


def test_the_pauses_grow(desk: Desk):
    """From half a second to half a minute at most."""
    desk.settle(Failed(ValueError(), "failed"))
    waits = []
    for _ in range(10):
        desk.transport.answer(PublishTimeout("late"))
        waits.append(desk.transport.io.loop.ring())
    assert 0.25 <= waits[0] <= 0.5
    assert 15 <= waits[-1] <= 30


def test_a_store_that_fails_is_tried_again(desk: Desk):
    """The same holds for results."""
    desk.settle(Done(5))
    assert desk.backend is not None
    desk.backend.answer(PublishTimeout("late"))
    assert desk.settled == []
    desk.transport.io.loop.ring()
    desk.backend.answer()
    assert desk.settled == ["ack"]
    assert len(desk.backend.saved) == 2


def test_it_ends_when_the_delivery_is_lost(desk: Desk):
    """Once the broker has given the message to somebody else there is nothing left to do."""
    desk.settle(Again(1.0, ETA, 1, None))
    desk.lease.is_valid = False
    desk.transport.answer(PublishTimeout("late"))
    assert desk.transport.io.loop.timers == []
    assert desk.settled == []
    assert desk.counts == {"lost": 1}
    assert desk.settler.pending == 0


@pytest.mark.parametrize("outcome", [Again(1.0, ETA, 1, None), Failed(ValueError(), "failed")])
def test_no_successor_of_a_lost_delivery(desk: Desk, outcome):
    """The broker delivers it again by itself: a successor would be a second copy."""
    desk.lease.is_valid = False
    desk.settle(outcome)
    assert desk.transport.sent == []
    assert desk.counts == {"lost": 1}


def test_the_result_of_a_lost_delivery_is_told(desk: Desk):
    """It did run, so its caller may know."""
    desk.lease.is_valid = False
    desk.settle(Done(5))
    assert desk.backend is not None
    assert len(desk.backend.saved) == 1


def test_an_abandoned_job_is_left_alone(desk: Desk):
    """It was given back while it ran: nothing follows from its end."""
    job = Job(delivery(lease=desk.lease))
    job.outcome, job.abandoned = Done(5), True
    desk.settler.settle(job)
    assert desk.settled == []
    assert desk.counts == {}


@pytest.mark.parametrize(
    ("value", "error", "reason"),
    [
        ({1, 2}, None, "result_unserialisable"),
        ("long", MessageTooLarge("its body has 9 bytes"), "result_too_large"),
    ],
)
def test_a_result_that_cannot_be_told(desk: Desk, value, error, reason):
    """The task ran and its result is lost: that is a failure, parked under its own reason."""
    desk.settle(Done(value))
    assert desk.backend is not None
    if error is not None:
        desk.backend.answer(error)
    message = desk.transport.answer()
    assert message.headers["amqtask-reason"] == reason
    assert desk.backend.saved[-1][0].status == "FAILURE"
    desk.backend.answer()
    assert desk.settled == ["ack"]
    assert desk.counts == {"failed": 1}


def test_a_result_that_does_not_serialise_names_its_task(desk: Desk):
    """The error says whose result it was, and what to do."""
    job = desk.settle(Done({1, 2}))
    assert isinstance(job.outcome, Failed)
    assert str(job.outcome.error) == (
        "result of task 't.task' (id A): cannot encode the result: set"
    )
    assert getattr(job.outcome.error, "hint", None) == (
        "return plain data, or set ignore_result=True"
    )


def test_a_failure_too_long_to_tell(desk: Desk):
    """It is told in short; when that fails too, the ack does not wait for ever."""
    desk.settle(Failed(ValueError("x" * 9000), "failed", "y" * 9000))
    desk.transport.answer()
    assert desk.backend is not None
    desk.backend.answer(MessageTooLarge("too long"))
    meta = desk.backend.saved[-1][0]
    assert len(meta.result["exc_message"][0]) <= 2000
    assert len(meta.traceback) <= 2000
    assert desk.settled == []
    desk.backend.answer(MessageTooLarge("too long still"))
    assert desk.settled == ["ack"]


def test_a_message_no_client_can_write_is_parked_bare(desk: Desk):
    """Its body and our own headers are what counts."""
    desk.settle(Failed(ValueError("no"), "failed"), odd="x")
    desk.transport.answer(EncodeError("headers too large"))
    message = desk.transport.answer()
    assert message.body == b"[[], {}, {}]"
    assert message.headers["amqtask-reason"] == "failed"
    assert "odd" not in message.headers


@pytest.mark.parametrize(
    ("declare", "verb"),
    [("auto", "reject False"), ("passive", "reject True"), ("never", "reject True")],
)
def test_a_message_too_large_to_park(declare, verb):
    """A queue that we made parks what is rejected; of another one we do not know, so it keeps it."""
    desk = Desk(declare=declare)
    desk.settle(Failed(ValueError("no"), "failed"))
    desk.transport.answer(MessageTooLarge("its body"))
    desk.transport.answer(MessageTooLarge("its body"))
    assert desk.settled == [verb]
    assert desk.settler.pending == 0


def test_a_bug_in_settling_parks_the_message(desk: Desk, monkeypatch, caplog):
    """It costs neither the message nor the worker."""

    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Settler, "_send_again", bug)
    desk.settle(Again(1.0, ETA, 1, None))
    message = desk.transport.answer()
    assert message.headers["amqtask-reason"] == "settle_failed"
    assert "task.settle_failed id=A: parking it" in caplog.messages


def test_a_delay_beyond_the_levels_is_parked(desk: Desk):
    """A retry in a hundred years cannot be sent; the message says why."""
    desk.settle(Again(3.2e9, in_seconds(3.2e9), 1, ValueError("busy")))
    message = desk.transport.answer()
    assert message.headers["amqtask-exception"].startswith("DelayTooLong: ")


# -- the end of a drain -------------------------------------------------------------------


async def test_drain_waits_for_every_outcome(desk: Desk):
    """It returns when the last one is safe, and at once when there is none."""
    await asyncio.wait_for(desk.settler.drain(), 5)
    assert desk.backend is not None
    desk.settle(Done(1))
    desk.settle(Done(2))
    drain = asyncio.create_task(desk.settler.drain())
    await asyncio.sleep(0)
    desk.backend.answer()
    await asyncio.sleep(0)
    assert not drain.done()
    desk.backend.answer()
    await asyncio.wait_for(drain, 5)


# -- what is logged -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "level", "line"),
    [
        (Done(1), "INFO", "task.succeeded task=t.task id=A runtime=0.500"),
        (
            Again(2.0, ETA, 3, ValueError("busy")),
            "WARNING",
            "task.retry task=t.task id=A error=ValueError('busy'): attempt 4 in 2.0 s",
        ),
        (
            Again(2.0, ETA, 0, None),
            "INFO",
            "task.early task=t.task id=A: it waits 2.0 s in the broker",
        ),
        (
            Failed(ValueError("no"), "failed", "Traceback ..."),
            "ERROR",
            "task.failed task=t.task id=A reason=failed error=ValueError('no'): parked in 'q.dead'\nTraceback ...",
        ),
        (Ignored(), "INFO", "task.ignored task=t.task id=A"),
        (Returned(), "WARNING", "task.returned task=t.task id=A: back to its queue"),
    ],
)
def test_one_line_says_how_it_ended(outcome, level, line, caplog):
    """And what happens next."""
    desk = Desk(backend=False)
    with caplog.at_level(logging.INFO, logger="amqtask.task"):
        desk.settle(outcome)
        if desk.transport.sent:
            desk.transport.answer()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [(level, line)]


def test_the_policy_of_a_header_is_kept_on_a_retry(desk: Desk):
    """A call keeps the policy it was sent with through all its attempts."""
    header = RetryPolicy(max_retries=7).to_header()
    desk.settle(Again(1.0, ETA, 1, None), **{"x-amqtask-retry": header})
    assert desk.transport.answer().headers["x-amqtask-retry"] == header


# -- what follows in a workflow ---------------------------------------------------------

#: A chain of two more steps, and an errback.
FOLLOWED = (
    b'[[],{},{"errbacks":[{"task":"t.err"}],"chain":['
    b'{"task":"t.last","options":{"task_id":"L"}},{"task":"t.next","options":{"task_id":"N"}}]}]'
)


def test_what_follows_is_confirmed_before_the_ack(desk: Desk):
    """First the value, then the next step, then the ack; a crash in between repeats, and loses nothing."""
    desk.settle(Done(5), body=FOLLOWED)
    assert desk.backend is not None
    assert [meta.status for meta, *_ in desk.backend.saved] == ["SUCCESS"]
    assert desk.transport.sent == []
    desk.backend.answer()
    (publication,) = desk.transport.sent
    assert desk.settled == []
    message = desk.transport.answer()
    assert (message.headers["task"], message.headers["id"]) == ("t.next", "N")
    assert message.headers["parent_id"] == "A"
    assert desk.settled == ["ack"]
    assert publication.task == "t.next"


def test_what_follows_needs_no_backend():
    """Without one there is only the next step to wait for."""
    desk = Desk(backend=False)
    desk.settle(Done(5), body=FOLLOWED)
    assert desk.settled == []
    desk.transport.answer()
    assert desk.settled == ["ack"]


def test_what_follows_is_tried_again(desk: Desk):
    """Until the broker has confirmed it there is no ack, however often that takes."""
    desk.settle(Done(5), body=FOLLOWED)
    assert desk.backend is not None
    desk.backend.answer()
    for _ in range(3):
        desk.transport.answer(Nacked("full"))
        desk.transport.io.loop.ring()
    assert desk.settled == []
    assert desk.transport.answer().headers["id"] == "N"
    assert desk.settled == ["ack"]


def test_what_follows_a_delivery_of_others_is_not_sent(desk: Desk):
    """The broker has given it to another worker, who will send it."""
    desk.lease.is_valid = False
    desk.settle(Done(5), body=FOLLOWED)
    assert desk.transport.sent == []
    assert desk.counts == {"lost": 1}


def test_a_value_that_cannot_be_sent_on_parks_the_call(desk: Desk):
    """The dead letter has the call with all that was to follow; the last step's caller is told."""
    desk.settle(Done({1, 2}), body=FOLLOWED)
    message = desk.transport.answer()
    assert message.headers["amqtask-reason"] == "unsendable"
    assert message.body == FOLLOWED


def test_a_failure_ends_what_was_to_follow(desk: Desk):
    """Parked, its own failure saved, the errback sent, theirs saved: then acked."""
    desk.settle(Failed(ValueError("boom"), "failed", "tb"), body=FOLLOWED)
    assert desk.backend is not None
    desk.transport.answer()
    desk.backend.answer()
    message = desk.transport.answer()
    assert message.headers["task"] == "t.err"
    assert [(meta.task_id, meta.status) for meta, *_ in desk.backend.saved] == [
        ("A", "FAILURE"),
        ("N", "FAILURE"),
        ("L", "FAILURE"),
    ]
    assert desk.backend.saved[1][0].result["exc_type"] == "WorkflowFailed"
    assert desk.settled == []
    desk.backend.answer()
    assert desk.settled == []
    desk.backend.answer()
    assert desk.settled == ["ack"]


@pytest.mark.parametrize("outcome", [Revoked("cancelled"), Ignored()])
def test_what_does_not_end_revokes_what_was_to_follow(desk: Desk, outcome: Outcome):
    """A cancelled call, and one without an outcome: no errback, nobody waits for ever."""
    desk.settle(outcome, body=FOLLOWED)
    assert desk.backend is not None
    if isinstance(outcome, Revoked):
        desk.backend.answer()
    assert desk.transport.sent == []
    followed = [meta for meta, *_ in desk.backend.saved if meta.task_id != "A"]
    assert [meta.status for meta in followed] == ["REVOKED", "REVOKED"]
    desk.backend.answer()
    assert desk.settled == []
    desk.backend.answer()
    assert desk.settled == ["ack"]


def test_an_errback_that_cannot_be_sent_is_left_out(desk: Desk, caplog: pytest.LogCaptureFixture):
    """What was to follow ends all the same."""
    body = FOLLOWED.replace(b'"t.err"', b'"t.err","options":{"priority":999}')
    desk.settle(Failed(ValueError("boom"), "failed", None), body=body)
    assert desk.backend is not None
    desk.transport.answer()
    for _ in range(3):
        desk.backend.answer()
    assert desk.settled == ["ack"]
    assert "task.errback_unsendable" in caplog.text


def test_what_runs_in_its_place_is_confirmed_before_the_ack(desk: Desk):
    """No result is stored: that is for what runs in its place."""
    desk.settle(Replaced({"task": "t.other", "options": {"task_id": "A"}}), body=FOLLOWED)
    assert desk.backend is not None
    assert desk.backend.saved == []
    message = desk.transport.answer()
    assert (message.headers["task"], message.headers["id"]) == ("t.other", "A")
    assert desk.settled == ["ack"]
    assert desk.counts == {"replaced": 1}


def test_followers_that_are_malformed_do_not_stop_a_failure(desk: Desk, caplog):
    """A call whose rest is no signature fails like any other."""
    body = b'[[],{},{"chain":[{"task":"t.next","args":5}]}]'
    desk.settle(Failed(ValueError("boom"), "failed", None), body=body)
    assert desk.backend is not None
    desk.transport.answer()
    desk.backend.answer()
    assert desk.settled == ["ack"]
    assert "task.followers_malformed" in caplog.text
