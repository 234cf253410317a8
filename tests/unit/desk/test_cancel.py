"""Cancelling from an app: what is published, for how long it counts, and what is refused."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqtask import App, AsyncResult, ConfigurationError, PipelineError
from amqtask.errors import Unroutable
from amqtask.message.cancellation import Cancellation, decode_cancellation
from amqtask.transport import Publication
from tests.unit.desk.recorder import Recorder, make_app


def _records(sent: Recorder) -> list[Cancellation]:
    found = [decode_cancellation(each.message.body) for each in sent.sent]
    assert None not in found
    return [each for each in found if each is not None]


def test_one() -> None:
    """To the exchange of the settings, after its register was made, for a day by default."""
    app, sent = make_app(cancel_exchange="shop.cancel")
    before = time.time()
    app.cancel("id-1")
    (publication,) = sent.sent
    assert (publication.exchange, publication.routing_key) == ("shop.cancel", "")
    assert [each.name for each in publication.requires] == [
        "register of cancelled calls 'shop.cancel.register'"
    ]
    assert publication.deadline is not None
    (record,) = _records(sent)
    assert (record.id, record.terminate) == ("id-1", False)
    assert before + 86400 <= record.until <= time.time() + 86400


def test_several() -> None:
    """Each once, in order, all with the same words."""
    app, sent = make_app()
    app.cancel(["a", "b", "a"], terminate=True, keep=10)
    records = _records(sent)
    assert [(each.id, each.terminate) for each in records] == [("a", True), ("b", True)]
    assert all(each.until < time.time() + 11 for each in records)


def test_none() -> None:
    """Nothing to do is no error, as with any list that happens to be empty."""
    app, sent = make_app()
    app.cancel([])
    assert sent.sent == []


async def test_awaited() -> None:
    """The same from a coroutine."""
    app, sent = make_app()
    await app.acancel("a")
    await app.acancel(["b", "c"])
    await app.acancel([])
    assert [each.id for each in _records(sent)] == ["a", "b", "c"]


@pytest.mark.parametrize("ids", ["", [""], ["x" * 256], [1], [None]])
def test_what_is_no_id(ids: Any) -> None:
    """Refused before anything is sent."""
    app, sent = make_app()
    with pytest.raises(ConfigurationError) as caught:
        app.cancel(ids)
    assert "is no id of a call" in str(caught.value)
    assert sent.sent == []


@pytest.mark.parametrize("keep", [0, -1, float("nan")])
def test_a_time_that_is_none(keep: float) -> None:
    """A record that is over at once would cancel nothing."""
    app, sent = make_app()
    with pytest.raises(ConfigurationError, match="keep is"):
        app.cancel("a", keep=keep)
    assert sent.sent == []


def test_not_confirmed() -> None:
    """The broker's refusal is the caller's to know, for one and for some of many."""
    app, sent = make_app()

    def refuse(publication: Publication) -> Unroutable | None:
        return Unroutable("no") if publication.message.message_id == "b" else None

    sent.answer = refuse
    with pytest.raises(Unroutable):
        app.cancel("b")
    with pytest.raises(PipelineError) as caught:
        app.cancel(["a", "b", "c"])
    assert [id_ for id_, _ in caught.value.failures] == ["b"]


def test_inside_a_pipeline_it_does_not_wait_for_the_end() -> None:
    """A cancel is safe when it returns, wherever it is called."""
    app, sent = make_app()
    with app.pipeline():
        app.send_task("t", task_id="a")
        app.cancel("a")
        assert sent.last.done


# -- by the handle --------------------------------------------------------------------


def test_by_its_handle() -> None:
    """With a backend or without one."""
    app, sent = make_app()
    app.send_task("t", task_id="a").cancel()
    app.result("b").cancel(terminate=True)
    records = _records(type("Last", (), {"sent": [sent.sent[1], sent.sent[2]]}))  # type: ignore[arg-type]
    assert [(each.id, each.terminate) for each in records] == [("a", False), ("b", True)]


async def test_by_its_handle_awaited() -> None:
    """The same from a coroutine."""
    app, sent = make_app()
    result = await app.asend_task("t", task_id="a")
    await result.acancel()
    assert sent.last.message.message_id == "a"


@pytest.mark.parametrize("word", ["countdown", "eta"])
def test_a_delayed_call_is_remembered_until_it_is_due(word: str) -> None:
    """Else the record would be gone when the call comes up."""
    app, sent = make_app()
    month = timedelta(days=30)
    begun = time.time()
    due: Any = month.total_seconds() if word == "countdown" else datetime.now(UTC) + month
    app.send_task("t", **{word: due}).cancel()
    record = decode_cancellation(sent.last.message.body)
    assert record is not None
    assert begun <= record.until - 31 * 86400 <= time.time()


def test_an_eta_that_has_passed() -> None:
    """The time counts from now, not from back then."""
    app, sent = make_app()
    app.send_task("t", eta=datetime(2020, 1, 1, tzinfo=UTC)).cancel()
    record = decode_cancellation(sent.last.message.body)
    assert record is not None
    assert record.until > time.time() + 86000


async def test_a_handle_without_an_app() -> None:
    """Only tests make such a one; it says what to do instead."""
    result: AsyncResult[Any] = AsyncResult("a", "t", None)
    with pytest.raises(ConfigurationError) as caught:
        result.cancel()
    assert caught.value.hint == "cancel it by app.cancel(id)"
    with pytest.raises(ConfigurationError):
        await result.acancel()


def test_the_topology_holds_it() -> None:
    """`amqtask topology` shows what somebody else has to make under declare="never"."""
    app = App("desk", environ={})
    names = {getattr(step, "name", None) for step in app.topology().steps}
    assert {"amqtask.cancel", "amqtask.cancel.register"} <= names
    names = {getattr(step, "name", None) for step in app.topology(cancelling=False).steps}
    assert not {"amqtask.cancel", "amqtask.cancel.register"} & names
