"""Which fires come in the next hours, counted by columns of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from amqtask.policy.entry import Entry

#: A column's count stops here: it stands for that many or more.
MANY = 10


@dataclass(frozen=True, slots=True)
class Coming:
    """What one entry has before it.

    Attributes:
        next: Its next instant; None when it is paused, or none comes.
        counts: Instants by column; `MANY` stands for that many or more.
    """

    entry: Entry
    paused: bool
    next: datetime | None
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What comes within a span of time.

    Attributes:
        rows: Entries that fire in it, the next one first, then those that are paused.
        hidden: Entries that fire in it, and were more than asked for.
        quiet: Entries that do not fire in it.
    """

    since: datetime
    until: datetime
    rows: tuple[Coming, ...]
    hidden: int
    quiet: int


def outlook(
    entries: Iterable[tuple[Entry, bool]],
    since: datetime,
    until: datetime,
    *,
    columns: int,
    most: int = 50,
) -> Outlook:
    """Return what comes after ``since``, up to ``until``; jitter is left out.

    Args:
        entries: Each with whether it is paused.
        columns: Parts of equal length that the span is counted by.
        most: Rows at most.
    """
    awake: list[tuple[datetime, str, Entry]] = []
    asleep: list[Coming] = []
    quiet = 0
    for entry, paused in entries:
        following = entry.due_after(since)
        if following is None or following > until:
            quiet += 1
        elif paused:
            asleep.append(Coming(entry, True, None, (0,) * columns))
        else:
            awake.append((following, entry.name, entry))
    awake.sort(key=lambda each: each[:2])
    rows = [
        Coming(entry, False, following, _counts(entry, since, until, columns))
        for following, _, entry in awake[:most]
    ]
    rows += asleep[: max(0, most - len(rows))]
    return Outlook(since, until, tuple(rows), len(awake) + len(asleep) - len(rows), quiet)


def edges(since: datetime, until: datetime, columns: int) -> Sequence[datetime]:
    """Return where columns end; the last one is ``until``."""
    step: timedelta = (until - since) / columns
    return [*(since + step * (index + 1) for index in range(columns - 1)), until]


def _counts(entry: Entry, since: datetime, until: datetime, columns: int) -> tuple[int, ...]:
    counts, at = [], since
    for edge in edges(since, until, columns):
        count = 0
        # of one that fires each second, a column is looked at no longer than it takes to tell
        while count < MANY and (following := entry.due_after(at)) is not None and following <= edge:
            count, at = count + 1, following
        counts.append(count)
        at = edge
    return tuple(counts)
