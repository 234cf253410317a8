"""Cron expressions, in the time of a zone.

cronsim says which wall-clock time comes next; which instant that is, is worked
out here, because a wall-clock time may come twice, or not at all, when clocks
are changed. The rule is that of Debian's cron:

    - An expression for given times (neither minute nor hour starts with ``*``)
      is due once for each of them. One that clocks skip is due when the gap
      ends; one that comes twice is due the first time.
    - One that runs through the hours or minutes (``*/15 * * * *``) goes by real
      time: nothing in a gap, and again in an hour that comes again.

Source: cron(8) of Debian, "Daylight Saving Time and other time changes".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Literal

from cronsim import CronSim, CronSimError

from amqtask.errors import ConfigurationError, near
from amqtask.policy.schedule.explain import ALIASES, explain

_SECOND = timedelta(seconds=1)
_NAIVE = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall-clock time, no instant


@dataclass(frozen=True, slots=True)
class Cron:
    """Due at the wall-clock times that a cron expression names.

    Attributes:
        expression: Five fields (minute, hour, day of month, month, day of week), six
            with seconds first, or an alias such as ``@daily``.
        tz: Name of the time zone; None leaves it to the app, and is UTC without one.
        days: ``both`` wants day of month and day of week to fit; ``either``, as cron
            does, is content with one of them unless one starts with ``*``.
    """

    expression: str
    tz: str | None = None
    days: Literal["either", "both"] = "either"
    _walls: CronSim = field(init=False, repr=False, compare=False)
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _given: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expression: Any = self.expression  # whatever a caller passed
        if not isinstance(expression, str):
            raise ConfigurationError(
                f"cron expression is {expression!r}, not text",
                hint='write five fields, like cron("0 9 * * mon-fri")',
            )
        if self.days not in ("either", "both"):
            raise ConfigurationError(
                f"days of cron expression {expression!r} is {self.days!r}",
                hint="it is 'either' or 'both'",
            )
        text = " ".join(expression.split())
        parts = ALIASES.get(text.lower(), text).split()
        object.__setattr__(self, "expression", text)
        object.__setattr__(self, "_walls", _parse(text, " ".join(parts), self.days))
        object.__setattr__(self, "_zone", zone(self.tz))
        minute, hour = parts[-5:-3]
        object.__setattr__(self, "_given", "*" not in (minute[0], hour[0]))

    def next(self, after: datetime) -> datetime | None:
        """Return the first instant after ``after`` at which it is due.

        None: no such time comes within 50 years.
        """
        try:
            # by way of UTC: what is in the zone already may be a time that clocks skip
            local = after.astimezone(UTC).astimezone(self._zone)
            found = self._next_given(local) if self._given else self._next_running(local)
            return None if found is None else found.astimezone(UTC)
        except OverflowError:
            return None  # beyond the year 9999

    def in_zone(self, tz: str) -> Cron:
        """Return it in this time zone, unless it has one of its own."""
        return self if self.tz is not None else Cron(self.expression, tz, self.days)

    def to_plain(self) -> Mapping[str, Any]:
        """Return ``{"cron": "0 9 * * mon-fri", "tz": "Europe/Paris"}``."""
        plain = {"cron": self.expression}
        if self.tz is not None:
            plain["tz"] = self.tz
        if self.days != "either":
            plain["days"] = self.days
        return plain

    def __str__(self) -> str:
        zone = "" if self.tz is None else f"CRON_TZ={self.tz} "
        days = "" if self.days == "either" else f"CRON_DAYS={self.days} "
        return f"{zone}{days}{self.expression}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Cron, (self.expression, self.tz, self.days)

    def _wall_after(self, wall: datetime) -> datetime | None:
        """Return the next wall-clock time, both without a zone."""
        walls = copy.copy(self._walls)
        walls.dt = wall.replace(microsecond=0, fold=0)
        try:
            return next(walls)
        except StopIteration:
            return None

    def _next_given(self, local: datetime) -> datetime | None:
        wall: datetime | None = local.replace(tzinfo=None)
        while wall is not None and (wall := self._wall_after(wall)) is not None:
            due = wall.replace(tzinfo=self._zone)
            if _skipped(due):
                due = _end_of_gap(due)
            if due.timestamp() > local.timestamp():
                return due
        return None

    def _next_running(self, local: datetime) -> datetime | None:
        again = _repetition(local)
        wall: datetime | None = local.replace(tzinfo=None)
        while wall is not None and (wall := self._wall_after(wall)) is not None:
            due = wall.replace(tzinfo=self._zone)
            if due.timestamp() <= local.timestamp():
                due = due.replace(fold=1)  # it has been, and comes again
            if again is not None and due.timestamp() >= again.timestamp():
                # clocks go back before that: look at the repeated times first
                wall, again = again.replace(tzinfo=None) - _SECOND, None
            elif not _skipped(due):
                return due
        return None


def cron(
    expression: str, *, tz: str | tzinfo | None = None, days: Literal["either", "both"] = "either"
) -> Cron:
    """Return a schedule by a cron expression: ``cron("0 9 * * mon-fri", tz="Europe/Paris")``.

    Args:
        expression: Five fields (minute, hour, day of month, month, day of week), six
            with seconds first, or ``@yearly``, ``@monthly``, ``@weekly``, ``@daily``,
            ``@hourly``.
        tz: Time zone of its times, by name; by default the app's setting ``timezone``.
        days: ``both`` wants day of month and day of week to fit, where cron by itself
            is content with either.

    Raises:
        ConfigurationError: The expression or the zone is wrong; the text names the field.
    """
    if isinstance(tz, tzinfo):
        tz = _name(tz)
    return Cron(expression, tz, days)


def zone(name: str | None) -> tzinfo:
    """Return the time zone of that name; UTC for None.

    Raises:
        ConfigurationError: There is none.
    """
    if name is None or name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones  # slow import

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        known = available_timezones()
        hint = (
            "name it as in Europe/Paris"
            if known
            else "this system has no time zones: install its tzdata package, or tzdata from PyPI"
        )
        raise ConfigurationError(
            f"no time zone is called {name!r}{near(str(name), sorted(known))}", hint=hint
        ) from None


def _name(tz: tzinfo) -> str:
    if tz is UTC:
        return "UTC"
    key = getattr(tz, "key", None) or getattr(tz, "zone", None)
    if not isinstance(key, str):
        raise ConfigurationError(
            f"time zone {tz!r} has no name", hint='name it, like tz="Europe/Paris"'
        )
    return key


@lru_cache(maxsize=1024)
def _parse(said: str, expression: str, days: str) -> CronSim:
    """Return what an expression says; a copy of it walks, itself it is never changed."""
    try:
        walls = CronSim(expression, _NAIVE)
        if days == "both":
            walls.day_and = True
        next(copy.copy(walls))
    except StopIteration:
        raise ConfigurationError(
            f"cron expression {said!r} is never due within 50 years",
            hint="no month it names has such a day",
        ) from None
    except (CronSimError, AssertionError, ValueError, TypeError):
        # the assertion is cronsim's way to refuse a step from mon#1
        raise explain(said, expression) from None
    for name in ("seconds", "minutes", "hours", "days", "months", "weekdays"):
        # most schedules have most of these in common
        setattr(walls, name, _shared(frozenset(getattr(walls, name))))
    return walls


@lru_cache(maxsize=4096)
def _shared(numbers: frozenset[Any]) -> frozenset[Any]:
    """Return one and the same object for equal sets."""
    return numbers


def _skipped(due: datetime) -> bool:
    """Tell whether clocks skip this time."""
    return due.astimezone(UTC).astimezone(due.tzinfo).replace(tzinfo=None) != due.replace(
        tzinfo=None
    )


def _end_of_gap(due: datetime) -> datetime:
    """Return the first instant after the gap that ``due`` lies in."""
    # fold 0 counts with the offset before the gap, fold 1 with the one after it
    early, late = due.replace(fold=1).astimezone(UTC), due.replace(fold=0).astimezone(UTC)
    return _change(early, late, due.tzinfo).astimezone(due.tzinfo)


def _repetition(local: datetime) -> datetime | None:
    """Return when the time of ``local`` starts to come again; None when it does not."""
    if local.fold or local.utcoffset() == local.replace(fold=1).utcoffset():
        return None
    early, late = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
    return _change(early, late, local.tzinfo).astimezone(local.tzinfo)


def _change(early: datetime, late: datetime, tz: tzinfo | None) -> datetime:
    """Return the first instant, to the second, in (early, late] with the offset of ``late``."""
    offset = late.astimezone(tz).utcoffset()
    while late - early > _SECOND:
        middle = early + (late - early) // 2
        if middle.astimezone(tz).utcoffset() == offset:
            late = middle
        else:
            early = middle
    # transitions are at full seconds
    return late.replace(microsecond=0) if late.microsecond else late
