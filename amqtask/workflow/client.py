"""Send a workflow: ids, handles, then the first messages, all confirmed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from amqtask.context import _current
from amqtask.errors import ArgumentsError, PublishTimeout
from amqtask.message.signature import Chain, Chord, Group, Node, Step
from amqtask.pipeline import Condition, Pipeline, active_pipeline
from amqtask.result import AsyncResult, GroupResult
from amqtask.workflow.freeze import Frame, freeze
from amqtask.workflow.launch import Launch, launch
from amqtask.workflow.named import takes_of
from amqtask.workflow.outgoing import plain, prepare
from amqtask.workflow.ports import Done, Opening
from amqtask.workflow.shape import normal

if TYPE_CHECKING:
    from amqtask.app import App
    from amqtask.send import Outgoing

Handle = AsyncResult[Any] | GroupResult[Any]

#: Stands for the value of the step before, where arguments are checked.
_VALUE = object()


def send(app: App, node: Node) -> Any:
    """Send a signature, and return the handle of what runs last.

    Blocks until it is confirmed; in a pipeline only while that has no room.
    """
    frozen = freeze_here(app, node)
    handle = handle_of(app, frozen)
    begins = launch(frozen)
    outgoing = _outgoing(app, begins, handle)
    condition, pipeline = _condition(app, begins), _pipeline(app)
    if condition is not None and pipeline is not None:
        pipeline.add_after(condition, [each.publications for each in outgoing])
    else:
        if condition is not None:
            _wait_for(condition)
        if len(outgoing) == 1 or pipeline is not None or app.producer.stand_in is not None:
            for each in outgoing:
                app.producer.publish(each)
        else:
            with app.pipeline():
                for each in outgoing:
                    app.producer.publish(each)
    _tell(app, outgoing)
    return handle


async def asend(app: App, node: Node) -> Any:
    """Send a signature; as `send`, awaited."""
    frozen = freeze_here(app, node)
    handle = handle_of(app, frozen)
    begins = launch(frozen)
    outgoing = _outgoing(app, begins, handle)
    condition, pipeline = _condition(app, begins), _pipeline(app)
    if condition is not None and pipeline is not None:
        await pipeline.aadd_after(condition, [each.publications for each in outgoing])
    else:
        if condition is not None:
            await _await(condition)
        if len(outgoing) == 1 or pipeline is not None or app.producer.stand_in is not None:
            for each in outgoing:
                await app.producer.apublish(each)
        else:
            async with app.pipeline():
                for each in outgoing:
                    await app.producer.apublish(each)
    _tell(app, outgoing)
    return handle


def _pipeline(app: App) -> Pipeline | None:
    """Return the pipeline that takes the app's calls here, if any."""
    pipeline = active_pipeline()
    if (
        app.producer.stand_in is None
        and pipeline is not None
        and pipeline.belongs_to(app.transport)
    ):
        return pipeline
    return None


def _condition(app: App, begins: Launch) -> Condition | None:
    """Return what the first messages wait for: that all chords are open."""
    if not begins.openings:
        return None
    return Condition(
        partial(_open, app, begins.openings),
        time.monotonic() + app.settings.publish_timeout,
        partial(_not_opened, app, begins),
    )


def _open(app: App, openings: Sequence[Opening], done: Done) -> None:
    """Have all chords opened, at once; ``done`` is called when the last one is, or one cannot be."""
    left, lock = len(openings), threading.Lock()

    def opened(error: Exception | None) -> None:
        nonlocal left
        with lock:
            left = left - 1 if error is None else min(left, 1) - 1  # one error ends the waiting
            last = left == 0
        if last:
            done(error)

    for opening in openings:
        app.joins.open(opening, opened)


def _wait_for(condition: Condition) -> None:
    met: Future[None] = Future()
    condition.begin(partial(_done, met))
    try:
        met.result(max(0.0, condition.deadline - time.monotonic()))
    except TimeoutError:
        raise condition.late() from None


async def _await(condition: Condition) -> None:
    met: Future[None] = Future()
    condition.begin(partial(_done, met))
    try:
        async with asyncio.timeout(max(0.0, condition.deadline - time.monotonic())):
            await asyncio.wrap_future(met)
    except TimeoutError:
        raise condition.late() from None


def _not_opened(app: App, begins: Launch) -> PublishTimeout:
    groups = ", ".join(opening.group_id for opening in begins.openings[:3])
    return PublishTimeout(
        f"a chord (group {groups}) could not be opened within {app.settings.publish_timeout:g} s: "
        "nothing of the workflow was sent",
        hint="chords are joined by the result backend where it can count, else by the broker: "
        "see that it answers",
    )


def _done(met: Future[None], error: Exception | None) -> None:
    if not met.set_running_or_notify_cancel():
        return  # a coroutine that waits no longer
    if error is None:
        met.set_result(None)
    else:
        met.set_exception(error)


def _tell(app: App, outgoing: Sequence[Outgoing]) -> None:
    parent = _current.get()
    for each in outgoing:
        app.producer.tell(each)
        if parent is not None:
            parent.sent(each.id)


def freeze_here(app: App, node: Node) -> Node:
    """Return a signature in its one form, checked, with all ids.

    Raises:
        ConfigurationError: It has no meaning.
        ArgumentsError: The arguments of a step do not fit its task.
    """
    shaped = normal(node)
    check(app, shaped, 0)
    parent = _current.get()
    return freeze(shaped, frame_of(app, None if parent is None else parent.root_id, None))


def frame_of(app: App, root: str | None, reply_to: str | None) -> Frame:
    """Return what the steps of a workflow that is made here have in common.

    Args:
        root: See `Frame`.
        reply_to: Where outcomes go; None for this process.
    """
    backend = app.backend

    def address(step: Step) -> str:
        if reply_to is not None:
            return reply_to
        if backend is None or _ignores(app, step):
            return ""
        return backend.reply_to()

    of_tasks: dict[str, dict[str, Any]] = {}

    def defaults(task: str) -> dict[str, Any]:
        found = of_tasks.get(task)
        if found is None:
            known = app.tasks.get(task)
            found = of_tasks[task] = {} if known is None else plain(known.defaults)
        return found

    return Frame(root=root, defaults=defaults, reply_to=address)


def _ignores(app: App, step: Step) -> bool:
    said = step.options.get("ignore_result")
    return bool(app.settings.ignore_result if said is None else said)


def check(app: App, node: Node, given: int) -> None:
    """See that the arguments of each step fit its task, as far as this process has it.

    Args:
        given: Values that come from what runs before: 0 or 1.

    Raises:
        ArgumentsError: They do not fit.
    """
    match node:
        case Step():
            task = app.tasks.get(node.task)
            if task is not None and not node.task.startswith("celery."):
                takes = takes_of(node)
                if takes is not None:
                    kwargs = {**node.kwargs, **dict.fromkeys(takes, _VALUE)}
                    node, given = replace(node, kwargs=kwargs), 0
                before = (_VALUE,) * (0 if node.immutable else given)
                _check_step(task, before, node)
        case Chain(steps=(first, *rest)):
            check(app, first, given)
            for step in rest:
                check(app, step, 1)
        case Group():
            for member in node.members:
                check(app, member, given)
        case Chord():
            check(app, node.header, given)
            check(app, node.body, 1)


def _check_step(task: Any, before: tuple[object, ...], node: Step) -> None:
    try:
        task.checked((*before, *node.args), node.kwargs)
    except ArgumentsError as error:
        if before:
            error.add_note(
                "it follows another step, so it gets that one's value as its first argument; "
                "task.si(...) takes none"
            )
        raise


def handle_of(app: App, node: Node, parent: Handle | None = None) -> Any:
    """Return the handle of what runs last, its parents before it; ids are fixed."""
    match node:
        case Step():
            handle = app.result(str(node.options["task_id"]), node.task)
            handle.parent = parent
            return handle
        case Chain():
            for step in node.steps:
                parent = handle_of(app, step, parent)
            assert parent is not None
            return parent
        case Group():
            members = [handle_of(app, member, parent) for member in node.members]
            return GroupResult(str(node.options["task_id"]), members, parent=parent)
        case Chord():
            return handle_of(app, node.body, handle_of(app, node.header, parent))


def _outgoing(app: App, begins: Launch, whole: Handle) -> list[Outgoing]:
    parent = _current.get()
    made = [
        prepare(
            app.sender,
            app.tasks,
            start,
            parent_id=None if parent is None else parent.id,
            reply_to=None,
        )
        for start in begins.starts
    ]
    return [replace(each, whole=whole) for each in made]
