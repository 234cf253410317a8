"""Field types that pika would read wrongly, and those it must go on reading as ever."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from pika import data

from amqtask.transport import fields

fields.install()  # importing the room has done it; here it shows


def _read(field: bytes) -> Any:
    table = b"\x01x" + field
    headers, end = data.decode_table(struct.pack(">I", len(table)) + table, 0)
    assert end == len(table) + 4
    return headers["x"]


@pytest.mark.parametrize("number", [1.5, -0.25, 1e300, math.inf, -math.inf])
def test_a_double_keeps_its_value(number: float) -> None:
    """A fraction is not cut off, and infinity does not end the connection."""
    read = _read(struct.pack(">cd", b"d", number))
    assert type(read) is float
    assert read == number


def test_nan_is_read() -> None:
    """NaN is a value to refuse later, not the end of the connection."""
    assert math.isnan(_read(struct.pack(">cd", b"d", math.nan)))


def test_a_single_float_keeps_its_value() -> None:
    """The short float has four bytes and a fraction too."""
    assert _read(struct.pack(">cf", b"f", 0.5)) == 0.5


def test_a_timestamp_is_an_aware_datetime() -> None:
    """As pika reads it."""
    assert _read(struct.pack(">cQ", b"T", 86400)) == datetime(1970, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [1_790_000_000_000, 2**63, 2**64 - 1])
def test_a_timestamp_no_calendar_has_is_a_number(seconds: int) -> None:
    """Milliseconds sent as seconds must not end the connection that reads them."""
    assert _read(struct.pack(">cQ", b"T", seconds)) == seconds


def test_floats_inside_arrays_and_tables_too() -> None:
    """Celery's timelimit is an array: pika reaches the elements through the same door."""
    pieces: list[bytes] = []
    data.encode_table(pieces, {"timelimit": [1.5, None], "t": {"y": 0.25}})
    headers, _ = data.decode_table(b"".join(pieces), 0)
    assert headers == {"timelimit": [1.5, None], "t": {"y": 0.25}}
