"""The handle of a call: `AsyncResult`."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from amqtask.backends import Pending
from amqtask.cancel import Cancels
from amqtask.errors import ConfigurationError, NoBackend, ResultTimeout
from amqtask.message.results import ResultMeta, decode_exception

R = TypeVar("R")


class AsyncResult(Generic[R]):
    """What became of a call, once it is known.

    ``result.get(timeout=5)`` blocks, ``await result`` does not.

    Attributes:
        id: The call's id.
        task: Name of its task.

    Threads: safe from any thread and any loop.
    """

    __slots__ = ("_cancels", "_eta", "_pending", "id", "task")

    def __init__(
        self,
        id: str,
        task: str,
        pending: Pending | None,
        cancels: Cancels | None = None,
        eta: datetime | None = None,
    ) -> None:
        self.id = id
        self.task = task
        self._pending = pending
        self._cancels = cancels
        self._eta = eta

    def get(self, timeout: float | None = None, *, propagate: bool = True) -> R:
        """Wait for the outcome and return the task's value.

        Args:
            timeout: Seconds; None waits for ever.
            propagate: False returns the task's exception instead of raising it.

        Raises:
            NoBackend: Results are off.
            ResultTimeout: No outcome in time.
            BaseException: What the task raised: its own class when this process has
                it imported, else `RemoteError`; the remote traceback is its cause.
        """
        pending = self._need()
        if not pending.wait(timeout):
            raise self._timeout(timeout)
        return self._outcome(propagate)

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> R:
        """Await the outcome and return the task's value; as `get`."""
        pending = self._need()
        if not await pending.wait_async(timeout):
            raise self._timeout(timeout)
        return self._outcome(propagate)

    def __await__(self) -> Generator[Any, Any, R]:
        """Await the outcome, however long it takes."""
        return self.aget().__await__()

    def cancel(self, *, terminate: bool = False) -> None:
        """Have the call not run: dropped when it comes up, cancelled where it runs.

        Returns once the broker has it on record, which is before a worker acts on it.
        With results, the outcome is then `TaskRevoked`, unless the call ended first.

        Args:
            terminate: Also end it where it ignores its cancellation.

        Raises:
            PublishError: The broker did not confirm it within ``publish_timeout``.
        """
        self._canceller().cancel((self.id,), terminate=terminate, keep=None, eta=self._eta)

    async def acancel(self, *, terminate: bool = False) -> None:
        """As `cancel`, awaited."""
        cancels = self._canceller()
        await cancels.acancel((self.id,), terminate=terminate, keep=None, eta=self._eta)

    @property
    def state(self) -> str:
        """``PENDING``, ``STARTED``, ``RETRY``, ``SUCCESS``, ``FAILURE`` or ``REVOKED``.

        ``PENDING`` also when the call is unknown, as in Celery.
        """
        meta = self._need().meta
        return meta.status if meta is not None else "PENDING"

    status = state

    @property
    def result(self) -> R | BaseException | None:
        """The value, or the exception, as far as it is known now."""
        if self._need().meta is None:
            return None
        return self._outcome(propagate=False)

    @property
    def traceback(self) -> str | None:
        """The remote traceback's text, if it failed."""
        meta = self._need().meta
        return meta.traceback if meta is not None else None

    def ready(self) -> bool:
        """Whether the outcome is final."""
        return self._need().ready

    def successful(self) -> bool:
        """Whether it ended with a value."""
        return self.state == "SUCCESS"

    def failed(self) -> bool:
        """Whether it ended with an exception."""
        return self.state == "FAILURE"

    def __repr__(self) -> str:
        return f"<AsyncResult {self.task} {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _canceller(self) -> Cancels:
        if self._cancels is None:
            raise ConfigurationError(
                f"this handle of task {self.task!r} (id {self.id}) belongs to no app",
                hint="cancel it by app.cancel(id)",
            )
        return self._cancels

    def _need(self) -> Pending:
        if self._pending is None:
            raise NoBackend(
                f"results are off for task {self.task!r} (id {self.id})",
                hint='set a result backend, for example App(..., backend="rpc://"), and leave '
                "ignore_result off",
            )
        return self._pending

    def _timeout(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"no result of task {self.task!r} (id {self.id}) within {timeout:g} s")

    def _outcome(self, propagate: bool) -> R:
        meta = cast(ResultMeta, self._need().meta)
        if meta.status not in _RAISING:
            return cast(R, meta.result)
        error = decode_exception(meta.result, meta.traceback)
        if propagate and meta.status != "RETRY":
            raise error
        return cast(R, error)


_RAISING = frozenset({"FAILURE", "REVOKED", "RETRY"})
