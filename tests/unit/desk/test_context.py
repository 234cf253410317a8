"""What a running task knows about itself, and what the name means outside of one."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from amqtask import AmqtaskError, Context, Retry, current_task
from amqtask.context import _current
from amqtask.message.model import Call
from tests.unit.desk.recorder import make_app


def _context(**said: object) -> Context:
    app, _ = make_app()
    call = Call("t", "id-1", (1,), {"k": 2}, **said)  # type: ignore[arg-type]
    return Context(app, call, queue="q", hostname="w@h")


def test_everything_about_the_call() -> None:
    """Id, arguments, attempt, headers: as the message had them."""
    context = _context(retries=2, headers={"h": 1}, parent_id="p", root_id="r")
    assert (context.task, context.id, context.args, context.kwargs) == ("t", "id-1", (1,), {"k": 2})
    assert (context.retries, context.attempt) == (2, 3)
    assert (context.headers, context.parent_id, context.root_id) == ({"h": 1}, "p", "r")
    assert context.request is context


def test_a_call_without_a_root_is_its_own() -> None:
    """What was sent from outside a task starts a tree."""
    assert _context().root_id == "id-1"


def test_retry_raises_and_keeps_the_cause() -> None:
    """self.retry() leaves the task, with what it was given, and the error as cause."""
    error = ValueError("why")
    with pytest.raises(Retry) as caught:
        _context().retry("later", countdown=3, exc=error, max_retries=9)
    assert (caught.value.reason, caught.value.countdown) == ("later", 3)
    assert (caught.value.exc, caught.value.max_retries) == (error, 9)
    assert caught.value.__cause__ is error
    assert not isinstance(caught.value, Exception)


def test_current_task_outside_of_a_task() -> None:
    """It is false, and reading from it says when it exists."""
    assert not current_task
    assert repr(current_task) == "<current_task None>"
    with pytest.raises(AmqtaskError) as caught:
        _ = current_task.id
    assert str(caught.value) == "current_task.id was read outside a task"
    assert caught.value.hint == (
        "it exists only while a worker runs a task; use `if current_task:` to ask"
    )


async def test_current_task_is_each_ones_own() -> None:
    """Tasks on one loop and in threads see themselves, never each other."""
    seen: dict[str, str] = {}

    async def run(name: str) -> None:
        _current.set(_context(headers={"n": name}))
        await asyncio.sleep(0)
        seen[name] = current_task.headers["n"]

    def run_in_thread() -> None:
        _current.set(_context(headers={"n": "thread"}))
        seen["thread"] = current_task.headers["n"]

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run_in_thread,))
    thread.start()
    await asyncio.gather(*(run(f"task-{n}") for n in range(5)))
    thread.join()
    assert seen == {name: name for name in seen}
    assert len(seen) == 6
    assert not current_task


def test_a_call_from_a_task_knows_its_parent() -> None:
    """Sent from inside a task: parent and root are set on the wire."""
    app, sent = make_app()
    token = _current.set(_context(root_id="r"))
    try:
        app.send_task("child")
    finally:
        _current.reset(token)
    headers = sent.last.message.headers
    assert (headers["parent_id"], headers["root_id"]) == ("id-1", "r")
    app.send_task("orphan")
    headers = sent.last.message.headers
    assert (headers["parent_id"], headers["root_id"]) == (None, headers["id"])
