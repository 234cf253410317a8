"""Any order of steps becomes chains and groups, and never breaks what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError
from amqtask.workflow.order import Parallel, Part, Series, direct, shape

LETTERS = "abcdefgh"


def said(part: Part) -> str:
    """Return a part as text: ab for a series, (a b) for side by side."""
    match part:
        case str():
            return part
        case Series(parts=parts):
            return "".join(map(said, parts))
        case Parallel(parts=parts):
            return f"({' '.join(map(said, parts))})"
    raise AssertionError


def pairs(part: Part) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the steps of a part, and which is before which."""
    match part:
        case str():
            return {part}, set()
    steps: set[str] = set()
    order: set[tuple[str, str]] = set()
    for each in part.parts:
        these, within = pairs(each)
        if isinstance(part, Series):
            order |= {(before, after) for before in steps for after in these}
        order |= within
        steps |= these
    return steps, order


@pytest.mark.parametrize(
    ("after", "text"),
    [
        ({"a": ""}, "a"),
        ({"a": "", "b": ""}, "(a b)"),
        ({"a": "", "b": "a", "c": "ab"}, "abc"),
        ({"a": "", "b": "a", "c": "a", "d": "bc"}, "a(b c)d"),
        ({"a": "", "b": "", "c": "ab", "d": "ab"}, "(a b)(c d)"),
        ({"a": "", "b": "a", "c": "", "d": "c", "e": "bd"}, "(ab cd)e"),
        ({"a": "", "b": "a", "c": "a", "d": "bc", "e": "d", "f": "d", "g": "ef"}, "a(b c)d(e f)g"),
    ],
)
def test_orders_that_chains_and_groups_can_say(after: dict[str, str], text: str):
    """They become exactly that, and nothing waits for more than it was told to."""
    found = shape({name: tuple(waits) for name, waits in after.items()})
    assert said(found.whole) == text
    assert found.added == ()


def test_an_n_waits_for_more():
    """What no nesting can say waits for one step more, which is told."""
    found = shape({"a": (), "b": (), "c": ("a",), "d": ("a", "b")})
    assert said(found.whole) == "(a b)(c d)"
    assert found.added == (("b", "c"),)


def test_steps_in_a_circle():
    """They are refused by their names."""
    with pytest.raises(ConfigurationError, match="steps 'b', 'c' wait for each other in a circle"):
        shape({"a": (), "b": ("a", "c"), "c": ("b",)})


def test_no_steps():
    """A workflow has one at least."""
    with pytest.raises(ConfigurationError, match="has no steps"):
        shape({})


def test_what_follows_from_the_rest_is_left_out():
    """A drawing has no edge beside a longer way."""
    assert direct({"a": (), "b": ("a",), "c": ("a", "b")}) == {"a": [], "b": ["a"], "c": ["b"]}


@st.composite
def orders(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    count = draw(st.integers(1, len(LETTERS)))
    return {
        LETTERS[number]: tuple(
            draw(st.lists(st.sampled_from(LETTERS[:number]), unique=True)) if number else ()
        )
        for number in range(count)
    }


@given(orders())
def test_all_that_was_asked_for_holds(after: dict[str, tuple[str, ...]]):
    """Whatever the order, each step is there once, and after all that it waits for."""
    found = shape(after)
    steps, order = pairs(found.whole)
    assert steps == set(after)
    assert len(said(found.whole).translate({ord(mark): None for mark in "() "})) == len(after)
    asked = {(before, name) for name, waits in after.items() for before in waits}
    assert asked <= order
    closed = set(asked)
    while more := {(a, d) for a, b in closed for c, d in closed if b == c} - closed:
        closed |= more
    if not found.added:
        assert order == closed
