"""The handle of a call: waiting in threads and coroutines, values, errors, states."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterable, Iterator
from typing import Any

import pytest

from amqtask import (
    AsyncResult,
    Context,
    GroupResult,
    NoBackend,
    RemoteError,
    ResultSet,
    ResultTimeout,
    WaitInTask,
    allow_waiting,
    as_completed,
)
from amqtask.backends import Pending
from amqtask.context import _current
from amqtask.message.model import Call
from amqtask.message.results import RemoteTraceback, ResultMeta, encode_exception
from tests.helpers import eventually
from tests.unit.desk.recorder import make_app


def _meta(status: str, result: Any = None, traceback: str | None = None) -> ResultMeta:
    return ResultMeta("id-1", status, result, traceback)


def _failure(error: BaseException) -> ResultMeta:
    return _meta("FAILURE", encode_exception(error), "Traceback: there")


@pytest.fixture
def pending() -> Pending:
    return Pending("id-1")


@pytest.fixture
def result(pending: Pending) -> AsyncResult[Any]:
    return AsyncResult("id-1", "t.add", pending)


@pytest.fixture
def in_task() -> Iterator[None]:
    """The test's code is that of a task."""
    app, _ = make_app()
    token = _current.set(Context(app, Call("t.outer", "A"), queue="q", hostname="w@h"))
    yield
    _current.reset(token)


@pytest.mark.parametrize(
    "read",
    [
        lambda result: result.get(timeout=0),
        lambda result: result.state,
        lambda result: result.ready(),
        lambda result: result.result,
        lambda result: result.traceback,
        lambda result: result.successful(),
        lambda result: asyncio.run(result.aget()),
    ],
)
def test_without_a_backend_in_full(read: Any) -> None:
    """Every way to look fails at once and says how to set a backend."""
    app, _ = make_app()
    result = app.send_task("t.add", task_id="id-1")
    with pytest.raises(NoBackend) as caught:
        read(result)
    assert str(caught.value) == "results are off for task 't.add' (id id-1)"
    assert caught.value.hint == (
        'set a result backend, for example App(..., backend="rpc://"), and leave ignore_result off'
    )


def test_a_value(pending: Pending, result: AsyncResult[Any]) -> None:
    """Before: pending. After: the value, by every way to look."""
    assert (result.state, result.ready(), result.result) == ("PENDING", False, None)
    pending.resolve(_meta("SUCCESS", 3))
    assert (result.get(), result.result, result.state, result.status) == (
        3,
        3,
        "SUCCESS",
        "SUCCESS",
    )
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)


def test_an_error_is_raised_with_its_class(pending: Pending, result: AsyncResult[Any]) -> None:
    """The task's own exception, with the remote traceback as cause."""
    pending.resolve(_failure(ValueError("bad", 2)))
    with pytest.raises(ValueError, match="bad") as caught:
        result.get()
    assert caught.value.args == ("bad", 2)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "Traceback: there" in str(caught.value.__cause__)
    assert result.traceback == "Traceback: there"
    assert (result.failed(), result.state) == (True, "FAILURE")
    assert isinstance(result.get(propagate=False), ValueError)
    assert isinstance(result.result, ValueError)


def test_an_error_of_a_class_that_is_not_here(pending: Pending, result: AsyncResult[Any]) -> None:
    """A class this process has not imported comes as RemoteError and is not imported."""
    pending.resolve(
        _meta(
            "FAILURE",
            {"exc_type": "Odd", "exc_module": "not.imported", "exc_message": ["x"]},
            "Traceback: there",
        )
    )
    with pytest.raises(RemoteError) as caught:
        result.get()
    assert (caught.value.exc_type, caught.value.exc_module) == ("Odd", "not.imported")


def test_a_timeout_in_full(result: AsyncResult[Any]) -> None:
    """Task, id and seconds are named; it is a TimeoutError too."""
    with pytest.raises(ResultTimeout) as caught:
        result.get(timeout=0.01)
    assert str(caught.value) == "no result of task 't.add' (id id-1) within 0.01 s"
    assert isinstance(caught.value, TimeoutError)


async def test_an_async_timeout(pending: Pending, result: AsyncResult[Any]) -> None:
    """aget gives up too, and leaves nothing behind on the handle."""
    with pytest.raises(ResultTimeout, match="within 0.01 s"):
        await result.aget(timeout=0.01)
    assert pending._callbacks == []


async def test_many_wait_at_once(pending: Pending, result: AsyncResult[Any]) -> None:
    """Threads and coroutines of several loops all get the one outcome."""
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(result.get(60))) for _ in range(4)]
    threads.append(threading.Thread(target=lambda: got.append(asyncio.run(_wait(result)))))
    for thread in threads:
        thread.start()
    waiting = [asyncio.create_task(_wait(result)) for _ in range(4)]
    await asyncio.to_thread(lambda: eventually(lambda: len(pending._callbacks) == 9))
    await asyncio.to_thread(pending.resolve, _meta("SUCCESS", 7))
    assert await asyncio.gather(*waiting) == [7] * 4
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert got == [7] * 5


async def test_awaiting_a_result_that_is_here(pending: Pending, result: AsyncResult[Any]) -> None:
    """It may be awaited again and again."""
    pending.resolve(_meta("SUCCESS", None))
    assert await result is None
    assert await result is None


async def _followed(result: AsyncResult[Any]) -> list[Any]:
    return [each async for each in result.awatch()]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    "wait",
    [
        lambda result: result.get(),
        lambda result: result.get(timeout=1),
        lambda result: result.get(propagate=False),
        lambda result: asyncio.run(_wait(result)),
        lambda result: list(result.watch()),
        lambda result: asyncio.run(_followed(result)),
        lambda result: ResultSet([result]).join(),
        lambda result: asyncio.run(ResultSet([result]).ajoin()),
        lambda result: list(as_completed([result])),
    ],
)
def test_a_task_does_not_wait(
    pending: Pending, result: AsyncResult[Any], in_task: None, wait: Any, ended: bool
) -> None:
    """Nor for what has ended: the next time it may not have."""
    if ended:
        pending.resolve(_meta("SUCCESS", 3))
    with pytest.raises(WaitInTask, match=r"task 't\.outer' \(id A\) would wait for another one"):
        wait(result)


def test_a_task_may_look(pending: Pending, result: AsyncResult[Any], in_task: None) -> None:
    """What takes no time is allowed, be the outcome there or not."""
    with pytest.raises(ResultTimeout):
        result.get(timeout=0)
    with pytest.raises(ResultTimeout):
        asyncio.run(result.aget(timeout=0))
    assert (result.ready(), result.result) == (False, None)
    pending.resolve(_meta("SUCCESS", 3))
    assert (result.ready(), result.result, result.get(timeout=0)) == (True, 3, 3)
    assert asyncio.run(result.aget(timeout=0)) == 3
    assert ResultSet([result]).join(timeout=0) == [3]


@pytest.mark.parametrize(
    "look",
    [
        lambda result: result.get(timeout=0),
        lambda result: asyncio.run(result.aget(timeout=0)),
        lambda result: ResultSet([result]).join(timeout=0)[0],
        lambda result: asyncio.run(ResultSet([result]).ajoin(timeout=0))[0],
        lambda result: asyncio.run(GroupResult("g", [result]).aget(timeout=0))[0],
        lambda result: next(iter(as_completed([result], 0))).result,
        lambda result: asyncio.run(_first(as_completed([result], 0))).result,
        lambda result: next(result.watch(0), None) or result.result,
        lambda result: asyncio.run(_first(result.awatch(0))) or result.result,
    ],
)
def test_a_look_finds_what_is_there(pending: Pending, result: AsyncResult[Any], look: Any) -> None:
    """A timeout of 0 only looks, whichever way of waiting it is given to."""
    with pytest.raises(ResultTimeout, match="within 0 s"):
        look(result)
    assert not pending.awaited
    pending.resolve(_meta("SUCCESS", 3))
    assert look(result) == 3


async def _first(items: AsyncIterable[Any]) -> Any:
    async for item in items:
        return item
    return None


def test_a_task_that_says_so_may_wait(
    pending: Pending, result: AsyncResult[Any], in_task: None
) -> None:
    """Inside the block, and not behind it."""
    pending.resolve(_meta("SUCCESS", 3))
    with allow_waiting():
        assert result.get() == 3
        assert asyncio.run(_wait(result)) == 3
        assert ResultSet([result]).join() == [3]
    with pytest.raises(WaitInTask):
        result.get()


def test_states_on_the_way_are_not_final(pending: Pending, result: AsyncResult[Any]) -> None:
    """RETRY and STARTED are seen and wake nobody; the final one stays whatever comes later."""
    for state in ("STARTED", "RETRY"):
        pending.resolve(
            _meta(state, encode_exception(ValueError("again")) if state == "RETRY" else None)
        )
        assert (result.state, result.ready()) == (state, False)
    assert isinstance(result.result, ValueError)
    pending.resolve(_meta("SUCCESS", 1))
    pending.resolve(_failure(ValueError("late")))
    assert result.get() == 1


def test_handles_of_one_call_are_equal() -> None:
    """By id, so they can be keys."""
    one, two = AsyncResult[int]("a", "t", None), AsyncResult[int]("a", "u", None)
    assert one == two
    assert len({one, two, AsyncResult[int]("b", "t", None)}) == 2
    assert repr(one) == "<AsyncResult t a>"
    assert one != "a"


def test_a_handle_nobody_keeps_costs_nothing() -> None:
    """The outcome of a call whose handle was dropped is not waited for."""
    app, sent = make_app(backend="rpc://")
    result = app.send_task("t")
    pending = weakref.ref(result._pending)
    sent.sent.clear()
    del result
    gc.collect()
    assert pending() is None


def test_results_by_id() -> None:
    """app.result(id) is the same handle while somebody holds one."""
    app, _ = make_app(backend="rpc://")
    sent = app.send_task("t", task_id="fixed")
    assert app.result("fixed") == sent
    assert app.result("fixed")._pending is sent._pending


async def _wait(result: AsyncResult[Any]) -> Any:
    return await result.aget(60)
