"""Results beside Celery's, on the same backends: ``python -m tests.bench.results [--write]``.

Results are stored, and read again by handles that know nothing; both libraries take turns on the
same store, each reading in a process of its own. Celery keeps fewer of them where it is slow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from pika.exceptions import AMQPError
from rich.console import Console
from rich.table import Table

from amqtask import __version__
from amqtask.errors import ConfigurationError
from amqtask.testing import servers
from tests.bench.measure import Spread, turns
from tests.bench.place import ROOT, TIMEOUT
from tests.bench.report import GROWTH_MARK, IDLE_MARK, machine
from tests.bench.result_sides import BOTH, ONE_BY_ONE, STORED, TOGETHER
from tests.contract.backends.places import database
from tests.servers import Names

PAGE = ROOT / "docs" / "performance.md"
MARK = "## Results, kept and read"
COUNT, QUICK = 50_000, 5_000
#: Of each thousand of ours, what Celery stores: so that its turn takes no longer than need be.
SHARE = {
    "rpc": 200,
    "redis": 200,
    "memcached": 200,
    "file": 200,
    "sqlite": 20,
    "postgresql": 20,
    "mysql": 10,
}
#: Fewer say nothing.
FEWEST = 100
#: Waits of which each is timed.
WAITS = 200
#: Milliseconds within which a waiter goes on where the backend tells it.
SOON_MS = 20.0
TOLD = ("rpc", "redis", "postgresql")
OURS, THEIRS = "amqtask", "Celery"

_NOTE = """\
{count:,} results are stored, as many under way as a worker holds deliveries, and read again: by
`handle.get()` one after the other, and together by `as_completed`. Celery stores and reads as its
workers and clients do, one after the other, and fewer of them; figures are results a second, ratios
compare readings of the same round, and both sides take turns on the same store. Over `rpc://`, where
outcomes arrive while others are still sent, both steps are timed as one; there, and nowhere in Celery,
each is confirmed by the broker. Goals: nowhere slower than Celery, and three times as fast on `rpc://`
and Redis. `file://` waits until each result is on the disk, which Celery's does not: a result that was
acknowledged survives a loss of power.
`python -m tests.bench.results --write` measures and writes this section; `make bench ARGS="--only results"`
shows the same.
"""


@dataclass(frozen=True, slots=True)
class Store:
    """A store that is measured.

    Attributes:
        name: What the tables call it.
        open: Gives its URL for as long as the block runs.
    """

    name: str
    open: Callable[[], contextlib.AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class Line:
    """What came out of one step on one store.

    Attributes:
        theirs: None where Celery has no such step.
        least: How many times as fast as Celery's it is meant to be.
    """

    store: str
    step: str
    ours: Spread
    theirs: Spread | None
    ratio: Spread | None
    least: float

    def cells(self) -> list[str]:
        """Return the cells of its row."""
        if self.theirs is None or self.ratio is None:
            return [self.store, self.step, _figure(self.ours), "-", "-", "-"]
        verdict = "reached" if self.ratio.middle >= self.least else "missed"
        ratio = f"{self.ratio.middle:.1f}x ({self.ratio.least:.1f} to {self.ratio.most:.1f})"
        goal = f"{self.least:g}x {verdict}"
        return [self.store, self.step, _figure(self.ours), _figure(self.theirs), ratio, goal]


@dataclass(frozen=True, slots=True)
class Wake:
    """How late waiters go on, in milliseconds."""

    store: str
    middle: float
    late: float
    worst: float

    def cells(self) -> list[str]:
        """Return the cells of its row."""
        goal = f"{SOON_MS:g} ms {'reached' if self.middle <= SOON_MS else 'missed'}"
        return [self.store, *(f"{each:.1f}" for each in (self.middle, self.late, self.worst)), goal]


HEADS = ["store", "step", "amqtask", "Celery", "times Celery's", "goal"]
WAKE_HEADS = ["store", "median, ms", "99 of 100, ms", "worst, ms", "goal"]


def main() -> None:
    """Measure what the arguments say, and show it."""
    said = _arguments()
    console = Console(width=max(Console().width, 120))
    with servers.find_or_start(said.broker) as broker:
        count = QUICK if said.quick else COUNT
        text = run(console, broker.url, count, said.rounds, _chosen(said.only))
    if said.write:
        PAGE.write_text(with_section(PAGE.read_text(), text))
        console.print(f"wrote {PAGE.name}")


def run(
    console: Console, broker: str, count: int, rounds: int, chosen: Sequence[Store] | None = None
) -> str:
    """Measure all stores that are there, show the tables, and return the section of the page."""
    lines: list[Line] = []
    wakes: list[Wake] = []
    names = Names()
    for store in stores() if chosen is None else chosen:
        try:
            with store.open() as url:
                queue = names.queue("bench") if store.name == "rpc" else ""
                place = {"url": url, "broker": broker, "queue": queue}
                lines += measured(store.name, place, count, rounds)
                if store.name in TOLD:
                    wakes.append(woken(store.name, place, WAITS if count == COUNT else WAITS // 10))
        except (ConfigurationError, subprocess.SubprocessError) as error:
            # what was measured so far stays
            print(f"{store.name} is left out: {error}", file=sys.stderr, flush=True)
    try:
        names.delete(broker)
    except AMQPError as error:
        print(f"queues are left on the broker: {error!r}", file=sys.stderr)
    _show(console, "Results a second", HEADS, [line.cells() for line in lines])
    _show(console, "Waiters go on", WAKE_HEADS, [wake.cells() for wake in wakes])
    return section(lines, wakes, count)


def stores() -> list[Store]:
    """Return all stores, the fast ones first."""
    return [
        Store("rpc", lambda: contextlib.nullcontext("rpc://")),
        Store("redis", lambda: _server("redis")),
        Store("memcached", lambda: _server("memcached")),
        Store("postgresql", lambda: _database("postgresql", "postgresql+psycopg")),
        Store("mysql", lambda: _database("mysql", "mysql+pymysql")),
        Store("sqlite", lambda: _folder("db+sqlite:///{}/results.db")),
        Store("file", lambda: _folder("file://{}")),
    ]


def measured(name: str, place: Mapping[str, str], count: int, rounds: int) -> list[Line]:
    """Have both sides take turns on one store."""
    found: dict[str, list[dict[str, float]]] = {OURS: [], THEIRS: []}
    sides = [
        (OURS, "ours", count),
        (THEIRS, "theirs", max(FEWEST, count * SHARE[name] // 1000)),
    ]
    for number, order in enumerate(turns(2, rounds), 1):
        for index in order:
            label, function, size = sides[index]
            taken = _read(function, {**place, "count": size})
            speeds = {step: size / seconds for step, seconds in taken.items()}
            found[label].append(speeds)
            shown = ", ".join(f"{step} {speed:,.0f}/s" for step, speed in speeds.items())
            print(f"{name} {number}/{rounds} {label}: {shown}", file=sys.stderr, flush=True)
    least = 3.0 if name in ("rpc", "redis") else 1.0
    return [
        _line(name, step, found[OURS], found[THEIRS], least)
        for step in (BOTH, STORED, ONE_BY_ONE, TOGETHER)
        if step in found[OURS][0]
    ]


def woken(name: str, place: Mapping[str, str], count: int) -> Wake:
    """Time how late waiters go on."""
    late = sorted(1e3 * each for each in _read("wakes", {**place, "count": count})["late"])
    return Wake(name, median(late), late[min(len(late) - 1, len(late) * 99 // 100)], late[-1])


def section(lines: Sequence[Line], wakes: Sequence[Wake], count: int) -> str:
    """Return the section of the page."""
    versions = f"amqtask {__version__}, Celery {version('celery')}, redis-py {version('redis')}"
    parts = [MARK, _NOTE.format(count=count), f"{machine()}; {versions}."]
    parts.append(_grid(HEADS, [line.cells() for line in lines]))
    parts.append(
        "How late a waiter goes on, from a worker's giving its outcome away, which it stores or sends "
        "meanwhile:"
    )
    parts.append(_grid(WAKE_HEADS, [wake.cells() for wake in wakes]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def with_section(page: str, text: str) -> str:
    """Return the page with this section replaced, or added before those that others write."""
    lines = page.splitlines(keepends=True)
    rest = next(
        (at for at, line in enumerate(lines) if line.strip() in (GROWTH_MARK, IDLE_MARK)),
        len(lines),
    )
    before = "".join(lines[:rest]).partition(MARK)[0].rstrip()
    return f"{before}\n\n{text.rstrip()}\n" + ("\n" + "".join(lines[rest:]) if lines[rest:] else "")


# -- one reading ----------------------------------------------------------------


def _read(function: str, arguments: Mapping[str, object]) -> Any:
    command = [sys.executable, "-m", "tests.bench.side", "result_sides", function]
    done = subprocess.run(
        [*command, json.dumps(arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _line(
    store: str,
    step: str,
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
    least: float,
) -> Line:
    speeds = Spread.of([each[step] for each in ours])
    if step not in theirs[0]:
        return Line(store, step, speeds, None, None, least)
    ratios = [one[step] / other[step] for one, other in zip(ours, theirs, strict=True)]
    others = Spread.of([each[step] for each in theirs])
    return Line(store, step, speeds, others, Spread.of(ratios), least)


# -- stores ---------------------------------------------------------------------


@contextlib.contextmanager
def _server(name: str) -> Iterator[str]:
    with servers.find_or_start(name) as server:
        yield server.url


@contextlib.contextmanager
def _database(name: str, driver: str) -> Iterator[str]:
    with servers.find_or_start(name) as server, database(server.url, driver) as url:
        yield url


@contextlib.contextmanager
def _folder(form: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="amqtask-bench-") as folder:
        yield form.format(Path(folder))


# -- showing --------------------------------------------------------------------


def _figure(spread: Spread) -> str:
    return f"{spread.middle:,.0f} ({spread.least:,.0f} to {spread.most:,.0f})"


def _show(
    console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _chosen(only: str) -> list[Store]:
    known = {store.name: store for store in stores()}
    names = only.split(",") if only else list(known)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"tests.bench.results: no store {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.results", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few results: to see that it runs")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--only", default="", help="stores, with commas: redis,file")
    parser.add_argument("--broker", default="rabbitmq", choices=("rabbitmq", "rabbitmq4"))
    parser.add_argument("--write", action="store_true", help="write the section of the docs' page")
    said = parser.parse_args()
    if said.write and (said.only or said.quick):
        parser.error("the page holds all in full: --write goes without --only and --quick")
    return said


if __name__ == "__main__":
    main()
