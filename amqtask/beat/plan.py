"""What to fire: decided from entries, what was fired before, and the time.

All of it is pure: the same entries, marks and instant give the same fires with
the same ids in any process, which is what lets one beat take over from another.

What becomes of an instant is decided by how long ago it was::

      caught up, or missed,                  due              not yet
      as the entry's policy says
    ------------------------------+----------------------+---------------->
                        now - grace - jitter            now

An instant is decided once, in order, and never again: an entry's mark holds the
last one that was, and only later ones count. A clock that is set back therefore
fires nothing until it has passed the mark; one that is set forward finds
instants that are long past, and those are caught up or missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from amqtask.beat.instants import after, latest, up_to
from amqtask.errors import MalformedMessage
from amqtask.policy.entry import Entry
from amqtask.policy.schedule.every import EPOCH

#: An instant that is late by no more than this is on time: what taking over may cost.
GRACE = timedelta(seconds=10)
#: Headers of a call that a beat sent.
ENTRY_HEADER = "x-amqtask-entry"
INSTANT_HEADER = "x-amqtask-instant"
#: The one that Celery's schedulers use, and its result stores look for.
CELERY_HEADER = "periodic_task_name"

#: Missed instants are counted up to this number.
COUNTED = 20
#: Fires of one entry in one decision.
MOST = 100
_MICROSECOND = timedelta(microseconds=1)

Reason = Literal["due", "caught_up", "run_now"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of one entry's past.

    Attributes:
        at: Instants up to this one are decided: fired, missed or skipped.
        form: `Entry.form` of what was decided; another one starts anew.
        fired: The instant of the last fire.
        fires: How many there were.
        paused: What was said at run time; None goes by the entry.
    """

    at: datetime
    form: str
    fired: datetime | None = None
    fires: int = 0
    paused: bool | None = None

    def to_plain(self) -> list[Any]:
        """Return it as a short list of JSON types: instants in microseconds since 1970."""
        fired = None if self.fired is None else _micros(self.fired)
        return [_micros(self.at), self.form, fired, self.fires, self.paused]

    @classmethod
    def from_plain(cls, plain: Any) -> Mark:
        """Read what `to_plain` gives.

        Raises:
            MalformedMessage: It is not that.
        """
        try:
            at, form, fired, fires, paused = plain
            last = None if fired is None else _instant(fired)
            if isinstance(form, str) and type(fires) is int and paused in (None, True, False):
                return cls(_instant(at), form, last, fires, paused)
        except (TypeError, ValueError, OverflowError):
            pass  # said below
        raise MalformedMessage(f"{plain!r} is not the mark of an entry")


@dataclass(frozen=True, slots=True)
class Fire:
    """One call to be sent.

    Attributes:
        instant: When the schedule was due.
        at: The same, later by the entry's jitter.
        id: The call's task id, the same in every process.
        reason: ``due``, ``caught_up`` when it was missed before, ``run_now`` when somebody
            asked for it.
        previous: Task id of the entry's fire before this one; None for its first.
    """

    entry: Entry
    instant: datetime
    at: datetime
    id: str
    reason: Reason
    previous: str | None

    def headers(self) -> dict[str, str]:
        """Return the headers that say which entry and which instant a call is for."""
        return {
            ENTRY_HEADER: self.entry.name,
            INSTANT_HEADER: self.instant.isoformat(),
            CELERY_HEADER: self.entry.name,
        }


@dataclass(frozen=True, slots=True)
class Missed:
    """Instants that passed while nobody fired, and are not caught up.

    Attributes:
        first: The first of them.
        before: All are earlier than this.
        count: How many; `COUNTED` stands for that many or more.
    """

    entry: Entry
    first: datetime
    before: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one entry at one moment.

    Attributes:
        fires: In the order of their instants.
        mark: To be kept for the next decision.
        wake: When to decide again; None when no instant will come, or it is paused.
        ended: Whether no instant will come any more.
    """

    fires: tuple[Fire, ...]
    mark: Mark
    wake: datetime | None
    missed: Missed | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of all entries at one moment.

    Attributes:
        fires: In the order of their instants.
        marks: Of all entries, by name.
        wake: When to plan again; None when no instant will come.
    """

    fires: tuple[Fire, ...]
    marks: Mapping[str, Mark]
    wake: datetime | None
    missed: tuple[Missed, ...] = ()


def plan(
    app: str,
    entries: Iterable[Entry],
    marks: Mapping[str, Mark],
    now: datetime,
    *,
    grace: timedelta = GRACE,
) -> Plan:
    """Decide what becomes of all entries now.

    It looks at each of them; `Agenda` does the same for many, and looks only at those
    that are due.

    Args: as `decide`; ``marks`` are those of the last plan, by the entry's name.
    """
    decided = {
        entry.name: decide(
            app, entry, current_mark(entry, marks.get(entry.name), now), now, grace=grace
        )
        for entry in entries
    }
    fires = [fire for each in decided.values() for fire in each.fires]
    return Plan(
        in_order(fires),
        {name: each.mark for name, each in decided.items()},
        min((each.wake for each in decided.values() if each.wake is not None), default=None),
        tuple(each.missed for each in decided.values() if each.missed is not None),
    )


def in_order(fires: Iterable[Fire]) -> tuple[Fire, ...]:
    """Return fires in the order in which they are sent."""
    return tuple(sorted(fires, key=lambda fire: (fire.instant, fire.entry.name)))


def is_paused(entry: Entry, mark: Mark) -> bool:
    """Tell whether an entry's instants pass without being fired."""
    return entry.paused if mark.paused is None else mark.paused


def current_mark(entry: Entry, mark: Mark | None, now: datetime) -> Mark:
    """Return the mark to decide by; an entry that is new, or has another schedule, begins now."""
    form = entry.form
    if mark is None:
        return Mark(now, form)
    return mark if mark.form == form else replace(mark, at=max(mark.at, now), form=form)


def decide(
    app: str,
    entry: Entry,
    mark: Mark,
    now: datetime,
    *,
    grace: timedelta = GRACE,
    most: int = MOST,
) -> Decision:
    """Decide what becomes of one entry now.

    Args:
        app: Name of the app; part of the ids.
        mark: What the last decision gave, or `current_mark`.
        now: In UTC.
        grace: How late an instant may be and still be due.
        most: Fires at most; when there are more, ``wake`` is now.

    Raises:
        ConfigurationError: Its schedule gives what is no later instant.
        Exception: Whatever a schedule of somebody else's raises.
    """
    if is_paused(entry, mark):
        return Decision((), mark, None)
    horizon = now - grace - timedelta(seconds=entry.jitter)
    at, missed, fires = mark.at, None, _Fires(app, entry, mark)
    following = after(entry, at)
    if following is not None and following <= horizon:
        past, at, missed = _past(entry, following, horizon, now, most)
        for instant in past:
            fires.add(instant, "caught_up")
        following = after(entry, at)
    while following is not None and len(fires.made) < most:
        if following + entry.late_by(following) > now:
            break
        fires.add(following, "due")
        at, following = following, after(entry, following)
    mark = replace(mark, at=at, fired=fires.last, fires=mark.fires + len(fires.made))
    if following is None:
        return Decision(tuple(fires.made), mark, None, missed, ended=True)
    wake = max(now, following + entry.late_by(following))
    return Decision(tuple(fires.made), mark, wake, missed)


def fire_now(app: str, entry: Entry, mark: Mark, now: datetime) -> tuple[Fire, Mark]:
    """Return a fire that somebody asked for, and the mark after it.

    The schedule goes on as if nothing had been; a paused entry is fired too.
    """
    fires = _Fires(app, entry, mark)
    fires.add(now, "run_now")
    return fires.made[0], replace(mark, fired=now, fires=mark.fires + 1)


class _Fires:
    """Fires of one entry, each of which names the one before it."""

    def __init__(self, app: str, entry: Entry, mark: Mark) -> None:
        self._app = app
        self._entry = entry
        self.last = mark.fired
        self.made: list[Fire] = []

    def add(self, instant: datetime, reason: Reason) -> None:
        entry = self._entry
        if self.made:
            previous: str | None = self.made[-1].id
        else:
            previous = None if self.last is None else entry.fire_id(self._app, self.last)
        at = instant if reason == "run_now" else instant + entry.late_by(instant)
        id_ = entry.fire_id(self._app, instant)
        self.made.append(Fire(entry, instant, at, id_, reason, previous))
        self.last = instant


def _past(
    entry: Entry, first: datetime, horizon: datetime, now: datetime, most: int
) -> tuple[list[datetime], datetime, Missed | None]:
    """Return which instants up to the horizon are caught up, what is decided, what is missed."""
    floor = None if entry.window is None else now - timedelta(seconds=entry.window)
    if entry.catch_up == "all" and floor is not None:
        start = first if first >= floor else after(entry, floor - _MICROSECOND)
        if start is not None and start <= horizon:
            chosen = up_to(entry, start, horizon, most)
            return chosen, chosen[-1], _missed(entry, first, start)
    last = latest(entry, first, horizon)
    if entry.catch_up == "latest" and (floor is None or last >= floor):
        return [last], last, _missed(entry, first, last)
    return [], last, _missed(entry, first, last + _MICROSECOND)


def _missed(entry: Entry, first: datetime, before: datetime) -> Missed | None:
    if first >= before:
        return None
    count = len(up_to(entry, first, before - _MICROSECOND, COUNTED))
    return Missed(entry, first, before, count)


def _micros(instant: datetime) -> int:
    return (instant - EPOCH) // _MICROSECOND


def _instant(micros: Any) -> datetime:
    if type(micros) is not int:
        raise TypeError(micros)
    return EPOCH + timedelta(microseconds=micros)
