"""Ids for all of a workflow before anything is sent.

So the handles of all steps are there at once, and a worker that sends what
follows a call a second time, after a crash, sends the same ids.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from amqtask import process
from amqtask.message.signature import (
    MAP,
    STARMAP,
    Chain,
    Chord,
    Document,
    Group,
    Node,
    Step,
    as_list,
    dump,
    parse,
)
from amqtask.workflow.shape import normal

#: Options that say where a call goes.
_WHERE = frozenset({"queue", "exchange", "routing_key", "priority"})
#: Namespace of ids that follow from another id.
_DERIVED = uuid.UUID("6d1c8e5a-3b0a-4c7e-9f53-0f5f6a1d7b42")


@dataclass(frozen=True, slots=True)
class Frame:
    """What the steps of one workflow have in common.

    Attributes:
        root: Id of the root of the tree; None makes it that of what runs first.
        defaults: Returns the options of a task, by name, that its calls have of themselves.
        reply_to: Returns where the outcome of a step goes; ``""`` for nowhere.
        new_id: Makes ids.
    """

    root: str | None = None
    defaults: Callable[[str], Mapping[str, Any]] = lambda _: {}
    reply_to: Callable[[Step], str] = lambda _: ""
    new_id: Callable[[], str] = process.new_id


def freeze(node: Node, frame: Frame) -> Node:
    """Return a signature, in the one form, with all its ids; those it has stay.

    Raises:
        ConfigurationError: See `normal`; it looks at callbacks too.
    """
    if frame.root is not None:
        return _frozen(node, frame, None)
    first = first_id(node) or frame.new_id()
    return _frozen(node, replace(frame, root=first), first)


def derived_id(id: str, *what: object) -> str:
    """Return the id of something that follows from a call; the same each time."""
    return str(uuid.uuid5(_DERIVED, "/".join((id, *map(str, what)))))


def first_id(node: Node) -> str | None:
    """Return the id of what runs first: a call's, or a group's."""
    match node:
        case Chain():
            return first_id(node.steps[0])
        case Chord():
            return first_id(node.header)
    return node.options.get("task_id")


def last_id(node: Node) -> str:
    """Return the id of what runs last: a call's, or a group's."""
    match node:
        case Chain():
            return last_id(node.steps[-1])
        case Chord():
            return last_id(node.body)
    return str(node.options["task_id"])


def leaves(node: Node) -> Iterator[Step]:
    """Yield every step of a signature in the one form; what follows it by its options too."""
    match node:
        case Step():
            yield node
            for after in (*as_list(node.options.get("link")), *as_list(node.options.get("chain"))):
                yield from leaves(normal(parse(after)))
        case Chain():
            for step in node.steps:
                yield from leaves(step)
        case Group():
            for member in node.members:
                yield from leaves(member)
        case Chord():
            yield from leaves(node.header)
            yield from leaves(node.body)


def _frozen(node: Node, frame: Frame, first: str | None) -> Node:
    """Return a node with ids; what runs first gets ``first``, if it has none."""
    match node:
        case Step():
            return _step(node, frame, first)
        case Chain(steps=(head, *rest)):
            steps = [_frozen(head, frame, first), *(_frozen(step, frame, None) for step in rest)]
            return replace(node, steps=tuple(steps))
        case Group():
            id_ = node.options.get("task_id") or first or frame.new_id()
            members = tuple(_frozen(member, frame, None) for member in node.members)
            return replace(node, members=members, options={"task_id": id_})
        case Chord():
            header, body = _frozen(node.header, frame, first), _frozen(node.body, frame, None)
            assert isinstance(header, Group)
            return replace(node, header=header, body=body)
    raise AssertionError(f"{node!r} is no signature")


def _step(step: Step, frame: Frame, first: str | None) -> Step:
    options = {**_own(step, frame), **step.options}
    if not options.get("task_id"):
        options["task_id"] = first or frame.new_id()
    options.setdefault("root_id", frame.root)
    if "reply_to" not in options and (reply_to := frame.reply_to(step)):
        options["reply_to"] = reply_to
    if options.get("link"):
        options["link"] = [_callback(each, frame) for each in as_list(options["link"])]
    if options.get("link_error"):
        options["link_error"] = [_errback(each, frame) for each in as_list(options["link_error"])]
    return Step(step.task, step.args, step.kwargs, options, step.immutable)


def _own(step: Step, frame: Frame) -> Mapping[str, Any]:
    """Return the options a step has of itself; a run over items goes where its task's calls go."""
    if step.task not in (MAP, STARMAP):
        return frame.defaults(step.task)
    inner = parse(step.kwargs["task"])
    assert isinstance(inner, Step)
    options = {**frame.defaults(inner.task), **inner.options}
    return {name: options[name] for name in _WHERE & options.keys()}


def _errback(document: Document, frame: Frame) -> Document:
    """Return an errback with its tasks' options; its ids follow from the call that failed."""
    return dump(_at_home(normal(parse(document)), frame))


def _at_home(node: Node, frame: Frame) -> Node:
    match node:
        case Step():
            return replace(node, options={**_own(node, frame), **node.options})
        case Chain():
            return replace(node, steps=tuple(_at_home(step, frame) for step in node.steps))
        case Group():
            return replace(node, members=tuple(_at_home(each, frame) for each in node.members))
        case Chord():
            header, body = _at_home(node.header, frame), _at_home(node.body, frame)
            assert isinstance(header, Group)
            return replace(node, header=header, body=body)
    raise AssertionError(f"{node!r} is no signature")


def _callback(document: Document, frame: Frame) -> Document:
    return dump(_frozen(normal(parse(document)), frame, None))
