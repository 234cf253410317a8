"""Results from end to end: a worker stores, a caller reads, over each kind of backend."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from amqtask import (
    App,
    AsyncResult,
    Context,
    Progress,
    ReplyLost,
    ResultTimeout,
    WaitInTask,
    allow_waiting,
    current_task,
)
from amqtask.errors import ConfigurationError
from tests.helpers import TIMEOUT, eventually
from tests.integration.worker.conftest import MakeApp, Running


@pytest.fixture(params=["rpc://", "rpc+direct://", "memory://"])
def backend(request: pytest.FixtureRequest) -> str:
    """One backend of each kind: messages, direct replies, a store."""
    url: str = request.param
    return f"{url}{uuid.uuid4().hex}" if url == "memory://" else url


@pytest.fixture
def app(make_app: MakeApp, queue: str, backend: str) -> App:
    """An app with some tasks, and each backend in turn."""
    app = make_app(queue, backend=backend)
    add_tasks(app)
    return app


def add_tasks(app: App) -> None:
    """Register the tasks of these tests."""

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="fail")
    def fail(text: str) -> None:
        raise ValueError(text)

    @app.task(name="steps")
    def steps(count: int) -> str:
        for number in range(1, count + 1):
            current_task.progress(number, count, file=f"{number}.txt")
        return "end"

    @app.task(name="parent", bind=True)
    def parent(self: Context) -> list[str]:
        child = self.app.send_task("add", (1, 2))
        assert child.parent is not None
        assert child.root.id == self.id
        return [child.id, child.parent.id]

    @app.task(name="waits")
    def waits(allowed: bool) -> Any:
        if allowed:
            with allow_waiting():
                return app.send_task("add", (1, 2)).get(TIMEOUT)
        return later().get(TIMEOUT)

    @app.task(name="awaits")
    async def awaits() -> Any:
        return await later()

    @app.task(name="looks")
    def looks() -> Any:
        child = app.send_task("add", (1, 2))
        eventually(child.ready, timeout=TIMEOUT)
        assert (child.result, child.get(timeout=0)) == (3, 3)
        return child.get()  # it is there, but that was luck

    def later() -> AsyncResult[Any]:
        return app.send_task("add", (1, 2), countdown=3600)


def call(app: App, name: str, *args: Any) -> AsyncResult[Any]:
    return app.send_task(name, args)


def test_outcomes_come_back(app: App, running: Running):
    """A value, and an exception with the worker's traceback."""
    running(app)
    assert call(app, "add", 2, 3).get(TIMEOUT) == 5
    with pytest.raises(ValueError, match="broken") as caught:
        call(app, "fail", "broken").get(TIMEOUT)
    assert "in fail" in str(caught.value.__cause__)


def test_children(app: App, running: Running):
    """The calls that a task sends are its children, and it is their parent."""
    running(app)
    result = call(app, "parent")
    child, parent = result.get(TIMEOUT)
    assert parent == result.id
    assert [each.id for each in result.children if isinstance(each, AsyncResult)] == [child]


def test_progress(app: App, running: Running):
    """A watcher sees the task's progress, the newest at least, and its end."""
    running(app)
    result = call(app, "steps", 500)
    seen = list(result.watch(TIMEOUT))
    assert seen == sorted(seen, key=lambda each: each.done)
    assert all(each == Progress(each.done, 500, {"file": f"{each.done}.txt"}) for each in seen)
    assert result.get(TIMEOUT) == "end"


def test_a_task_does_not_wait_for_another_one(app: App, running: Running):
    """It is told, and may where it says so."""
    running(app)
    with pytest.raises(WaitInTask, match=r"task 'waits' \(id .*\) would wait for another one"):
        call(app, "waits", False).get(TIMEOUT)
    with pytest.raises(WaitInTask):
        call(app, "awaits").get(TIMEOUT)
    with pytest.raises(WaitInTask):
        call(app, "looks").get(TIMEOUT)
    assert call(app, "waits", True).get(TIMEOUT) == 3


def test_a_state_that_ends_a_call_is_not_the_tasks_to_set(app: App, running: Running):
    """SUCCESS and the like are stored when the task ends, by the worker."""

    @app.task(name="cheats")
    def cheats() -> None:
        current_task.update_state("SUCCESS", 5)

    running(app)
    with pytest.raises(ConfigurationError, match="state 'SUCCESS' ends a call"):
        cheats.delay().get(TIMEOUT)


# -- call: a remote procedure call, whatever the backend is ----------------------------


@pytest.fixture(params=[None, "rpc://", "memory://for-call"])
def caller(request: pytest.FixtureRequest, make_app: MakeApp, queue: str) -> App:
    """Apps with no backend, with messages, with a store."""
    app = make_app(queue, backend=request.param)
    add_tasks(app)
    return app


def test_call(caller: App, running: Running):
    """A call returns the value, or raises what the task raised, without a backend."""

    @caller.task(ignore_result=True)
    def quiet(x: int) -> int:
        return x

    @caller.task
    def fails() -> None:
        raise KeyError("gone", 1)

    running(caller)
    assert [quiet.call(number) for number in range(20)] == list(range(20))
    with pytest.raises(KeyError) as caught:
        fails.call()
    assert caught.value.args == ("gone", 1)


async def test_call_without_blocking(caller: App, running: Running):
    """Coroutines call with acall, many at a time."""

    @caller.task
    async def double(x: int) -> int:
        return 2 * x

    await asyncio.to_thread(running, caller)
    assert await asyncio.gather(*(double.acall(number) for number in range(50))) == [
        2 * number for number in range(50)
    ]


def test_a_call_that_nobody_answers(caller: App):
    """It ends after call_timeout, of the call or the setting."""

    @caller.task
    def never() -> None: ...

    with pytest.raises(ResultTimeout, match="within 0.2 s"):
        never.options(call_timeout=0.2).call()


def test_a_retried_call_is_answered_at_its_end(caller: App, running: Running):
    """The reply address outlives the attempts."""

    @caller.task(bind=True)
    def second(self: Context) -> int:
        if self.attempt < 3:
            self.retry("again", countdown=0.1)
        return self.attempt

    running(caller)
    assert second.options(call_timeout=TIMEOUT).call() == 3


def test_a_call_in_a_task(caller: App, running: Running):
    """It is refused before it is sent."""

    @caller.task
    def inner() -> int:
        return 1

    @caller.task
    def outer() -> int:
        return inner.call()

    running(caller)
    with pytest.raises(WaitInTask):
        outer.call()


def test_a_lost_connection_breaks_the_wait_off(make_app: MakeApp, queue: str, running: Running):
    """A reply that cannot come any more is said to be lost; the next call is answered."""
    app = make_app(queue, backend="rpc+direct://")
    gate: list[int] = []

    @app.task
    def waits_here() -> int:
        eventually(lambda: gate)
        return 1

    @app.task
    def one() -> int:
        return 1

    worker_app = make_app(queue, backend="rpc+direct://")
    for task in (waits_here, one):
        worker_app.tasks.add(task)
    running(worker_app)
    result = waits_here.delay()
    io = app.transport.io

    async def cut() -> None:
        session = app.transport.link("publish").session
        assert session is not None
        await session.close()

    io.run(cut())
    with pytest.raises(ReplyLost, match=f"the reply to call {result.id} is lost"):
        result.get(TIMEOUT)
    gate.append(1)
    assert one.delay().get(TIMEOUT) == 1


# -- extended records -------------------------------------------------------------------


@pytest.fixture
def extended(make_app: MakeApp, queue: str) -> App:
    """An app that stores calls with their results."""
    return make_app(queue, backend=f"memory://{uuid.uuid4().hex}", result_extended=True)


def test_extended_record(extended: App, queue: str, running: Running):
    """Name, arguments, worker, retries and queue are stored; secrets are not."""

    @extended.task(name="login")
    def login(user: str, password: str, options: dict[str, str]) -> None: ...

    running(extended)
    result = login.delay("ada", "s3cret", options={"api_key": "abc", "lang": "en"})
    result.get(TIMEOUT)
    assert json.loads(json.dumps(dict(result.extended))) == {
        "name": "login",
        "args": ["ada", "***"],
        "kwargs": {"options": {"api_key": "***", "lang": "en"}},
        "worker": "test-worker",
        "retries": 0,
        "queue": queue,
    }


def test_secrets_are_stored_where_that_is_asked_for(
    make_app: MakeApp, queue: str, running: Running
):
    """result_secrets=True stores arguments as they are."""
    backend = f"memory://{uuid.uuid4().hex}"
    app = make_app(queue, backend=backend, result_extended=True, result_secrets=True)

    @app.task(name="login")
    def login(password: str) -> None: ...

    running(app)
    result = login.delay(password="s3cret")
    result.get(TIMEOUT)
    assert result.extended["kwargs"] == {"password": "s3cret"}
