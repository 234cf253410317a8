"""Tasks that every worker has: those that Celery's clients call by name, and a few of our own.

``celery.map``, ``celery.starmap`` and ``celery.accumulate`` are steps of
workflows. ``celery.chain``, ``celery.group``, ``celery.chord`` and
``celery.chunks`` are what a client sends that does not take them apart itself:
the workflow runs in the call's place. What ``amqtask.expire_join`` does, its
part of the chord does, see `amqtask.workflow.join_queue`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amqtask.context import Context, _current
from amqtask.errors import MalformedMessage
from amqtask.message.signature import (
    ACCUMULATE,
    CHAIN,
    CHORD,
    CHUNKS,
    GROUP,
    MAP,
    STARMAP,
    Document,
    Step,
    parse,
)
from amqtask.workflow.ports import EXPIRE

if TYPE_CHECKING:
    from amqtask.task import Task


def map_(context: Context, task: Document, it: Sequence[Any]) -> list[Any]:
    """Call a task once for each item, here, one after the other."""
    return _calls(context, task, [(item,) for item in it])


def starmap(context: Context, task: Document, it: Sequence[Sequence[Any]]) -> list[Any]:
    """Call a task once for each item's elements, here, one after the other."""
    return _calls(context, task, [tuple(item) for item in it])


def accumulate(context: Context, *args: Any, index: int | None = None) -> Any:
    """Return all arguments, or one of them."""
    return list(args) if index is None else args[index]


def instead(context: Context, *args: Any, **kwargs: Any) -> Any:
    """Have the workflow that a call stands for run in its place."""
    document = {"task": context.task, "args": list(args), "kwargs": kwargs, "options": {}}
    if isinstance(parse(document), Step):
        raise MalformedMessage(f"task {context.task!r} (id {context.id}) was sent no signatures")
    from amqtask.workflow.compose import signature  # most apps never get such a call

    context.replace(signature(document, app=context.app))


def expire_join(context: Context) -> None:
    """Be a member of a chord that has waited for long; the join does the rest."""


#: Functions by the names of their tasks.
BUILTIN: dict[str, Callable[..., Any]] = {
    MAP: map_,
    STARMAP: starmap,
    ACCUMULATE: accumulate,
    EXPIRE: expire_join,
    **dict.fromkeys((CHAIN, GROUP, CHORD, CHUNKS), instead),
}


def _calls(context: Context, document: Document, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    step = parse(document)
    if not isinstance(step, Step):
        raise MalformedMessage(
            f"task {context.task!r} (id {context.id}) was sent {step!r}, not a single task"
        )
    task = context.app.tasks[step.task]
    return [_call(context, task, (*args, *step.args), dict(step.kwargs)) for args in calls]


def _call(
    context: Context, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a task as if it had been called: with its name and arguments, under the id of the whole."""
    inner = replace(context, call=replace(context.call, task=task.name, args=args, kwargs=kwargs))
    if task.is_async:
        return _awaited(inner, task)
    token = _current.set(inner)
    try:
        return task.run(inner)
    finally:
        _current.reset(token)


def _awaited(context: Context, task: Task[..., Any]) -> Any:
    """Run an async task on the worker's own loop, as any other, and wait for it in this thread."""

    async def run() -> Any:
        token = _current.set(context)
        try:
            return await task.run(context)
        finally:
            _current.reset(token)

    loop = context.app.loop
    if loop is None or loop.is_closed():  # a runner has none but while it runs an async task
        return asyncio.run(run())
    future: Future[Any] = asyncio.run_coroutine_threadsafe(run(), loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # this thread was told to stop
        raise
