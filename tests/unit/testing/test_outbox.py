"""Assertions about what was sent, and the texts of those that fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import pytest

from amqtask import App, Queue
from amqtask.task import Task
from amqtask.testing import Eager, eager


@pytest.fixture
def app() -> App:
    return App("outbox", queues=["email", Queue("audit", bindings=("audit.#",))], environ={})


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send", queue="email")
    def send(to: str, subject: str = "Hi", cc: Any = ()) -> None: ...

    return send


@pytest.fixture
def box(app: App) -> Iterator[Eager]:
    with eager(app) as made:
        yield made


def test_arguments_match_by_parameter(send: Task[..., None], box: Eager) -> None:
    """By position, by name or by default: it is the same call."""
    send.delay("ada", "Hi", cc=("bob", "eve"))
    box.assert_sent(send)
    box.assert_sent(send, "ada", cc=("bob", "eve"))
    box.assert_sent(send, to="ada", subject="Hi", cc=["bob", "eve"])
    box.assert_sent(send, ANY, cc=ANY)
    box.assert_sent("send")
    box.assert_not_sent(send, "ada")


def test_queue_countdown_and_number(send: Task[..., None], box: Eager, app: App) -> None:
    """Where it went, when it may start, and how often."""
    send.options(countdown=60).delay("ada")
    send.delay("bob")
    app.send_task("send", ("eve",), routing_key="audit.mail")
    sent = box.assert_sent(send, "ada", queue="email", countdown=60)
    assert (sent.countdown, sent.routing_key, sent.queues) == (60, "email", ("email",))
    box.assert_sent(send, "bob", countdown=0, times=1)
    box.assert_sent(send, "eve", queue="audit")
    box.assert_sent(send, times=3)
    box.assert_not_sent(send, queue="reports")


def test_a_failure_shows_what_was_sent_instead(send: Task[..., None], box: Eager) -> None:
    """Calls of the task first, with what differs in each."""
    send.options(queue="audit").delay("bob", cc=["eve"])
    with pytest.raises(AssertionError) as failed:
        box.assert_sent(send, "ada", queue="email", countdown=5)
    assert str(failed.value) == (
        "send('ada') to queue 'email' in 5 s was not sent\n"
        "  sent were:\n"
        "    send('bob', cc=['eve'])  -> queue 'audit'\n"
        "      differs: to is 'bob'; cc is ['eve']; queue is 'audit'; countdown is 0"
    )


def test_nothing_was_sent(send: Task[..., None], box: Eager) -> None:
    """Which is worth saying."""
    with pytest.raises(AssertionError, match=r"send\(\.\.\.\) was not sent\n  nothing was sent"):
        box.assert_sent(send)


def test_too_often(send: Task[..., None], box: Eager) -> None:
    """The number that was and the number that should have been."""
    send.delay("ada")
    send.delay("ada")
    with pytest.raises(AssertionError, match=r"was sent 2 times, expected once"):
        box.assert_sent(send, "ada", times=1)
    with pytest.raises(AssertionError, match=r"send\('ada'\) was sent 2 times:\n    send\('ada'\)"):
        box.assert_not_sent(send, "ada")


def test_sent_calls_in_order(send: Task[..., None], box: Eager, app: App) -> None:
    """All of them, or those of one task, until they are forgotten."""

    @app.task(name="other")
    def other() -> None: ...

    send.delay("ada")
    other.delay()
    send.delay("bob")
    assert [call.task for call in box.sent()] == ["send", "other", "send"]
    assert [call.args for call in box.sent(send)] == [("ada",), ("bob",)]
    box.forget_sent()
    assert box.sent() == []
