"""Who owns a header, and which values can be sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import EncodeError, MalformedMessage
from amqtask.message.headers import (
    PROTOCOL_HEADERS,
    check_headers,
    clean_headers,
    is_broker_header,
    user_headers,
)
from tests.unit.message.strategies import junk, some, without_floats

pika_data = pytest.importorskip("pika.data")

BROKER = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-delivery-count",
    "x-acquired-count",
    "CC",
    "BCC",
    "amqtask-reason",
    "amqtask-anything",
]


class Level(IntEnum):
    LOW = 1


@pytest.mark.parametrize("name", BROKER)
def test_broker_headers(name):
    """What the broker or amqtask wrote is nobody's header to send."""
    assert is_broker_header(name)


@pytest.mark.parametrize("name", ["traceparent", "x-delay", "x-deaf", "cc", "task"])
def test_other_headers(name):
    """All else is the user's or the protocol's."""
    assert not is_broker_header(name)


def test_user_headers_are_what_is_left():
    """Protocol and broker headers are taken out, and the order stays."""
    headers: dict[Any, Any] = dict.fromkeys([*PROTOCOL_HEADERS, *BROKER], "x")
    assert user_headers(headers) == {}
    headers |= {"z": 1, "a": b"text", b"odd": 1}
    assert list(user_headers(headers).items()) == [("z", 1), ("a", "text")]


def test_user_header_of_broken_bytes():
    """A byte array that is no text is malformed, with its header named."""
    with pytest.raises(MalformedMessage) as caught:
        user_headers({"a": b"\xff"})
    assert str(caught.value) == "header 'a' holds bytes that are no utf-8 text"


def test_values_that_can_be_sent():
    """Each kind that every client reads alike passes; tuples and subclasses become plain."""
    moment = datetime(2026, 11, 23, 3, 18, tzinfo=timezone(timedelta(hours=1)))
    headers = {
        "s": "é",
        "i": (1 << 63) - 1,
        "n": -(1 << 63),
        "f": 1.5,
        "b": True,
        "v": None,
        "t": moment,
        "a": (1, ["x"]),
        "d": {"k": {"l": 1}},
        "e": Level.LOW,
    }
    checked = check_headers(headers)
    assert checked == {**headers, "a": [1, ["x"]], "e": 1}
    assert type(checked["e"]) is int
    assert pika_data.encode_table([], without_floats(checked)) > 0


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"a": b"x"}, "header 'a' cannot be sent: it holds a value of type 'bytes'"),
        ({"a": [{"b": 1j}]}, "header 'a' cannot be sent: it holds a value of type 'complex'"),
        ({"a": Decimal(1)}, "header 'a' cannot be sent: it holds a value of type 'Decimal'"),
        ({"a": 1 << 63}, "header 'a' cannot be sent: the integer does not fit 64 bit"),
        (
            {"a": float("nan")},
            "header 'a' cannot be sent: nan breaks readers that make a number of it",
        ),
        ({"a": "\ud800"}, "header 'a' cannot be sent: the text has a lone surrogate"),
        ({"\ud800": 1}, "header '\\ud800' cannot be sent: its name has a lone surrogate"),
        ({"a" * 129: 1}, None),
        ({1: 1}, "header 1 cannot be sent: its name is of type 'int'"),
        ({"a": {1: 1}}, "header 'a' cannot be sent: its name is of type 'int'"),
        ({"a": LOOP}, "header 'a' cannot be sent: it nests over 16 levels"),
        (
            {"a": datetime(2026, 1, 1)},  # noqa: DTZ001 - naive on purpose
            "header 'a' cannot be sent: the datetime is naive",
        ),
        (
            {"a": datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC)},
            "header 'a' cannot be sent: the datetime has fractions of a second",
        ),
        (
            {"a": datetime(1969, 1, 1, tzinfo=UTC)},
            "header 'a' cannot be sent: the datetime lies before 1970",
        ),
        ({"retries": 1}, "header 'retries' belongs to the task protocol"),
        ({"x-death": 1}, "header 'x-death' belongs to the broker or amqtask"),
        ({"amqtask-x": 1}, "header 'amqtask-x' belongs to the broker or amqtask"),
    ],
)
def test_refused(headers, text):
    """What would be lost, changed or break a reader is refused, with the header named."""
    with pytest.raises(EncodeError) as caught:
        check_headers(headers)
    assert text is None or str(caught.value) == text
    assert caught.value.hint


def test_stamps_may_have_any_name():
    """Names inside the stamps table collide with nothing."""
    assert check_headers({"task": "x", "id": [1]}, stamps=True) == {"task": "x", "id": [1]}


def test_cleaned_headers():
    """What came from the wire goes out again, but for the broker's and the unsendable."""
    moment = datetime(2026, 1, 1)  # noqa: DTZ001 - naive, as some decoders give it
    headers = {
        **dict.fromkeys(BROKER, 1),
        "task": "t",
        "blob": b"\xff",
        "price": Decimal("1.50"),
        "huge": Decimal("1e20"),
        "nan": [float("nan")],
        "when": moment,
        "odd": object(),
        "list": (1, 2),
    }
    assert clean_headers(headers) == {
        "task": "t",
        "blob": b"\xff",
        "price": Decimal("1.50"),
        "when": moment.replace(tzinfo=UTC),
        "list": [1, 2],
    }


@some
@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(sorted(PROTOCOL_HEADERS)), junk))
def test_cleaned_headers_always_encode(headers):
    """Whatever the table held, the driver can write what is left of it."""
    assert pika_data.encode_table([], without_floats(clean_headers(headers))) >= 4
