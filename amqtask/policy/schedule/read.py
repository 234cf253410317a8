"""Every form in which a schedule can be given, and the one place that tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from amqtask.errors import ConfigurationError, near
from amqtask.policy.schedule import celery
from amqtask.policy.schedule.base import Schedule
from amqtask.policy.schedule.cron import Cron, cron
from amqtask.policy.schedule.every import every
from amqtask.policy.schedule.once import once

#: Where other packages name their kinds of schedule: kind = "package.module:from_plain".
ENTRY_POINTS = "amqtask.schedules"

_HINT = (
    'give cron("0 9 * * mon-fri"), every(minutes=5), once(instant), seconds, a timedelta, '
    "Celery's crontab() or schedule(), or an object with next() and to_plain()"
)


def read_schedule(value: Any, tz: str | None = None) -> Schedule:
    """Return the schedule that ``value`` stands for.

    Args:
        value: A `Schedule`; seconds or a timedelta; a datetime; text as `str` of a
            schedule gives it; a mapping as ``to_plain`` gives it; Celery's
            ``crontab``, ``schedule`` or ``solar``.
        tz: Time zone of wall-clock times that come without one.

    Raises:
        ConfigurationError: It is none of these, or it is wrong.
    """
    found = _read(value)
    return found.in_zone(tz) if isinstance(found, Cron) and tz is not None else found


def schedule_from_plain(plain: Mapping[str, Any]) -> Schedule:
    """Return the schedule of a mapping that ``to_plain`` gave.

    Raises:
        ConfigurationError: No such kind, or what it holds is wrong.
    """
    for kind, read in _KINDS.items():
        if kind in plain:
            return read(dict(plain))
    from importlib.metadata import entry_points  # slow import, for kinds that are not ours

    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    named = [kind for kind in plain if kind in found]
    if not named:
        known = [*_KINDS, *found]
        close = next((text for key in plain if (text := near(str(key), known))), "")
        raise ConfigurationError(
            f"schedule {dict(plain)!r} is of no known kind{close}",
            hint=f"one of its keys is the kind: {', '.join(known)}",
        )
    point = found[named[0]]
    try:
        made = point.load()(plain)
    except ConfigurationError:
        raise
    except Exception as error:  # whatever a foreign module does
        raise ConfigurationError(
            f"schedule {dict(plain)!r} cannot be read by {point.value!r}: {error}"
        ) from error
    return _checked(made, f"what {point.value!r} made")


def _read(value: Any) -> Schedule:
    if isinstance(value, Schedule) and not isinstance(value, type):
        return value
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, Mapping):
        return schedule_from_plain(value)
    if isinstance(value, datetime):
        return once(value)
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        return every(value)
    if celery.is_crontab(value):
        return celery.from_crontab(value)
    if celery.is_interval(value):
        return celery.from_interval(value)
    if celery.is_solar(value):
        return cast(Schedule, celery.from_solar(value, schedule_from_plain))
    return _checked(value, "schedule")


def _checked(value: Any, what: str) -> Schedule:
    if isinstance(value, Schedule) and not isinstance(value, type):
        return value
    missing = [name for name in ("next", "to_plain") if not callable(getattr(value, name, None))]
    if isinstance(value, type):
        raise ConfigurationError(f"{what} is the class {value.__qualname__}", hint="make one of it")
    if len(missing) == 1:
        raise ConfigurationError(f"{what} {value!r} has no method {missing[0]}()", hint=_HINT)
    raise ConfigurationError(f"{what} is {value!r}", hint=_HINT)


def _from_text(text: str) -> Schedule:
    word, _, rest = text.strip().partition(" ")
    if word.lower() == "every":
        interval, _, anchor = rest.partition(" from ")
        return every(interval, anchor=anchor.strip() or None)
    if word.lower() == "once":
        return once(rest.strip())
    said: dict[str, str] = {}
    while (name := word.partition("=")[0].upper()) in ("CRON_TZ", "CRON_DAYS"):
        said[name] = word.partition("=")[2]
        text = rest
        word, _, rest = text.strip().partition(" ")
    days: Any = said.get("CRON_DAYS", "either")
    return cron(text, tz=said.get("CRON_TZ"), days=days)


def _taking(kind: str, make: Callable[..., Schedule], *others: str) -> Callable[..., Schedule]:
    def read(plain: dict[str, Any]) -> Schedule:
        for key in plain:
            if key not in (kind, *others):
                raise ConfigurationError(
                    f"schedule {plain!r} has the key {key!r}{near(str(key), (kind, *others))}",
                    hint=f"a schedule of kind {kind!r} takes {', '.join((kind, *others))}",
                )
        return make(plain.pop(kind), **plain)

    return read


_KINDS: dict[str, Callable[..., Schedule]] = {
    "cron": _taking("cron", cron, "tz", "days"),
    "every": _taking("every", every, "anchor"),
    "once": _taking("once", once),
}
