"""What the parts of a chord come to, whatever their order and however often they came."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import MalformedMessage, TaskRevoked
from amqtask.message.model import Call
from amqtask.workflow.join_parts import (
    Gathered,
    Kept,
    abandoned,
    dump,
    failure,
    gather,
    keep,
    load,
    nested,
)
from amqtask.workflow.ports import Part

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _kept(index: int | None, value: object = None, *, ok: bool = True, extra: int = 0) -> Kept:
    state = "SUCCESS" if ok else "FAILURE"
    result = value if ok else {"exc_type": "ValueError", "exc_message": ["bad"]}
    return Kept(f"id-{index}", state, result, index, extra, "t.member")


def _part(error: BaseException | None) -> Part:
    call = Call("t.member", "id-3", group="g", group_index=3)
    return Part("g", 3, 5, {"task": "t.body"}, "id-3", "t.member", None, error, 2, call)


@given(st.text(min_size=1), JSON, st.none() | st.integers(0, 10_000), st.integers(0, 9), st.text())
def test_a_part_comes_back_as_it_was_kept(
    id_: str, value: object, index: int | None, extra: int, task: str
) -> None:
    """In JSON, with all that it says."""
    kept = Kept(id_, "SUCCESS", value, index, extra, task)
    assert load(dump(kept)) == kept


def test_celery_gets_the_four_that_it_knows() -> None:
    """And its own parts are read without the others."""
    data = dump(_kept(4, [1], extra=2), as_celery=True)
    assert json.loads(data) == [1, "id-4", "SUCCESS", [1]]
    assert load(data) == Kept("id-4", "SUCCESS", [1])


@pytest.mark.parametrize("data", [b"{}", b"[1]", b"[1,2,3,4]", b'[1,"a","SUCCESS",1,2]', b"x"])
def test_what_is_no_part_is_refused(data: bytes) -> None:
    """Nobody takes the rest for complete over it."""
    with pytest.raises(MalformedMessage):
        load(data)


def test_a_part_keeps_how_its_member_ended() -> None:
    """With its state, its place, and what it has added."""
    assert keep(_part(None)) == Kept("id-3", "SUCCESS", None, 3, 2, "t.member")
    assert keep(_part(TaskRevoked("by hand"))).state == "REVOKED"
    failed = keep(_part(ValueError("bad")))
    assert (failed.state, failed.result["exc_type"]) == ("FAILURE", "ValueError")


@given(st.permutations([*range(6), *range(6), 2, 2]))
def test_values_are_in_the_order_of_the_header(order: list[int]) -> None:
    """Each once, in whatever order and however often they came."""
    gathered = gather([_kept(index, f"v{index}") for index in order], 6)
    assert gathered.complete
    assert gathered.values == [f"v{index}" for index in range(6)]


@given(st.sets(st.integers(0, 9)), st.integers(1, 10))
def test_it_is_complete_when_every_place_is_taken(there: set[int], size: int) -> None:
    """Not when there are as many parts as members."""
    gathered = gather([_kept(index) for index in there for _ in range(3)], size)
    assert list(gathered.missing) == [index for index in range(size) if index not in there]
    assert gathered.complete == (there >= set(range(size)))


@given(st.permutations([_kept(0, "good"), _kept(0, ok=False), _kept(0, ok=False)]))
def test_a_value_counts_for_more_than_a_failure(parts: list[Kept]) -> None:
    """Whichever came first: the member was sent back in between."""
    gathered = gather(parts, 1)
    assert gathered.failed is None
    assert gathered.values == ["good"]


def test_the_first_failure_in_the_header_is_the_one_that_counts() -> None:
    """So that the error does not depend on who was faster."""
    gathered = gather([_kept(2, ok=False), _kept(1, ok=False), _kept(0)], 3)
    assert gathered.failed is not None
    assert gathered.failed.index == 1


def test_what_was_added_is_waited_for_and_comes_last() -> None:
    """As many as were added, whatever else is there."""
    added = Kept("x", "SUCCESS", "x")
    assert not gather([_kept(0, extra=2), added, added], 1).complete
    assert not gather([added], 1).complete
    more = Kept("y", "SUCCESS", "y")
    gathered = gather([more, _kept(0, "a", extra=2), added, added], 1)
    assert gathered.complete
    assert gathered.values == ["a", "y", "x"]


def test_errors_name_the_member() -> None:
    """And what became of it."""
    assert str(failure("g", _kept(1, ok=False))) == (
        "member 1 of chord g (task 't.member', id id-1) failed: ValueError: bad"
    )
    revoked = Kept("x", "REVOKED", {"exc_type": "TaskRevoked", "exc_message": ["by hand"]})
    assert str(failure("g", revoked)) == (
        "member added on the way of chord g (id x) was cancelled or expired: TaskRevoked: by hand"
    )
    assert str(abandoned("g", gather([_kept(1)], 4), "by hand")) == (
        "chord g was given up by hand: 1 of 4 parts came, none yet of members 0, 2, 3"
    )
    assert "members 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and more" in str(
        abandoned("g", gather([], 400), "")
    )


def test_groups_of_a_celery_client_are_lists_in_the_list() -> None:
    """Other parts come after them, and without groups all stays as it is."""
    flat = Gathered([Kept(name, "SUCCESS", name) for name in ("a", "b", "c", "x")])
    leaf = {name: [[name, None], None] for name in "abc"}
    members = [["g", None], [leaf["a"], [["inner", None], [leaf["b"], leaf["c"]]]]]
    assert nested(flat, members).values == ["a", ["b", "c"], "x"]
    assert nested(flat, None) is flat
