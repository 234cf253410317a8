"""The one form of a workflow: whatever way it was written, it runs the same.

    chain in chain            one chain
    group in group            one group
    group | step              a chord; so each step but the last of a chain is one task
    chord | step              a chord whose body goes on
    member that ends as group a chord that makes a list of it: each member has one value
    options of the whole      options of its steps, where these do not say otherwise
    immutable of the whole    immutable first steps

In this form a `Chain` has at least two steps, all of them `Step` but perhaps the
last, and only steps have options, beside the id of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from amqtask.errors import ConfigurationError
from amqtask.message.signature import (
    ACCUMULATE,
    DEPTH,
    Chain,
    Chord,
    Group,
    Node,
    Step,
    merge_options,
)

#: Options that say when something starts: they are for what runs first.
_FIRST = frozenset({"countdown", "eta"})
#: Options that are for what runs last: whose id is the id of the whole, and what comes after it.
_LAST = frozenset({"task_id", "link", "chain", "chord", "group_id", "group_index"})

#: Gives its list on as it is; see the module's table.
COLLECT = Step(ACCUMULATE, kwargs={"index": 0})


def normal(node: Node) -> Node:
    """Return a signature in the one form; see the module's table.

    Raises:
        ConfigurationError: It has no meaning; the text says why.
    """
    shaped = _normal(node)
    if _depth(shaped) > DEPTH:
        raise ConfigurationError(
            f"a workflow nests deeper than {DEPTH} levels: each group that something follows is one",
            hint="split it: let a step start the rest by self.replace(...)",
        )
    return shaped


def then(first: Node, rest: Node) -> Node:
    """Return what runs ``rest`` with the value of ``first``; both in the one form."""
    match first:
        case Step():
            return Chain((first, *_steps(rest)))
        case Chain(steps=(*head, last)):
            return Chain((*head, *_steps(then(last, rest))))
        case Group():
            return Chord(first, rest)
        case Chord():
            return replace(first, body=then(first.body, rest))
    raise AssertionError(f"{first!r} is no signature")


def single(node: Node) -> Node:
    """Return a signature in the one form that ends as one call, not as a group."""
    match node:
        case Group():
            return Chord(node, COLLECT)
        case Chain(steps=(*head, last)):
            return node if isinstance(last, Step) else replace(node, steps=(*head, single(last)))
        case Chord():
            return replace(node, body=single(node.body))
    return node


def attach(node: Node, options: Mapping[str, Any]) -> Node:
    """Return a signature whose last call has these options."""
    match node:
        case Step():
            return replace(node, options=merge_options(node.options, options))
        case Chain(steps=(*head, last)):
            return replace(node, steps=(*head, attach(last, options)))
        case Chord():
            return replace(node, body=attach(node.body, options))
    raise AssertionError("a group has no last call")


def _normal(node: Node) -> Node:
    match node:
        case Step():
            return node
        case Chain():
            return _chain(node)
        case Group():
            return _group(node)
        case Chord():
            return _chord(node)


def _steps(node: Node) -> Sequence[Node]:
    return node.steps if isinstance(node, Chain) else (node,)


def _chain(node: Chain) -> Node:
    if not node.steps:
        raise ConfigurationError("a chain has no steps", hint="give it one or more signatures")
    steps = [_normal(step) for step in _spread_chain(node)]
    # an empty group takes nothing and gives nothing: what follows it gets what came before
    kept = [step for step in steps if not _empty(step)] or steps[:1]
    done = kept[-1]
    run: list[Node] = []  # plain steps, collected: joining them one by one would be quadratic
    for step in reversed(kept[:-1]):
        if isinstance(step, Step):
            run.append(step)
            continue
        done = then(step, _joined(run, done))
        run = []
    return _joined(run, done)


def _joined(run: Sequence[Node], rest: Node) -> Node:
    return Chain((*reversed(run), *_steps(rest))) if run else rest


def _empty(node: Node) -> bool:
    return isinstance(node, Group) and not node.members


def _group(node: Group) -> Group:
    own, given = _split(node.options, {"task_id"})
    link, given = _split(given, {"link"})
    members: list[Node] = []
    for member in node.members:
        shaped = _normal(_over(_stiff(member) if node.immutable else member, given))
        # the id of a group within a group is nobody's
        members += shaped.members if isinstance(shaped, Group) else (single(shaped),)
    if link and members:  # as Celery has it; here nobody can write it
        members[0] = attach(members[0], link)
    return Group(tuple(members), own)


def _chord(node: Chord) -> Chord:
    last, given = _split(node.options, _LAST | {"link_error"})
    first, each = _split(given, _FIRST)
    header: Node = _over(_over(node.header, each), first)
    body = _over(_over(node.body, each), last)
    shaped = _group(_as_group(_stiff(header) if node.immutable else header))
    end = _normal(body)
    if _empty(end):
        raise ConfigurationError(
            "the body of a chord is an empty group, so nothing would get the header's values",
            hint="leave the body out: a group alone",
        )
    return Chord(shaped, end)


def _as_group(node: Node) -> Group:
    return node if isinstance(node, Group) else Group((node,))


def _spread_chain(node: Chain) -> list[Node]:
    first, given = _split(node.options, _FIRST)
    last, each = _split(given, _LAST)
    steps = [_over(step, each) for step in node.steps] if each else list(node.steps)
    if node.immutable:
        steps[0] = _stiff(steps[0])
    steps[0] = _over(steps[0], first)
    steps[-1] = _over(steps[-1], last)
    return steps


def _over(node: Node, options: Mapping[str, Any]) -> Node:
    """Return a node that has these options where it does not say otherwise."""
    return replace(node, options=merge_options(options, node.options)) if options else node


def _stiff(node: Node) -> Node:
    return replace(node, immutable=True)


def _split(
    options: Mapping[str, Any], names: frozenset[str] | set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of these names, and the others."""
    taken = {name: value for name, value in options.items() if name in names}
    return taken, {name: value for name, value in options.items() if name not in names}


def _depth(node: Node) -> int:
    """Return how many levels a signature has, without running out of stack."""
    deepest, waiting = 0, [(node, 1)]
    while waiting:
        here, level = waiting.pop()
        deepest = max(deepest, level)
        match here:
            case Chain():
                waiting += [(step, level + 1) for step in here.steps]
            case Group():
                waiting += [(member, level + 1) for member in here.members]
            case Chord():
                waiting += [(here.header, level + 1), (here.body, level + 1)]
    return deepest


def shown(node: Node) -> str:
    """Return a signature as text, on one line."""
    match node:
        case Step():
            parts = [*map(repr, node.args), *(f"{k}={v!r}" for k, v in node.kwargs.items())]
            return f"{node.task}({', '.join(parts)})"
        case Chain():
            return " | ".join(map(shown, node.steps))
        case Group():
            return f"group({', '.join(map(shown, node.members))})"
        case Chord():
            return f"chord([{', '.join(map(shown, node.header.members))}], {shown(node.body)})"
