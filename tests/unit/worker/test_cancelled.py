"""What a worker process remembers of cancelled calls: the newest, and never more than its limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqtask.message.cancellation import Cancellation
from amqtask.worker.cancelled import Known


def _known(limit: int, *untils: float, now: float = 0.0) -> Known:
    known = Known(limit)
    for number, until in enumerate(untils):
        known.add(Cancellation(str(number), False, until), now)
    return known


def test_what_was_added_is_known() -> None:
    """Until its time is over."""
    known = _known(10, 5.0)
    assert known.get("0", 4.9) == Cancellation("0", False, 5.0)
    assert known.get("0", 5.0) is None
    assert known.get("1", 0.0) is None


def test_what_is_new() -> None:
    """Said again is nothing new; to be ended for certain is."""
    known = Known(10)
    assert known.add(Cancellation("a", False, 5.0), 0.0)
    assert not known.add(Cancellation("a", False, 9.0), 0.0)
    assert known.add(Cancellation("a", True, 3.0), 0.0)
    assert not known.add(Cancellation("a", False, 3.0), 0.0)
    assert known.get("a", 8.0) == Cancellation("a", True, 9.0)


def test_what_is_over_is_not_taken_in() -> None:
    """A record that lay behind one that lasts longer."""
    known = Known(10)
    assert not known.add(Cancellation("a", False, 5.0), 5.0)
    assert len(known) == 0


def test_the_oldest_goes_first() -> None:
    """Among those that last equally long, which those of one cancel do."""
    known = _known(10, *[5.0] * 15)
    left = [number for number in range(15) if known.get(str(number), 0.0)]
    assert left == list(range(15 - len(left), 15))


def test_what_lasts_stays() -> None:
    """The record of a call that is due in a month is not pushed out by a day's worth of others."""
    known = _known(10, 1000.0, *[5.0] * 50)
    assert known.get("0", 0.0) is not None


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), max_size=60))
def test_bounded(limit: int, records: list[tuple[int, int]]) -> None:
    """However many come; and the last one that came is known unless others last longer."""
    known = Known(limit)
    for now, (id_, until) in enumerate(records):
        known.add(Cancellation(str(id_), False, now + until), float(now))
        assert len(known) <= limit
        if until > 0:
            assert known.get(str(id_), float(now)) is not None
