"""Time limits, cancels and slots in threads and on the loop, on real brokers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from amqtask import (
    RetryPolicy,
    SoftTimeLimitExceeded,
    TaskCancelled,
    TaskRevoked,
    TimeLimitExceeded,
)
from amqtask.worker.board import Board
from amqtask.worker.slots import QueueSlots
from tests.helpers import TIMEOUT, aeventually, eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line
from tests.servers import Names

pytestmark = pytest.mark.parametrize("kind", ["plain", "async"])

Register = Callable[..., Any]

#: Seconds for a limit that shall be reached: a task has begun by then, on a busy machine too.
SOON = 1.0


class Floor:
    """What the tasks of a test have to say."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.open = threading.Event()

    def waits(self) -> str:
        """Wait as interruptible code does, and say what came instead of the end."""
        self.said.append("began")
        try:
            while not self.open.is_set():
                time.sleep(0.01)
        except BaseException as asked:
            self.said.append(type(asked).__name__)
            raise
        return "ended"

    async def awaits(self) -> str:
        self.said.append("began")
        try:
            await aeventually(self.open.is_set)
        except BaseException as asked:
            self.said.append(type(asked).__name__)
            raise
        return "ended"

    def ignores(self) -> None:
        self.said.append("began")
        while not self.open.is_set():
            try:
                self.open.wait(TIMEOUT)
            except BaseException:
                self.said.append("ignored")

    async def aignores(self) -> None:
        self.said.append("began")
        while not self.open.is_set():
            try:
                await asyncio.sleep(0.05)
            except BaseException:
                self.said.append("ignored")


@pytest.fixture
def floor() -> Floor:
    return Floor()


def _task(app: Any, floor: Floor, kind: str, name: str = "waits", **said: Any) -> Any:
    function = getattr(floor, name if kind == "plain" else f"a{name}")

    if kind == "plain":

        @app.task(name=f"t.{name}", **said)
        def plain() -> Any:
            return function()

        return plain

    @app.task(name=f"t.{name}", **said)
    async def coroutine() -> Any:
        return await function()

    return coroutine


def test_a_soft_limit(app, queue, floor: Floor, kind, running: Running, line: Line):
    """Raised in the task; what leaves it is parked as a timeout, and its caller is told."""
    task = _task(app, floor, kind, soft_time_limit=SOON)
    running(app)
    with pytest.raises(SoftTimeLimitExceeded, match=r"ran over its soft limit of 1 s"):
        task.delay().get(60)
    assert floor.said == ["began", "SoftTimeLimitExceeded"]
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "timeout"


def test_limits_of_the_call_and_of_the_settings(
    make_app: MakeApp, queue, floor: Floor, kind, running: Running
):
    """The setting holds where nobody says otherwise; the call's word goes before it."""
    app = make_app(queue, soft_time_limit=SOON)
    task = _task(app, floor, kind)
    running(app)
    with pytest.raises(SoftTimeLimitExceeded):
        task.delay().get(60)
    result = task.options(soft_time_limit=60).delay()
    eventually(lambda: floor.said.count("began") == 2)
    floor.open.set()
    assert result.get(60) == "ended"


def test_a_limit_that_is_retried(app, floor: Floor, kind, running: Running):
    """It is an error like any other to the policy."""
    policy = RetryPolicy(on=(SoftTimeLimitExceeded,), max_retries=1, backoff=0.05, jitter=False)
    task = _task(app, floor, kind, soft_time_limit=SOON, retry=policy)
    running(app)
    with pytest.raises(SoftTimeLimitExceeded):
        task.delay().get(60)
    assert floor.said.count("began") == 2


def test_a_hard_limit_that_is_obeyed(app, queue, floor: Floor, kind, running: Running, line: Line):
    """A coroutine that ends when it is cancelled costs nothing; a thread always costs its process."""
    given_up: list[str] = []
    task = _task(app, floor, kind, time_limit=SOON)
    worker = running(app, on_give_up=given_up.append)
    with pytest.raises(TimeLimitExceeded, match=r"ran over its hard limit of 1 s"):
        task.delay().get(60)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "timeout"
    if kind == "async":
        assert floor.said == ["began", "CancelledError"]
        assert given_up == []
    else:
        eventually(lambda: given_up)
    floor.open.set()
    worker.stop()
    assert worker.node.counts == {"failed": 1}


def test_a_hard_limit_that_is_not_obeyed(
    app, queue, floor: Floor, kind, running: Running, line: Line
):
    """It is settled while it runs, then the process is given up; its own end counts no more."""
    given_up: list[str] = []
    task = _task(app, floor, kind, "ignores", time_limit=SOON)
    worker = running(app, on_give_up=given_up.append)
    with pytest.raises(TimeLimitExceeded):
        task.delay().get(60)
    eventually(lambda: given_up)
    assert "is over its hard limit of 1 s" in given_up[0]
    assert worker.held == 0
    assert worker.node.counts == {"failed": 1}
    floor.open.set()
    worker.stop()
    assert worker.node.counts == {"failed": 1}
    assert line.size(queue) == 0


def test_a_cancel(app, queue, floor: Floor, kind, running: Running, line: Line):
    """The task may clean up; its caller is told; nothing is parked, and the next one runs."""
    task = _task(app, floor, kind)
    worker = running(app, concurrency=1)
    result, second = task.delay(), task.delay()
    eventually(lambda: floor.said == ["began"])
    assert worker.node.cancel(result.id)
    with pytest.raises(TaskRevoked):
        result.get(60)
    assert floor.said[1] == ("CancelledError" if kind == "async" else TaskCancelled.__name__)
    floor.open.set()
    assert second.get(60) == "ended"
    assert line.size(f"{queue}.dead") == 0


def test_a_termination(app, floor: Floor, kind, running: Running):
    """A task that does not end is settled as cancelled, and its process is given up."""
    given_up: list[str] = []
    task = _task(app, floor, kind, "ignores")
    worker = running(app, on_give_up=given_up.append)
    result = task.delay()
    eventually(lambda: "began" in floor.said)
    assert worker.node.cancel(result.id, terminate=True)
    with pytest.raises(TaskRevoked):
        result.get(60)
    eventually(lambda: given_up)
    assert worker.node.counts == {"revoked": 1}
    floor.open.set()


def test_stopping_asks_then_gives_back(
    app, queue, floor: Floor, kind, running: Running, line: Line
):
    """What ends because a stop asked it to goes back to its queue, and is no failure."""
    task = _task(app, floor, kind, retry_on=[ValueError])
    worker = running(app)
    task.delay()
    eventually(lambda: floor.said == ["began"])
    worker.begin_to_stop()
    eventually(lambda: not worker.node.ready)  # else what is given back comes once more
    worker.node.cancel_running()
    eventually(worker.stopped)
    eventually(lambda: line.size(queue) == 1)
    assert line.size(f"{queue}.dead") == 0
    assert worker.node.counts == {"given_back": 1}


def test_what_comes_after_all_was_cancelled_does_not_begin(
    make_app: MakeApp, queue, floor: Floor, kind, running: Running, line: Line
):
    """Two signals in a row: the broker may send the call that was just given back once more."""
    # it comes and goes until the worker stops, and each time counts
    app = make_app(queue, delivery_limit=1_000_000)
    task = _task(app, floor, kind)
    worker = running(app)
    worker.node.cancel_running()
    task.delay()
    eventually(lambda: worker.node.counts["given_back"])
    worker.begin_to_stop()
    eventually(worker.stopped)
    assert floor.said == []
    eventually(lambda: line.size(queue) == 1)


def test_the_board_shows_what_runs(app, floor: Floor, kind, running: Running):
    """Id, task and deadline while it runs; nothing afterwards."""
    board = Board.create(8)
    task = _task(app, floor, kind, time_limit=50)
    running(app, board=board)
    before = time.time()
    result = task.delay()
    eventually(lambda: floor.said == ["began"])
    (entry,) = board.entries()
    assert (entry.id, entry.task) == (result.id, task.name)
    assert entry.deadline is not None
    assert before + 50 <= entry.deadline <= time.time() + 50
    floor.open.set()
    assert result.get(60) == "ended"
    eventually(lambda: board.entries() == [])


def test_a_queue_with_slots_of_its_own(
    make_app: MakeApp, names: Names, floor: Floor, kind, running: Running
):
    """It runs no more than its number, and what it holds up holds up nobody else."""
    slow, quick = names.queue("slow"), names.queue("quick")
    app = make_app(quick, slow)
    task = _task(app, floor, kind)

    @app.task(name="t.quick")
    def hello() -> str:
        return "hello"

    worker = running(app, quick, QueueSlots(slow, 1), concurrency=1)
    held = [task.options(queue=slow).delay() for _ in range(3)]
    eventually(lambda: floor.said == ["began"])
    assert [hello.delay().get(60) for _ in range(3)] == ["hello"] * 3
    assert worker.node.running == 1
    assert floor.said == ["began"]
    floor.open.set()
    assert [result.get(60) for result in held] == ["ended"] * 3
