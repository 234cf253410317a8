"""``amqtask watch``: a workflow's calls as a tree in the terminal, while they run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from amqtask.app import App
from amqtask.backends import DirectBackend, RpcBackend
from amqtask.cli.result import BADLY, OPEN, WELL
from amqtask.errors import ConfigurationError
from amqtask.message.results import READY_STATES, ResultMeta
from amqtask.progress import Progress
from amqtask.result import AsyncResult, GroupResult, Tally
from amqtask.workflow.run import WorkflowRun

#: Seconds between two looks.
PAUSE = 0.5
_COLOURS = {"SUCCESS": "green", "FAILURE": "red", "REVOKED": "red", "PENDING": "dim"}
_MARKS = {"SUCCESS": "✓", "FAILURE": "✗", "REVOKED": "✗", "PENDING": "·"}


@dataclass(frozen=True, slots=True)
class Twig:
    """One call of the tree.

    Attributes:
        label: What it is called.
        state: Its state, ``""`` for a group.
        note: What there is to say of it.
        twigs: What is drawn below it.
    """

    label: str
    state: str
    note: str
    twigs: tuple[Twig, ...] = ()

    def states(self) -> Iterable[str]:
        """Yield the states of the calls in it."""
        if self.state:
            yield self.state
        for twig in self.twigs:
            yield from twig.states()


def watch_calls(app: App, id: str, *, once: bool) -> int:
    """Show the calls of a workflow until all have ended, and return the exit code.

    Args:
        id: Of a run of a `Workflow`, of a saved group, or of a call, whose children are shown.
        once: Look once, and do not wait.

    Raises:
        ConfigurationError: The app has no backend that another process can read.
    """
    backend = app.backend
    if backend is None or isinstance(backend, RpcBackend | DirectBackend):
        raise ConfigurationError(
            f"app {app.name!r} has no result backend that another process can read",
            hint="set a backend that stores, such as redis://localhost or db+sqlite:////path",
        )
    try:
        twig = seen(app, id)
        console = Console()
        if once:
            console.print(_drawn(twig))
            return _code(twig)
        with Live(_drawn(twig), console=console, auto_refresh=False) as live:
            while _code(twig) == OPEN:
                time.sleep(PAUSE)
                twig = seen(app, id)
                live.update(_drawn(twig), refresh=True)
        return _code(twig)
    finally:
        app.close(1.0)


def seen(app: App, id: str) -> Twig:
    """Return what is known of the calls behind an id, now."""
    run = app.workflow_run(id)
    if run is not None:
        return of_run(run)
    group = app.group_result(id) if app.backend is not None and app.backend.can.groups else None
    if group is not None:
        return _of(group, set())
    return _of(app.result(id), set())


def of_run(run: WorkflowRun) -> Twig:
    """Return the steps of a run, each below the first of those that it waits for."""
    below: dict[str, list[str]] = {name: [] for name in run}
    roots: list[str] = []
    for name, waits in run.after.items():
        (below[waits[-1]] if waits else roots).append(name)

    def twig(name: str) -> Twig:
        others = run.after[name][:-1]
        meta = run[name].meta
        note = f"after {', '.join(others)}, too" if others else ""
        return _twig(name, meta, note, tuple(map(twig, below[name])))

    return Twig(f"{run.name}  {run.id}", "", "", tuple(map(twig, roots)))


def _of(result: AsyncResult[object] | GroupResult[object], shown: set[str]) -> Twig:
    if isinstance(result, GroupResult):
        members = tuple(_of(each, shown) for each in result.results if each.id not in shown)
        return Twig(f"group  {result.id}", "", "", members)
    shown.add(result.id)
    meta = result.meta
    name = meta.extended.get("name") if meta is not None else None
    children = tuple(_of(each, shown) for each in result.children if each.id not in shown)
    return _twig(f"{name}  {result.id}" if name else result.id, meta, "", children)


def _twig(label: str, meta: ResultMeta | None, note: str, twigs: Sequence[Twig]) -> Twig:
    state = "PENDING" if meta is None else meta.status
    if meta is not None and state not in READY_STATES and (progress := Progress.of(meta)):
        total = f" of {progress.total:g}" if progress.total else ""
        note = f"{progress.done:g}{total}" + (f"; {note}" if note else "")
    return Twig(label, state, note, tuple(twigs))


def _drawn(twig: Twig) -> Tree:
    states = list(twig.states())
    done = sum(state == "SUCCESS" for state in states)
    failed = sum(state in READY_STATES and state != "SUCCESS" for state in states)
    tally = Tally(done, failed, len(states) - done - failed)
    tree = Tree(_text(twig))
    _grow(tree, twig)
    tree.add(Text(f"{tally.done} done, {tally.failed} failed, {tally.waiting} waiting", "bold"))
    return tree


def _grow(tree: Tree, twig: Twig) -> None:
    for each in twig.twigs:
        _grow(tree.add(_text(each)), each)


def _text(twig: Twig) -> Text:
    if not twig.state:
        return Text(twig.label, "bold")
    mark = _MARKS.get(twig.state, "→")
    words = Text(f"{mark} {twig.label}  {twig.state}", _COLOURS.get(twig.state, "yellow"))
    return words.append(f"  {twig.note}", "dim") if twig.note else words


def _code(twig: Twig) -> int:
    states = list(twig.states())
    if any(state not in READY_STATES for state in states):
        return OPEN
    return WELL if all(state == "SUCCESS" for state in states) else BADLY
