"""Eager mode: a call runs where it is made, and what the wire would not take fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqtask import (
    App,
    ContentDisallowed,
    EncodeError,
    MessageTooLarge,
    RetryPolicy,
    TaskRevoked,
    UnknownTask,
    WaitInTask,
    current_task,
)
from amqtask.testing import Eager, eager


@pytest.fixture
def app() -> App:
    # a broker that nobody can reach: eager mode must not try
    return App("eager", broker="amqp://127.0.0.1:1/", backend="rpc://", environ={})


@pytest.fixture
def mode(app: App) -> Iterator[Eager]:
    with eager(app) as made:
        yield made


def test_it_runs_in_place(app: App, mode: Eager) -> None:
    """When `delay` returns, it has run, and its result is there."""

    @app.task
    def add(a: int, b: int) -> int:
        return a + b

    result = add.delay(1, b=2)
    assert result.get(timeout=0) == 3
    assert result.state == "SUCCESS"
    mode.assert_sent(add, 1, 2)


def test_arguments_and_results_go_over_the_wire(app: App, mode: Eager) -> None:
    """A tuple arrives as a list, in both directions, as it does through a broker."""
    seen: list[Any] = []

    @app.task
    def echo(value: Any) -> Any:
        seen.append(value)
        return (value,)

    assert echo.delay((1, 2)).get(timeout=0) == [[1, 2]]
    assert seen == [[1, 2]]


def test_what_does_not_serialise_fails(app: App, mode: Eager) -> None:
    """Arguments and results, each with the text that names it."""

    @app.task
    def give(value: Any) -> Any:
        return object()

    with pytest.raises(EncodeError, match="cannot encode argument 'value'"):
        give.delay(object())
    with pytest.raises(EncodeError, match="result of task '.*give'"):
        give.delay(1)


def test_limits_hold() -> None:
    """A body over the limit, and a serializer that workers do not accept."""
    app = App("eager", environ={}, max_message_size=100)

    @app.task
    def take(value: Any) -> None: ...

    with eager(app):
        with pytest.raises(MessageTooLarge, match="max_message_size is 100"):
            take.delay("x" * 200)
        with pytest.raises(ContentDisallowed):
            take.options(serializer="pickle").delay(1)
        with pytest.raises(EncodeError):
            take.options(headers={"n": 1 << 70}).delay(1)


def test_a_failure_is_raised_where_the_call_is(app: App, mode: Eager) -> None:
    """It is the very exception, with a note that says which call it was."""
    error = ValueError("no")

    @app.task
    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="no") as caught:
        fail.delay()
    assert caught.value is error
    assert "attempt 1), in eager mode" in caught.value.__notes__[0]
    mode.assert_sent(fail)


def test_a_failure_may_wait_for_get(app: App) -> None:
    """With propagate=False only the result raises it, as in production."""

    @app.task
    def fail() -> None:
        raise ValueError("no")

    with eager(app, propagate=False):
        result = fail.delay()
        assert result.state == "FAILURE"
        with pytest.raises(ValueError, match="no"):
            result.get(timeout=0)


def test_retries_are_counted(app: App, mode: Eager) -> None:
    """Each attempt is a message of its own, with the same id and one more retry."""
    seen = []

    @app.task(retry=RetryPolicy(max_retries=2, on=(OSError,), backoff=3600))
    def flaky(attempts: int) -> int:
        seen.append((current_task.id, current_task.attempt))
        if current_task.attempt < attempts:
            raise OSError("not yet")
        return current_task.attempt

    result = flaky.delay(3)
    assert result.get(timeout=0) == 3
    assert seen == [(result.id, 1), (result.id, 2), (result.id, 3)]
    with pytest.raises(OSError, match="not yet"):
        flaky.delay(4)


def test_a_task_that_always_wants_one_more(app: App, mode: Eager) -> None:
    """It would go on for ever, so it is given up."""

    @app.task(retry=RetryPolicy(max_retries=None, on=(OSError,)))
    def endless() -> None:
        raise OSError

    with pytest.raises(AssertionError, match="one more attempt after 1000"):
        endless.delay()


def test_delays_do_not_count_and_expiry_does(app: App, mode: Eager) -> None:
    """A call of next year runs now; one that would have expired by then does not."""

    @app.task
    def now() -> str:
        return "ran"

    later = datetime.now(UTC) + timedelta(days=365)
    assert now.options(eta=later).delay().get(timeout=0) == "ran"
    mode.assert_sent(now, times=1)
    with pytest.raises(TaskRevoked):
        now.options(countdown=60, expires=30).delay()


def test_calls_inside_calls(app: App, mode: Eager) -> None:
    """They run inside, and know their parent."""

    @app.task
    def inner() -> str | None:
        return current_task.parent_id

    @app.task
    def outer() -> list[str | None]:
        return [current_task.id, inner.delay().get(timeout=0)]

    own, parent = outer.delay().get(timeout=0)
    assert own == parent


@pytest.mark.parametrize(
    ("wait", "sent"),
    [
        (lambda inner: inner.delay().get(), ["outer", "inner"]),
        (lambda inner: ~inner.s(), ["outer"]),  # which sends and waits, does neither
    ],
)
def test_a_task_does_not_wait_for_another_one(
    app: App, mode: Eager, wait: Callable[[Any], int], sent: list[str]
) -> None:
    """What would fail in a worker fails here, though here the outcome is always there."""

    @app.task(name="inner")
    def inner() -> int:
        return 1

    @app.task(name="outer")
    def outer() -> int:
        return wait(inner)

    with pytest.raises(WaitInTask):
        outer.delay()
    assert [call.task for call in mode.sent()] == sent


def test_coroutines_from_plain_code(app: App, mode: Eager) -> None:
    """An async task runs to its end, whether a loop runs here or not."""

    @app.task
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    assert add.delay(1, 2).get(timeout=0) == 3

    async def inside() -> int:
        return add.delay(3, 4).get(timeout=0)

    assert asyncio.run(inside()) == 7


async def test_coroutines_on_their_loop(app: App, mode: Eager) -> None:
    """`adelay` awaits it on the loop that it is called on."""
    loops = []

    @app.task
    async def where() -> None:
        loops.append(asyncio.get_running_loop())

    await where.adelay()
    assert loops == [asyncio.get_running_loop()]


def test_a_name_that_is_no_task_here(app: App, mode: Eager) -> None:
    """A worker would park it."""
    with pytest.raises(UnknownTask, match="unknown task 'nobody'"):
        app.send_task("nobody")


def test_afterwards_the_app_is_as_before(app: App) -> None:
    """Backend, sending and all."""
    backend = app.backend
    with eager(app):
        assert app.backend is not backend
    assert app.backend is backend
    assert app.producer.stand_in is None


def test_a_workflow_of_named_steps(app: App, mode: Eager) -> None:
    """Its steps run in their order, each with the results that it takes."""

    @app.task
    def word(of: str, **parts: str) -> str:
        return of + "".join(f"[{name}={parts[name]}]" for name in sorted(parts))

    wf = app.workflow("letters")
    wf.step("a", word.s("a"))
    wf.step("b", word.s("b"), after="a").step("c", word.s("c"), after="a")
    wf.step("d", word.s("d"), after=("a", "b", "c"))
    run = wf.delay()
    assert run.get(1) == {"d": "d[a=a][b=b[a=a]][c=c[a=a]]"}
    assert (run.progress().done, run.ready()) == (4, True)
