"""Pipelines: nothing waits until the end, the end waits for all, and tells of every failure."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from amqtask import App, Nacked, Pipeline, PipelineError, Queue, Unroutable
from amqtask import pipeline as module
from amqtask.errors import AmqtaskError
from amqtask.pipeline import active_pipeline
from amqtask.transport import Publication
from tests.helpers import aeventually
from tests.unit.desk.recorder import Recorder, make_app


@pytest.fixture
def desk() -> tuple[App, Recorder]:
    return make_app()


def _refuse(*ids: str) -> Callable[[Publication], AmqtaskError | None]:
    def answer(publication: Publication) -> AmqtaskError | None:
        if publication.message.message_id in ids:
            return publication.fail(Unroutable, "no queue took it (312 NO_ROUTE)")
        return None

    return answer


def _send(app: App, *ids: str, then: Exception | None = None) -> None:
    with app.pipeline():
        for id_ in ids:
            app.send_task("t.add", task_id=id_)
        if then is not None:
            raise then


def _in_thread(function: Callable[[], Any]) -> threading.Thread:
    """Run it in a thread that has this one's context."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(function,))
    thread.start()
    return thread


def test_calls_go_out_at_once_and_the_end_waits(desk: tuple[App, Recorder]) -> None:
    """delay inside returns before its confirm; the block ends when all are confirmed."""
    app, sent = desk
    sent.hold = True
    with app.pipeline() as pipeline:
        results = [app.send_task("t", (n,)) for n in range(5)]
        assert (pipeline.sent, pipeline.confirmed, len(sent.sent)) == (5, 0, 5)
        releasing = threading.Timer(0.05, sent.release)
        releasing.start()
    assert pipeline.confirmed == 5
    assert len({result.id for result in results}) == 5
    releasing.join()


def test_an_empty_pipeline_waits_for_nothing(desk: tuple[App, Recorder]) -> None:
    """And raises nothing."""
    app, _ = desk
    with app.pipeline() as pipeline:
        pass
    assert (pipeline.sent, pipeline.confirmed) == (0, 0)


def test_every_failure_is_listed(desk: tuple[App, Recorder]) -> None:
    """Good ones stay sent; the error has id and reason of each that failed, in full."""
    app, sent = desk
    sent.answer = _refuse("id-1", "id-3")
    with pytest.raises(PipelineError) as caught:
        _send(app, *(f"id-{n}" for n in range(5)))
    error = caught.value
    assert str(error) == (
        "2 of 5 calls of the pipeline failed, 3 were confirmed; the first: task 't.add' (id id-1)"
        " to exchange 'amqtask' with routing key 'default' was not published:"
        " no queue took it (312 NO_ROUTE)"
    )
    assert [(id_, type(why)) for id_, why in error.failures] == [
        ("id-1", Unroutable),
        ("id-3", Unroutable),
    ]
    assert error.confirmed == 3
    assert error.__cause__ is error.failures[0][1]


def test_the_blocks_own_error_stays_the_one(desk: tuple[App, Recorder]) -> None:
    """What the block raises is raised, with a note on the calls that failed besides."""
    app, sent = desk
    sent.answer = _refuse("id-1")
    with pytest.raises(KeyError) as caught:
        _send(app, "id-1", then=KeyError("mine"))
    assert caught.value.__notes__[0].startswith("1 of 1 calls of the pipeline failed, 0 were")
    with pytest.raises(KeyError) as caught:
        _send(app, "id-2", then=KeyError("mine"))
    assert not hasattr(caught.value, "__notes__")


def test_what_cannot_be_sent_fails_at_the_call(desk: tuple[App, Recorder]) -> None:
    """A mistake in a call is raised where it is made, in a pipeline too."""
    app, sent = desk
    with app.pipeline(), pytest.raises(AmqtaskError, match="cannot encode argument 0"):
        app.send_task("t", (object(),))
    assert sent.sent == []


def test_a_pipeline_belongs_to_its_app(desk: tuple[App, Recorder]) -> None:
    """Calls of another app inside the block are confirmed one by one, over their own way."""
    app, sent = desk
    other, others = make_app()
    with app.pipeline() as pipeline:
        other.send_task("t")
        app.send_task("t")
    assert (pipeline.sent, len(sent.sent), len(others.sent)) == (1, 1, 1)


def test_nested_pipelines(desk: tuple[App, Recorder]) -> None:
    """The inner one takes what is inside it; after it the outer one goes on."""
    app, _ = desk
    with app.pipeline() as outer:
        app.send_task("t")
        with app.pipeline() as inner:
            app.send_task("t")
        app.send_task("t")
    assert (outer.sent, inner.sent) == (2, 1)
    assert active_pipeline() is None


def test_other_threads_are_not_in_it(desk: tuple[App, Recorder]) -> None:
    """A thread started without the context waits for its own confirms, as it must."""
    app, sent = desk
    with app.pipeline() as pipeline:
        thread = threading.Thread(target=app.send_task, args=("t",))
        thread.start()
        thread.join()
    assert (pipeline.sent, len(sent.sent)) == (0, 1)


def test_threads_with_its_context_are(desk: tuple[App, Recorder]) -> None:
    """Sixteen threads share a pipeline; each call is counted once, each failure listed once."""
    app, sent = desk
    sent.answer = _refuse(*(f"{t}-7" for t in range(16)))

    def send(thread: int) -> None:
        for n in range(50):
            app.send_task("t", task_id=f"{thread}-{n}")

    def send_all(pipeline: Pipeline) -> None:
        with pipeline:
            threads = [_in_thread(partial(send, each)) for each in range(16)]
            for thread in threads:
                thread.join()

    pipeline = app.pipeline()
    with pytest.raises(PipelineError) as caught:
        send_all(pipeline)
    assert (pipeline.sent, pipeline.confirmed) == (800, 784)
    assert {id_ for id_, _ in caught.value.failures} == {f"{t}-7" for t in range(16)}
    assert len(caught.value.failures) == 16


def test_after_the_block_a_call_waits_for_its_own_confirm(desk: tuple[App, Recorder]) -> None:
    """Code that still has the context of a block that is over must not send unconfirmed."""
    app, sent = desk
    with app.pipeline():
        context = contextvars.copy_context()
    sent.answer = _refuse("late")
    with pytest.raises(Unroutable):
        context.run(app.send_task, "t", task_id="late")


def test_a_full_pipeline_waits_for_room(
    desk: tuple[App, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At LIMIT the next call waits until half of it is confirmed, so memory has a bound."""
    monkeypatch.setattr(module, "LIMIT", 10)
    app, sent = desk
    sent.hold = True
    most = 0

    def confirm() -> None:
        nonlocal most
        while not done.is_set():
            if len(sent.sent) % 10 == 0 or ending.is_set():
                most = max(most, len(sent._held))
                sent.release()
            time.sleep(0.001)

    done, ending = threading.Event(), threading.Event()
    confirming = threading.Thread(target=confirm)
    confirming.start()
    try:
        with app.pipeline() as pipeline:
            for _ in range(95):
                app.send_task("t")
            ending.set()
    finally:
        done.set()
        confirming.join()
    assert pipeline.confirmed == 95
    assert most <= 10


# -- async ------------------------------------------------------------------------


async def test_async_calls_go_out_at_once_and_the_end_waits(desk: tuple[App, Recorder]) -> None:
    """As in threads; the loop goes on meanwhile."""
    app, sent = desk
    sent.hold = True
    turns = 0

    async def use_the_loop() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(use_the_loop())
    async with app.pipeline() as pipeline:
        await asyncio.gather(*(app.asend_task("t", (n,)) for n in range(50)))
        assert (pipeline.sent, pipeline.confirmed) == (50, 0)
        releasing = threading.Timer(0.05, sent.release)
        releasing.start()
        before = turns
    assert turns > before
    assert pipeline.confirmed == 50
    ticking.cancel()
    releasing.join()


async def test_an_async_pipeline_lists_its_failures(desk: tuple[App, Recorder]) -> None:
    """Whatever the order in which its coroutines sent."""
    app, sent = desk
    sent.answer = _refuse("id-1", "id-3")
    with pytest.raises(PipelineError) as caught:
        async with app.pipeline():
            await asyncio.gather(*(app.asend_task("t", task_id=f"id-{n}") for n in range(5)))
    assert {id_ for id_, _ in caught.value.failures} == {"id-1", "id-3"}


async def test_a_full_async_pipeline_awaits_room(
    desk: tuple[App, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At LIMIT aadd awaits; it goes on once half is confirmed."""
    monkeypatch.setattr(module, "LIMIT", 10)
    app, sent = desk
    sent.hold = True
    async with app.pipeline() as pipeline:
        for _ in range(9):
            await app.asend_task("t")
        tenth = asyncio.create_task(app.asend_task("t"))
        await aeventually(lambda: pipeline._wakeups)
        assert not tenth.done()
        sent.release()
        await tenth
    assert pipeline.confirmed == 10


async def test_a_cancelled_wait_leaves_nothing_behind(
    desk: tuple[App, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while it awaits room: the call is out, the pipeline still works."""
    monkeypatch.setattr(module, "LIMIT", 1)
    app, sent = desk
    sent.hold = True
    async with app.pipeline() as pipeline:
        call = asyncio.create_task(app.asend_task("t"))
        await aeventually(lambda: pipeline._wakeups)
        call.cancel()
        await asyncio.wait([call])
        assert pipeline._wakeups == []
        sent.release()
    assert (pipeline.sent, pipeline.confirmed) == (1, 1)


# -- what uses it -----------------------------------------------------------------


def test_a_call_with_several_copies_fails_as_one() -> None:
    """A delayed topic call to two queues is two messages and one call: it raises its own error."""
    app, sent = make_app(Queue("a", bindings=("news.#",)), Queue("b", bindings=("news.#",)))
    app.send_task("t", routing_key="news.x", countdown=5)
    assert len(sent.sent) == 2
    assert len({each.message.message_id for each in sent.sent}) == 1
    sent.answer = lambda publication: publication.fail(Nacked, "the queue refused it")
    with pytest.raises(Nacked):
        app.send_task("t", routing_key="news.x", countdown=5)
