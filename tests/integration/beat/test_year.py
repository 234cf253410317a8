"""A year of 200 entries in eight zones, with an injected clock, beside an independent computation.

Cron expressions are computed by croniter, the others by arithmetic. Both agree on every
instant but those of two kinds, which are listed: a given time in an hour that comes twice,
and a time of a running expression in an hour that clocks skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import croniter

from amqtask.beat.agenda import Agenda
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import Cron, Every, Once, cron, every, once

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Havana",
    "Africa/Casablanca",
    "Pacific/Auckland",
)
#: Entry, and the instant that croniter has and we have not. The clock shows a given time for
#: the second time:
TWICE = {
    ("the 1st, America/Havana", "2026-11-01 00:00-05:00"),
    ("every night at 02:30, Europe/Paris", "2026-10-25 02:30+01:00"),
    ("every night at 02:30, Africa/Casablanca", "2026-02-15 02:30+00:00"),
    ("every night at 02:30, Pacific/Auckland", "2026-04-05 02:30+12:00"),
    ("every night at 01:45, America/New_York", "2026-11-01 01:45-05:00"),
    ("every night at 01:45, Australia/Lord_Howe", "2026-04-05 01:45+10:30"),
    ("every night at 00:10, America/Havana", "2026-11-01 00:10-05:00"),
    ("from 1 to 3, Europe/Paris", "2026-10-25 02:00+01:00"),
    ("from 1 to 3, America/New_York", "2026-11-01 01:00-05:00"),
    ("from 1 to 3, Africa/Casablanca", "2026-02-15 02:00+00:00"),
    ("from 1 to 3, Pacific/Auckland", "2026-04-05 02:00+12:00"),
}

#: A time that does not exist, of an expression that runs through the hours or minutes:
SLID = {
    ("each half hour of the night", "2026-03-29 03:00+02:00"),
    ("every six hours, America/Havana", "2026-03-08 01:00-04:00"),
}

_CRONS = {
    "every night at 02:30": "30 2 * * *",
    "every night at 01:45": "45 1 * * *",
    "every night at 00:10": "10 0 * * *",
    "every day at noon": "0 12 * * *",
    "from 1 to 3": "0 1-3 * * *",
    "working days": "5 9 * * mon-fri",
    "Mondays": "0 8 * * 1",
    "Sundays and Wednesdays": "15 17 * * 0,3",
    "the 1st": "0 0 1 * *",
    "the last day": "0 23 l * *",
    "the 15th, or a Friday": "20 6 15 * fri",
    "each fifth day": "0 4 */5 * *",
    "quarters": "30 3 1 1,4,7,10 *",
    "the 31st": "0 5 31 * *",
    "leap days": "0 0 29 2 *",
    "spring": "0 7 * mar-may sat",
    "every six hours": "0 */6 * * *",
    "night shift": "0 22,23,0,1 * * fri,sat",
    "second Tuesday": "0 10 * * tue#2",
    "new year": "0 0 1 1 *",
}


def entries() -> list[Entry]:
    found = [
        Entry(f"{name}, {zone}", cron(expression, tz=zone), "t", jitter=index % 3 * 20.0)
        for name, expression in _CRONS.items()
        for index, zone in enumerate(ZONES)
    ]
    found += [
        Entry("every hour", cron("17 * * * *", tz="America/New_York"), "t"),
        Entry("half hours of the day", cron("*/30 9-17 * * mon-fri", tz="Europe/Paris"), "t"),
        Entry("each half hour of the night", cron("*/30 1-2 * * *", tz="Europe/Paris"), "t"),
    ]
    found += [
        Entry(f"every {3 + index} hours", every(hours=3 + index, minutes=7 * index), "t")
        for index in range(20)
    ]
    found += [
        Entry(f"once {index}", once(NEW_YEAR + timedelta(days=25 * index, hours=index)), "t")
        for index in range(12)
    ]
    found += [
        Entry(
            f"season {index}",
            cron(f"{index} {index} * * *", tz="Europe/Paris"),
            "t",
            start=NEW_YEAR + timedelta(days=60),
            end=NEW_YEAR + timedelta(days=90 + index),
        )
        for index in range(5)
    ]
    return found


def computed(entry: Entry) -> Iterator[datetime]:
    """Return an entry's instants, without asking its schedule."""
    for instant in _computed(entry):
        if instant > END:
            return
        if entry.start is not None and instant < entry.start:
            continue
        if entry.end is not None and instant > entry.end:
            return
        yield instant


def _computed(entry: Entry) -> Iterator[datetime]:
    schedule = entry.schedule
    if isinstance(schedule, Once):
        yield from [schedule.at] if schedule.at > NEW_YEAR else []
    elif isinstance(schedule, Every):
        seconds = int(schedule.interval.total_seconds())
        at = int(NEW_YEAR.timestamp()) // seconds * seconds
        while True:
            at += seconds
            yield datetime.fromtimestamp(at, UTC)
    elif isinstance(schedule, Cron):
        found = croniter(schedule.expression, NEW_YEAR.astimezone(ZoneInfo(schedule.tz or "UTC")))
        while (instant := found.get_next(datetime)).year < 2028:
            yield instant.astimezone(UTC)


def test_a_year() -> None:
    """Each instant of the computation is fired once, at its time, and no other one."""
    found = entries()
    assert len(found) == 200
    agenda, now = Agenda("shop", found, {}, NEW_YEAR), NEW_YEAR
    fired: dict[str, list[datetime]] = {entry.name: [] for entry in found}
    ids = set()
    while now <= END:
        tick = agenda.tick(now)
        assert (tick.missed, tick.failed) == ((), ())
        for fire in tick.fires:
            assert fire.at <= now
            fired[fire.entry.name].append(fire.instant)
            ids.add(fire.id)
        assert tick.wake is not None
        now = tick.wake
    assert len(ids) == sum(map(len, fired.values())) > 50_000
    others = set()
    for entry in found:
        # what its jitter takes beyond the end of the year is next year's
        wanted = [each for each in computed(entry) if each + entry.late_by(each) <= END]
        missing = set(wanted) - set(fired[entry.name])
        assert fired[entry.name] == [each for each in wanted if each not in missing], entry.name
        assert isinstance(entry.schedule, Cron) or not missing
        for each in missing:
            local = each.astimezone(ZoneInfo(str(entry.schedule.to_plain()["tz"])))
            others.add((entry.name, local.isoformat(" ", "minutes")))
    assert others == TWICE | SLID
