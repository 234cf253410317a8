"""Outcomes of runners: the node makes of them what it would have made of them itself."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask import TaskRevoked
from amqtask.message import encode_exception
from amqtask.message.republish import exception_text
from amqtask.worker.outcome import Again, Done, Failed, Ignored, Outcome, Returned
from amqtask.worker.pools.carry import CarriedError, Unserialisable, pack, unpack

ETA = datetime(2026, 11, 23, 12, 30, 0, 250_000, tzinfo=UTC)


class Odd(Exception):
    """Has a text of its own, and an argument that is no data."""

    def __str__(self) -> str:
        return "odd one"


def through(outcome: Outcome, *, wanted: bool = True) -> Outcome | Unserialisable:
    there, memory = unpack(pack(outcome, wanted=wanted, memory=7))
    assert memory == 7
    return there


@pytest.mark.parametrize(
    "value", [None, 5, "ü", [1, {"a": None}], Decimal("1.5"), ETA, 2**70, b"\x00\xff"]
)
def test_values(value: Any):
    """A value keeps its kind, as it does in a result."""
    assert through(Done(value)) == Done(value)


def test_a_value_that_nobody_wants_is_left_out():
    """It need not even serialise."""
    assert through(Done(object()), wanted=False) == Done(None)


def test_a_value_that_does_not_serialise():
    """The error is the one that encoding the result would have raised."""
    there = through(Done({"a": object()}))
    assert isinstance(there, Unserialisable)
    assert there.error.startswith("cannot encode the result: ")
    assert "object" in there.error
    assert there.hint is not None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no", 3),
        LookupError(),
        KeyError("key"),
        SystemExit(2),
        TaskRevoked("expired"),
        Odd(object()),
    ],
)
def test_errors_look_the_same(error: BaseException):
    """In logs, in dead letters and in results, though nothing is rebuilt."""
    there = through(Failed(error, "failed", "Traceback ..."))
    assert isinstance(there, Failed)
    assert isinstance(there.error, CarriedError)
    assert exception_text(there.error) == exception_text(error)
    assert repr(there.error) == repr(error)
    assert encode_exception(there.error) == encode_exception(error)
    assert (there.reason, there.traceback) == ("failed", "Traceback ...")


def test_again():
    """When, with which count, and why."""
    there = through(Again(5.0, ETA, 3, OSError(5, "disk")))
    assert isinstance(there, Again)
    assert (there.delay, there.eta, there.retries) == (5.0, ETA, 3)
    assert repr(there.error) == "OSError(5, 'disk')"


@pytest.mark.parametrize("outcome", [Ignored(), Returned()])
def test_signals(outcome: Outcome):
    """They carry nothing."""
    assert through(outcome) == outcome


@given(st.binary(max_size=60))
def test_what_is_no_outcome_is_refused(data: bytes):
    """Whatever a runner out of its mind sends: an error that says so, and no other."""
    with pytest.raises(ValueError, match="runner sent"):
        unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"memory": 1}',
        b'{"memory": "much", "done": 1}',
        b'{"memory": 1, "failed": [1, "failed", null]}',
        b'{"memory": 1, "failed": [["a", "b", 5], "failed", null]}',
        b'{"memory": 1, "again": ["soon", "then", 1, null]}',
        b'{"memory": 1, "again": [1, 1e300, 1, null]}',
    ],
)
def test_what_only_looks_like_one_is_refused(data: bytes):
    """Each field is read as what it has to be."""
    with pytest.raises(ValueError, match="runner sent"):
        unpack(data)
