"""Tasks that would wait for other tasks: refused, unless they say that they know what they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from amqtask.context import _current
from amqtask.errors import WaitInTask

T = TypeVar("T")

_waiting_allowed: ContextVar[bool] = ContextVar("amqtask_waiting_allowed", default=False)


@contextmanager
def allow_waiting() -> Iterator[None]:
    """Let a task wait for other tasks inside this block.

    Only where those run on other workers: a worker whose slots all wait for tasks that
    wait in its own queue stands still.
    """
    token = _waiting_allowed.set(True)
    try:
        yield
    finally:
        _waiting_allowed.reset(token)


def no_waiting_in_tasks(passed: T) -> T:
    """Return ``passed``, unless this is a task that may not wait.

    Raises:
        WaitInTask: It is.
    """
    context = _current.get()
    if context is not None and not _waiting_allowed.get():
        raise WaitInTask(
            f"task {context.task!r} (id {context.id}) would wait for another one",
            hint="its slot is taken meanwhile, and with all slots waiting nothing runs: send what "
            "follows as a call of its own, or allow it: with amqtask.allow_waiting(): ...",
        )
    return passed
