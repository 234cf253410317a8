"""Results by name: what steps of a `Workflow` hand on, beside the value that a chain hands on.

A named step says in a header what it is called, which results it takes under which
keyword, and which are still needed after it. What it gets in place of a value, from
one step or as a list from several, is a dict of results by name; what it hands on
is such a dict again, with its own.

    fetch  --{"fetch": ...}-->  clean(fetch=...)  --{"fetch": ..., "clean": ...}-->  load(...)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from amqtask.errors import MalformedMessage
from amqtask.message.model import Call
from amqtask.message.signature import ACCUMULATE, Chain, Node, Step, merge
from amqtask.message.text import show
from amqtask.workflow.shape import normal, single

#: A named step's own words: ``name``, ``takes`` (keyword to name), ``keep`` (names).
STEP_HEADER = "x-amqtask-step"
#: The key of a dict of results by name.
VALUES = "x-amqtask-values"


def named(step: Step, name: str, takes: Mapping[str, str], keep: Sequence[str]) -> Step:
    """Return a step that takes results by name and hands results on by name."""
    said = {"name": name, "takes": dict(takes), "keep": list(keep)}
    marked = merge(step, (), {}, {"headers": {STEP_HEADER: said}})
    assert isinstance(marked, Step)
    return replace(marked, immutable=False)  # what comes before travels through it


def takes_of(step: Step) -> list[str] | None:
    """Return the keywords that a step gets by name; None for a step without one."""
    headers = step.options.get("headers")
    said = headers.get(STEP_HEADER) if isinstance(headers, Mapping) else None
    return list(said["takes"]) if isinstance(said, Mapping) else None


def given(call: Call) -> Call:
    """Return a named step's call with its results as keywords, as its task sees it.

    Raises:
        MalformedMessage: A result that it takes did not come.
    """
    said = _said(call)
    if said is None:
        return call
    values: dict[str, Any] = {}
    args = call.args
    if args and _carries(args[0]):
        before, args = args[0], args[1:]
    elif args and _carries(args[-1]):  # see `instead`
        before, args = args[-1], args[:-1]
    else:
        before = []
    for found in _found(before):
        values.update(found)
    kwargs = dict(call.kwargs)
    for keyword, name in said["takes"].items():
        if name not in values:
            raise MalformedMessage(
                f"step {said['name']!r} of a workflow (id {call.id}) did not get the result of "
                f"{show(name)}"
            )
        kwargs[keyword] = values[name]
    headers = {**(call.headers or {}), VALUES: values}
    return replace(call, args=args, kwargs=kwargs, headers=headers)


def handed_on(call: Call, value: Any) -> Any:
    """Return what a call hands on: its value, or results by name."""
    said = _said(call)
    if said is None:
        return value
    values = {**(call.headers or {}).get(VALUES, {}), said["name"]: value}
    return {VALUES: {name: values[name] for name in said["keep"] if name in values}}


def instead(call: Call, node: Node) -> Node:
    """Return what runs in place of a call, which hands on what a named step would have.

    Its last step returns the value, and has the results by name behind that.
    """
    said = _said(call)
    if said is None:
        return node
    own = {"name": said["name"], "takes": {}, "keep": said["keep"]}
    values = (call.headers or {}).get(VALUES, {})
    kept = {name: values[name] for name in said["keep"] if name in values}
    last = Step(
        ACCUMULATE, ({VALUES: kept},), {"index": 0}, options={"headers": {STEP_HEADER: own}}
    )
    return Chain((single(normal(node)), last))


def _said(call: Call) -> Mapping[str, Any] | None:
    if not call.headers:
        return None
    said = call.headers.get(STEP_HEADER)
    if said is None:
        return None
    if not isinstance(said, Mapping) or not isinstance(said.get("takes"), Mapping):
        raise MalformedMessage(f"header {STEP_HEADER} is {show(said)}, no words of a named step")
    return said


def _carries(value: Any) -> bool:
    if isinstance(value, list | tuple):  # members that were added to a chord have no names
        return any(map(_carries, value))
    return isinstance(value, dict) and value.keys() == {VALUES}


def _found(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value[VALUES]
    else:
        for each in filter(_carries, value):
            yield from _found(each)
