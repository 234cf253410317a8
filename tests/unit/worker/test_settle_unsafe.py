"""Settling what cannot be made safe: it is tried again, or parked, and never acked before."""

from __future__ import annotations

import pytest

from amqtask import MessageTooLarge, Nacked, PublishTimeout
from amqtask.errors import EncodeError
from amqtask.worker.execute import Job
from amqtask.worker.outcome import (
    Again,
    Done,
    Failed,
)
from amqtask.worker.settle import Settler
from tests.unit.worker.fakes import delivery
from tests.unit.worker.settling import ETA, Desk, in_seconds


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
