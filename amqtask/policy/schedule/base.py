"""What a schedule is: something that knows which instant comes next.

Instants are aware datetimes in UTC. A schedule keeps no state: whoever asks
says after which instant, so that any process works out the same instants.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from amqtask.errors import ConfigurationError


@runtime_checkable
class Schedule(Protocol):
    """When something is due; the whole of what a schedule of your own has to have.

    Example:
        >>> class Fridays:
        ...     def next(self, after):
        ...         return some_instant_after(after)
        ...     def to_plain(self):
        ...         return {"fridays": {}}
    """

    def next(self, after: datetime) -> datetime | None:
        """Return the first instant later than ``after``; None when there is none.

        Args:
            after: Aware.

        Returns:
            An aware datetime. The same for the same ``after``, in any process; for a
            later ``after`` never an earlier one.
        """

    def to_plain(self) -> Mapping[str, Any]:
        """Return it as plain data: JSON types, one key of which is the schedule's kind.

        Two schedules are the same when this is; an entry whose schedule has changed
        starts anew. `schedule_from_plain` reads it, for kinds of others through the
        entry point group ``amqtask.schedules``.
        """


def utc(instant: datetime) -> datetime:
    """Return an aware datetime in UTC."""
    return instant.astimezone(UTC)


def instant(value: Any, what: str) -> datetime:
    """Return an instant that was given as an aware datetime, or as ISO 8601 text, in UTC.

    Args:
        what: What it is, for the text of the error.

    Raises:
        ConfigurationError: It is neither, or it has no time zone.
    """
    found = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
    if not isinstance(found, datetime):
        raise ConfigurationError(
            f"{what} is {value!r}, not an instant",
            hint="give an aware datetime, or text like 2026-12-01T09:00:00+01:00",
        )
    if found.tzinfo is None:
        raise ConfigurationError(
            f"{what} is {value!r}, which has no time zone",
            hint="use an aware datetime, such as datetime(2026, 12, 1, 9, tzinfo=UTC)",
        )
    try:
        return utc(found)
    except OverflowError:
        raise ConfigurationError(
            f"{what} is {value!r}, beyond the years 1 to 9999 in UTC"
        ) from None
