"""Tables for a terminal, and the page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table as RichTable

from amqtask import __version__
from tests.bench.measure import Row, Spread, Table, Unit

#: Begins the section of the page that `tests.bench.idle` writes, the last one.
IDLE_MARK = "## An idle worker"

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
            ", ".join(f"{name} {number}" for name, number in self.rivals.items()),
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
    for name in _columns(case.unit):
        shown.add_column(name, justify="left" if not name else "right")
    for row in table.rows:
        shown.add_row(*_cells(row, case.unit))
    console.print(shown)
    for line in _goals(table):
        console.print(f"  goal: {line}", highlight=False)


def _columns(unit: Unit) -> list[str]:
    figure = "per second" if unit == "/s" else "milliseconds"
    return ["", figure, "as fast as the baseline", "CPU µs each", "CPU beside the baseline"]


def _cells(row: Row, unit: Unit) -> list[str]:
    return [
        row.name,
        _spread(row.value, ",.0f" if unit == "/s" else ",.1f"),
        _spread(row.ratio, ".2f", "x"),
        _spread(row.cpu_us, ",.0f") if row.cpu_us else "-",
        _spread(row.cpu_ratio, ".2f", "x") if row.cpu_ratio else "-",
    ]


def _goals(table: Table) -> list[str]:
    """Say of each goal whether it was reached."""
    return [
        f"{each.goal.row}, at least {each.goal.least:.3g} x {each.goal.beside}: "
        f"{_spread(each.ratio, '.2f', 'x')}, {'reached' if each.reached else 'missed'}"
        for each in table.verdicts
    ]


def _spread(spread: Spread, form: str, unit: str = "") -> str:
    middle = f"{spread.middle:{form}}{unit}"
    if spread.least == spread.most:
        return middle
    return f"{middle} ({spread.least:{form}} to {spread.most:{form}})"


# -- page -----------------------------------------------------------------------

_HEAD = """\
# Performance

How fast amqtask is, beside the same work on bare pika, the AMQP client it is built on (what a task
library adds is what has to be paid for), and beside Celery, Dramatiq and Taskiq. `make bench`
measures, and `make bench ARGS=--write` writes this page. Figures of another machine will differ; their ratios
differ far less, so no figure stands here without its ratio.

## How it was measured

- Both sides run in the same run and take turns, each round in another order, and each reading
  in a process of its own. A ratio compares readings of the same round. What stands in the tables
  is the median over all rounds, with the least and the most in brackets: that is the noise.
- Clocks start once the connection stands and the queue is known.
- Every message is durable, in a quorum queue, `mandatory` and confirmed. Both sides publish the
  same body, the same properties and the same header table, which is checked before it begins.
- The other libraries run in an environment of their own and in two settings. *Best* is the fastest
  that their own settings allow for this work, whatever that costs: no confirms, acked before the
  run. *Safe* is confirms on and acked after the run, which is what amqtask does always.
- *As fast as the baseline*: above 1 is faster. *CPU* is the processor time of the measured
  process, over all its threads, for each message or call; the broker's is not in it.

Measured with:

"""


def page(tables: Sequence[Table], circumstances: Circumstances) -> str:
    """Return the page for the documentation, as Markdown."""
    lines = [f"- {line}" for line in circumstances.lines()]
    parts = [_HEAD + "\n".join(lines) + "\n"]
    for table in tables:
        columns = _columns(table.case.unit)
        rows = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
        rows += [_cells(row, table.case.unit) for row in table.rows]
        grid = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        goals = "".join(f"- {line}\n" for line in _goals(table))
        goals = f"\nGoals:\n\n{goals}" if goals else ""
        parts.append(f"## {table.case.title}\n\n{table.case.note}\n\n{grid}\n{goals}")
    return "\n".join(parts)


def with_idle(page: str, section: str) -> str:
    """Return the page with its idle section replaced, or added at its end."""
    return page.partition(IDLE_MARK)[0].rstrip() + "\n\n" + section


def idle_of(page: str) -> str:
    """Return the idle section of a page, which another measurement leaves alone."""
    _, mark, after = page.partition(IDLE_MARK)
    return mark + after
