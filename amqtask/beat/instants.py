"""Instants of an entry, looked for: the next, those between two, the last before one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from amqtask.errors import ConfigurationError
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import utc


def after(entry: Entry, at: datetime) -> datetime | None:
    """Return the entry's next instant in UTC; None when there is none.

    Raises:
        ConfigurationError: It is not later, or has no zone: a schedule may be anybody's.
    """
    found: Any = entry.due_after(at)
    if found is None:
        return None
    if not isinstance(found, datetime) or found.tzinfo is None or found <= at:
        raise ConfigurationError(
            f"schedule of entry {entry.name!r} says that {found!r} follows {at.isoformat()}",
            hint="its next() has to return an aware datetime later than the one it is given, "
            "or None",
        )
    return utc(found)


def up_to(entry: Entry, start: datetime, end: datetime, most: int) -> list[datetime]:
    """Return the instants from ``start``, which is one, to ``end``; at most so many."""
    found = [start]
    while len(found) < most:
        following = after(entry, found[-1])
        if following is None or following > end:
            break
        found.append(following)
    return found


def latest(entry: Entry, first: datetime, end: datetime) -> datetime:
    """Return the last instant up to ``end``; ``first`` is one. By halving: there may be millions."""
    found, bound = first, end
    while (following := after(entry, found)) is not None and following <= end:
        middle = found + (bound - found) / 2
        later = after(entry, middle)
        if later is not None and later <= end:
            found = later
        else:
            found, bound = following, middle
    return found
