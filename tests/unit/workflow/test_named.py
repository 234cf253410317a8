"""Results by name: what travels beside a chain's value, and how large that makes messages."""

from __future__ import annotations

import json

import pytest

from amqtask import App, MalformedMessage, Workflow
from amqtask.message.model import Call
from amqtask.message.signature import Step, dump
from amqtask.workflow.freeze import Frame, freeze
from amqtask.workflow.launch import launch
from amqtask.workflow.named import STEP_HEADER, VALUES, given, handed_on, named, takes_of
from amqtask.workflow.shape import normal


def call(*args: object, takes: dict[str, str], keep: list[str], **kwargs: object) -> Call:
    """Return the call of a named step."""
    step = named(Step("t.task", args, kwargs), "mine", takes, keep)
    return Call("t.task", "id", step.args, step.kwargs, headers=step.options["headers"])


def test_results_become_keywords():
    """Those that it takes come under their keywords, from one step or from several."""
    before = [{VALUES: {"a": 1}}, [{VALUES: {"b": 2}}, {VALUES: {"c": 3}}]]
    seen = given(call(before, "own", takes={"x": "a", "c": "c"}, keep=["b", "mine"], k=0))
    assert (seen.args, seen.kwargs) == (("own",), {"k": 0, "x": 1, "c": 3})
    assert handed_on(seen, "value") == {VALUES: {"b": 2, "mine": "value"}}


def test_the_first_step_has_none():
    """It gets what it was given, and hands its own on."""
    seen = given(call("own", takes={}, keep=["mine"]))
    assert seen.args == ("own",)
    assert handed_on(seen, [1]) == {VALUES: {"mine": [1]}}


def test_other_calls_are_left_alone():
    """A call without a name hands its value on as it is."""
    other = Call("t.task", "id", ({VALUES: {"a": 1}},), {})
    assert given(other) is other
    assert handed_on(other, 5) == 5
    assert takes_of(Step("t.task")) is None


def test_a_result_that_did_not_come():
    """The step does not run without it."""
    with pytest.raises(MalformedMessage, match=r"step 'mine' .* did not get the result of 'a'"):
        given(call({VALUES: {}}, takes={"x": "a"}, keep=[]))
    broken = Call("t.task", "id", (), {}, headers={STEP_HEADER: "?"})
    with pytest.raises(MalformedMessage, match="no words of a named step"):
        given(broken)


def ladder(count: int) -> Workflow:
    """Return a workflow of diamonds, one after the other."""
    app = App("sizes", environ={})

    @app.task(name="t.word")
    def word(**parts: str) -> str:
        return ""

    wf = app.workflow("ladder")
    wf.step("top0", word.s())
    for number in range(count):
        for side in ("left", "right"):
            wf.step(f"{side}{number}", word.s(), after=f"top{number}")
        wf.step(f"top{number + 1}", word.s(), after=(f"left{number}", f"right{number}"))
    return wf


def size(wf: Workflow) -> int:
    """Return the bytes of what a workflow begins with."""
    node = freeze(normal(wf._node("run", {name: f"id-{name}" for name in wf.steps})), Frame())
    begins = launch(node)
    return sum(
        len(json.dumps([dump(start.step), start.embed.chain, start.embed.chord]))
        for start in begins.starts
    )


def test_messages_grow_with_the_steps_and_no_faster():
    """What is still to come travels once in a message, however the steps branch."""
    assert size(ladder(20)) < 2.2 * size(ladder(10))
    assert size(ladder(20)) < 20 * 3 * 500
