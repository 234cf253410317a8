"""Chords in a pipeline: opened meanwhile, sent once they are; one that is not fails alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from amqtask import App, PipelineError, PublishTimeout, Signature, chord, group
from amqtask.errors import BackendUnavailable
from amqtask.workflow.ports import Done, Opening
from tests.unit.desk.recorder import Recorder, make_app


class Joins:
    """Opens chords when a test says so."""

    def __init__(self, app: App) -> None:
        self.waiting: list[tuple[Opening, Done]] = []
        app._joins = self  # type: ignore[assignment]

    def open(self, opening: Opening, done: Done) -> None:
        self.waiting.append((opening, done))

    def answer(self, error: Exception | None = None) -> None:
        self.waiting.pop(0)[1](error)


def make_desk(**settings: Any) -> tuple[App, Recorder, Joins]:
    app, sent = make_app(**settings)
    return app, sent, Joins(app)


@pytest.fixture
def desk() -> tuple[App, Recorder, Joins]:
    return make_desk()


def _chord(app: App, name: str) -> Signature[..., object]:
    member = app.signature(name)
    made: Signature[..., object] = chord([member, member], app.signature("body"))
    return made


def _tasks(sent: Recorder) -> list[str | None]:
    return [publication.task for publication in sent.sent]


def test_the_members_go_out_once_their_chord_is_open(desk: tuple[App, Recorder, Joins]) -> None:
    """`delay` returns at once; other calls do not wait for the chord."""
    app, sent, joins = desk
    with app.pipeline() as pipeline:
        _chord(app, "first").delay()
        _chord(app, "second").delay()
        app.send_task("alone")
        assert (pipeline.sent, _tasks(sent)) == (5, ["alone"])
        joins.answer()
        assert _tasks(sent) == ["alone", "first", "first"]
        joins.answer()
    assert _tasks(sent) == ["alone", "first", "first", "second", "second"]
    assert pipeline.confirmed == 5


def test_a_workflow_goes_out_once_all_its_chords_are_open(
    desk: tuple[App, Recorder, Joins],
) -> None:
    """Nothing of it is half sent."""
    app, sent, joins = desk
    with app.pipeline():
        group(_chord(app, "first"), _chord(app, "second")).delay()
        joins.answer()
        assert sent.sent == []
        joins.answer()
        assert len(sent.sent) == 4


def test_a_chord_that_is_not_opened_fails_alone(desk: tuple[App, Recorder, Joins]) -> None:
    """Each of its members is listed with the reason; the others are sent and confirmed."""
    app, sent, joins = desk

    def send() -> None:
        with app.pipeline():
            group(_chord(app, "first"), _chord(app, "second")).delay()
            _chord(app, "third").delay()
            joins.answer()
            joins.answer(BackendUnavailable("no store"))
            joins.answer()

    with pytest.raises(PipelineError) as caught:
        send()
    assert _tasks(sent) == ["third", "third"]
    assert [str(why) for _, why in caught.value.failures] == ["no store"] * 4
    assert caught.value.confirmed == 2


def test_an_opening_that_cannot_begin_fails_its_calls(desk: tuple[App, Recorder, Joins]) -> None:
    """The end of the block says so, and does not wait for ever."""
    app, sent, joins = desk

    def refuse(opening: Opening, done: Done) -> None:
        raise BackendUnavailable("no thread")

    joins.open = refuse  # type: ignore[method-assign]
    with pytest.raises(PipelineError, match="no thread"), app.pipeline():
        _chord(app, "first").delay()
    assert sent.sent == []


def test_no_answer_in_time() -> None:
    """The end of the block gives it up; an answer after that sends nothing."""
    app, sent, joins = make_desk(publish_timeout=0.05)
    with pytest.raises(PipelineError) as caught, app.pipeline():
        _chord(app, "first").delay()
    assert [type(why) for _, why in caught.value.failures] == [PublishTimeout] * 2
    assert "could not be opened within 0.05 s" in str(caught.value)
    joins.answer()
    assert sent.sent == []


async def test_no_answer_in_time_awaited() -> None:
    """The same for coroutines."""
    app, sent, joins = make_desk(publish_timeout=0.05)
    with pytest.raises(PipelineError, match=r"could not be opened within 0\.05 s"):
        async with app.pipeline():
            await _chord(app, "first").adelay()
    joins.answer()
    assert sent.sent == []


async def test_awaited(desk: tuple[App, Recorder, Joins]) -> None:
    """`adelay` returns at once, the end of the block awaits what is opened meanwhile."""
    app, sent, joins = desk
    async with app.pipeline() as pipeline:
        await _chord(app, "first").adelay()
        opening = threading.Thread(target=joins.answer)
        opening.start()
    opening.join()
    assert (len(sent.sent), pipeline.confirmed) == (2, 2)
