"""Celery's schedules, read by what they look like: Celery need not be installed.

Source: celery 5.7 ``celery/schedules.py``: ``crontab`` keeps each field as the
set of numbers it stands for and as it was written; ``schedule`` has
``run_every``; ``solar`` has ``event``, ``lat`` and ``lon``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from amqtask.errors import ConfigurationError
from amqtask.policy.schedule.cron import Cron, cron
from amqtask.policy.schedule.every import Every, every

#: Attribute, least and most number, in the order of a cron expression.
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day_of_month", 1, 31),
    ("month_of_year", 1, 12),
    ("day_of_week", 0, 6),
)


def is_crontab(value: object) -> bool:
    """Tell whether it looks like Celery's ``crontab``."""
    return all(isinstance(getattr(value, name, None), set | frozenset) for name, _, _ in _FIELDS)


def is_interval(value: object) -> bool:
    """Tell whether it looks like Celery's ``schedule``."""
    return isinstance(getattr(value, "run_every", None), timedelta)


def is_solar(value: object) -> bool:
    """Tell whether it looks like Celery's ``solar``."""
    return all(hasattr(value, name) for name in ("event", "lat", "lon"))


def from_crontab(value: Any) -> Cron:
    """Return a crontab's schedule; day of month and day of week have to fit both, as there.

    Its own time zone, which django-celery-beat gives it, is kept.
    """
    parts = [_part(value, *field) for field in _FIELDS]
    both = parts[2] != "*" and parts[4] != "*"
    own = vars(value).get("tz") if hasattr(value, "__dict__") else None
    return cron(" ".join(parts), tz=own, days="both" if both else "either")


def from_interval(value: Any) -> Every:
    """Return the schedule of Celery's ``schedule(run_every=...)``."""
    return every(value.run_every)


def from_solar(value: Any, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return what the plug-in for ``solar`` makes of Celery's ``solar``."""
    plain = {"event": value.event, "lat": value.lat, "lon": value.lon}
    try:
        return read({"solar": plain})
    except ConfigurationError as error:
        raise ConfigurationError(
            f"schedule {value!r} goes by the sun: {error}",
            hint="install a package that offers 'solar' in the entry point group amqtask.schedules",
        ) from error


def _part(value: Any, name: str, least: int, most: int) -> str:
    """Return a crontab's field as text of a cron expression."""
    numbers = getattr(value, name)
    if numbers == set(range(least, most + 1)):
        return "*"
    written = getattr(value, f"_orig_{name}", None)
    if isinstance(written, str) and written.startswith("*/") and written[2:].isdigit():
        # kept as it was written: such a field goes by real time when clocks are changed
        return written
    return ",".join(str(number) for number in sorted(numbers))
