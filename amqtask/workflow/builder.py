"""Workflows of named steps, in any order that has no circle.

    wf = app.workflow("nightly")
    wf.step("fetch", fetch.s())
    wf.step("clean", clean.s(), after="fetch")              # clean(fetch=...)
    wf.step("load", load.s(), after=("fetch", "clean"))     # load(fetch=..., clean=...)
    run = wf.delay()
    run.get(timeout=60)                                     # {"load": ...}

It is put into chains, groups and chords, see `amqtask.workflow.order`, so joins, failures
and cancelling are theirs.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from amqtask.errors import ArgumentsError, BackendUnavailable, ConfigurationError, near
from amqtask.message.results import ResultMeta
from amqtask.message.signature import Chain, Group, Node, Step, merge
from amqtask.workflow.canvas import Canvas, Signature, of_node
from amqtask.workflow.client import asend, check, send
from amqtask.workflow.drawing import Graph
from amqtask.workflow.freeze import derived_id
from amqtask.workflow.named import named
from amqtask.workflow.order import Parallel, Part, Series, Shape, direct, shape
from amqtask.workflow.run import STATE, WorkflowRun
from amqtask.workflow.shape import normal

if TYPE_CHECKING:
    from amqtask.app import App

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What a step is after: names, or keyword arguments by name.
After = str | Iterable[str] | Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class NamedStep:
    """One step of a `Workflow`.

    Attributes:
        step: Its call.
        after: The names of the steps that it waits for.
        takes: By keyword, the name of the step whose result it gets.
    """

    step: Step
    after: tuple[str, ...]
    takes: Mapping[str, str]


class Workflow:
    """Steps with names, and what each of them waits for.

    Made by `amqtask.App.workflow`. It can be run as often as you like, each time with
    ids of its own.

    Attributes:
        name: Its name, for logs and drawings.
        steps: The steps by name, in the order in which they were added.

    Threads: not safe while steps are added; running it is, from any thread.
    """

    def __init__(self, app: App, name: str) -> None:
        self.app = app
        self.name = name
        self.steps: dict[str, NamedStep] = {}

    def step(self, name: str, call: Signature[..., Any], after: After = ()) -> Workflow:
        """Add a step; returns the workflow, for more.

        Args:
            name: Its name, which is also the keyword that later steps get its result as.
            call: A single call, ``task.s(...)``. ``task.si(...)`` takes no results.
            after: Names of steps that come before; their results are given to the task by
                keyword. A dict gives other keywords, ``{"fetch": "rows"}``, or None for
                steps that are only waited for.

        Raises:
            ConfigurationError: The name is taken or none, ``after`` names no step that was
                added before, or ``call`` is more than one call.
            ArgumentsError: The arguments do not fit the task.
        """
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"a step cannot be called {name!r}", hint="accepted: what a keyword can be"
            )
        if name in self.steps:
            raise ConfigurationError(f"workflow {self.name!r} has a step {name!r} already")
        if not isinstance(call, Canvas):
            raise ArgumentsError(
                f"step {name!r} was given {call!r}, which is no signature", hint="write task.s(...)"
            )
        node = call._node
        if not isinstance(node, Step):
            raise ConfigurationError(
                f"step {name!r} of workflow {self.name!r} is more than one call: {call!r}",
                hint="make a step of each, and say which comes after which",
            )
        waits = _after(after)
        for each in waits:
            if each not in self.steps:
                raise ConfigurationError(
                    f"step {name!r} is after {each!r}, which workflow {self.name!r} does not "
                    f"have{near(each, list(self.steps))}",
                    hint="add the steps that come first first",
                )
        takes = {} if node.immutable else {word: each for each, word in waits.items() if word}
        if doubled := sorted(takes.keys() & node.kwargs.keys()):
            raise ArgumentsError(
                f"step {name!r} has an argument {doubled[0]!r} already, and gets the result of "
                f"step {takes[doubled[0]]!r} under that name",
                hint='give it another keyword: after={"fetch": "rows"}',
            )
        check(self.app, named(node, name, takes, ()), 0)
        self.steps[name] = NamedStep(node, tuple(waits), takes)
        return self

    # -- running it -------------------------------------------------------------------

    def delay(self) -> WorkflowRun:
        """Run it: send what it begins with, and wait until the broker has that.

        Raises:
            ConfigurationError: It has no steps.
            PublishError: The broker did not confirm it within ``publish_timeout``.
            BackendError: The backend did not take the record of the run.

        Delivery: as `amqtask.Task.delay`; each later step is sent, confirmed, before what it
        follows is acked.
        """
        run, node = self._begin()
        if recorded := self._record(run):
            recorded.wait(self.app.settings.publish_timeout)
        send(self.app, node)
        return run

    async def adelay(self) -> WorkflowRun:
        """Run it, without blocking; as `delay`."""
        run, node = self._begin()
        if recorded := self._record(run):
            await recorded.await_(self.app.settings.publish_timeout)
        await asend(self.app, node)
        return run

    def _begin(self) -> tuple[WorkflowRun, Node]:
        id_ = str(uuid.uuid4())
        ids = {name: derived_id(id_, "step", name) for name in self.steps}
        after = {name: each.after for name, each in self.steps.items()}
        handles = {
            name: self.app.result(ids[name], each.step.task) for name, each in self.steps.items()
        }
        return WorkflowRun(id_, self.name, handles, after), self._node(id_, ids)

    def _record(self, run: WorkflowRun) -> _Recorded | None:
        """Have the backend, if it stores, keep what the run is made of."""
        backend = self.app.backend
        if backend is None or not backend.can.stores:
            return None
        recorded = _Recorded(run.id)
        meta = ResultMeta(run.id, STATE, run.record())
        backend.save(meta, reply_to="", correlation_id=run.id, done=recorded.tell)
        return recorded

    # -- what it becomes ----------------------------------------------------------------

    def signature(self) -> Any:
        """Return the chains and groups that it is put into, as a signature to look at."""
        return of_node(normal(self._node(None, {})), self.app)

    def added(self) -> tuple[tuple[str, str], ...]:
        """Return pairs of steps of which the second waits for the first without being told to.

        Where neither chains nor groups can say the order exactly; see the guide.
        """
        return self._shape().added

    def graph(self) -> Graph:
        """Return its drawing: ``print(wf.graph().mermaid())``, or ``.dot()``."""
        order = direct({name: each.after for name, each in self.steps.items()})
        return Graph(
            self.name,
            tuple((name, f"{name}: {each.step.task}") for name, each in self.steps.items()),
            tuple((first, name) for name, waits in order.items() for first in waits),
            self.added(),
        )

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} of {len(self.steps)} steps>"

    def _shape(self) -> Shape:
        return shape({name: each.after for name, each in self.steps.items()})

    def _node(self, id_: str | None, ids: Mapping[str, str]) -> Node:
        def ready(name: str, keep: Sequence[str]) -> Step:
            found = self.steps[name]
            step = named(found.step, name, found.takes, keep)
            options = {"task_id": ids[name], "root_id": id_} if id_ is not None else {}
            made = merge(step, (), {}, options)
            assert isinstance(made, Step)
            return made

        whole = self._shape().whole
        takes = {name: set(each.takes.values()) for name, each in self.steps.items()}
        return _compiled(whole, set(), takes, ready)


class _Recorded:
    """Waits until the backend has the record of a run."""

    def __init__(self, id_: str) -> None:
        self._id = id_
        self._done = Event()
        self._error: Exception | None = None

    def tell(self, error: Exception | None) -> None:
        self._error = error
        self._done.set()

    def wait(self, timeout: float) -> None:
        if not self._done.wait(timeout):
            raise BackendUnavailable(
                f"the record of workflow run {self._id} was not stored within {timeout:g} s"
            )
        if self._error is not None:
            raise self._error

    async def await_(self, timeout: float) -> None:
        from asyncio import to_thread

        await to_thread(self.wait, timeout)


def _compiled(part: Part, need: set[str], takes: Mapping[str, set[str]], ready: Any) -> Node:
    """Return a part as chains and groups.

    Args:
        need: Results that steps after it take.
        takes: Results that each step takes.
        ready: Makes a step of a name and what is to be kept after it.
    """
    match part:
        case str():
            made: Step = ready(part, sorted(need))
            return made
        case Series(parts=parts):
            nodes: list[Node] = []
            for each in reversed(parts):
                nodes.append(_compiled(each, need, takes, ready))
                need = _needed(each, need, takes)
            return Chain(tuple(reversed(nodes)))
        case Parallel(parts=parts):
            made_by = [_steps(each) for each in parts]
            passing = need - set().union(*made_by)
            members = [
                # what only passes through goes one way, not as many as there are
                _compiled(each, (need & mine) | (passing if index == 0 else set()), takes, ready)
                for index, (each, mine) in enumerate(zip(parts, made_by, strict=True))
            ]
            return Group(tuple(members))
    raise AssertionError(f"{part!r} is no part of a workflow")


def _needed(part: Part, need: set[str], takes: Mapping[str, set[str]]) -> set[str]:
    """Return the results that have to come to a part, for it and for what is after it."""
    steps = _steps(part)
    return (need | set().union(*(takes[step] for step in steps))) - steps


def _steps(part: Part) -> set[str]:
    if isinstance(part, str):
        return {part}
    return set().union(*(_steps(each) for each in part.parts))


def _after(after: After) -> dict[str, str | None]:
    """Return the steps that come before, each with the keyword of its result."""
    if isinstance(after, str):
        return {after: after}
    if isinstance(after, Mapping):
        return dict(after)
    return {name: name for name in after}
