"""Joins by queues: whoever has the last part on its way looks at the queue, and nobody else need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqtask import App, Nacked
from amqtask.message.model import Call
from amqtask.transport import Publication
from amqtask.workflow.join_queue import QueueJoins
from amqtask.workflow.ports import Done, Part


class Joins(QueueJoins):
    """Publishes nothing, and notes who looks."""

    def __init__(self) -> None:
        super().__init__(App("joins", environ={}))
        self.sent: list[Publication] = []
        self.looks: list[str] = []
        self.acked: list[str] = []
        made: Any = self
        made._transport = self
        made._work = self
        self.io = self

    def publish(self, publication: Publication) -> None:
        self.sent.append(publication)

    def run(self, io: object, work: Any, done: Done) -> None:
        part, *_ = work.args
        self.looks.append(part.id)

    def end(self, id_: str, ours: Callable[[], bool] = lambda: True, group: str = "G") -> None:
        """Have a member end."""
        call = Call("t.member", id_, group=group, group_index=0)
        part = Part(group, 0, 3, {}, id_, "t.member", 5, None, 0, call)

        def done(error: Exception | None) -> None:
            self.acked.append(id_ if error is None else f"{id_}: {error}")

        follow: Any = None
        self.part(part, follow, done, ours)

    def confirm(self, error: Any = None) -> None:
        self.sent.pop(0).finish(error)


@pytest.fixture
def joins() -> Joins:
    return Joins()


def test_the_last_part_on_its_way_looks(joins: Joins) -> None:
    """The others are acked: its delivery is in hand, and it counts all of them."""
    for id_ in "abc":
        joins.end(id_)
    joins.confirm()
    joins.confirm()
    assert (joins.acked, joins.looks) == (["a", "b"], [])
    joins.confirm()
    assert (joins.acked, joins.looks) == (["a", "b"], ["c"])


def test_one_alone_looks(joins: Joins) -> None:
    """Parts of other chords say nothing about it, nor do those that were confirmed before."""
    joins.end("other", group="H")
    joins.end("a")
    joins.sent.reverse()
    joins.confirm()
    joins.end("b")
    joins.sent.reverse()
    joins.confirm()
    assert joins.looks == ["a", "b"]


def test_a_part_whose_delivery_is_lost_is_not_relied_upon(joins: Joins) -> None:
    """Somebody else has it, and may have looked before this part was there."""
    joins.end("a")
    joins.end("b", ours=lambda: False)
    joins.confirm()
    assert (joins.acked, joins.looks) == ([], ["a"])


def test_a_part_that_is_not_safe_comes_again_and_looks(joins: Joins) -> None:
    """Its delivery is still in hand when the other one was acked."""
    joins.end("a")
    joins.end("b")
    joins.confirm()
    joins.confirm(Nacked("full"))
    assert joins.acked == ["a", "b: full"]
    joins.end("b")
    joins.confirm()
    assert joins.looks == ["b"]


def test_a_part_that_never_went_out_is_not_relied_upon(
    joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the way to the broker must not keep a chord from being joined."""
    joins.end("a")
    monkeypatch.setattr(joins, "publish", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        joins.end("b")
    joins.confirm()
    assert joins.looks == ["a"]
