"""One run of a workflow of named steps: the handles of its steps by their names."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqtask.errors import MalformedMessage
from amqtask.message.text import show
from amqtask.result import AsyncResult, ResultSet
from amqtask.result.tally import Tally

if TYPE_CHECKING:
    from amqtask.app import App

#: State under which a backend keeps what a run is made of, by the run's id.
STATE = "WORKFLOW"


class WorkflowRun:
    """What became of one run of a `Workflow`.

    ``run["load"]`` is the handle of a step; iterating yields the names.

    Attributes:
        id: The run's id, which ``amqtask watch`` takes; also the root id of its calls.
        name: The workflow's name.
        steps: The handles by name, in the order in which the steps were added.
        after: By name, what each step waits for.

    Threads: safe from any thread and any loop.
    """

    def __init__(
        self,
        id: str,
        name: str,
        steps: Mapping[str, AsyncResult[Any]],
        after: Mapping[str, Sequence[str]],
    ) -> None:
        self.id = id
        self.name = name
        self.steps = dict(steps)
        self.after = {each: tuple(waits) for each, waits in after.items()}

    @property
    def last(self) -> dict[str, AsyncResult[Any]]:
        """The handles of the steps that nothing waits for."""
        waited = {name for waits in self.after.values() for name in waits}
        return {name: each for name, each in self.steps.items() if name not in waited}

    def get(self, timeout: float | None = None, *, propagate: bool = True) -> dict[str, Any]:
        """Wait for the steps that nothing waits for, and return their values by name.

        Args:
            timeout: Seconds for all of them.
            propagate: False has exceptions among the values.

        Raises:
            ResultTimeout: They had not ended in time.
            WorkflowFailed: A step that one of them follows failed; it names that.
            BaseException: As `AsyncResult.get`.
        """
        last = self.last
        values = ResultSet(last.values()).join(timeout, propagate=propagate)
        return dict(zip(last, values, strict=True))

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> dict[str, Any]:
        """Await the steps that nothing waits for; as `get`."""
        last = self.last
        values = await ResultSet(last.values()).ajoin(timeout, propagate=propagate)
        return dict(zip(last, values, strict=True))

    def __await__(self) -> Generator[Any, Any, dict[str, Any]]:
        return self.aget().__await__()

    def progress(self) -> Tally:
        """Return how many steps are done, failed, and waiting; asks the backend."""
        return Tally.of(self.steps.values())

    def ready(self) -> bool:
        """Whether all steps have ended."""
        return all(each.ready() for each in self.steps.values())

    def cancel(self, *, terminate: bool = False) -> None:
        """Have no step run that has not ended; see `AsyncResult.cancel`."""
        for each in self.steps.values():
            each.cancel(terminate=terminate)

    def record(self) -> dict[str, Any]:
        """Return what it is made of as plain data, for JSON; `of` reads it."""
        steps = [
            {"name": name, "id": each.id, "task": each.task, "after": list(self.after[name])}
            for name, each in self.steps.items()
        ]
        return {"workflow": self.name, "steps": steps}

    @classmethod
    def of(cls, app: App, id: str, record: Any) -> WorkflowRun:
        """Return the run that `record` described.

        Raises:
            MalformedMessage: It is no record.
        """
        try:
            steps = {each["name"]: app.result(each["id"], each["task"]) for each in record["steps"]}
            after = {each["name"]: tuple(each["after"]) for each in record["steps"]}
            return cls(id, record["workflow"], steps, after)
        except (KeyError, TypeError) as error:
            raise MalformedMessage(f"{show(record)} is no record of a workflow's run") from error

    def __getitem__(self, name: str) -> AsyncResult[Any]:
        return self.steps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"<WorkflowRun of {self.name!r} (id {self.id})>"
