"""A mark says what was sent, where that is not all that was due."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from amqtask import every
from amqtask.beat.plan import Fire, Mark
from amqtask.beat.tally import settled
from amqtask.policy.entry import Entry

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ENTRY = Entry("e", every(60), "t")
BEFORE = Mark(NOON, "form", NOON, 7)


def fire(minutes: int) -> Fire:
    instant = NOON + timedelta(minutes=minutes)
    return Fire(ENTRY, instant, instant, f"id-{minutes}", "due", None)


FIRES = [fire(1), fire(2), fire(3)]
AFTER = replace(BEFORE, at=FIRES[2].instant, fired=FIRES[2].instant, fires=10)


def test_what_was_skipped_was_not_fired() -> None:
    """The next fire is compared with the last one that was sent, not with one that was skipped."""
    mark = settled(BEFORE, AFTER, FIRES, sent={"id-1"}, late=set())
    assert mark == replace(AFTER, fired=FIRES[0].instant, fires=8)


def test_nothing_sent_leaves_the_last_fire_as_it_was() -> None:
    """All are decided, none was fired."""
    assert settled(BEFORE, AFTER, FIRES, set(), set()) == replace(AFTER, fired=NOON, fires=7)
    assert settled(None, AFTER, FIRES, set(), set()) == replace(AFTER, fired=None, fires=0)


def test_what_is_late_is_decided_again() -> None:
    """Its instant comes next: the mark stands right before it."""
    mark = settled(BEFORE, AFTER, FIRES, sent={"id-1"}, late={"id-2", "id-3"})
    assert mark.fired == FIRES[0].instant
    assert mark.fires == 8
    assert ENTRY.due_after(mark.at) == FIRES[1].instant
