"""The handles of calls: `AsyncResult` for one, `ResultSet` and `GroupResult` for many."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, cast
from weakref import WeakValueDictionary

from amqtask.backends import Backend, Pending
from amqtask.cancel import Cancels
from amqtask.context import _current
from amqtask.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    MalformedMessage,
    NoBackend,
    ResultTimeout,
)
from amqtask.message.results import ResultMeta, decode_exception
from amqtask.progress import Progress
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
        parent: The call whose task sent this one, where that is known.

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
        parent: AsyncResult[Any] | None = None,
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
            timeout: Seconds; None waits for ever.
            propagate: False returns the task's exception instead of raising it.

        Raises:
            NoBackend: Results are off.
            ResultTimeout: No outcome in time.
            WaitInTask: It would wait in a task; see `allow_waiting`.
            BaseException: What the task raised: its own class when this process has
                it imported, else `RemoteError`; the remote traceback is its cause.
        """
        pending = self._need()
        if not pending.ready and (self._stored or _current.get() is not None):
            # it may be there: then nobody need be asked to follow it
            with suppress(BackendUnavailable):  # whoever follows it tries again
                self.refresh()
        if not pending.ready and not pending.wait(no_waiting_in_tasks(timeout)):
            raise self._timeout(timeout)
        return self._outcome(propagate)

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> R:
        """Await the outcome and return the task's value; as `get`."""
        pending = self._need()
        if not pending.ready and _current.get() is not None:
            with suppress(BackendUnavailable):
                await self.arefresh()
        if not pending.ready and not await pending.wait_async(no_waiting_in_tasks(timeout)):
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
            timeout: Seconds for all of it.

        Raises:
            NoBackend: Results are off.
            ResultTimeout: It did not end in time.
        """
        pending = self._need()
        deadline = None if timeout is None else time.monotonic() + timeout
        news: queue.SimpleQueue[ResultMeta | None] = queue.SimpleQueue()

        def end() -> None:
            news.put(None)

        pending.follow(news.put)
        pending.on_ready(end)
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    meta = news.get(timeout=left)
                except queue.Empty:
                    raise self._timeout(timeout) from None
                if meta is None:
                    return
                if (progress := Progress.of(meta)) is not None and meta.status != "SUCCESS":
                    yield progress
        finally:
            pending.forget(end)
            pending.unfollow(news.put)

    async def awatch(self, timeout: float | None = None) -> AsyncIterator[Progress]:
        """Yield the task's progress, without blocking; as `watch`."""
        pending = self._need()
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[ResultMeta | None] = asyncio.Queue()

        def put(meta: ResultMeta | None) -> None:
            loop.call_soon_threadsafe(news.put_nowait, meta)

        def end() -> None:
            put(None)

        deadline = None if timeout is None else loop.time() + timeout
        pending.follow(put)
        pending.on_ready(end)
        try:
            while True:
                try:  # not around the yield: what the caller does there has no deadline of ours
                    async with asyncio.timeout_at(deadline):
                        meta = await news.get()
                except TimeoutError:
                    raise self._timeout(timeout) from None
                if meta is None:
                    return
                if (progress := Progress.of(meta)) is not None and meta.status != "SUCCESS":
                    yield progress
        finally:
            pending.forget(end)
            pending.unfollow(put)

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

    @property
    def meta(self) -> ResultMeta | None:
        """All that is known now; None for an unknown call."""
        self.refresh()
        return self._need().meta

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
        return [] if meta is None else [_from_tuple(each, self._sibling) for each in meta.children]

    @property
    def root(self) -> AsyncResult[Any]:
        """The first of its parents; itself when it has none."""
        first: AsyncResult[Any] = self
        while first.parent is not None:
            first = first.parent
        return first

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
        return {
            "id": self.id,
            "task": self.task,
            "app": self._app,
            "parent": None if self.parent is None else self.parent.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AsyncResult[Any]:
        """Return the handle that `as_dict` described.

        An app of the same name has to exist when the outcome is asked for.
        """
        parent = data.get("parent")
        return AsyncResult(
            data["id"],
            data.get("task", "unknown"),
            None,
            app=data.get("app", ""),
            parent=None if parent is None else cls.from_dict(parent),
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


# -- many -----------------------------------------------------------------------------


class as_completed(Generic[R]):  # noqa: N801 - it is called, as asyncio's is
    """Yield handles in the order in which their calls end: ``for`` and ``async for``.

    Args:
        results: Handles; each is yielded once.
        timeout: Seconds for all of them.

    Raises:
        ResultTimeout: One or more had not ended in time.
    """

    def __init__(self, results: Iterable[AsyncResult[R]], timeout: float | None = None) -> None:
        self._results = list(dict.fromkeys(results))
        self._timeout = timeout

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        no_waiting_in_tasks(None)
        ended: queue.SimpleQueue[AsyncResult[R]] = queue.SimpleQueue()
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        callbacks = self._register(ended.put)
        try:
            for count in range(len(callbacks)):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    yield ended.get(timeout=left)
                except queue.Empty:
                    raise self._late(count) from None
        finally:
            _take_back(callbacks)

    async def __aiter__(self) -> AsyncIterator[AsyncResult[R]]:
        no_waiting_in_tasks(None)
        loop = asyncio.get_running_loop()
        ended: asyncio.Queue[AsyncResult[R]] = asyncio.Queue()

        def put(result: AsyncResult[R]) -> None:
            loop.call_soon_threadsafe(ended.put_nowait, result)

        deadline = None if self._timeout is None else loop.time() + self._timeout
        callbacks = self._register(put)
        try:
            for count in range(len(callbacks)):
                try:
                    async with asyncio.timeout_at(deadline):
                        result = await ended.get()
                except TimeoutError:
                    raise self._late(count) from None
                yield result
        finally:
            _take_back(callbacks)

    def _register(
        self, put: Callable[[AsyncResult[R]], object]
    ) -> list[tuple[Pending, Callable[[], object]]]:
        made: list[tuple[Pending, Callable[[], object]]] = []
        for result in self._results:
            pending = result._need()

            def end(result: AsyncResult[R] = result) -> None:
                put(result)

            pending.on_ready(end)
            made.append((pending, end))
        return made

    def _late(self, ended: int) -> ResultTimeout:
        left = len(self._results) - ended
        return ResultTimeout(
            f"{left} of {len(self._results)} results did not come within {self._timeout:g} s"
        )


def _take_back(callbacks: Iterable[tuple[Pending, Callable[[], object]]]) -> None:
    for pending, callback in callbacks:
        pending.forget(callback)


class ResultSet(Generic[R]):
    """Several handles, as one.

    Iterating yields the handles in their order; `as_completed` in the order of their ends.

    Threads: reading is safe from any thread; `add` is not.
    """

    def __init__(self, results: Iterable[AsyncResult[R]] = ()) -> None:
        self.results: list[AsyncResult[R]] = list(results)

    def add(self, result: AsyncResult[R]) -> None:
        """Add a handle, unless it is in."""
        if result not in self.results:
            self.results.append(result)

    def join(self, timeout: float | None = None, *, propagate: bool = True) -> list[R]:
        """Wait for all and return their values, in the order of the handles.

        Args:
            timeout: Seconds for all of them.
            propagate: True raises the first exception there is, without waiting for the
                rest; False has exceptions in the list.

        Raises:
            ResultTimeout: One or more had not ended in time.
            BaseException: As `AsyncResult.get`.
        """
        for result in as_completed(self.results, timeout):
            result.get(propagate=propagate)
        return [result.get(propagate=propagate) for result in self.results]

    get = join

    async def ajoin(self, timeout: float | None = None, *, propagate: bool = True) -> list[R]:
        """Await all and return their values; as `join`."""
        async for result in as_completed(self.results, timeout):
            await result.aget(propagate=propagate)
        return [await result.aget(propagate=propagate) for result in self.results]

    aget = ajoin

    def __await__(self) -> Generator[Any, Any, list[R]]:
        """Await all, however long it takes."""
        return self.ajoin().__await__()

    def as_completed(self, timeout: float | None = None) -> as_completed[R]:
        """Return the handles in the order in which their calls end."""
        return as_completed(self.results, timeout)

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(result.ready() for result in self.results)

    def successful(self) -> bool:
        """Whether all ended with a value."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Whether any ended with an exception."""
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Whether any has not ended."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many ended with a value."""
        return sum(result.successful() for result in self.results)

    def forget(self) -> None:
        """Drop what the backend keeps of all of them; blocks."""
        for result in self.results:
            result.forget()

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[R]:
        return self.results[index]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.results)} results>"


class GroupResult(ResultSet[R]):
    """The handles of a group, under an id by which a backend can keep them.

    Attributes:
        id: The group's id.
    """

    def __init__(self, id: str, results: Iterable[AsyncResult[R]]) -> None:
        super().__init__(results)
        self.id = id

    def save(self) -> None:
        """Have the backend keep the members, for `App.group_result`; blocks.

        Raises:
            NoBackend: Results are off, or the group is empty.
            BackendError: The backend keeps no groups, or does not answer.
        """
        self._backend().save_group(self.id, self.as_tuple())

    def delete(self) -> None:
        """Have the backend drop the list of members; their results stay. Blocks."""
        self._backend().forget_group(self.id)

    def as_tuple(self) -> tuple[Any, ...]:
        """Return it as Celery stores it."""
        return (self.id, None), [result.as_tuple() for result in self.results]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {"id": self.id, "results": [result.as_dict() for result in self.results]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GroupResult[Any]:
        """Return the group that `as_dict` described."""
        return GroupResult(data["id"], [AsyncResult.from_dict(each) for each in data["results"]])

    @classmethod
    def of(cls, members: Any, handle: Callable[[str], AsyncResult[Any]]) -> GroupResult[Any]:
        """Return the group of a tuple as Celery stores it.

        Raises:
            MalformedMessage: It is none.
        """
        found = _from_tuple(members, handle)
        if not isinstance(found, GroupResult):
            raise MalformedMessage("what is stored is one result, not a group")
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<GroupResult {self.id}: {len(self.results)} results>"

    def _backend(self) -> Backend:
        if not self.results:
            raise NoBackend(f"group {self.id} is empty, so there is nothing to keep")
        first = self.results[0]
        first._need()
        if first._backend is None:
            raise BackendError(f"group {self.id} has no backend to be kept in")
        return first._backend


def _from_tuple(
    members: Any, handle: Callable[[str], AsyncResult[Any]]
) -> AsyncResult[Any] | GroupResult[Any]:
    """Return the handles of ``[[id, parent], nodes]``.

    Raises:
        MalformedMessage: It has another form.
    """
    if not isinstance(members, Sequence) or isinstance(members, str) or len(members) != 2:
        raise MalformedMessage(f"{members!r} is no result in Celery's form")
    head, nodes = members
    name = head[0] if isinstance(head, list | tuple) and head else head
    if not isinstance(name, str):
        raise MalformedMessage(f"{members!r} is no result in Celery's form")
    if nodes is None:
        result = handle(name)
        if isinstance(head, list | tuple) and len(head) > 1 and head[1] is not None:
            parent = _from_tuple(head[1], handle)
            result.parent = parent if isinstance(parent, AsyncResult) else None
        return result
    found = [_from_tuple(node, handle) for node in nodes]
    flat = [
        each for one in found for each in (one.results if isinstance(one, GroupResult) else [one])
    ]
    return GroupResult(name, flat)
