"""What a type checker sees of a task: the function's own parameters, and wrong calls as errors.

``make lint`` is what checks this file. Each ``type: ignore`` names an error that has to be there:
mypy's ``warn_unused_ignores`` makes it an error of its own once the wrong call is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, assert_type

from amqtask import (
    App,
    AsyncResult,
    Context,
    GroupResult,
    GroupSignature,
    RetryPolicy,
    Signature,
    chain,
    chord,
    current_task,
    group,
)

P = ParamSpec("P")
R = TypeVar("R")

app = App("typing", environ={})


class Shape(Generic[P, R]):
    """The parameters and return type of a callable; invariant, so two are alike or an error."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function

    def same(self, other: Shape[P, R]) -> None: ...


# -- a plain function -------------------------------------------------------------


@app.task
def send(to: str, subject: str = "", *, urgent: bool = False) -> int:
    return len(to)


@app.task(queue="email", retry_on=[OSError], max_retries=5)
def send_with(to: str, subject: str = "", *, urgent: bool = False) -> int:
    return len(to)


@app.task(bind=True, retry=RetryPolicy(max_retries=1))
def send_bound(self: Context, to: str, subject: str = "", *, urgent: bool = False) -> int:
    return self.attempt


def delayed(to: str, subject: str = "", *, urgent: bool = False) -> AsyncResult[int]: ...  # type: ignore[empty-body]
async def adelayed(to: str, subject: str = "", *, urgent: bool = False) -> AsyncResult[int]: ...  # type: ignore[empty-body]
def called(to: str, subject: str = "", *, urgent: bool = False) -> int: ...  # type: ignore[empty-body]


# -- a coroutine function ---------------------------------------------------------


@app.task
async def fetch(url: str, *headers: str) -> bytes:
    return url.encode()


@app.task(priority=3)
async def fetch_with(url: str, *headers: str) -> bytes:
    return url.encode()


@app.task(bind=True)
async def fetch_bound(self: Context, url: str, *headers: str) -> bytes:
    return url.encode()


def fetch_delayed(url: str, *headers: str) -> AsyncResult[bytes]: ...  # type: ignore[empty-body]
def fetch_called(url: str, *headers: str) -> Coroutine[Any, Any, bytes]: ...  # type: ignore[empty-body]


# -- what the checker must see ----------------------------------------------------

if TYPE_CHECKING:

    def own_parameters() -> None:
        for task in (send, send_with, send_bound):
            Shape(task.delay).same(Shape(delayed))
            Shape(task.adelay).same(Shape(adelayed))
            Shape(task.options(countdown=5).delay).same(Shape(delayed))
            Shape(task.__call__).same(Shape(called))
        for atask in (fetch, fetch_with, fetch_bound):
            Shape(atask.delay).same(Shape(fetch_delayed))
            Shape(atask.options(queue="x").delay).same(Shape(fetch_delayed))
            Shape(atask.__call__).same(Shape(fetch_called))
        Shape(send.delay).same(Shape(fetch_delayed))  # type: ignore[arg-type]
        Shape(send.delay).same(Shape(called))  # type: ignore[arg-type]

    async def values() -> None:
        assert_type(send("a"), int)
        assert_type(send.delay("a"), AsyncResult[int])
        assert_type(send.delay("a").get(timeout=1), int)
        assert_type(await send.delay("a"), int)
        assert_type(await send.adelay("a", urgent=True), AsyncResult[int])
        assert_type(send.delay_many([("a",), {"to": "b"}]), list[AsyncResult[int]])
        assert_type(send.apply_async(("a",), countdown=3), AsyncResult[int])
        assert_type(send_bound("a"), int)
        assert_type(await fetch("a"), bytes)
        assert_type(await fetch.delay("a", "b"), bytes)
        assert_type(await (await fetch.adelay("a")).aget(), bytes)
        assert_type(app.send_task("x"), AsyncResult[Any])
        assert_type(current_task.id, str)
        if current_task:
            assert_type(current_task.attempt, int)

    async def workflows() -> None:
        assert_type(send.s("a"), Signature[..., int])
        assert_type(send.si("a"), Signature[[], int])
        assert_type(send.s("a") | fetch.s(), Signature[..., bytes])
        assert_type((send.si("a") | fetch.s()).delay(), AsyncResult[bytes])
        assert_type(await (await (send.s("a") | fetch.s()).adelay()), bytes)
        assert_type(~send.s("a"), int)
        assert_type(send.s("a").set(countdown=1).on_error(send.s()), Signature[..., int])
        assert_type((send.s("a") | fetch.s() | send.s()).delay().get(), int)
        assert_type(chain(send.si("a"), send.si("b")).delay().get(), int)
        assert_type(group(send.s("a"), send.s("b")), GroupSignature[..., int])
        assert_type(group(send.s(a) for a in "ab").delay(), GroupResult[int])
        assert_type(group(send.s("a")).delay().get(), list[int])
        assert_type(group(send.s("a")) | fetch.s(), Signature[..., bytes])
        assert_type(send.s("a") | group(fetch.s()), GroupSignature[..., bytes])
        assert_type(chord([send.s("a"), fetch.s("b")], send.s()), Signature[..., int])
        assert_type(chord([send.s("a")], group(send.s())), GroupSignature[..., int])
        assert_type(send.map(["a"]).delay().get(), list[int])
        assert_type(send.chunks([("a",)], 1).delay().get(), list[list[int]])

    def wrong_workflows() -> None:
        send.si(1)  # type: ignore[arg-type]
        send.si("a").delay("b")  # type: ignore[call-arg]
        send.s("a") | send  # type: ignore[operator]
        group(send)  # type: ignore[arg-type]
        chain(send.s("a"), 5)  # type: ignore[call-overload]

    def wrong_calls() -> None:
        send.delay()  # type: ignore[call-arg]
        send.delay(1)  # type: ignore[arg-type]
        send.delay("a", "b", True)  # type: ignore[call-arg]
        send.delay("a", subjet="b")  # type: ignore[call-arg]
        send.options(countdown=1).delay("a", urgent=1)  # type: ignore[arg-type]
        send.adelay(to=None)  # type: ignore[arg-type, unused-coroutine]
        send(to=1)  # type: ignore[arg-type]
        send_with.delay(b"a")  # type: ignore[arg-type]
        send_bound.delay(current_task, "a", "b")  # type: ignore[call-arg, arg-type]
        fetch.delay("a", 1)  # type: ignore[arg-type]
        fetch_bound.delay()  # type: ignore[call-arg]

    def wrong_options() -> None:
        send.options(countdwn=1)  # type: ignore[call-arg]
        send.options(countdown="1")  # type: ignore[arg-type]
        send.apply_async(("a",), queue=3)  # type: ignore[arg-type]
        app.send_task("x", prioritty=3)  # type: ignore[call-arg]
        app.task(que="email")  # type: ignore[call-overload]

        @app.task(bind=True)  # type: ignore[arg-type]
        def takes_no_context(to: str) -> None: ...
