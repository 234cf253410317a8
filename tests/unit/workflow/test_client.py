"""Sending a workflow: checked and with all ids first, chords opened next, messages last."""

from __future__ import annotations

from typing import Any

import pytest

from amqtask import App, ArgumentsError, AsyncResult, Context, PublishTimeout, Queue, group
from amqtask.context import _current
from amqtask.errors import BackendUnavailable
from amqtask.message.model import Call
from amqtask.send import Outgoing
from amqtask.workflow.ports import Done, Opening


class Joins:
    """Answers as a test says; None for not at all."""

    def __init__(self, *answers: Exception | None, silent: bool = False) -> None:
        self.opened: list[Opening] = []
        self._answers = list(answers)
        self._silent = silent

    def open(self, opening: Opening, done: Done) -> None:
        self.opened.append(opening)
        if not self._silent:
            done(self._answers.pop(0) if self._answers else None)

    def part(self, *_: Any) -> None:
        raise AssertionError("a client has no parts")


class Sent:
    """Takes what is sent in place of a broker."""

    def __init__(self) -> None:
        self.calls: list[Outgoing] = []

    def deliver(self, outgoing: Outgoing) -> None:
        self.calls.append(outgoing)

    async def adeliver(self, outgoing: Outgoing) -> None:
        self.calls.append(outgoing)


@pytest.fixture
def app() -> App:
    app = App("client", environ={}, publish_timeout=0.05)
    app.producer.stand_in = Sent()
    app._joins = Joins()
    app.task(name="add", priority=3)(add)
    app.task(name="total")(total)
    return app


def add(a: int, b: int) -> int:
    return a + b


def total(numbers: list[int]) -> int:
    return sum(numbers)


def sent(app: App) -> list[Outgoing]:
    assert isinstance(app.producer.stand_in, Sent)
    return app.producer.stand_in.calls


def test_chords_are_opened_before_anything_is_sent(app: App):
    """All members carry the body; the handle of the whole goes with them."""
    s = app.signature
    handle = (group(s("add", (1, 1)), s("add", (2, 2))) | s("total")).delay()
    assert isinstance(app.joins, Joins)
    assert [opening.size for opening in app.joins.opened] == [2]
    assert [each.whole for each in sent(app)] == [handle, handle]
    assert [each.id for each in sent(app)] == [step.id for step in handle.steps][:2]


@pytest.mark.parametrize("error", [BackendUnavailable("no store"), PublishTimeout("no broker")])
def test_a_chord_that_is_not_opened(app: App, error: Exception):
    """The caller gets the reason, and nothing is sent."""
    app._joins = Joins(error)
    s = app.signature
    with pytest.raises(type(error), match=str(error)):
        (group(s("add", (1, 1))) | s("total")).delay()
    assert sent(app) == []


async def test_no_answer_in_time(app: App):
    """The error says what was not opened and what to look at."""
    app._joins = Joins(silent=True)
    s = app.signature
    made = group(s("add", (1, 1))) | s("total")
    with pytest.raises(PublishTimeout, match="could not be opened within 0.05 s") as caught:
        made.delay()
    assert "result backend" in (caught.value.hint or "")
    with pytest.raises(PublishTimeout, match="could not be opened"):
        await made.adelay()
    assert sent(app) == []


def test_what_a_task_says_counts_last(app: App):
    """Its defaults hold where neither the step nor the whole says anything."""
    s = app.signature
    for made, priority in (
        (s("add", (1, 1)), 3),
        (s("add", (1, 1)).set(priority=5), 5),
        ((s("add", (1, 1)) | s("total")).set(priority=7), 7),
    ):
        made.delay()
        assert sent(app)[-1].publications[0].message.priority == priority


def test_a_queue_travels_by_its_name(app: App):
    """A signature is plain data, whatever it was given."""
    made = app.signature("add", (1, 1), queue=Queue("sums"))
    assert made.options == {"queue": "sums"}
    made.delay()
    assert sent(app)[-1].publications[0].routing_key == "sums"


def test_sent_inside_a_task(app: App):
    """The task is the parent of what begins, its root theirs, and they are its children."""
    context = Context(app, Call("outer", "outer-id", root_id="root-id"))
    token = _current.set(context)
    try:
        last: AsyncResult[Any] = (app.signature("add", (1, 1)) | app.signature("add", (1,))).delay()
    finally:
        _current.reset(token)
    headers = sent(app)[-1].publications[0].message.headers
    assert (headers["parent_id"], headers["root_id"]) == ("outer-id", "root-id")
    assert context.trail.children == [[[last.steps[0].id, None], None]]


def test_arguments_are_checked_first(app: App):
    """Nothing is sent of a workflow whose last step cannot run; the note says what it gets."""
    s = app.signature
    with pytest.raises(ArgumentsError, match="'add'") as caught:
        (s("add", (1, 1)) | s("add", (1, 2))).delay()
    assert any("first argument" in note for note in caught.value.__notes__)
    assert sent(app) == []
