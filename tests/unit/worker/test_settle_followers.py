"""Settling in a workflow: what follows a call is confirmed before its ack."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from amqtask import Nacked
from amqtask.errors import BackendUnavailable
from amqtask.worker.job import Job
from amqtask.worker.outcome import (
    Done,
    Failed,
    Ignored,
    Outcome,
    Replaced,
    Revoked,
)
from amqtask.workflow.ports import Follow, Part
from tests.unit.worker.settling import Backend, Desk

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


#: A member of a chord of two.
MEMBER = b'[[],{},{"chord":{"task":"t.body","options":{"task_id":"B"},"chord_size":2}}]'


class Joins:
    """Takes parts, and says that they are safe when a test does; or fails with a bug."""

    def __init__(self, bug: Exception | None = None) -> None:
        self.parts: list[Part] = []
        self.waiting: list[Any] = []
        self._bug = bug

    def part(self, part: Part, follow: Follow, done: Any, ours: Callable[[], bool]) -> None:
        if self._bug is not None:
            raise self._bug
        self.parts.append(part)
        self.waiting.append(done)


def _member(desk: Desk, joins: Joins) -> Backend:
    desk.app._joins = joins  # type: ignore[assignment]
    desk.settle(Done(5), body=MEMBER, group="G", group_index=1)
    assert desk.backend is not None
    return desk.backend


def test_a_members_value_is_safe_before_its_part(desk: Desk):
    """Its part goes to the chord at once then, and the ack waits for that, too."""
    joins = Joins()
    backend = _member(desk, joins)
    assert joins.parts == []
    backend.answer()
    assert [(part.group_id, part.index, part.value) for part in joins.parts] == [("G", 1, 5)]
    assert desk.settled == []
    joins.waiting.pop()(None)
    assert desk.settled == ["ack"]


def test_a_part_is_offered_again(desk: Desk):
    """Until it is safe, while the delivery is ours."""
    joins = Joins()
    _member(desk, joins).answer()
    joins.waiting.pop()(BackendUnavailable("away"))
    desk.transport.io.loop.ring()
    assert len(joins.parts) == 2
    joins.waiting.pop()(None)
    assert desk.settled == ["ack"]


def test_a_bug_in_a_join_parks_the_member(desk: Desk):
    """It costs neither the message nor the thread that tells of the result."""
    _member(desk, Joins(RuntimeError("bug"))).answer()
    assert desk.transport.answer().headers["amqtask-reason"] == "settle_failed"


def test_a_job_that_something_follows_is_gone_at_once(desk: Desk):
    """Nothing of it is in a circle, which only a collection would free: a busy worker has no time."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        desk.settle(Done(5), body=FOLLOWED)
        assert desk.backend is not None
        desk.backend.answer()
        desk.transport.answer()
        assert desk.settled == ["ack"]
        gc.collect()
        assert not [left for left in gc.garbage if isinstance(left, Job)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
