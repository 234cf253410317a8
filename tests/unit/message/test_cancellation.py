"""Records of cancelled calls: what is written is read, and what is no record is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.message.cancellation import (
    MARK,
    RECORD,
    Cancellation,
    decode_cancellation,
    encode_cancellation,
    encode_mark,
)

RECORDS = st.builds(
    Cancellation,
    st.text(min_size=1, max_size=60),
    st.booleans(),
    st.floats(min_value=0, max_value=1e12),
)


@given(RECORDS, st.floats(min_value=0, max_value=1e12))
def test_a_record_is_read_as_it_was_written(record: Cancellation, now: float) -> None:
    """Whatever the id, and whatever the clock says."""
    message = encode_cancellation(record, now)
    assert decode_cancellation(message.body) == record
    assert message.expiration is not None
    assert 1 <= int(message.expiration) <= 315_360_000_000


def test_a_record_on_the_wire() -> None:
    """JSON that any client can write, kept on disk, and no longer than it counts."""
    message = encode_cancellation(Cancellation("id-1", True, 1010.5), 1000.0)
    assert message.body == b'{"id":"id-1","terminate":true,"until":1010.5}'
    assert (message.type, message.expiration, message.delivery_mode) == (RECORD, "10500", 2)
    # none: a mark must never be sorted before a record
    assert message.priority is None


@given(st.binary(max_size=60))
def test_any_bytes(body: bytes) -> None:
    """A register is a queue that others can write to."""
    decode_cancellation(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"id": 1, "terminate": false, "until": 1}',
        b'{"id": "a", "terminate": 0, "until": 1}',
        b'{"id": "a", "terminate": false, "until": "soon"}',
        b'{"id": "a", "terminate": false}',
    ],
)
def test_what_is_no_record(body: bytes) -> None:
    """Each field is needed, and has its type."""
    assert decode_cancellation(body) is None


def test_an_unknown_field_is_passed_over() -> None:
    """A later version may say more."""
    body = b'{"id": "a", "terminate": false, "until": 1, "why": "x"}'
    assert decode_cancellation(body) == Cancellation("a", False, 1.0)


def test_a_mark() -> None:
    """Of the same priority as a record, and gone by itself."""
    mark = encode_mark("abc", 60)
    assert (mark.type, mark.body, mark.expiration, mark.priority) == (MARK, b"abc", "60000", None)
