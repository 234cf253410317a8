"""The one form of workflows, their ids, and the first messages of each."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given

from amqtask.errors import ConfigurationError
from amqtask.message.signature import Chain, Chord, Group, Node, Step, dump, merge, parse
from amqtask.workflow.freeze import Frame, first_id, freeze, last_id, leaves
from amqtask.workflow.launch import launch
from amqtask.workflow.shape import COLLECT, normal
from tests.unit.message.strategies import some
from tests.unit.message.test_signature import nodes

A, B, C, D = (Step(name) for name in "abcd")


def frozen(node: Node, root: str | None = None) -> Node:
    made = count(1)
    return freeze(normal(node), Frame(root=root, new_id=lambda: f"id{next(made)}"))


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (Chain((A,)), A),
        (Chain((A, Chain((B, C)))), Chain((A, B, C))),
        (Group((A, Group((B, C)))), Group((A, B, C))),
        (Chain((Group((A, B)), C)), Chord(Group((A, B)), C)),
        (Chain((A, Group((B,)), C, D)), Chain((A, Chord(Group((B,)), Chain((C, D)))))),
        (Chain((Chord(Group((A,)), B), C)), Chord(Group((A,)), Chain((B, C)))),
        (Chain((Group((A,)), Group((B,)))), Chord(Group((A,)), Group((B,)))),
        (Chain((A, Group(()), B)), Chain((A, B))),
        (Chain((Group(()),)), Group(())),
        (Group((Chain((A, Group((B,)))),)), Group((Chain((A, Chord(Group((B,)), COLLECT))),))),
        (
            Group((Chord(Group((A,)), Group((B,))),)),
            Group((Chord(Group((A,)), Chord(Group((B,)), COLLECT)),)),
        ),
        (Chord(Group((A,)), Chain((B, C))), Chord(Group((A,)), Chain((B, C)))),
    ],
)
def test_one_form(node: Node, shape: Node):
    """Whatever way it was written, it is the same workflow."""
    assert normal(node) == shape
    assert normal(shape) == shape


def test_options_of_the_whole():
    """They go to each step, the first or the last, as the guide's table has it."""
    given: dict[str, Any] = {
        "priority": 1,
        "countdown": 5,
        "task_id": "x",
        "link": [1],
        "link_error": [2],
    }
    chain = normal(Chain((A, Step("b", options={"priority": 9}), C), given))
    assert isinstance(chain, Chain)
    assert [step.options for step in chain.steps] == [
        {"priority": 1, "link_error": [2], "countdown": 5},
        {"priority": 9, "link_error": [2]},
        {"priority": 1, "link_error": [2], "task_id": "x", "link": [1]},
    ]
    chord = normal(Chord(Group((A,)), B, given))
    assert isinstance(chord, Chord)
    assert chord.header.members[0].options == {"priority": 1, "countdown": 5}
    assert chord.body.options == {"priority": 1, "task_id": "x", "link": [1], "link_error": [2]}
    group = normal(Group((A,), {"priority": 1, "task_id": "g", "countdown": 5}))
    assert isinstance(group, Group)
    assert group.options == {"task_id": "g"}
    assert group.members[0].options == {"priority": 1, "countdown": 5}


def test_immutable_whole():
    """What comes first takes no arguments, and only that."""
    chain = normal(Chain((A, B), immutable=True))
    assert isinstance(chain, Chain)
    assert [step.immutable for step in chain.steps] == [True, False]
    assert all(each.immutable for each in _members(normal(Group((A, B), immutable=True))))
    assert all(each.immutable for each in _members(normal(Chord(Group((A, B)), C, immutable=True))))


def _members(node: Node) -> tuple[Node, ...]:
    assert isinstance(node, Group | Chord)
    return node.members if isinstance(node, Group) else node.header.members


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (Chain(()), "no steps"),
        (Chord(Group((A,)), Group(())), "empty group"),
        (Chain((Group((A,)), *[Group((B,))] * 120, C)), "deeper than 100"),
    ],
)
def test_no_meaning(node: Node, text: str):
    """It is refused, with the reason."""
    with pytest.raises(ConfigurationError, match=text):
        normal(node)


def test_ids():
    """Each call and each group has one, of one root; those that were there stay."""
    node = frozen(Chain((A, Group((B, Step("c", options={"task_id": "own"}))), D)))
    ids = [step.options["task_id"] for step in leaves(node)]
    assert ids == ["id1", "id3", "own", "id4"]
    assert {step.options["root_id"] for step in leaves(node)} == {"id1"}
    assert (first_id(node), last_id(node)) == ("id1", "id4")
    assert freeze(normal(node), Frame()) == node
    assert {step.options["root_id"] for step in leaves(frozen(A, "root"))} == {"root"}


@some
@given(nodes)
def test_ids_survive_the_wire(node: Node):
    """What has all ids is the same after JSON, and gets no others; each call begins once at most."""
    try:
        made = frozen(node)
    except ConfigurationError:
        return  # it has no meaning: a chain without steps, say
    again = freeze(normal(parse(dump(made))), Frame(new_id=lambda: pytest.fail("a new id")))
    assert again == made
    begins = [start.id for start in launch(made).starts]
    all_ids = [step.options["task_id"] for step in leaves(made)]
    assert set(begins) <= set(all_ids)


def test_launch_of_a_chain():
    """The first step carries the rest, the next one last."""
    (start,) = launch(frozen(Chain((A, B, C)))).starts
    assert (start.step.task, start.id) == ("a", "id1")
    assert [each["task"] for each in start.embed.chain or ()] == ["c", "b"]


def test_launch_of_a_chord():
    """It is opened with its size, and every member carries the body; in a chain the last step does."""
    begins = launch(frozen(Chord(Group((A, Chain((B, C)))), D)))
    (opening,) = begins.openings
    assert opening.size == 2
    first, second = begins.starts
    assert first.embed.chord == opening.body
    assert opening.body["chord_size"] == 2
    assert (first.step.options["group_id"], first.step.options["group_index"]) == (
        opening.group_id,
        0,
    )
    assert second.embed.chord is None
    assert second.embed.chain is not None
    (last,) = second.embed.chain
    assert last["options"]["chord"] == opening.body
    assert last["options"]["group_index"] == 1


def test_launch_of_nested_chords():
    """The inner body is the outer one's member."""
    begins = launch(frozen(Chord(Group((Chord(Group((A,)), B), C)), D)))
    sizes = {opening.size: opening for opening in begins.openings}
    assert sorted(sizes) == [1, 2]
    assert sizes[1].body["options"]["chord"] == sizes[2].body
    assert [start.step.task for start in begins.starts] == ["a", "c"]


def test_launch_of_nothing():
    """An empty header has the body begin at once, an empty group nothing."""
    (start,) = launch(frozen(Chord(Group(()), D))).starts
    assert start.step.args == ([],)
    assert not launch(frozen(Group(())))


def test_a_chain_of_a_thousand():
    """Its first message has what is left once, and its shape is found without a deep stack."""
    node = frozen(Chain(tuple(merge(A, (n,), {}, {}) for n in range(1000))))
    (start,) = launch(node).starts
    assert len(start.embed.chain or ()) == 999
