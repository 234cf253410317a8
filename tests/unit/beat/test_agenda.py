"""The entries of a running beat: the same fires as the plan, at the cost of what is due."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.beat import agenda as module
from amqtask.beat.agenda import Agenda, Tick
from amqtask.beat.plan import Fire, Mark, plan
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import cron, every, once
from tests.unit.beat.test_plan import APP, ENTRIES, HOUR, MINUTE, NOON, STEPS, entry, instants


def drained(agenda: Agenda, now: datetime) -> list[Tick]:
    """Tick until nothing is left for now."""
    ticks = [agenda.tick(now)]
    while ticks[-1].wake is not None and ticks[-1].wake <= now:
        ticks.append(agenda.tick(now))
        assert len(ticks) < 10_000
    return ticks


def fires(ticks: list[Tick]) -> list[Fire]:
    return [fire for tick in ticks for fire in tick.fires]


# -- as the plan ----------------------------------------------------------------------


@given(st.lists(ENTRIES, max_size=4, unique_by=lambda each: each.name), STEPS)
def test_it_decides_as_the_plan_does(entries: list[Entry], steps: list[float]) -> None:
    """Same fires, same misses, same marks and the same next look, whatever the clock does."""
    agenda, now = Agenda(APP, entries, {}, NOON), NOON
    marks: dict[str, Mark] = {}
    told: dict[str, Mark] = {}
    for step in [0.0, *steps]:
        now += timedelta(seconds=step)
        ticks = drained(agenda, now)
        for tick in ticks:
            told.update(tick.marks)
        expected = [plan(APP, entries, marks, now)]
        while expected[-1].wake is not None and expected[-1].wake <= now:
            expected.append(plan(APP, entries, expected[-1].marks, now))
        marks = dict(expected[-1].marks)
        found = sorted(fires(ticks), key=lambda fire: (fire.entry.name, fire.instant))
        wanted = [fire for each in expected for fire in each.fires]
        assert found == sorted(wanted, key=lambda fire: (fire.entry.name, fire.instant))
        assert dict(agenda.marks) == marks
        assert told == marks
        assert ticks[-1].wake == expected[-1].wake


def test_a_successor_goes_on() -> None:
    """With the marks that were kept, another process fires what is next, and nothing twice."""
    said: dict[str, Any] = {"catch_up": "all", "window": 60}
    entries = [entry(every(10), name="a", **said), entry(every(15), name="b", **said)]
    first = Agenda(APP, entries, {}, NOON)
    kept: dict[str, Mark] = {}
    before = drained(first, NOON + timedelta(seconds=30))
    for tick in before:
        kept |= tick.marks
    second = Agenda(APP, entries, kept, NOON + timedelta(seconds=34))
    after = drained(second, NOON + timedelta(seconds=40))
    assert instants(tuple(fires(before))) == [
        "12:00:10",
        "12:00:15",
        "12:00:20",
        "12:00:30",
        "12:00:30",
    ]
    assert instants(tuple(fires(after))) == ["12:00:40"]


def test_a_new_entry_s_mark_is_told_before_its_first_fire() -> None:
    """Or a leader that dies just before it would take the instant along."""
    agenda = Agenda(APP, [entry()], {}, NOON)
    assert agenda.tick(NOON).marks == {"e": Mark(NOON, entry().form)}
    assert agenda.tick(NOON).marks == {}


# -- changes --------------------------------------------------------------------------


def test_put_replaces_and_keeps_the_past() -> None:
    """Other arguments do not make it another entry."""
    agenda = Agenda(APP, [entry()], {}, NOON)
    drained(agenda, NOON + MINUTE)
    mark = agenda.put(entry(args=(1,)), NOON + MINUTE)
    assert mark.fired == NOON + MINUTE
    found = fires(drained(agenda, NOON + 2 * MINUTE))
    assert [(fire.entry.args, fire.instant) for fire in found] == [((1,), NOON + 2 * MINUTE)]


def test_put_another_schedule() -> None:
    """It begins now, and its old look is void."""
    agenda = Agenda(APP, [entry(every(10))], {}, NOON)
    drained(agenda, NOON)
    agenda.put(entry(every(3600)), NOON + timedelta(seconds=5))
    tick = drained(agenda, NOON + MINUTE)[-1]
    assert tick.fires == ()
    assert tick.wake == NOON + HOUR


def test_remove() -> None:
    """It is not fired any more, and its past is forgotten."""
    agenda = Agenda(APP, [entry(name="a"), entry(name="b")], {}, NOON)
    drained(agenda, NOON)
    assert agenda.remove("a").name == "a"
    assert [fire.entry.name for fire in fires(drained(agenda, NOON + MINUTE))] == ["b"]
    assert set(agenda.marks) == set(agenda.entries) == {"b"}
    assert "a" not in agenda
    assert len(agenda) == 1
    with pytest.raises(KeyError):
        agenda.remove("a")


def test_nothing_left() -> None:
    """There is no next look, not even by what was removed."""
    agenda = Agenda(APP, [entry()], {}, NOON)
    drained(agenda, NOON)
    agenda.remove("e")
    assert agenda.tick(NOON) == Tick((), {}, None)


def test_pause_and_resume() -> None:
    """What passes meanwhile is neither fired nor caught up; both are told, to be kept."""
    agenda = Agenda(APP, [entry()], {}, NOON)
    drained(agenda, NOON)
    agenda.pause("e", NOON + timedelta(seconds=30))
    assert agenda.is_paused("e")
    tick = agenda.tick(NOON + 10 * MINUTE)
    assert tick.fires == ()
    assert tick.wake is None
    assert tick.marks["e"].paused is True
    agenda.resume("e", NOON + 10.5 * MINUTE)
    assert not agenda.is_paused("e")
    found = drained(agenda, NOON + 11 * MINUTE)
    assert instants(tuple(fires(found))) == ["12:11:00"]
    assert found[-1].missed == ()
    assert agenda.marks["e"].paused is None


def test_resume_what_is_paused_by_its_declaration() -> None:
    """The word of whoever resumed it is kept beside the declaration."""
    agenda = Agenda(APP, [entry(paused=True)], {}, NOON)
    drained(agenda, NOON)
    agenda.resume("e", NOON)
    assert agenda.marks["e"].paused is False
    assert instants(tuple(fires(drained(agenda, NOON + MINUTE)))) == ["12:01:00"]


def test_pause_twice_changes_nothing() -> None:
    """The second one has nothing to tell."""
    agenda = Agenda(APP, [entry()], {}, NOON)
    drained(agenda, NOON)
    mark = agenda.pause("e", NOON)
    drained(agenda, NOON)
    assert agenda.pause("e", NOON + MINUTE) == mark
    assert agenda.tick(NOON + MINUTE).marks == {}


def test_run_now() -> None:
    """The fire is made at once, and the entry's own instants stay."""
    agenda = Agenda(APP, [entry()], {}, NOON)
    drained(agenda, NOON)
    fire = agenda.run_now("e", NOON + timedelta(seconds=7))
    assert (fire.reason, fire.instant) == ("run_now", NOON + timedelta(seconds=7))
    following = fires(drained(agenda, NOON + MINUTE))
    assert [each.previous for each in following] == [fire.id]


def test_ended_is_said_once() -> None:
    """So that whoever keeps the entries can drop it."""
    agenda = Agenda(APP, [entry(once(NOON + MINUTE))], {}, NOON)
    drained(agenda, NOON)
    assert agenda.tick(NOON + MINUTE).ended == ("e",)
    assert agenda.tick(NOON + 2 * MINUTE) == Tick((), {}, None)


# -- clocks ---------------------------------------------------------------------------


def test_a_clock_that_was_wrong_by_a_year() -> None:
    """It is silent until told otherwise; then it goes on, as an entry that begins now."""
    year = timedelta(days=365)
    agenda = Agenda(APP, [entry()], {}, NOON)
    drained(agenda, NOON + year)
    assert agenda.ahead(NOON) == year
    assert fires(drained(agenda, NOON + MINUTE)) == []
    assert agenda.rewind(NOON + MINUTE) == ["e"]
    assert agenda.ahead(NOON + MINUTE) == timedelta()
    assert instants(tuple(fires(drained(agenda, NOON + 2 * MINUTE)))) == ["12:02:00"]
    assert agenda.rewind(NOON + 2 * MINUTE) == []


def test_not_ahead() -> None:
    """Usually nothing is."""
    assert Agenda(APP, [], {}, NOON).ahead(NOON) == timedelta()
    assert Agenda(APP, [entry()], {}, NOON).ahead(NOON + MINUTE) == timedelta()


# -- schedules of others --------------------------------------------------------------


class Moody:
    """Fails, until told not to."""

    fails = True

    def next(self, after: datetime) -> datetime | None:
        if self.fails:
            raise RuntimeError("not today")
        return every(60).next(after)

    def to_plain(self) -> dict[str, Any]:
        return {"moody": 1}


def test_one_bad_schedule_does_not_stop_the_others() -> None:
    """It is reported, and tried again later."""
    moody = Moody()
    agenda = Agenda(APP, [entry(moody, name="a"), entry(name="b")], {}, NOON)
    tick = agenda.tick(NOON)
    assert [(each.name, str(error)) for each, error in tick.failed] == [("a", "not today")]
    assert [fire.entry.name for fire in fires(drained(agenda, NOON + MINUTE))] == ["b"]
    moody.fails = False
    found = drained(agenda, NOON + 2 * MINUTE)
    assert {fire.entry.name for fire in fires(found)} == {"a", "b"}


# -- size -----------------------------------------------------------------------------


def many(count: int) -> list[Entry]:
    zones = ("UTC", "Europe/Paris", "America/New_York", "Asia/Tokyo")
    return [
        entry(
            cron(f"{index % 60} {index % 24} * * {index % 7}", tz=zones[index % 4])
            if index % 2
            else every(60 + index),
            name=f"entry {index}",
            jitter=index % 3,
        )
        for index in range(count)
    ]


def test_a_tick_has_a_bound() -> None:
    """When all is due at once, it goes out in parts, and nothing waits for the last of them."""
    entries = [entry(name=f"{index:04}") for index in range(1200)]
    agenda = Agenda(APP, entries, {}, NOON)
    drained(agenda, NOON)
    ticks = drained(agenda, NOON + MINUTE)
    assert all(len(tick.fires) <= module.FIRES for tick in ticks)
    assert len(fires(ticks)) == 1200


def test_what_a_tick_costs_follows_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among ten thousand entries, a tick without a fire looks at none of them."""
    agenda = Agenda(APP, many(10_000), {}, NOON)
    wake = drained(agenda, NOON)[-1].wake
    assert wake is not None
    assert wake > NOON
    looks: list[Entry] = []
    monkeypatch.setattr(Entry, "late_by", lambda self, _: looks.append(self))
    monkeypatch.setattr(module, "decide", lambda _, each, *__, **___: looks.append(each))
    for each in range(20):
        assert agenda.tick(NOON + timedelta(microseconds=each)).fires == ()
    assert looks == []


def test_ten_thousand_entries_fit_into_little_memory() -> None:
    """Entries, marks and heap together; 100 MB are for the whole process."""
    tracemalloc.start(1)
    try:
        agenda = Agenda(APP, many(10_000), {}, NOON)
        agenda.tick(NOON)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(agenda) == 10_000
    assert kept < 20e6
