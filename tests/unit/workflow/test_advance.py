"""What follows the end of a call, decided without a broker."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import orjson
import pytest

from amqtask.errors import ChordError, MalformedMessage, TaskRevoked, WorkflowFailed
from amqtask.message.model import NO_EMBED, Call, Embed
from amqtask.message.signature import Chain, Chord, Document, Group, Node, Step, dump
from amqtask.workflow.advance import (
    ERRBACK_HEADER,
    Advance,
    body_failed,
    body_ready,
    dependents,
    failed,
    follows,
    heard,
    replacement,
    stopped,
    succeeded,
)
from amqtask.workflow.freeze import Frame, freeze
from amqtask.workflow.launch import Launch, Start, launch
from amqtask.workflow.shape import normal

A, B, C, D = (Step(name) for name in "abcd")
BOOM = ValueError("boom")


def frozen(node: Node) -> Node:
    made = count(1)
    return freeze(normal(node), Frame(new_id=lambda: f"id{next(made)}"))


def call_of(start: Start) -> Call:
    """Return what a worker decodes of a message."""
    step = start.step
    return Call(
        step.task,
        start.id,
        step.args,
        step.kwargs,
        start.embed,
        root_id=step.options.get("root_id"),
        group=step.options.get("group_id"),
        group_index=step.options.get("group_index"),
    )


def first(node: Node) -> Call:
    """Return the call that a workflow begins with."""
    return call_of(launch(frozen(node)).starts[0])


def three(_: str) -> int:
    return 3


def said(made: Launch | Advance) -> list[tuple[Any, ...]]:
    begins = made.launch if isinstance(made, Advance) else made
    return [(start.step.task, *start.step.args) for start in begins.starts]


def ended(made: Advance) -> list[tuple[str, str]]:
    return [(each.step.task, each.state) for each in made.ended]


def test_nothing_follows():
    """A call outside of workflows is left alone."""
    call = Call("a", "id")
    assert not follows(call)
    assert not follows(Call("a", "id", embed=Embed(callbacks=[], chain=[])))
    assert not succeeded(call, 5)
    assert not failed(call, BOOM, None, three)
    assert not stopped(call, "was cancelled")
    assert dependents(call) == []


def test_a_chain_goes_on():
    """The next step gets the value, and takes along what is left, as it came."""
    call = first(Chain((A, Step("b", (7,)), C, D)))
    made = succeeded(call, 5)
    (start,) = made.launch.starts
    assert said(made) == [("b", 5, 7)]
    assert start.embed.chain == (call.embed.chain or [])[:-1]
    assert [each["task"] for each in start.embed.chain or ()] == ["d", "c"]


def test_a_chain_of_a_thousand_does_not_blow_up():
    """Each message has what is left once: 300 bytes for each step, and ever fewer."""
    call = first(Chain(tuple(Step("shop.tasks.add", (n,)) for n in range(1000))))
    sizes = []
    for _ in range(999):
        sizes.append(len(orjson.dumps([call.args, call.kwargs, call.embed.chain])))
        (start,) = succeeded(call, 1).launch.starts
        call = call_of(start)
    assert call.embed.chain is None
    assert sizes[0] < 300 * 1000
    assert sizes == sorted(sizes, reverse=True)


def test_groups_and_chords_in_a_chain():
    """A group that comes next begins whole; one that something follows is a chord."""
    made = succeeded(first(Chain((A, Group((B, C))))), 5)
    assert said(made) == [("b", 5), ("c", 5)]
    assert made.launch.openings == []
    made = succeeded(first(Chain((A, Group((B, C)), D))), 5)
    assert said(made) == [("b", 5), ("c", 5)]
    (opening,) = made.launch.openings
    assert (opening.size, opening.body["task"]) == (2, "d")


def test_a_foreign_chain():
    """Celery's clients leave a group and what follows it side by side, and some without ids."""
    chain = [dump(D), dump(Group((B, C)))]
    call = Call("a", "id", embed=Embed(chain=chain))
    made = succeeded(call, 5)
    assert said(made) == [("b", 5), ("c", 5)]
    assert made.launch.openings[0].body["task"] == "d"
    again = succeeded(call, 5)
    assert [start.id for start in made.launch.starts] == [start.id for start in again.launch.starts]
    assert said(succeeded(Call("a", "id", embed=Embed(chain=[dump(B)])), 5)) == [("b", 5)]


def test_the_rest_of_a_chain_as_an_option():
    """Celery hands it to the body of a chord that way; it comes before what travels beside it."""
    rest = dump(Step("c", options={"task_id": "c1"}))
    step = Step("b", options={"task_id": "b1", "chain": [rest]})
    call = Call("a", "id", embed=Embed(chain=[dump(D), dump(step)]))
    (start,) = succeeded(call, 5).launch.starts
    assert [each["task"] for each in start.embed.chain or ()] == ["d", "c"]
    assert "c1" in dependents(Call("a", "id", embed=Embed(chain=[dump(step)])))


def test_callbacks():
    """All of them get the value, also composite ones, beside the next step."""
    links = [dump(B), dump(Chain((C, D)))]
    call = Call("a", "id", embed=Embed(callbacks=links, chain=[dump(D)]))
    assert said(succeeded(call, 5)) == [("b", 5), ("c", 5), ("d", 5)]
    ids = [start.id for start in succeeded(call, 5).launch.starts]
    assert ids == [start.id for start in succeeded(call, 6).launch.starts]
    assert len(set(ids)) == 3


def test_errbacks():
    """They get id, exception and traceback, or what they take; ids follow from the call's."""
    errbacks = [dump(B), dump(Step("c", ("x",))), dump(replace(D, immutable=True))]
    call = Call("a", "id", embed=Embed(errbacks=errbacks))
    made = failed(call, BOOM, "tb", lambda task: 1 if task == "c" else 3)
    assert said(made) == [
        ("b", "id", made.launch.starts[0].step.args[1], "tb"),
        ("c", "id", "x"),
        ("d",),
    ]
    start = made.launch.starts[0]
    assert start.step.options["headers"] == {ERRBACK_HEADER: True}
    heard_call = heard(replace(call_of(start), headers=start.step.options["headers"]))
    assert isinstance(heard_call.args[1], ValueError)
    assert str(heard_call.args[1]) == "boom"
    assert "headers" not in made.launch.starts[1].step.options
    again = failed(call, BOOM, "tb", three)
    assert [each.id for each in again.launch.starts] == [each.id for each in made.launch.starts]


@pytest.mark.parametrize(
    ("args", "headers"),
    [
        (("id", {"exc_type": "X"}, None), {}),
        (("id", "text", None), {ERRBACK_HEADER: True}),
        (("id",), {ERRBACK_HEADER: True}),
    ],
)
def test_what_is_no_errback(args: tuple[Any, ...], headers: dict[str, Any]):
    """Its arguments stay as they are."""
    call = Call("a", "id", args, headers=headers)
    assert heard(call).args == args


def test_a_failure_ends_what_follows():
    """The rest of the chain, callbacks, and a chord in it with header and body."""
    node = Chain((Step("a", options={"link": [dump(D)]}), B, Group((C, C)), D))
    made = failed(first(node), BOOM, None, three)
    assert ended(made) == [(task, "FAILURE") for task in ("d", "b", "c", "c", "d")]
    assert {str(each.error) for each in made.ended} == {
        "task 'a' (id id1) failed: ValueError: boom"
    }
    error = made.ended[0].error
    assert isinstance(error, WorkflowFailed)
    assert (error.task, error.task_id) == ("a", "id1")
    assert made.parts == []
    ids = [each.step.options["task_id"] for each in made.ended]
    assert sorted(dependents(first(node))) == sorted(ids)


def test_a_cancelled_step():
    """What follows it is revoked, and no errback is called."""
    node = Chain((Step("a", options={"link_error": [dump(D)]}), B))
    made = stopped(first(node), "was cancelled")
    assert ended(made) == [("b", "REVOKED")]
    assert isinstance(made.ended[0].error, TaskRevoked)
    assert not made.launch


def test_members_of_chords():
    """A member's part has its value, its error, or that of the step that failed before it."""
    node = Chord(Group((A, Chain((B, C)))), D)
    one, two = (call_of(start) for start in launch(frozen(node)).starts)
    (part,) = succeeded(one, 5).parts
    assert (part.index, part.size, part.value, part.error, part.id) == (0, 2, 5, None, one.id)
    (part,) = failed(one, BOOM, None, three).parts
    assert part.error is BOOM
    (part,) = stopped(one, "was cancelled").parts
    assert isinstance(part.error, TaskRevoked)
    made = failed(two, BOOM, None, three)
    (part,) = made.parts
    assert (part.index, part.task) == (1, "c")
    assert isinstance(part.error, WorkflowFailed)
    assert ended(made) == [("c", "FAILURE")]
    assert succeeded(two, 5).parts == []
    (last,) = succeeded(two, 5).launch.starts
    (part,) = succeeded(call_of(last), 6).parts
    assert (part.index, part.value) == (1, 6)


def test_members_that_are_added():
    """They carry the chord, have no place in the header, and count in the adder's part."""
    one = call_of(launch(frozen(Chord(Group((A,)), D))).starts[0])
    added: list[Document] = [dump(frozen(Step("late", options={"task_id": "l1"})))]
    made = succeeded(one, 5, added)
    assert made.parts[0].extra == 1
    (start,) = made.launch.starts
    assert (start.id, start.embed.chord) == ("l1", one.embed.chord)
    (part,) = succeeded(call_of(start), 6).parts
    assert (part.index, part.group_id, part.id) == (None, one.group, "l1")


def test_the_body_of_a_chord():
    """It gets the list, under its fixed id; or ends with all that follows it, errbacks once."""
    body = Chain((Step("d", ("x",), options={"link_error": [dump(B)]}), C))
    one = call_of(launch(frozen(Chord(Group((A, A)), body))).starts[0])
    (part,) = succeeded(one, 5).parts
    begins = body_ready(part, [5, 6])
    assert said(begins) == [("d", [5, 6], "x")]
    assert begins.starts[0].id == body_ready(part, [5, 6]).starts[0].id
    made = body_failed(part, ChordError("member 0"), three)
    assert ended(made) == [("d", "FAILURE"), ("c", "FAILURE")]
    assert [task for task, *_ in said(made)] == ["b"]
    assert made.launch.starts[0].step.args[0] == begins.starts[0].id


def test_an_inner_body_fails():
    """It is the outer chord's member, which so gets its part."""
    node = Chord(Group((Chord(Group((A,)), B), C)), D)
    inner = call_of(launch(frozen(node)).starts[0])
    (part,) = failed(inner, BOOM, None, three).parts
    made = body_failed(part, ChordError("member 0"), three)
    assert ended(made) == [("b", "FAILURE")]
    (outer,) = made.parts
    assert (outer.index, outer.size, outer.body["task"]) == (0, 2, "d")
    assert set(dependents(inner)) == {
        made.ended[0].step.options["task_id"],
        outer.body["options"]["task_id"],
    }


def test_a_replacement():
    """Its last step has the call's id, group and callbacks, and the rest of the chain follows."""
    node = Chain((Step("a", options={"link": [dump(D)], "link_error": [dump(C)]}), B))
    call = replace(first(node), replaced_task_nesting=2)
    made = replacement(call, Chain((C, D)), Frame(root="r", new_id=lambda: "new"))
    assert isinstance(made, Chain)
    assert [step.options["task_id"] for step in made.steps if isinstance(step, Step)] == [
        "new",
        call.id,
        "id3",
    ]
    assert [len(step.options.get("link_error") or ()) for step in made.steps] == [1, 1, 0]
    assert made.steps[1].options["link"] == call.embed.callbacks
    assert made.steps[1].options["replaced_task_nesting"] == 3


def test_a_replacement_by_a_group():
    """A list of its values is the call's value."""
    made = replacement(Call("a", "id"), Group((B, C)), Frame())
    assert isinstance(made, Chord)
    assert isinstance(made.body, Step)
    assert (made.body.task, made.body.options["task_id"]) == ("celery.accumulate", "id")


def test_what_is_no_signature():
    """It is refused, so that the call can be parked with it."""
    call = Call("a", "id", embed=Embed(chain=[{"task": "b", "args": 5}]))
    with pytest.raises(MalformedMessage):
        succeeded(call, 5)
    with pytest.raises(MalformedMessage):
        failed(call, BOOM, None, three)
    assert Call("a", "id").embed is NO_EMBED
