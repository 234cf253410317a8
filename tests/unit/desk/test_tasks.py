"""Tasks: what fits the function is sent, anything else fails at the call and says what."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtask import (
    App,
    ArgumentsError,
    AsyncTask,
    ConfigurationError,
    Context,
    EncodeError,
    RetryPolicy,
    SyncTask,
)
from tests.unit.desk.recorder import Recorder, make_app


@pytest.fixture
def desk() -> tuple[App, Recorder]:
    return make_app("email")


def _body(recorder: Recorder) -> list[Any]:
    body: list[Any] = orjson.loads(recorder.last.message.body)
    return body[:2]


def test_what_fits_is_sent_as_it_was_passed(desk: tuple[App, Recorder]) -> None:
    """Positional stays positional, keywords stay keywords: defaults are the worker's matter."""
    app, sent = desk

    @app.task(name="mail.send")
    def send(to: str, subject: str = "hello", *, retry: bool = False) -> None: ...

    send.delay("a")
    assert _body(sent) == [["a"], {}]
    send.delay("a", subject="b", retry=True)
    assert _body(sent) == [["a"], {"subject": "b", "retry": True}]
    send.apply_async(("a", "c"))
    assert _body(sent) == [["a", "c"], {}]
    send.apply_async(kwargs={"to": "a"})
    assert _body(sent) == [[], {"to": "a"}]
    assert {each.task for each in sent.sent} == {"mail.send"}


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "task 'mail.send': missing a required argument: 'to'"),
        (("a", "b", "c"), {}, "task 'mail.send': too many positional arguments"),
        (("a",), {"to": "b"}, "task 'mail.send': multiple values for argument 'to'"),
        (
            ("a",),
            {"subjet": "b"},
            "task 'mail.send': got an unexpected keyword argument 'subjet'",
        ),
    ],
)
def test_arguments_that_do_not_fit_in_full(
    desk: tuple[App, Recorder], args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    """The call fails here, as a TypeError too, with task and argument named; nothing is sent."""
    app, sent = desk

    @app.task(name="mail.send")
    def send(to: str, subject: str = "hello") -> None: ...

    calls: list[Callable[[], object]] = [
        lambda: send.apply_async(args, kwargs),
        lambda: send.delay(*args, **kwargs),
        lambda: send.options(priority=1).delay(*args, **kwargs),
        lambda: asyncio.run(_awaited(send.adelay(*args, **kwargs))),
    ]
    for call in calls:
        with pytest.raises(ArgumentsError) as caught:
            call()
        assert str(caught.value) == text
        assert caught.value.hint == (
            "its signature is send(to: 'str', subject: 'str' = 'hello') -> 'None'"
        )
        assert isinstance(caught.value, TypeError)
    assert sent.sent == []


def test_delay_many_takes_one_collection_a_call(desk: tuple[App, Recorder]) -> None:
    """Sequences are positional, mappings are keywords; a bare value is a mistake that is named."""
    app, sent = desk

    @app.task(name="add")
    def add(a: int, b: int = 0) -> int:
        return a + b

    results = add.delay_many([(1, 2), [3], {"a": 4, "b": 5}])
    bodies = [orjson.loads(each.message.body)[:2] for each in sent.sent]
    assert bodies == [[[1, 2], {}], [[3], {}], [[], {"a": 4, "b": 5}]]
    assert [result.id for result in results] == [each.message.message_id for each in sent.sent]
    for wrong in (7, "text", b"bytes"):
        calls: Any = [wrong]
        with pytest.raises(ArgumentsError) as caught:
            add.delay_many(calls)
        assert str(caught.value) == f"delay_many got {wrong!r} for one call"
        assert caught.value.hint == (
            "give each call a tuple of positional or a dict of keyword arguments: [(1, 2), (3, 4)]"
        )
    with pytest.raises(ArgumentsError, match="missing a required argument: 'a'"):
        add.delay_many([()])


async def test_adelay_many_is_the_same(desk: tuple[App, Recorder]) -> None:
    """The async twin sends the same."""
    app, sent = desk

    @app.task(name="add")
    async def add(a: int, b: int = 0) -> int:
        return a + b

    results = await add.adelay_many([(1, 2), {"a": 4}])
    assert [orjson.loads(each.message.body)[:2] for each in sent.sent] == [
        [[1, 2], {}],
        [[], {"a": 4}],
    ]
    assert [result.id for result in results] == [each.message.message_id for each in sent.sent]


# -- every kind of signature ------------------------------------------------------


def _plain(a: Any, b: Any = 1) -> None: ...
def _positional_only(a: Any, b: Any = 1, /, c: Any = 2) -> None: ...
def _keyword_only(a: Any, *, b: Any) -> None: ...
def _keyword_default(a: Any = 0, *, b: Any = 0) -> None: ...
def _variadic(a: Any, *rest: Any) -> None: ...
def _named(a: Any, **rest: Any) -> None: ...
def _all(*args: Any, **kwargs: Any) -> None: ...
def _nothing() -> None: ...


FUNCTIONS = [
    _plain,
    _positional_only,
    _keyword_only,
    _keyword_default,
    _variadic,
    _named,
    _all,
    _nothing,
]


@settings(deadline=None)
@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.integers(), max_size=5),
    st.dictionaries(st.sampled_from("abcd"), st.integers(), max_size=3),
    st.booleans(),
)
def test_accepted_here_is_what_python_accepts(
    function: Callable[..., None], args: list[int], kwargs: dict[str, int], bind: bool
) -> None:
    """A call is sent if and only if the worker's call of the function would not be a TypeError."""
    app, sent = make_app()
    if bind:

        def bound(self: Any, *args: Any, **kwargs: Any) -> None: ...

        signature = inspect.signature(function)
        context = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        # a parameter called self must be allowed beside positional-only ones
        parameters = [context, *signature.parameters.values()]
        bound.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        task = app.task(bind=True, name="t")(bound)
    else:
        task = app.task(name="t")(function)
    try:
        function(*args, **kwargs)
        fits = True
    except TypeError:
        fits = False
    if fits:
        task.apply_async(args, kwargs)
    else:
        with pytest.raises(ArgumentsError):
            task.apply_async(args, kwargs)
    assert len(sent.sent) == fits


def test_the_context_is_no_argument(desk: tuple[App, Recorder]) -> None:
    """With bind=True the first parameter is the worker's: callers neither pass nor see it."""
    app, sent = desk

    @app.task(bind=True, name="bound")
    def bound(self: Context, a: int) -> int:
        return a

    assert str(bound.parameters) == "(a: 'int') -> 'int'"
    bound.delay(1)
    assert _body(sent) == [[1], {}]
    with pytest.raises(ArgumentsError, match="too many positional arguments"):
        bound.apply_async((1, 2))
    with pytest.raises(ArgumentsError, match="missing a required argument: 'a'"):
        bound.apply_async()


# -- arguments that do not serialise ----------------------------------------------


class Thing:
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((Thing(),), {}, "'to' of task 'mail.send': value of type 'Thing' at [0]"),
        (
            ("a", {"x": [1, Thing()]}),
            {},
            "'data' of task 'mail.send': value of type 'Thing' at [1]['x'][1]",
        ),
        (
            (),
            {"to": "a", "data": [Thing()]},
            "'data' of task 'mail.send': value of type 'Thing' at ['data'][0]",
        ),
        (("a", 1, 2, Thing()), {}, "'rest' of task 'mail.send': value of type 'Thing' at [3]"),
    ],
)
def test_a_value_that_does_not_serialise_in_full(
    desk: tuple[App, Recorder], args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    """It fails at the call, with task, parameter and the place inside it named."""
    app, sent = desk

    @app.task(name="mail.send")
    def send(to: Any, data: Any = None, *rest: Any) -> None: ...

    with pytest.raises(EncodeError) as caught:
        send.apply_async(args, kwargs)
    assert str(caught.value) == f"cannot encode argument {text} does not serialise as json"
    assert sent.sent == []


def test_without_the_code_the_position_is_named(desk: tuple[App, Recorder]) -> None:
    """send_task knows no parameters, so it names the argument's position."""
    app, _ = desk
    with pytest.raises(EncodeError) as caught:
        app.send_task("elsewhere.task", (1, Thing()))
    assert str(caught.value).startswith("cannot encode argument 1 of task 'elsewhere.task': ")


def test_kombu_types_are_sent(desk: tuple[App, Recorder]) -> None:
    """What Celery's JSON knows beyond JSON goes in its form."""
    app, sent = desk
    app.send_task("t", (Decimal("1.5"),))
    assert _body(sent)[0] == [{"__type__": "decimal", "__value__": "1.5"}]


# -- here and now -----------------------------------------------------------------


async def test_calling_a_task_runs_it_here(desk: tuple[App, Recorder]) -> None:
    """task(...) is the function: its value, its coroutine, its errors; nothing is sent."""
    app, sent = desk

    @app.task
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @app.task
    async def aadd(a: int, b: int) -> int:
        return a + b

    @app.task(bind=True)
    def attempt(self: Context) -> tuple[int, str, str]:
        return self.attempt, self.id, self.hostname

    assert isinstance(add, SyncTask)
    assert isinstance(aadd, AsyncTask)
    assert (add(1, 2), await aadd(1, 2), attempt()) == (3, 3, (1, "local", "local"))
    assert add.__doc__ == "Add two numbers."
    assert add.__wrapped__ is add.function
    with pytest.raises(TypeError):
        add("a")  # type: ignore[call-arg, arg-type]
    assert sent.sent == []


# -- the decorator ----------------------------------------------------------------


def test_options_of_the_decorator_are_the_defaults(desk: tuple[App, Recorder]) -> None:
    """What the decorator says goes with each call, until the call says otherwise."""
    app, sent = desk

    @app.task(name="t", priority=4, headers={"team": "a"}, ignore_result=True)
    def task() -> None: ...

    task.delay()
    assert (sent.last.message.priority, sent.last.message.headers["team"]) == (4, "a")
    task.options(priority=1, headers={"who": "b"}).delay()
    assert sent.last.message.priority == 1
    assert sent.last.message.headers["team"] == "a"
    assert sent.last.message.headers["who"] == "b"
    task.options(priority=1).options(shadow="s").delay()
    assert (sent.last.message.priority, sent.last.message.headers["shadow"]) == (1, "s")
    task.delay()
    assert sent.last.message.priority == 4


def test_an_unknown_option_of_the_decorator(desk: tuple[App, Recorder]) -> None:
    """A mistyped option is an error with a near name, at import."""
    app, _ = desk
    with pytest.raises(ConfigurationError, match="unknown option 'que', did you mean 'queue'?"):
        app.task(que="email")(_nothing)  # type: ignore[call-overload]


def test_retry_in_short_and_in_full(desk: tuple[App, Recorder]) -> None:
    """retry_on and max_retries make a policy; with retry= beside them it is unclear which counts."""
    app, _ = desk
    short = app.task(name="short", retry_on=[ValueError], max_retries=5)(_nothing)
    assert short.retry_policy == RetryPolicy(on=(ValueError,), max_retries=5)
    full = app.task(name="full", retry=RetryPolicy(max_retries=None))(_nothing)
    assert full.retry_policy == RetryPolicy(max_retries=None)
    assert app.task(name="none")(_nothing).retry_policy == RetryPolicy()
    with pytest.raises(ConfigurationError) as caught:
        app.task(name="both", retry=RetryPolicy(), max_retries=5)(_nothing)
    assert str(caught.value) == "task 'both' has retry= and max_retries"
    assert caught.value.hint == "put all of it into retry=RetryPolicy(on=..., max_retries=...)"


def test_a_queue_of_the_decorator_is_known(desk: tuple[App, Recorder]) -> None:
    """A worker of this app consumes it, and calls go there."""
    app, sent = desk
    task = app.task(name="t", queue="reports")(_nothing)
    assert set(app.queues) == {"default", "email", "reports"}
    task.delay()
    assert sent.last.routing_key == "reports"


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable


def test_the_pool_of_a_task() -> None:
    """Where it runs: any pool that fits the kind of function, or none."""
    app = App("pools", environ={})

    async def coroutine() -> None: ...

    assert app.task(name="a")(lambda: None).pool is None
    assert app.task(name="b", pool="thread")(lambda: None).pool == "thread"
    assert app.task(name="c", pool="loop")(coroutine).pool == "loop"
    assert app.task(name="d", pool="process")(coroutine).pool == "process"


@pytest.mark.parametrize(
    ("pool", "text", "hint"),
    [
        ("loop", "task 't' has pool='loop', but it is a plain function", 'give it pool="thread"'),
        ("proces", "task 't' has pool='proces', did you mean 'process'?", "there are loop, thread"),
    ],
)
def test_a_pool_that_does_not_fit(pool: Any, text: str, hint: str) -> None:
    """It is refused at the decorator."""
    with pytest.raises(ConfigurationError) as caught:
        App("pools", environ={}).task(name="t", pool=pool)(lambda: None)
    assert str(caught.value) == text
    assert hint in str(caught.value.hint)


def test_an_async_task_in_a_thread_is_refused() -> None:
    """A thread has no loop for it."""
    app = App("pools", environ={})

    async def coroutine() -> None: ...

    with pytest.raises(ConfigurationError, match="but it is an async function"):
        app.task(name="t", pool="thread")(coroutine)
