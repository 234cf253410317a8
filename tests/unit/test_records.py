"""A record is what a frozen dataclass is, but for the look at each assignment."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from amqtask.message.model import Call, Message
from amqtask.records import record


@record(frozen=True, slots=True)
class Pair:
    """Two values."""

    left: int
    right: str = "r"


def test_it_compares_hashes_and_prints_as_a_frozen_dataclass() -> None:
    """Equal fields make equal records, which count as one in a set."""
    assert Pair(1) == Pair(1, "r") != Pair(2)
    assert {Pair(1), Pair(1, "r")} == {Pair(1)}
    assert repr(Pair(1)) == "Pair(left=1, right='r')"


def test_it_has_the_fields_it_names_and_no_others() -> None:
    """A name with a slip in it is an error, also without a type checker."""
    with pytest.raises(AttributeError):
        Pair(1).rigth = "x"  # type: ignore[attr-defined]


def test_copies_have_what_was_changed_and_leave_the_first_alone() -> None:
    """`dataclasses.replace` is how one is changed."""
    call = Call("t", "i", args=(1,))
    assert replace(call, retries=1) == Call("t", "i", args=(1,), retries=1)
    assert call.retries == 0


def test_it_is_pickled() -> None:
    """Calls and messages travel to processes that run tasks."""
    for made in (Call("t", "i", args=(1,)), Message(b"x", {"id": "i"})):
        assert pickle.loads(pickle.dumps(made)) == made


def test_type_checkers_refuse_to_assign() -> None:
    """Which is all that keeps a record as it is; an unused `ignore` would be an error of mypy's."""
    pair = Pair(1)
    pair.left = 2  # type: ignore[misc]
    assert pair.left == 2
