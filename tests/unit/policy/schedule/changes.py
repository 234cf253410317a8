"""When clocks are changed, and what a cron expression means then, worked out minute by minute.

Shares nothing with the code under test but the standard library's zones.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)

#: Zone, and a day on which its clocks are changed: hours, half hours, two hours, at midnight,
#: by a whole day, by a change of law, and not at all.
CHANGES = (
    ("Europe/Paris", date(2026, 3, 29)),
    ("Europe/Paris", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Antarctica/Troll", date(2026, 3, 29)),
    ("Antarctica/Troll", date(2026, 10, 25)),
    ("America/Havana", date(2026, 3, 8)),
    ("America/Havana", date(2026, 11, 1)),
    ("Africa/Casablanca", date(2026, 2, 15)),
    ("Africa/Casablanca", date(2026, 3, 22)),
    ("America/St_Johns", date(2026, 11, 1)),
    ("Pacific/Apia", date(2011, 12, 30)),
    ("America/Caracas", date(2016, 5, 1)),
    ("Asia/Pyongyang", date(2018, 5, 5)),
    ("Asia/Kathmandu", date(2026, 6, 1)),
    ("UTC", date(2026, 3, 29)),
)


@dataclass(frozen=True, slots=True)
class Fields:
    """An expression of which the text and the numbers are known."""

    text: str
    minutes: AbstractSet[int]
    hours: AbstractSet[int]
    days: AbstractSet[int]
    months: AbstractSet[int]
    weekdays: AbstractSet[int]  # Sunday is 0

    @property
    def given(self) -> bool:
        """Whether it names its times, rather than running through hours or minutes."""
        minute, hour = self.text.split()[:2]
        return not minute.startswith("*") and not hour.startswith("*")

    def on(self, day: date) -> bool:
        parts = self.text.split()
        fits = [day.day in self.days, day.isoweekday() % 7 in self.weekdays]
        both = parts[2].startswith("*") or parts[4].startswith("*")
        return day.month in self.months and (all(fits) if both else any(fits))


def expected(fields: Fields, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the instants after ``start`` and up to ``end``, in UTC."""
    tz = ZoneInfo(zone)
    found = _given(fields, tz, start, end) if fields.given else _running(fields, tz, start, end)
    return sorted(each for each in found if start < each <= end)


def _running(fields: Fields, tz: ZoneInfo, start: datetime, end: datetime) -> set[datetime]:
    """Look at each minute that passes."""
    found = set()
    instant = start.replace(second=0, microsecond=0)
    while instant <= end:
        local = instant.astimezone(tz)
        if (
            local.minute in fields.minutes
            and local.hour in fields.hours
            and fields.on(local.date())
        ):
            found.add(instant)
        instant += MINUTE
    return found


def _given(fields: Fields, tz: ZoneInfo, start: datetime, end: datetime) -> set[datetime]:
    """Look at each time of each day on the wall; one that does not exist slides to one that does."""
    found = set()
    day = start.date() - timedelta(days=3)
    while day <= end.date() + timedelta(days=3):
        if fields.on(day):
            for hour in fields.hours:
                for minute in fields.minutes:
                    wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=tz)
                    while wall.astimezone(UTC).astimezone(tz).replace(fold=0) != wall:
                        wall = (wall.replace(tzinfo=None) + MINUTE).replace(tzinfo=tz)
                    found.add(wall.astimezone(UTC))
        day += timedelta(days=1)
    return found
