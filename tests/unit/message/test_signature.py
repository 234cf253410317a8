"""Signatures as data: Celery's JSON form both ways, partial application, options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import MalformedMessage
from amqtask.message.signature import (
    CHUNKS,
    DEPTH,
    Chain,
    Chord,
    Group,
    Node,
    Step,
    chord_size,
    chunks,
    dump,
    mapped,
    merge,
    merge_options,
    parse,
)
from tests.unit.message.strategies import some

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
options = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.text(min_size=1),
        "priority": st.integers(0, 9),
        "task_id": st.uuids().map(str),
    },
)
steps = st.builds(
    Step,
    task=st.text(st.characters(categories=["Ll"]), min_size=1, max_size=5),
    args=st.lists(plain, max_size=2).map(tuple),
    kwargs=st.dictionaries(st.text(min_size=1, max_size=3), plain, max_size=2),
    options=options,
    immutable=st.booleans(),
)


def _composites(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    many = st.lists(inner, max_size=3).map(tuple)
    groups = st.builds(Group, members=many, options=options, immutable=st.booleans())
    return (
        st.builds(Chain, steps=many, options=options, immutable=st.booleans())
        | groups
        | st.builds(Chord, header=groups, body=inner, options=options, immutable=st.booleans())
    )


nodes: st.SearchStrategy[Node] = st.recursive(steps, _composites, max_leaves=8)


@some
@given(nodes)
def test_round_trip(node: Node):
    """What is written as JSON is read as it was, however it nests."""
    document = json.loads(json.dumps(dump(node)))
    assert parse(document) == node


@some
@given(nodes, st.integers(0, 9))
def test_chord_size_stands_beside_it(node: Node, size: int):
    """The number of members is in the body's document and does not change what it says."""
    document = dump(node, chord_size=size)
    assert chord_size(document) == size
    assert parse(document) == node


@pytest.mark.parametrize("size", [None, True, -1, "3", 1.5])
def test_chord_size_that_is_none(size: Any):
    """Whatever else stands there is no size."""
    assert chord_size({"chord_size": size}) is None


def test_as_celery_writes_them():
    """A header that is a list, chunks, and keys that are null are read as Celery means them."""
    step = {"task": "t", "args": None, "kwargs": None, "options": None}
    assert parse(step) == Step("t")
    chord = {"task": "celery.chord", "kwargs": {"header": [step], "body": step}}
    assert parse(chord) == Chord(Group((Step("t"),)), Step("t"))
    single = {"task": "celery.chord", "kwargs": {"header": step, "body": step}}
    assert parse(single) == Chord(Group((Step("t"),)), Step("t"))
    made = parse({"task": CHUNKS, "kwargs": {"task": step, "it": [[1], [2], [3]], "n": 2}})
    assert made == chunks(Step("t"), [[1], [2], [3]], 2)
    assert isinstance(made, Group)
    assert [member.kwargs["it"] for member in made.members if isinstance(member, Step)] == [
        [[1], [2]],
        [[3]],
    ]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (None, "a dict with a 'task'"),
        ({"task": 3}, "a dict with a 'task'"),
        ({"task": "t", "args": "abc"}, "a list of arguments"),
        ({"task": "t", "kwargs": [1]}, "kwargs and options are dicts"),
        ({"task": "celery.chain", "kwargs": {"tasks": 1}}, "a list of signatures"),
        ({"task": "celery.chain", "kwargs": {"tasks": [1]}}, "a dict with a 'task'"),
        ({"task": "celery.chord", "kwargs": {"header": []}}, "a dict with a 'task'"),
        ({"task": CHUNKS, "kwargs": {"task": {"task": "t"}, "it": [], "n": 0}}, "from 1 up"),
        ({"task": CHUNKS, "kwargs": {"task": {"task": "t"}, "it": 5, "n": 1}}, "a task and a list"),
    ],
)
def test_what_is_none(document: Any, text: str):
    """It is refused with what it is and what it should be."""
    with pytest.raises(MalformedMessage, match=text):
        parse(document)


def test_too_deep():
    """A signature that nests without end neither hangs nor exhausts the stack."""
    document: dict[str, Any] = {"task": "t"}
    for _ in range(DEPTH + 1):
        document = {"task": "celery.group", "kwargs": {"tasks": [document]}}
    with pytest.raises(MalformedMessage, match="deeper"):
        parse(document)


def test_merge():
    """Arguments come before the own ones, keywords and options win, what is immutable stays."""
    step = Step("t", (2,), {"a": 1, "b": 1}, {"queue": "q"})
    assert merge(step, (1,), {"b": 2}, {"priority": 3}) == Step(
        "t", (1, 2), {"a": 1, "b": 2}, {"queue": "q", "priority": 3}
    )
    stiff = Step("t", (2,), immutable=True)
    assert merge(stiff, (1,), {"b": 2}, {"priority": 3}) == Step(
        "t", (2,), {}, {"priority": 3}, immutable=True
    )
    chain = merge(Chain((step, step)), (1,), {}, {})
    assert isinstance(chain, Chain)
    assert [each.args for each in chain.steps if isinstance(each, Step)] == [(1, 2), (2,)]
    chord = merge(Chord(Group((step, stiff)), step), (1,), {}, {})
    assert isinstance(chord, Chord)
    assert [each.args for each in chord.header.members if isinstance(each, Step)] == [(1, 2), (2,)]
    assert chord.body == step


def test_merge_options():
    """Lists and headers are joined; a route replaces the whole route, a countdown an eta."""
    base = {
        "queue": "a",
        "exchange": "e",
        "eta": 1,
        "link": [1],
        "headers": {"a": 1},
        "priority": 1,
    }
    said = {"routing_key": "r", "countdown": 5, "link": [2], "headers": {"b": 2}}
    assert merge_options(base, said) == {
        "routing_key": "r",
        "countdown": 5,
        "link": [1, 2],
        "headers": {"a": 1, "b": 2},
        "priority": 1,
    }
    assert merge_options({"link_error": 1}, {"link_error": 2}) == {"link_error": [1, 2]}


def test_mapped():
    """`map` and `starmap` are steps of tasks that every worker has."""
    step = mapped(Step("t"), [1, 2], star=False)
    assert (step.task, step.immutable, step.kwargs["it"]) == ("celery.map", True, [1, 2])
    assert dump(step)["subtask_type"] == "xmap"
    assert dump(mapped(Step("t"), [], star=True))["subtask_type"] == "xstarmap"
