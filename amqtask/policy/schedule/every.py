"""A schedule by an interval, counted from a fixed instant.

From a fixed one, not from when the scheduler started or fired last: restarts
and changes of leader then neither shift nor stretch the interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from amqtask.errors import ConfigurationError
from amqtask.policy.schedule.base import instant, utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Seconds; what the delay levels and the clock of a busy machine can still tell apart.
LEAST = 0.1
_MICROSECOND = timedelta(microseconds=1)
_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "min": 60, "m": 60, "s": 1}
_TEXT = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:w|d|h|min|m|s)\s*)+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(w|d|h|min|m|s)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Every:
    """Due at ``anchor``, and every ``interval`` before and after it.

    Attributes:
        interval: Real time: a day is 24 hours, whatever clocks on walls do.
        anchor: In UTC; by default the start of 1970, so that ``every(minutes=5)`` is due
            at full five minutes, and ``every(hours=24)`` at midnight UTC.
    """

    interval: timedelta
    anchor: datetime = EPOCH

    def __post_init__(self) -> None:
        if self.interval < timedelta(seconds=LEAST):
            raise ConfigurationError(
                f"interval {self.interval.total_seconds():g} s of every() is too short",
                hint=f"the shortest is {LEAST:g} s",
            )
        object.__setattr__(self, "anchor", instant(self.anchor, "anchor of every()"))

    def next(self, after: datetime) -> datetime | None:
        """Return the first full interval after ``after``."""
        passed = utc(after) - self.anchor
        try:
            return self.anchor + (passed // self.interval + 1) * self.interval
        except OverflowError:
            return None  # beyond the year 9999

    def to_plain(self) -> Mapping[str, Any]:
        """Return ``{"every": 300}``, in seconds, with ``anchor`` unless that is 1970."""
        plain: dict[str, Any] = {"every": _number(self.interval)}
        if self.anchor != EPOCH:
            plain["anchor"] = self.anchor.isoformat()
        return plain

    def __str__(self) -> str:
        since = "" if self.anchor == EPOCH else f" from {self.anchor.isoformat()}"
        return f"every {spell(self.interval)}{since}"


def every(
    interval: float | timedelta | str = 0,
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    anchor: datetime | str | None = None,
) -> Every:
    """Return a schedule by an interval: ``every(minutes=5)``, ``every(90)``, ``every("1h30m")``.

    Args:
        interval: Seconds, a timedelta or text; or say it in units.
        anchor: An instant from which intervals are counted in both directions, aware.

    Raises:
        ConfigurationError: It is shorter than 0.1 s, or not an interval.
    """
    units = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    try:
        whole = _interval(interval) + timedelta(**units)
    except (TypeError, ValueError, OverflowError):
        said = {key: value for key, value in {"interval": interval, **units}.items() if value}
        raise ConfigurationError(
            f"every() got {said!r}, not an interval",
            hint="write every(minutes=5), every(90) for seconds, every(timedelta(days=1)) or "
            'every("1h30m")',
        ) from None
    return Every(whole, EPOCH if anchor is None else instant(anchor, "anchor of every()"))


def _interval(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        if not _TEXT.fullmatch(value.strip()):
            raise ValueError(value)
        parts = _PART.findall(value)
        return timedelta(seconds=sum(float(count) * _UNITS[unit.lower()] for count, unit in parts))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return timedelta(seconds=value)


def _number(interval: timedelta) -> int | float:
    seconds = interval.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def spell(interval: timedelta) -> str:
    """Return an interval as text that `every` reads: ``1h30m``."""
    left, parts = interval, []
    for unit in ("w", "d", "h", "m"):
        count, left = divmod(left, timedelta(seconds=_UNITS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    if left or not parts:
        seconds, micro = divmod(left // _MICROSECOND, 1_000_000)
        fraction = f".{micro:06}".rstrip("0") if micro else ""
        parts.append(f"{seconds}{fraction}s")
    return "".join(parts)
