"""The run itself: start the worker, send the mix, watch it, count, clean up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from amqtask import AsyncResult
from amqtask.task import Sendable
from examples.demo import broker, tasks
from examples.demo.report import Kind, table
from examples.demo.worker import Worker

#: Seconds until every call must have its outcome.
TIMEOUT = 60.0
#: Seconds the one delayed call is put off by.
DELAY = 2.0
_LOOK = 0.05


class Mix:
    """The calls of a run.

    Attributes:
        kinds: What they are counted as, in the order of the table.
        calls: For each its kind, when it was handed over (Unix seconds), and its handle.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self.calls: list[tuple[Kind, float, AsyncResult[Any]]] = []

    def send(self, kind: Kind, task: Sendable[..., Any], *args: Any) -> None:
        """Send one call under its kind's name as routing key."""
        kind = self.kinds.setdefault(kind.name, kind)
        at = time.time()
        kind.first_sent = kind.first_sent or at
        kind.sent += 1
        sent = task.options(routing_key=kind.name).delay(*args)
        self.calls.append((kind, at, sent))

    def send_all(self) -> None:
        """Send the whole mix; when this returns the broker has every call on disk."""
        self.send(
            Kind("email.reminder", delay=DELAY), tasks.reminder.options(countdown=DELAY), "ada"
        )
        with tasks.app.pipeline():
            for order in range(40):
                self.send(Kind("email.receipt", retries=10), tasks.receipt, order)
            for user in range(500):
                self.send(Kind("email.welcome"), tasks.welcome, f"user {user}")
            for day in range(60):
                self.send(Kind("reports.daily"), tasks.daily, day)
        self.send(Kind("reports.yearly", fails=True), tasks.yearly, 2100)

    def count(self) -> None:
        """Count the outcomes that are known."""
        for kind, at, result in self.calls:
            if result.ready() and result.successful():
                mark: tasks.Mark = result.get()
                kind.ran(at, mark["started"], mark["attempt"])


def check(console: Console, where: str) -> None:
    """Connect to the broker once, so that a wrong address is told before anything starts.

    Raises:
        BrokerUnreachable: It does not answer.
    """
    with broker.connected(tasks.app):
        console.print(f"broker   {where}", soft_wrap=True, markup=False)


def run(console: Console) -> int:
    """Run the demo on the broker of ``AMQTASK_BROKER`` and return its exit code: 0 or 1.

    Raises:
        AmqtaskError: The broker went away, or refused something.
    """
    begin = time.monotonic()
    mix = Mix()
    with tasks.app, ExitStack() as stack:
        stack.callback(_clean_up)
        worker = stack.enter_context(Worker(tasks.EMAIL, tasks.REPORTS))
        if not worker.wait_ready():
            return _failed(console, ["the worker did not get ready"], worker)
        console.print(
            f"worker   amqtask worker --queues email,reports "
            f"(process {worker.pid}, ready after {time.monotonic() - begin:.1f} s)",
            soft_wrap=True,
        )
        sending = time.monotonic()
        mix.send_all()
        console.print(
            f"sent     {len(mix.calls)} calls in {time.monotonic() - sending:.2f} s, "
            "each confirmed by the broker"
        )
        _watch(console, mix, worker)
        code = worker.stop()
        wrong = [] if code == 0 else [f"the worker ended with exit code {code}"]
        mix.count()
        wrong += _look_at_queues(console, mix)
        wrong += [line for kind in mix.kinds.values() for line in kind.wrong()]
        console.print(table(list(mix.kinds.values())))
        if wrong:
            return _failed(console, wrong, worker)
    console.print(f"every count is right; it took {time.monotonic() - begin:.1f} s")
    return 0


def _watch(console: Console, mix: Mix, worker: Worker) -> None:
    """Show the progress until every outcome is there, the worker ended, or it takes too long."""
    deadline = time.monotonic() + TIMEOUT
    total = len(mix.calls)
    waiting = [result for _, _, result in mix.calls]
    columns = (
        TextColumn("running "),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        while waiting and worker.running and time.monotonic() < deadline:
            time.sleep(_LOOK)
            waiting = [result for result in waiting if not result.ready()]
            progress.update(bar, completed=total - len(waiting))
    if not console.is_terminal:
        console.print(f"running  {total - len(waiting)} of {total} have an outcome")


def _look_at_queues(console: Console, mix: Mix) -> list[str]:
    """Count the dead letters; return what is wrong with what the queues hold."""
    calls = {result.id: kind for kind, _, result in mix.calls}
    wrong = []
    with broker.connected(tasks.app) as channel:
        for queue in (tasks.EMAIL, tasks.REPORTS):
            if left := broker.waiting(channel, queue):
                wrong.append(f"queue {_short(queue)} still holds {left} messages")
            for letter in broker.dead_letters(channel, f"{queue}.dead"):
                console.print(
                    f"dead     {letter.task.rpartition('.')[2]} is in {_short(queue)}.dead: "
                    f"{letter.reason} in attempt {letter.attempts}, {letter.exception}",
                    soft_wrap=True,
                    markup=False,
                )
                if kind := calls.get(letter.task_id):
                    kind.dead += 1
                else:
                    wrong.append(f"{_short(queue)}.dead holds {letter.task_id}, which was not sent")
    return wrong


def _clean_up() -> None:
    with broker.connected(tasks.app) as channel:
        broker.remove(channel, tasks.app, tasks.RUN)


def _short(queue: str) -> str:
    """Return a queue's name without what makes it this run's own."""
    return queue.removeprefix(f"{tasks.RUN}.")


def _failed(console: Console, wrong: Sequence[str], worker: Worker) -> int:
    for line in wrong:
        console.print(f"wrong    {line}", soft_wrap=True, markup=False)
    console.print("the worker's last lines:")
    for line in worker.output:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    return 1
