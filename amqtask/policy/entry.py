"""An entry: what is sent when a schedule is due, and how misses and overlaps are treated."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import orjson

from amqtask.errors import ConfigurationError, near
from amqtask.policy.schedule import Cron, Schedule, instant, read_schedule
from amqtask.policy.schedule.every import EPOCH

Overlap = Literal["queue", "skip", "cancel_running"]
CatchUp = Literal["none", "latest", "all"]
Origin = Literal["code", "dynamic"]

#: Makes task ids of fires; part of what a fire's id is, so never changed.
_NAMESPACE = uuid.UUID("6f2b7a52-5c6e-5d0b-9a43-0d6c1f6c6a5e")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the schedule.

    Attributes:
        name: Unique in the app; up to 200 characters.
        schedule: When it is due.
        task: Name of the task that is called.
        args: Positional arguments.
        kwargs: Keyword arguments.
        options: Options of the call as plain data, as `CallOptions` names them; a queue by
            its name, a retry policy in its header form.
        jitter: Seconds by which a fire is late at most; how late, entry and instant decide.
        start: No instant before this one.
        end: No instant after this one.
        expires: Seconds after it is sent, after which the call is not started.
        overlap: When the call of the last fire is still running: ``queue`` sends all the
            same, ``skip`` does not, ``cancel_running`` cancels the other one first.
        catch_up: Of instants that passed while nobody fired: ``none`` of them, the
            ``latest`` one, or ``all`` within the window.
        window: Seconds from now back that instants are caught up; None for as far as the
            last fire. ``all`` needs one.
        paused: Whether instants pass without being fired.
        origin: ``code`` for an entry that the app declares, ``dynamic`` for one that was
            added at run time.

    Raises:
        ConfigurationError: A value is of the wrong type or out of range.
    """

    name: str
    schedule: Schedule
    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    jitter: float = 0.0
    start: datetime | None = None
    end: datetime | None = None
    expires: float | None = None
    overlap: Overlap = "queue"
    catch_up: CatchUp = "latest"
    window: float | None = None
    paused: bool = False
    origin: Origin = "code"

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_call(self)
        for name in ("jitter", "expires", "window"):
            object.__setattr__(self, name, _seconds(self, name))
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, instant(value, f"{name} of entry {self.name!r}"))
        _check_together(self)

    def due_after(self, after: datetime) -> datetime | None:
        """Return the first instant later than ``after``, between start and end."""
        if self.start is not None and self.start > after:
            # the start itself may be an instant
            after = self.start - _MICROSECOND
        found = self.schedule.next(after)
        return None if found is None or (self.end is not None and found > self.end) else found

    def late_by(self, instant: datetime) -> timedelta:
        """Return how much later than ``instant`` it is fired, for its jitter.

        Worked out from name and instant alone, so that every process finds the same.
        """
        if not self.jitter:
            return timedelta()
        digest = hashlib.blake2b(_key(self.name, instant), digest_size=7).digest()
        return timedelta(seconds=self.jitter * int.from_bytes(digest) / 2**56)

    def fire_id(self, app: str, instant: datetime) -> str:
        """Return the task id of the fire at ``instant``: the same wherever it is worked out."""
        return str(uuid.uuid5(_NAMESPACE, f"{app}\n{self.name}\n{_micros(instant)}"))

    @property
    def form(self) -> str:
        """A short digest of what decides its instants; when it changes, the entry starts anew."""
        start = None if self.start is None else self.start.isoformat()
        plain = orjson.dumps([self.schedule.to_plain(), start], option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(plain, digest_size=6).hexdigest()

    def in_zone(self, tz: str) -> Entry:
        """Return it with a zone for wall-clock times that come without one."""
        if isinstance(self.schedule, Cron) and self.schedule.tz is None:
            return replace(self, schedule=self.schedule.in_zone(tz))
        return self

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data: JSON types, as far as the arguments are.

        What has its default is left out, and ``origin``, which the place it is kept in says.
        """
        plain: dict[str, Any] = {"schedule": dict(self.schedule.to_plain()), "task": self.task}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("name", "schedule", "task", "origin") or value == _default(each):
                continue
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            plain[each.name] = value
        return plain

    @classmethod
    def from_plain(
        cls, name: str, plain: Mapping[str, Any], *, origin: Origin = "dynamic", tz: str = "UTC"
    ) -> Entry:
        """Read an entry from what `to_plain` gives.

        Args:
            tz: Time zone of a cron expression that has none.

        Raises:
            ConfigurationError: A key that no entry has, one that is missing, or a value
                that is wrong.
        """
        if not isinstance(plain, Mapping):
            raise ConfigurationError(f"entry {name!r} is {plain!r}, not a table")
        known = [each.name for each in fields(cls) if each.name not in ("name", "origin")]
        for key in plain:
            if key not in known:
                raise ConfigurationError(
                    f"entry {name!r} has the key {key!r}{near(str(key), known)}",
                    hint=f"known keys: {', '.join(known)}",
                )
        for key in ("schedule", "task"):
            if key not in plain:
                raise ConfigurationError(f"entry {name!r} has no {key}")
        found = dict(plain)
        found["schedule"] = read_for(name, found["schedule"], tz)
        if isinstance(found.get("args"), list):
            found["args"] = tuple(found["args"])
        return cls(name, origin=origin, **found)


def read_for(name: str, value: Any, tz: str | None) -> Schedule:
    """Read the schedule of an entry; as `read_schedule`, with the entry named in the error."""
    try:
        return read_schedule(value, tz)
    except ConfigurationError as error:
        raise ConfigurationError(f"entry {name!r}: {error}", hint=error.hint) from error


def _default(each: Any) -> Any:
    return {} if each.name in ("kwargs", "options") else each.default


def _micros(instant: datetime) -> int:
    return (instant - EPOCH) // _MICROSECOND


def _key(name: str, instant: datetime) -> bytes:
    return f"{name}\n{_micros(instant)}".encode("utf-8", "surrogatepass")


def _check_texts(entry: Entry) -> None:
    name: Any = entry.name  # whatever a caller passed
    if not (isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()):
        raise ConfigurationError(
            f"an entry is called {name!r}", hint="give it a name of 1 to 200 printable characters"
        )
    task: Any = entry.task
    if not (isinstance(task, str) and task):
        raise ConfigurationError(f"task of entry {name!r} is {task!r}, not a task's name")
    for what, words in (("overlap", Overlap), ("catch_up", CatchUp), ("origin", Origin)):
        value = getattr(entry, what)
        if value not in get_args(words):
            raise ConfigurationError(
                f"{what} of entry {name!r} is {value!r}{near(str(value), get_args(words))}",
                hint=f"there are {', '.join(get_args(words))}",
            )
    paused: Any = entry.paused
    if not isinstance(paused, bool):
        raise ConfigurationError(f"paused of entry {name!r} is {paused!r}, not true or false")


def _check_call(entry: Entry) -> None:
    for what, kind, words in (
        ("args", tuple | list, "a list of arguments"),
        ("kwargs", Mapping, "arguments by name"),
        ("options", Mapping, "options by name"),
    ):
        value: Any = getattr(entry, what)
        if not isinstance(value, kind):
            raise ConfigurationError(f"{what} of entry {entry.name!r} is {value!r}, not {words}")
        if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
            raise ConfigurationError(f"{what} of entry {entry.name!r} has a key that is no text")
    object.__setattr__(entry, "args", tuple(entry.args))


def _check_together(entry: Entry) -> None:
    if entry.start is not None and entry.end is not None and entry.end < entry.start:
        raise ConfigurationError(
            f"entry {entry.name!r} ends at {entry.end.isoformat()}, before it starts at "
            f"{entry.start.isoformat()}"
        )
    if entry.catch_up == "all" and entry.window is None:
        raise ConfigurationError(
            f"entry {entry.name!r} catches up all instants, without a bound",
            hint="say how far back: window=3600 for those of the last hour",
        )
    if entry.catch_up == "none" and entry.window is not None:
        raise ConfigurationError(
            f"entry {entry.name!r} has a window, but catches up nothing",
            hint='add catch_up="latest" or catch_up="all", or leave window out',
        )


def _seconds(entry: Entry, name: str) -> float | None:
    value: Any = getattr(entry, name)
    if value is None and name != "jitter":
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value <= 1e9
    ):
        raise ConfigurationError(
            f"{name} of entry {entry.name!r} is {value!r}, not a number of seconds from 0 up"
        )
    return value
