"""What tasks raise, kept for the test that made them run.

A worker's task fails in another thread, and its test would pass. So every run of
a watched app's tasks is looked at: an error that ends the call for good (no
retry follows) is kept as the very exception that was raised, until the test has
seen it: in `Worker.run_until_idle`, in ``result.get()``, or at the test's end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from amqtask.app import App
from amqtask.clock import wall
from amqtask.context import Context
from amqtask.errors import TaskSignal
from amqtask.policy.retry import RETRY_HEADER, RetryPolicy
from amqtask.task import Task
from amqtask.testing.letters import Letter
from amqtask.worker.outcome import Failed, decide
from amqtask.workflow.advance import dependents


class CallParked(AssertionError):
    """A call was parked in the dead-letter queue, and no exception of a task says why.

    Attributes:
        letter: The dead letter.
    """

    def __init__(self, letter: Letter) -> None:
        super().__init__(
            f"the call of task {letter.task!r} (id {letter.id}) was parked in {letter.queue!r}: "
            f"{letter.reason}: {letter.exception}"
        )
        self.letter = letter


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed for good.

    Attributes:
        error: What its task raised, or `CallParked` when that is not what ended it.
        attempt: The attempt that failed, 0 when none was made.
        also: Ids of calls that fail with it, as they were to follow it.
    """

    task: str
    id: str
    error: BaseException
    attempt: int
    also: Sequence[str] = ()


class Failures:
    """Watches the tasks of apps.

    Threads: tasks run in any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[Task[..., Any]] = set()
        self._unseen: list[Failure] = []
        self._known: set[str] = set()
        self._restore = ExitStack()

    def watch(self, app: App) -> None:
        """Look at every run of an app's tasks; call it again for tasks that came later."""
        for task in app.tasks.values():
            if task not in self._watched:
                self._watched.add(task)
                # on the object, over the class's method: `forget` takes it off again
                vars(task)["run"] = partial(self._run, task, task.run)
                self._restore.callback(vars(task).pop, "run", None)

    def forget(self) -> None:
        """Watch no more."""
        self._restore.close()
        self._watched.clear()

    def parked(self, letter: Letter) -> None:
        """Learn of a dead letter; one whose failure was seen as it happened is known."""
        with self._lock:
            id_ = str(letter.id)
            if id_ in self._known or letter.reason == "expired":
                return
            self._known.add(id_)
            self._unseen.append(Failure(str(letter.task), id_, CallParked(letter), letter.attempts))

    def take(self) -> list[Failure]:
        """Return the failures that nobody has seen yet; now they count as seen."""
        with self._lock:
            taken, self._unseen = self._unseen, []
        return taken

    def see(self, seen: Callable[[Failure], bool]) -> None:
        """Drop those that somebody has seen otherwise."""
        with self._lock:
            self._unseen = [each for each in self._unseen if not seen(each)]

    def raise_first(self) -> None:
        """Raise the first failure that nobody has seen; the others become notes of it.

        Raises:
            BaseException: What the task raised.
        """
        failures = self.take()
        if not failures:
            return
        error = failures[0].error
        if not isinstance(error, Exception | TaskSignal):
            # such as SystemExit, which would end the tests
            error = AssertionError(f"{_said(failures[0])} raised {error!r}")
            error.__cause__ = failures[0].error
        elif not isinstance(error, CallParked):
            error.add_note(f"raised by {_said(failures[0])}")
        for other in failures[1:]:
            error.add_note(f"{_said(other)} failed too: {other.error!r}")
        raise error

    def _run(self, task: Task[..., Any], run: Callable[[Context], Any], context: Context) -> Any:
        if task.is_async:
            return self._run_async(task, run, context)
        try:
            return run(context)
        except BaseException as error:
            self._note(task, context, error)
            raise

    async def _run_async(
        self, task: Task[..., Any], run: Callable[[Context], Any], context: Context
    ) -> Any:
        try:
            return await run(context)
        except asyncio.CancelledError:
            raise  # by the worker that stops, and then it is given back
        except BaseException as error:
            self._note(task, context, error)
            raise

    def _note(self, task: Task[..., Any], context: Context, error: BaseException) -> None:
        call = context.call
        policy = task.retry_policy
        try:
            if RETRY_HEADER in (call.headers or {}):
                policy = RetryPolicy.from_header(call.headers[RETRY_HEADER])
            outcome = decide(error, call, policy, now=wall(), random=lambda: 0.5)
        except Exception as wrong:  # the worker parks it for this, so that is the failure
            outcome = Failed(wrong, "failed")
        if isinstance(outcome, Failed):
            with self._lock:
                self._known.add(call.id)
                self._unseen.append(
                    Failure(call.task, call.id, outcome.error, call.retries + 1, dependents(call))
                )


def _said(failure: Failure) -> str:
    return f"task {failure.task!r} (id {failure.id}, attempt {failure.attempt})"
