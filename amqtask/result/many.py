"""`ResultSet` and `GroupResult`: the handles of many calls, as one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from amqtask.backends import Backend
from amqtask.errors import BackendError, MalformedMessage, NoBackend
from amqtask.result.completed import as_completed
from amqtask.result.tally import Tally

if TYPE_CHECKING:
    from amqtask.result.handle import AsyncResult

R = TypeVar("R")


class ResultSet(Generic[R]):
    """Several handles, as one.

    Iterating yields the handles in their order; `as_completed` in the order of their ends.

    Threads: reading is safe from any thread; `add` is not.
    """

    #: The class of its members, which knows this module and sets it.
    _member: ClassVar[type[AsyncResult[Any]]]

    def __init__(self, results: Iterable[AsyncResult[R]] = ()) -> None:
        self.results: list[AsyncResult[R]] = list(results)

    def add(self, result: AsyncResult[R]) -> None:
        """Add a handle, unless it is in."""
        if result not in self.results:
            self.results.append(result)

    def join(self, timeout: float | None = None, *, propagate: bool = True) -> list[R]:
        """Wait for all and return their values, in the order of the handles.

        Args:
            timeout: Seconds for all of them; None waits for ever, 0 only looks.
            propagate: True raises the first exception there is, without waiting for the
                rest; False has exceptions in the list.

        Raises:
            ResultTimeout: One or more had not ended in time.
            WaitInTask: As `AsyncResult.get`.
            BaseException: As `AsyncResult.get`.
        """
        for result in as_completed(self.results, timeout):
            result._outcome(propagate)
        return [result._outcome(propagate) for result in self.results]

    get = join

    async def ajoin(self, timeout: float | None = None, *, propagate: bool = True) -> list[R]:
        """Await all and return their values; as `join`."""
        async for result in as_completed(self.results, timeout):
            result._outcome(propagate)
        return [result._outcome(propagate) for result in self.results]

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
        parent: What the group follows, where that is known.
    """

    def __init__(
        self,
        id: str,
        results: Iterable[AsyncResult[R]],
        *,
        parent: AsyncResult[Any] | GroupResult[Any] | None = None,
    ) -> None:
        super().__init__(results)
        self.id = id
        self.parent = parent

    @property
    def steps(self) -> list[AsyncResult[Any]]:
        """The handles of all calls up to these, the first one first."""
        return steps_of(self)

    def progress(self) -> Tally:
        """Return how many of `steps` are done, failed and waiting; asks the backend."""
        return Tally.of(self.steps)

    def cancel(self, *, terminate: bool = False, whole: bool = False) -> None:
        """Have the members not run; see `AsyncResult.cancel`.

        Args:
            terminate: Also end those that ignore their cancellation.
            whole: Also cancel all that the group follows.
        """
        for step in self.steps if whole else self.results:
            step.cancel(terminate=terminate)

    async def acancel(self, *, terminate: bool = False, whole: bool = False) -> None:
        """As `cancel`, awaited."""
        for step in self.steps if whole else self.results:
            await step.acancel(terminate=terminate)

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
        parent = None if self.parent is None else self.parent.as_tuple()
        return (self.id, parent), [result.as_tuple() for result in self.results]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        parents = [parent.as_member() for parent in ancestors(self)]
        return {**self.as_member(), "parents": parents} if parents else self.as_member()

    def as_member(self) -> dict[str, Any]:
        """Return it as plain data without its parents."""
        return {"id": self.id, "results": [result.as_member() for result in self.results]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GroupResult[Any]:
        """Return the group that `as_dict` described."""
        results = [cls._member.from_dict(each) for each in data["results"]]
        return GroupResult(data["id"], results, parent=parents_of(data))

    @classmethod
    def of(cls, members: Any, handle: Callable[[str], AsyncResult[Any]]) -> GroupResult[Any]:
        """Return the group of a tuple as Celery stores it.

        Raises:
            MalformedMessage: It is none.
        """
        found = from_tuple(members, handle)
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


def from_tuple(
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
    parent = None
    if isinstance(head, list | tuple) and len(head) > 1 and head[1] is not None:
        parent = from_tuple(head[1], handle)
    if nodes is None:
        result = handle(name)
        result.parent = parent
        return result
    found = [from_tuple(node, handle) for node in nodes]
    flat = [
        each for one in found for each in (one.results if isinstance(one, GroupResult) else [one])
    ]
    return GroupResult(name, flat, parent=parent)


# -- what comes before ----------------------------------------------------------------


def ancestors(
    handle: AsyncResult[Any] | GroupResult[Any],
) -> Iterator[AsyncResult[Any] | GroupResult[Any]]:
    """Yield what a handle follows, the nearest first."""
    parent = handle.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def parents_of(data: Mapping[str, Any]) -> AsyncResult[Any] | GroupResult[Any] | None:
    """Return the parents in the plain data of a handle."""
    parent: AsyncResult[Any] | GroupResult[Any] | None = None
    for each in reversed(data.get("parents") or ()):
        kind = GroupResult if "results" in each else ResultSet._member
        before, parent = parent, kind.from_dict(each)
        parent.parent = before
    return parent


def steps_of(handle: AsyncResult[Any] | GroupResult[Any]) -> list[AsyncResult[Any]]:
    """Return the handles of all calls up to this one, each once, the first one first."""
    found: list[AsyncResult[Any]] = []
    seen: set[tuple[bool, str]] = set()
    # True for those that only wait for what they follow; not by recursion, as chains are long
    waiting = [(handle, False)]
    while waiting:
        here, last = waiting.pop()
        members = here.results if isinstance(here, GroupResult) else None
        key = members is None, here.id
        if last and not isinstance(here, GroupResult):
            found.append(here)
        elif key not in seen:
            seen.add(key)
            waiting.append((here, True))
            waiting += [(member, False) for member in reversed(members or ())]
            if here.parent is not None:
                waiting.append((here.parent, False))
    return found
