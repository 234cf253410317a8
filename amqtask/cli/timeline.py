"""The fires to come, drawn: a line for each entry, a column for each part of the time.

          18:00       00:00       06:00
nightly   ··················●··········   code   03:00
poll      5555555555555555555555555555   added  14:05
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amqtask.beat.coming import MANY, Coming, Outlook, edges
from amqtask.policy.schedule import cron, zone

#: Where the axis may have its labels, the finest first, and how they are written.
_AXES = (
    *((f"*/{minutes} * * * *", "%H:%M") for minutes in (1, 5, 10, 15, 30)),
    *((f"0 */{hours} * * *", "%H:%M") for hours in (1, 3, 6, 12)),
    ("0 0 * * *", "%a %d"),
    ("0 0 * * mon", "%d %b"),
    ("0 0 1 * *", "%b %Y"),
    ("0 0 1 1 *", "%Y"),
)
#: Columns from the start of a label to that of the next, at least.
_APART = 8
#: Width of what stands beside the marks: where an entry is from, when it is next, gaps.
_BESIDE = 5 + 16 + 6
_NAME = 32
_STYLES = {"code": "cyan", "dynamic": "magenta"}
_ORIGINS = {"code": "code", "dynamic": "added"}


def columns(width: int, names: Iterable[str]) -> int:
    """Return how many marks fit into a line of ``width``, beside the longest of the names."""
    longest = max((len(name) for name in names), default=0)
    return min(120, max(12, width - min(_NAME, max(longest, 5)) - _BESIDE))


def draw(outlook: Outlook, tz: str) -> RenderableType:
    """Return the drawing of an outlook.

    Args:
        tz: Time zone of the times in it.
    """
    if not outlook.rows:
        return Text(f"no fire {_span_text(outlook, tz)}")
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    table.add_column("entry", overflow="ellipsis", no_wrap=True, max_width=_NAME)
    table.add_column(axis(outlook, tz), no_wrap=True)
    table.add_column("from", no_wrap=True)
    table.add_column("next", no_wrap=True)
    for row in outlook.rows:
        style = "dim" if row.paused else _STYLES[row.entry.origin]
        origin = _ORIGINS[row.entry.origin]
        table.add_row(
            Text(row.entry.name, style=style),
            marks(row, style),
            Text(origin, style=style),
            "paused" if row.next is None else _time(row.next, outlook.since, tz),
        )
    return Group(table, Text(_legend(outlook, tz), style="dim"))


def marks(row: Coming, style: str) -> Text:
    """Return a line of marks: one fire, a number of them, or ``+`` for more than a digit says."""
    if row.paused:
        return Text("-" * len(row.counts), style="dim")
    line = Text()
    for count in row.counts:
        if count == 0:
            line.append("·", style="dim")
        else:
            line.append("●" if count == 1 else "+" if count >= MANY else str(count), style=style)
    return line


def axis(outlook: Outlook, tz: str) -> str:
    """Return the line of times over the marks, as wide as they are."""
    ends = edges(outlook.since, outlook.until, len(outlook.rows[0].counts))
    for expression, form in _AXES:
        labels = _labels(outlook, ends, expression, form, tz)
        if labels is not None:
            break
    else:
        return " " * len(ends)
    line = [" "] * len(ends)
    for column, label in labels:
        if column + len(label) <= len(ends):
            line[column : column + len(label)] = label
    return "".join(line)


def _labels(
    outlook: Outlook, ends: Sequence[datetime], expression: str, form: str, tz: str
) -> list[tuple[int, str]] | None:
    """Return labels with their columns; None when they would stand too close."""
    schedule, at = cron(expression, tz=tz), outlook.since
    labels: list[tuple[int, str]] = []
    column = 0
    while (following := schedule.next(at)) is not None and following <= outlook.until:
        while following > ends[column]:
            column += 1
        if labels and column - labels[-1][0] < _APART:
            return None
        labels.append((column, f"{following.astimezone(zone(tz)):{form}}"))
        at = following
    return labels


def _time(instant: datetime, since: datetime, tz: str) -> str:
    local = instant.astimezone(zone(tz))
    if instant - since < timedelta(minutes=2):
        return f"{local:%H:%M:%S}"
    same = local.date() == since.astimezone(zone(tz)).date()
    return f"{local:%H:%M}" if same else f"{local:%a %d %b %H:%M}"


def _legend(outlook: Outlook, tz: str) -> str:
    parts = [f"{_span_text(outlook, tz)}", f"● one fire, 2 to 9 so many, + {MANY} or more"]
    if any(row.paused for row in outlook.rows):
        parts.append("- paused")
    if outlook.hidden:
        parts.append(f"{outlook.hidden} more that fire in it")
    if outlook.quiet:
        parts.append(f"{outlook.quiet} that do not")
    return "; ".join(parts)


def _span_text(outlook: Outlook, tz: str) -> str:
    ends = [each.astimezone(zone(tz)) for each in (outlook.since, outlook.until)]
    return f"from {ends[0]:%a %d %b %H:%M} to {ends[1]:%a %d %b %H:%M} {tz}"
