"""`AsyncResult`: the handle of one call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, cast
from weakref import WeakValueDictionary

from amqtask.backends import Backend, Pending
from amqtask.cancel import Cancels
from amqtask.errors import (
    BackendUnavailable,
    ConfigurationError,
    NoBackend,
    ResultTimeout,
)
from amqtask.message.results import ResultMeta, decode_exception
from amqtask.progress import Progress
from amqtask.result import news
from amqtask.result.many import (
    GroupResult,
    ResultSet,
    ancestors,
    from_tuple,
    parents_of,
    steps_of,
)
from amqtask.result.tally import Tally
from amqtask.waiting import no_waiting_in_tasks

R = TypeVar("R")

_RAISING = frozenset({"FAILURE", "REVOKED", "RETRY"})


class Home(Protocol):
    """What handles find their way back to: an `App`, which this module does not know."""

    name: str

    def result(self, task_id: str, task: str = ...) -> AsyncResult[Any]:
        """Return the handle of a call by its id."""
        ...


_homes: WeakValueDictionary[str, Home] = WeakValueDictionary()


def remember(home: Home) -> None:
    """Have handles that come from elsewhere find this app by its name; the newest wins."""
    _homes[home.name] = home


class AsyncResult(Generic[R]):
    """What became of a call, once it is known.

    ``result.get(timeout=5)`` blocks, ``await result`` does not. Properties say what is
    known now; with a backend that stores they ask it, which blocks for as long as that
    takes: in a coroutine, ``await result.arefresh()`` first.

    It can be pickled, and turned into JSON and back (`as_dict`, `from_dict`); on the
    other side it finds the app of the same name.

    Attributes:
        id: The call's id.
        task: Name of its task.
        parent: What this one follows, or whose task sent it, where that is known.

    Threads: safe from any thread and any loop.
    """

    __slots__ = ("_app", "_backend", "_cancels", "_eta", "_pending", "id", "parent", "task")

    def __init__(
        self,
        id: str,
        task: str,
        pending: Pending | None,
        *,
        backend: Backend | None = None,
        app: str = "",
        parent: AsyncResult[Any] | GroupResult[Any] | None = None,
        cancels: Cancels | None = None,
        eta: datetime | None = None,
    ) -> None:
        self.id = id
        self.task = task
        self.parent = parent
        self._app = app
        self._backend = backend
        self._pending = pending
        self._cancels = cancels
        self._eta = eta

    # -- waiting ------------------------------------------------------------------

    def get(self, timeout: float | None = None, *, propagate: bool = True) -> R:
        """Wait for the outcome and return the task's value.

        Args:
            timeout: Seconds; None waits for ever, 0 only looks.
            propagate: False returns the task's exception instead of raising it.

        Raises:
            NoBackend: Results are off.
            ResultTimeout: No outcome in time.
            WaitInTask: This is called in a task, with another timeout than 0 and whether the
                outcome is there or not; see `allow_waiting`.
            BaseException: What the task raised: its own class when this process has
                it imported, else `RemoteError`; the remote traceback is its cause.
        """
        pending, timeout = self._need(), no_waiting_in_tasks(timeout)
        if self._stored:  # it may be there: then nobody need be asked to follow it
            self._look()
        if not pending.ready and not pending.wait(timeout):
            raise self._timeout(timeout)
        return self._outcome(propagate)

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> R:
        """Await the outcome and return the task's value; as `get`."""
        pending, timeout = self._need(), no_waiting_in_tasks(timeout)
        if timeout == 0:  # nobody would have the time to follow it
            await self._alook()
        if not pending.ready and not await pending.wait_async(timeout):
            raise self._timeout(timeout)
        return self._outcome(propagate)

    def __await__(self) -> Generator[Any, Any, R]:
        """Await the outcome, however long it takes."""
        return self.aget().__await__()

    def watch(self, timeout: float | None = None) -> Iterator[Progress]:
        """Yield the task's progress as it reports it, until it has ended.

        It ends for a failure as for a success; `get` tells which. Of reports that come
        faster than they are taken, or are stored, some may be left out.

        Args:
            timeout: Seconds for all of it; 0 only looks.

        Raises:
            NoBackend: Results are off.
            ResultTimeout: It did not end in time.
            WaitInTask: As `get`.
        """
        if timeout == 0:
            self._look()
        return news.watch(self._need(), timeout, self._timeout)

    async def awatch(self, timeout: float | None = None) -> AsyncIterator[Progress]:
        """Yield the task's progress, without blocking; as `watch`."""
        if timeout == 0:
            await self._alook()
        async for progress in news.awatch(self._need(), timeout, self._timeout):
            yield progress

    # -- what is known now ----------------------------------------------------------

    def refresh(self) -> None:
        """Look up what is known of the call now; a final outcome is looked up once."""
        pending = self._need()
        if not pending.ready and self._backend is not None:
            self._backend.refresh(pending)

    async def arefresh(self) -> None:
        """Look up what is known of the call now, without blocking."""
        pending = self._need()
        if not pending.ready and self._backend is not None:
            await self._backend.arefresh(pending)

    def _look(self) -> None:
        with suppress(BackendUnavailable):  # whoever follows the call tries again
            self.refresh()

    async def _alook(self) -> None:
        with suppress(BackendUnavailable):
            await self.arefresh()

    @property
    def meta(self) -> ResultMeta | None:
        """All that is known now; None for an unknown call."""
        self.refresh()
        return self._need().meta

    def cancel(self, *, terminate: bool = False, whole: bool = False) -> None:
        """Have the call not run: dropped when it comes up, cancelled where it runs.

        Returns once the broker has it on record, which is before a worker acts on it.
        With results, the outcome is then `TaskRevoked`, unless the call ended first.

        Args:
            terminate: Also end it where it ignores its cancellation.
            whole: Also cancel all that it follows, see `steps`; what has ended stays as it is.

        Raises:
            PublishError: The broker did not confirm it within ``publish_timeout``.
        """
        ids = self._ids(whole)
        self._canceller().cancel(ids, terminate=terminate, keep=None, eta=self._eta)

    async def acancel(self, *, terminate: bool = False, whole: bool = False) -> None:
        """As `cancel`, awaited."""
        cancels = self._canceller()
        await cancels.acancel(self._ids(whole), terminate=terminate, keep=None, eta=self._eta)

    def _ids(self, whole: bool) -> tuple[str, ...]:
        return tuple(step.id for step in self.steps) if whole else (self.id,)

    @property
    def state(self) -> str:
        """``PENDING``, ``STARTED``, ``PROGRESS``, ``RETRY``, ``SUCCESS``, ``FAILURE``, ``REVOKED``.

        Or one of your own. ``PENDING`` also when the call is unknown, as in Celery.
        """
        meta = self.meta
        return meta.status if meta is not None else "PENDING"

    status = state

    @property
    def result(self) -> R | BaseException | None:
        """The value, or the exception, or what a state of your own holds, as known now."""
        if self.meta is None:
            return None
        return self._outcome(propagate=False)

    info = result

    @property
    def traceback(self) -> str | None:
        """The remote traceback's text, if it failed."""
        meta = self.meta
        return meta.traceback if meta is not None else None

    @property
    def extended(self) -> Mapping[str, Any]:
        """Name, arguments, worker, retries and queue, where ``result_extended`` stores them."""
        meta = self.meta
        return meta.extended if meta is not None else {}

    def ready(self) -> bool:
        """Whether the outcome is final."""
        self.refresh()
        return self._need().ready

    def successful(self) -> bool:
        """Whether it ended with a value."""
        return self.state == "SUCCESS"

    def failed(self) -> bool:
        """Whether it ended with an exception."""
        return self.state == "FAILURE"

    # -- family -----------------------------------------------------------------------

    @property
    def children(self) -> list[AsyncResult[Any] | GroupResult[Any]]:
        """The calls that its task sent, once it has ended; a thousand at most."""
        meta = self.meta
        return [] if meta is None else [from_tuple(each, self._sibling) for each in meta.children]

    @property
    def root(self) -> AsyncResult[Any] | GroupResult[Any]:
        """The first of its parents; itself when it has none."""
        first: AsyncResult[Any] | GroupResult[Any] = self
        while first.parent is not None:
            first = first.parent
        return first

    @property
    def steps(self) -> list[AsyncResult[Any]]:
        """The handles of all calls up to this one, groups taken apart, the first one first."""
        return steps_of(self)

    def progress(self) -> Tally:
        """Return how many of `steps` are done, failed and waiting; asks the backend."""
        return Tally.of(self.steps)

    def _sibling(self, task_id: str) -> AsyncResult[Any]:
        backend = self._backend
        pending = backend.watch(task_id) if backend is not None else None
        return AsyncResult(task_id, "unknown", pending, backend=backend, app=self._app)

    # -- the end of it ------------------------------------------------------------------

    def forget(self) -> None:
        """Drop what the backend keeps of the call; blocks."""
        self._need()
        if self._backend is not None:
            self._backend.forget(self.id)

    async def aforget(self) -> None:
        """Drop what the backend keeps of the call."""
        self._need()
        if self._backend is not None:
            await self._backend.aforget(self.id)

    # -- going elsewhere ------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        data: dict[str, Any] = {"id": self.id, "task": self.task, "app": self._app}
        parents = [parent.as_member() for parent in ancestors(self)]
        return {**data, "parents": parents} if parents else data

    def as_member(self) -> dict[str, Any]:
        """Return it as plain data without its parents."""
        return {"id": self.id, "task": self.task, "app": self._app}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AsyncResult[Any]:
        """Return the handle that `as_dict` described.

        An app of the same name has to exist when the outcome is asked for.
        """
        return AsyncResult(
            data["id"],
            data.get("task", "unknown"),
            None,
            app=data.get("app", ""),
            parent=parents_of(data),
        )

    def as_tuple(self) -> tuple[Any, ...]:
        """Return it as Celery stores it in groups and children."""
        return (self.id, None if self.parent is None else self.parent.as_tuple()), None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.as_dict(),)

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
        if self._pending is None and self._backend is None:
            self._find_home()
        if self._pending is None:
            raise NoBackend(
                f"results are off for task {self.task!r} (id {self.id})",
                hint='set a result backend, for example App(..., backend="rpc://"), and leave '
                "ignore_result off",
            )
        return self._pending

    @property
    def _stored(self) -> bool:
        return self._backend is not None and self._backend.can.stores

    def _find_home(self) -> None:
        """Take the backend of the app it belongs to, when it came from another process."""
        home = _homes.get(self._app)
        if home is not None:
            handle = home.result(self.id, self.task)
            self._pending, self._backend = handle._pending, handle._backend

    def _timeout(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"no result of task {self.task!r} (id {self.id}) within {timeout:g} s")

    def _outcome(self, propagate: bool) -> R:
        pending = self._need()
        if pending.error is not None:
            raise pending.error
        meta = cast(ResultMeta, pending.meta)
        if meta.status not in _RAISING:
            return cast(R, meta.result)
        error = decode_exception(meta.result, meta.traceback)
        self._need().raised = True
        if propagate and meta.status != "RETRY":
            raise error
        return cast(R, error)


def _unpickled(data: Mapping[str, Any]) -> AsyncResult[Any]:
    return AsyncResult.from_dict(data)


ResultSet._member = AsyncResult
