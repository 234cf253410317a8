"""Tables for a terminal, and the page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table as RichTable

from amqtask import __version__
from tests.bench.measure import Row, Spread, Table, Unit

#: Begins the part of the page that ``--growth`` writes.
GROWTH_MARK = "## Growth"
#: Begins the section of the page that `tests.bench.idle` writes, the last one.
IDLE_MARK = "## An idle worker"
#: The plot, beside the page.
PLOT = "performance.svg"

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the figures depend on.

    Attributes:
        broker: Its version.
        local: Whether it runs on this machine, and so takes its share of the processors.
        rounds: How often each reading was taken.
        load: Least and most load average seen between the readings.
        rivals: The other libraries and their versions.
    """

    broker: str
    local: bool
    rounds: int
    load: tuple[float, float]
    rivals: Mapping[str, str]

    def lines(self) -> list[str]:
        """Describe them, one thing a line."""
        where = "on the same machine" if self.local else "on another machine"
        python = _python()
        packages = ", ".join(f"{name} {version(name)}" for name in ("pika", "orjson"))
        return [
            _hardware(),
            f"RabbitMQ {self.broker}, one node, {where}",
            f"{python}, amqtask {__version__}, {packages}",
            *(
                [", ".join(f"{name} {of}" for name, of in self.rivals.items())]
                if self.rivals
                else ()
            ),
            f"{self.rounds} rounds; load average from {self.load[0]:.1f} to {self.load[1]:.1f}",
        ]


def machine() -> str:
    """Describe the machine and the interpreter in one line."""
    return f"{_hardware()}; {_python()}"


def _hardware() -> str:
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} processors ({_processor()}), {system}"


def _python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def is_local(url: str) -> bool:
    """Tell whether a broker's URL leads to this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


# -- terminal -------------------------------------------------------------------


def show(console: Console, table: Table) -> None:
    """Print one table."""
    case = table.case
    shown = RichTable(title=case.title, title_justify="left", caption_justify="left")
    heads, *lines = _grid(table)
    for name in heads:
        shown.add_column(name, justify="left" if not name else "right")
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
    for text in _remarks(table):
        console.print(f"  {text}", highlight=False)


_FIGURES: dict[Unit, tuple[str, str]] = {
    "/s": ("per second", ",.0f"),
    "ms": ("milliseconds", ",.1f"),
    "MiB": ("MiB", ",.1f"),
}


def _grid(table: Table) -> list[list[str]]:
    """Return a table's cells, heads first; columns in which nothing was measured are left out."""
    unit = table.case.unit
    figure, form = _FIGURES[unit]
    better = "as small as the baseline" if unit == "MiB" else "as fast as the baseline"
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("", lambda row: row.name),
        (figure, lambda row: _spread(row.value, form)),
        ("p50, p95, p99", _tail),
        (better, lambda row: _spread(row.ratio, ".2f", "x")),
        ("CPU µs each", lambda row: _spread(row.cpu_us, ",.0f")),
        ("CPU beside the baseline", lambda row: _spread(row.cpu_ratio, ".2f", "x")),
        ("broker's CPU µs each", lambda row: _spread(row.broker_us, ",.0f")),
    ]
    made = [[head, *(cell(row) for row in table.rows)] for head, cell in columns]
    kept = made[:2] + [column for column in made[2:] if any(cell != "-" for cell in column[1:])]
    return [list(line) for line in zip(*kept, strict=True)]


def _tail(row: Row) -> str:
    if row.tail_ms is None:
        return "-"
    return ", ".join(f"{spread.middle:,.1f}" for spread in row.tail_ms)


def _remarks(table: Table) -> list[str]:
    """Say of each goal whether it was reached, and who has no figures."""
    lines = []
    for each in table.verdicts:
        row, beside, least = each.goal.row, each.goal.beside, each.goal.least
        if isinstance(beside, str):
            wanted = f"{row}, at least {least:.3g} x {beside}"
        else:
            wanted = f"{row}, {beside:g} {table.case.unit}"
        said = "reached" if each.reached else f"missed{each.goal.hard and ': '}{each.goal.hard}"
        lines.append(f"goal: {wanted}: {_spread(each.ratio, '.2f', 'x')}, {said}")
    return lines + [f"incomplete: {line}" for line in table.failures]


def _spread(spread: Spread | None, form: str, unit: str = "") -> str:
    if spread is None:
        return "-"
    middle = f"{spread.middle:{form}}{unit}"
    if spread.least == spread.most:
        return middle
    return f"{middle} ({spread.least:{form}} to {spread.most:{form}})"


# -- page -----------------------------------------------------------------------

_HEAD = f"""\
# Performance

How fast amqtask is, beside the same work on bare pika, the AMQP client it is built on (what a task
library adds is what has to be paid for), beside bare aio-pika, and beside Celery, Dramatiq and
Taskiq. `make bench` measures, and `make bench ARGS=--write` writes this page. Figures of another
machine will differ; their ratios differ far less, so no figure stands here without its ratio.

![What is measured below, as bars]({PLOT})

## How it was measured

- All contenders run in the same run and take turns, each round in another order, and each reading
  in a process of its own. A ratio compares readings of the same round. What stands in the tables
  is the median over all rounds, with the least and the most in brackets: that is the noise.
- Clocks start once the connection stands and the queue is known.
- Every message of amqtask's, pika's and aio-pika's is durable, in a quorum queue, `mandatory` and
  confirmed. They publish the same body, the same properties and the same header table, which is
  checked before it begins.
- The other libraries run in an environment of their own and in two settings. *Best* is the fastest
  that their own settings allow for this work, whatever that costs: no confirms, acked before the
  run, much prefetched. *Safe* is confirms on and acked after the run, which is what amqtask does
  always; Taskiq confirms always.
- *As fast as the baseline*: above 1 is faster. *CPU* is the processor time of the measured
  process, or of a worker's processes, for each message or call. *Broker's CPU* is that of the
  broker, for whatever it did meanwhile. Microseconds each are milliseconds for each 1,000.

Measured with:

"""


def page(tables: Sequence[Table], circumstances: Circumstances) -> str:
    """Return the page for the documentation, as Markdown."""
    lines = [f"- {line}" for line in circumstances.lines()]
    return "\n".join([_HEAD + "\n".join(lines) + "\n", *_sections(tables, "##")])


def growth(tables: Sequence[Table], circumstances: Circumstances) -> str:
    """Return the part of the page that says what becomes of the cost when there is more."""
    head = (
        f"{GROWTH_MARK}\n\nWhat a task costs when more of them wait, when a worker consumes more "
        "queues, and when it has more processes. `make bench ARGS='--growth --write'` measures "
        "and writes this part.\n"
    )
    lines = "".join(f"- {line}\n" for line in circumstances.lines())
    return "\n".join([head, lines, *_sections(tables, "###")])


def _sections(tables: Sequence[Table], level: str) -> list[str]:
    parts = []
    for table in tables:
        heads, *lines = _grid(table)
        rows = [heads, ["---"] + ["---:"] * (len(heads) - 1), *lines]
        grid = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        remarks = "".join(f"- {line[0].upper()}{line[1:]}\n" for line in _remarks(table))
        after = f"\n{remarks}" if remarks else ""
        parts.append(f"{level} {table.case.title}\n\n{table.case.note}\n\n{grid}\n{after}")
    return parts


# -- the parts of the page, each of which is measured by itself ----------------------


def with_main(page: str, main: str) -> str:
    """Return the page with its first part replaced."""
    _, growth, idle = _parts(page)
    return _joined(main, growth, idle)


def with_growth(page: str, section: str) -> str:
    """Return the page with the part about growth replaced."""
    main, _, idle = _parts(page)
    return _joined(main, section, idle)


def with_idle(page: str, section: str) -> str:
    """Return the page with its idle section replaced, or added at its end."""
    main, growth, _ = _parts(page)
    return _joined(main, growth, section)


def _parts(page: str) -> tuple[str, str, str]:
    lines = page.splitlines(keepends=True)
    idle = _line_of(lines, IDLE_MARK, len(lines))
    growth = _line_of(lines, GROWTH_MARK, idle)
    return "".join(lines[:growth]), "".join(lines[growth:idle]), "".join(lines[idle:])


def _line_of(lines: Sequence[str], mark: str, otherwise: int) -> int:
    return next((at for at, line in enumerate(lines) if line.strip() == mark), otherwise)


def _joined(*parts: str) -> str:
    return "\n".join(part.rstrip() + "\n" for part in parts if part.strip())
