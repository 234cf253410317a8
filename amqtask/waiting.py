"""Tasks that would wait for other tasks: refused, unless they say that they know what they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from amqtask.context import _current
from amqtask.errors import WaitInTask

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


def no_waiting_in_tasks(timeout: float | None) -> float | None:
    """Return ``timeout``, unless this is a task that may not wait so long.

    Whether there is anything left to wait for does not count: that may be a matter of
    luck, good while the code is tried and bad where many wait. Looking, with a timeout of
    0, is allowed to all.

    Raises:
        WaitInTask: It is.
    """
    context = _current.get()
    if context is not None and timeout != 0 and not _waiting_allowed.get():
        raise WaitInTask(
            f"task {context.task!r} (id {context.id}) would wait for another one",
            hint="its slot is taken meanwhile, and with all slots waiting nothing runs: send what "
            "follows as a call of its own, or allow it: with amqtask.allow_waiting(): ...",
        )
    return timeout
