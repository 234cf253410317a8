"""Who is told of an outcome, and when the backend is asked to follow a call."""

from __future__ import annotations

from typing import Any

from amqtask import ReplyLost
from amqtask.backends import Pending
from amqtask.message.results import ResultMeta


class Source:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def want(self, pending: Pending) -> None:
        self.asked.append("want")

    def unwant(self, pending: Pending) -> None:
        self.asked.append("unwant")


def test_a_call_is_followed_while_somebody_waits() -> None:
    """The first to wait has it followed, the last to leave has it left."""
    source = Source()
    pending = Pending("a", source)
    first, second = lambda: None, lambda: 1
    pending.on_ready(first)
    pending.on_ready(second)
    pending.forget(first)
    assert source.asked == ["want"]
    pending.forget(second)
    pending.forget(second)
    assert source.asked == ["want", "unwant"]
    seen: list[ResultMeta] = []
    pending.follow(seen.append)
    pending.unfollow(seen.append)
    assert source.asked == ["want", "unwant"] * 2


def test_an_outcome_ends_it() -> None:
    """What is ready is neither followed nor left."""
    source = Source()
    pending = Pending("a", source)
    told: list[str] = []
    pending.on_ready(lambda: told.append("end"))
    pending.resolve(ResultMeta("a", "SUCCESS", 1))
    pending.on_ready(lambda: told.append("late"))
    assert told == ["end", "late"]
    assert source.asked == ["want"]


def test_a_state_is_told_once() -> None:
    """A store that is looked at again and again says nothing new."""
    pending = Pending("a")
    seen: list[Any] = []
    pending.follow(lambda meta: seen.append(meta.result))
    for done in (1, 1, 2, 2):
        pending.resolve(ResultMeta("a", "PROGRESS", done))
    assert seen == [1, 2]
    late: list[Any] = []
    pending.follow(lambda meta: late.append(meta.result))
    assert late == [2]


def test_a_wait_that_is_broken_off() -> None:
    """It counts as ready, so nobody waits for what cannot come."""
    pending = Pending("a")
    pending.fail(ReplyLost("gone"))
    assert pending.ready
    assert pending.wait(0)
    pending.resolve(ResultMeta("a", "SUCCESS", 1))
    assert pending.meta is None
