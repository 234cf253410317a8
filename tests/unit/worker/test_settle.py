"""Settling: the outcome is safe before the ack."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from amqtask import BackendUnavailable, Queue, WorkerLost
from amqtask.policy.retry import RetryPolicy
from amqtask.worker.execute import Job
from amqtask.worker.outcome import (
    Again,
    Done,
    Failed,
    GivenBack,
    Ignored,
    Returned,
    Revoked,
)
from tests.unit.worker.fakes import delivery
from tests.unit.worker.settling import ETA, Desk, in_seconds


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


def test_the_policy_of_a_header_is_kept_on_a_retry(desk: Desk):
    """A call keeps the policy it was sent with through all its attempts."""
    header = RetryPolicy(max_retries=7).to_header()
    desk.settle(Again(1.0, ETA, 1, None), **{"x-amqtask-retry": header})
    assert desk.transport.answer().headers["x-amqtask-retry"] == header


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


@pytest.mark.parametrize("error", [None, BackendUnavailable("down for a moment")])
def test_a_settled_job_is_gone_at_once(desk: Desk, error: Exception | None):
    """It is in no circle, so its body and its result need no garbage collector."""
    assert desk.backend is not None
    gc.disable()
    try:
        value = Value()
        gone = weakref.ref(value)
        desk.settle(Done(value))
        del value
        if error is not None:
            desk.backend.answer(error)
            desk.transport.io.loop.ring()
        desk.backend.answer()
        desk.backend.saved.clear()
        assert desk.settled == ["ack"]
        assert gone() is None
    finally:
        gc.enable()


class Value:
    """What a task returned."""
