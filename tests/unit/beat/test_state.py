"""What one leader hands to the next: read back as it was written, in any order, and never earlier."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.beat.plan import Mark
from amqtask.beat.state import (
    VERSION,
    LaterVersion,
    Record,
    State,
    adopt,
    fold,
    note,
    plain_marks,
    read,
    snapshot,
)
from amqtask.errors import MalformedMessage
from amqtask.message.model import Message

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
MARK = Mark(NOON, "form", NOON, 3)


def later(mark: Mark, seconds: float) -> Mark:
    return replace(mark, at=mark.at + timedelta(seconds=seconds))


def record(
    seq: int, marks: dict[str, Mark], dynamic: dict[str, dict[str, object]] | None
) -> Record:
    return Record(seq, marks, dynamic)


def test_a_snapshot_is_read_as_it_was_written() -> None:
    """Marks, entries and number come back, arguments of unusual types included."""
    plain = {"schedule": {"every": 5}, "task": "t", "args": [Decimal("1.5"), NOON]}
    state = State(7, {"a": MARK, "b": replace(MARK, paused=True)}, {"b": plain})
    assert fold([read(snapshot(state))]) == state


def test_a_large_one_is_packed() -> None:
    """10,000 marks take a quarter of their size, and come back."""
    state = State(1, {f"entry number {n}": later(MARK, n) for n in range(10_000)})
    message = snapshot(state)
    assert len(message.body) < 300_000
    assert fold([read(message)]) == state


def test_notes_count_over_the_snapshot() -> None:
    """A note changes the marks it names, whatever order the queue has them in."""
    whole = read(snapshot(State(5, {"a": MARK, "b": MARK}, {"x": {"task": "t"}})))
    first = read(note(6, plain_marks({"a": later(MARK, 1)})))
    second = read(note(7, plain_marks({"a": later(MARK, 2)})))
    for records in ([whole, first, second], [second, whole, first]):
        state = fold(records)
        assert state == State(7, {"a": later(MARK, 2), "b": MARK}, {"x": {"task": "t"}})


def test_nothing_there_is_no_state() -> None:
    """An empty queue is told from an empty state."""
    assert fold([]) is None
    assert fold([read(snapshot(State()))]) == State()


def test_of_two_snapshots_the_later_one_counts() -> None:
    """A leader that died between write and ack leaves both; a pause in the later one holds."""
    old = read(snapshot(State(5, {"a": MARK}, {"x": {"task": "old"}})))
    new = read(snapshot(State(6, {"a": replace(MARK, paused=True)}, {"x": {"task": "new"}})))
    state = fold([new, old])
    assert state is not None
    assert state.dynamic["x"] == {"task": "new"}
    assert state.marks["a"].paused is True


marks = st.builds(
    lambda seconds, fires: replace(later(MARK, seconds), fires=fires),
    st.integers(0, 10_000),
    st.integers(0, 50),
)
records = st.builds(
    record,
    st.integers(1, 20),
    st.dictionaries(st.sampled_from("abc"), marks),
    st.one_of(st.none(), st.dictionaries(st.sampled_from("xyz"), st.just({"task": "t"}))),
)


@given(st.lists(records, min_size=1, max_size=6))
def test_no_order_of_records_takes_a_mark_back(found: list[Record]) -> None:
    """Whatever is in the queue, an instant that was decided stays decided."""
    state = fold(found)
    assert state is not None
    assert state.seq == max(each.seq for each in found)
    for each in found:
        for name, mark in each.marks.items():
            assert state.marks[name].at >= mark.at


@given(records, records)
def test_what_is_adopted_takes_nothing_back(known: Record, other: Record) -> None:
    """A record of somebody else's adds to a state, and replaces nothing that is newer."""
    state = State(known.seq, known.marks, known.dynamic or {})
    after = adopt(state, other)
    assert after.seq == max(known.seq, other.seq)
    for name, mark in (*known.marks.items(), *other.marks.items()):
        assert after.marks[name].at >= mark.at
    assert dict(after.dynamic) | dict(state.dynamic) == dict(after.dynamic)
    if other.seq <= known.seq:
        assert after.dynamic == state.dynamic


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"v": 1, "seq": 1}',
        b'{"v": 1, "seq": "1", "marks": {}}',
        b'{"v": 1, "seq": 1, "marks": {"a": [1]}}',
        b'{"v": 1, "seq": 1, "marks": {"a": ["x", "form", null, 0, null]}}',
        b'{"v": 1, "seq": 1, "marks": {}, "entries": {"a": 5}}',
    ],
)
def test_what_is_damaged_is_said_to_be(body: bytes) -> None:
    """Nothing that is no record is taken for one."""
    with pytest.raises(MalformedMessage) as caught:
        read(Message(body))
    assert not isinstance(caught.value, LaterVersion)


def test_a_packed_one_that_is_cut_off_is_damaged() -> None:
    """A body that does not unpack is no record."""
    message = snapshot(State(1, {f"entry {n}": later(MARK, n) for n in range(1000)}))
    with pytest.raises(MalformedMessage, match="does not unpack"):
        read(replace(message, body=message.body[: len(message.body) // 2]))


def test_one_of_a_later_version_is_told_apart() -> None:
    """It is not damaged, and must not be touched."""
    body = orjson.dumps({"v": VERSION + 1, "seq": 1, "marks": "whatever"})
    with pytest.raises(LaterVersion, match="version 2") as caught:
        read(Message(body))
    assert caught.value.hint == "upgrade amqtask wherever a beat runs"
