"""The judge of the beats' ledger sees what it is there to see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.acceptance.beats.ledger import Fired, judge

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def fired(second: int, *, id: str | None = None, pid: int = 1) -> Fired:
    instant = NOON + timedelta(seconds=second)
    return Fired("tick", instant, id or f"id-{second}", pid, float(second))


def test_all_is_well() -> None:
    """Each instant once."""
    verdict = judge([fired(second) for second in range(5)])
    assert (verdict.instants, verdict.repeats, verdict.missing, verdict.two_ids) == (5, 0, [], [])
    assert verdict.gap == 1.0


def test_what_is_wrong_is_seen() -> None:
    """A gap, a repeat under the same id, and a second id for one instant."""
    found = [fired(0), fired(1), fired(1, pid=2), fired(3), fired(3, id="other")]
    verdict = judge(found)
    assert verdict.missing == [("tick", NOON + timedelta(seconds=2))]
    assert verdict.repeats == 2
    assert verdict.two_ids == [("tick", NOON + timedelta(seconds=3))]
