"""A soft limit comes out of the await that a coroutine is in, as an ordinary exception."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from amqtask import SoftTimeLimitExceeded
from amqtask.worker.pools.loop import Driver, LoopRun
from tests.helpers import aeventually


class Driven:
    """A coroutine function that runs through a driver, in an asyncio task."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.run: LoopRun | None = None
        self.cancelling: int | None = None
        self._task = asyncio.create_task(self._main(function))

    async def _main(self, function: Callable[[], Any]) -> Any:
        run = LoopRun()
        run.coroutine = function()
        run.driver = Driver(run.coroutine)
        self.run = run
        try:
            return await run.driver
        finally:
            task = asyncio.current_task()
            assert task is not None
            self.cancelling = task.cancelling()

    async def soft(self) -> None:
        await aeventually(lambda: self.run)
        await asyncio.sleep(0)
        assert self.run is not None
        self.run.soft()

    def __await__(self) -> Any:
        return self._task.__await__()


async def forever() -> None:
    await asyncio.sleep(3600)


async def in_a_timeout() -> None:
    async with asyncio.timeout(3600):
        await forever()


async def in_an_inner_task() -> None:
    await asyncio.create_task(forever())


async def in_a_gather() -> None:
    await asyncio.gather(forever(), forever())


async def in_a_shield() -> None:
    inner = asyncio.create_task(forever())
    try:
        await asyncio.shield(inner)
    finally:
        inner.cancel()


async def in_a_lock() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    async with lock:
        raise AssertionError("nobody releases it")


@pytest.mark.parametrize(
    "function",
    [forever, in_a_timeout, in_an_inner_task, in_a_gather, in_a_shield, in_a_lock],
)
async def test_it_is_raised_out_of_an_await(function: Callable[[], Awaitable[None]]):
    """Whatever it is that the coroutine awaits; and it does not count as a cancellation."""
    driven = Driven(function)
    await driven.soft()
    with pytest.raises(SoftTimeLimitExceeded):
        await driven
    assert driven.cancelling == 0


async def test_in_a_task_group():
    """The group cancels its other tasks and hands it on, as it does with any error."""
    ended = []

    async def member() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(member())
            await forever()

    driven = Driven(group)
    await driven.soft()
    with pytest.raises(BaseExceptionGroup) as caught:
        await driven
    assert [type(each) for each in caught.value.exceptions] == [SoftTimeLimitExceeded]
    assert ended == [1]
    assert driven.cancelling == 0


async def test_a_coroutine_may_catch_it_and_go_on():
    """It is raised once; what the coroutine awaits afterwards is left alone."""

    async def cleans_up() -> str:
        try:
            await forever()
        except SoftTimeLimitExceeded:
            async with asyncio.timeout(60):
                await asyncio.sleep(0.01)
            return "clean"
        raise AssertionError

    driven = Driven(cleans_up)
    await driven.soft()
    assert await driven == "clean"
    assert driven.cancelling == 0


async def test_what_swallows_the_cancellation_does_not_swallow_the_limit():
    """An inner task that ends in good order instead: the limit is raised all the same."""

    async def stubborn() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "went on"
        raise AssertionError

    async def outer() -> str:
        return await asyncio.create_task(stubborn())

    driven = Driven(outer)
    await driven.soft()
    with pytest.raises(SoftTimeLimitExceeded):
        await driven
    assert driven.cancelling == 0


async def test_a_cancellation_stays_one():
    """Only the one that the limit asked for becomes something else."""
    driven = Driven(forever)
    await aeventually(lambda: driven.run)
    assert driven.run is not None
    driven.run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driven


async def test_values_and_errors_pass():
    """A driver is transparent: to what is returned, raised and sent."""

    async def returns() -> int:
        await asyncio.sleep(0)
        return await asyncio.wait_for(asyncio.sleep(0, 5), 60)

    async def raises() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    assert await Driven(returns) == 5
    with pytest.raises(LookupError, match="no"):
        await Driven(raises)


async def test_too_late():
    """A coroutine that has ended is not interrupted any more, nor is whatever follows it."""

    async def quick() -> int:
        return 1

    driven = Driven(quick)
    assert await driven == 1
    assert driven.run is not None
    driven.run.soft()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_where_it_waits():
    """The frames of the coroutine and of those that it awaits, outermost first."""
    driven = Driven(in_a_timeout)
    await aeventually(lambda: driven.run)
    await asyncio.sleep(0)
    assert driven.run is not None
    stack = driven.run.stack()
    assert stack.index("await forever()") < stack.index("await asyncio.sleep(3600)")
    driven.run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driven
