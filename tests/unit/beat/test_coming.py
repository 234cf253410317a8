"""Which fires come, by columns of time."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from amqtask.beat.coming import MANY, outlook
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import cron, every, once
from tests.unit.beat.test_plan import ENTRIES, HOUR, MINUTE, NOON, entry


@given(ENTRIES, st.integers(1, 40), st.integers(1, 200_000))
def test_every_instant_is_in_its_column(each: Entry, columns: int, seconds: int) -> None:
    """Counted one by one, and cut off where a column says 'many'."""
    span = timedelta(seconds=seconds)
    found = outlook([(each, False)], NOON, NOON + span, columns=columns)
    counts, at = [0] * columns, NOON
    for _ in range(5000):
        following = each.due_after(at)
        if following is None or following > NOON + span:
            break
        # a column's end belongs to it
        counts[min(columns - 1, -(-(following - NOON) // (span / columns)) - 1)] += 1
        at = following
    else:
        return  # more of them than are worth counting
    if not any(counts):
        assert (found.rows, found.quiet) == ((), 1)
        return
    shown = found.rows[0].counts
    assert sum(shown) <= sum(counts)
    assert all(count == MANY or shown[index] >= 0 for index, count in enumerate(shown))
    if (span / columns) * columns == span:
        assert shown == tuple(min(MANY, count) for count in counts)


def test_order() -> None:
    """What fires next is first; what is paused comes last."""
    found = outlook(
        [
            (entry(every(3600), name="later"), False),
            (entry(every(60), name="b"), False),
            (entry(every(60), name="a"), False),
            (entry(every(60), name="asleep"), True),
            (entry(once(NOON), name="over"), False),
            (entry(cron("0 0 1 1 *"), name="far"), True),
        ],
        NOON,
        NOON + HOUR,
        columns=2,
    )
    assert [row.entry.name for row in found.rows] == ["a", "b", "later", "asleep"]
    assert [row.next for row in found.rows] == [NOON + MINUTE, NOON + MINUTE, NOON + HOUR, None]
    assert [row.counts for row in found.rows] == [(10, 10), (10, 10), (0, 1), (0, 0)]
    assert (found.hidden, found.quiet) == (0, 2)


def test_only_so_many_rows() -> None:
    """The rest is counted."""
    entries = [
        (entry(every(60), name=f"{index:02}", start=NOON + index * MINUTE), index % 2 == 1)
        for index in range(20)
    ]
    found = outlook(entries, NOON, NOON + HOUR, columns=5, most=4)
    assert [row.entry.name for row in found.rows] == ["00", "02", "04", "06"]
    assert found.hidden == 16
