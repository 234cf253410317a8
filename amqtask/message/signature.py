"""Calls that are still to be made, as data: one step, a chain, a group, a chord.

    Step    one task, with the arguments and options that are known so far
    Chain   steps of which each gets the value of the one before
    Group   members that run side by side
    Chord   a group, its header, and a body that gets the list of its values

They travel in Celery's JSON form, so a step may be sent on by a Celery worker.

Source:
    celery 5.7 ``celery/canvas.py``; chunks arrive as the group of starmaps that they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from amqtask.errors import MalformedMessage
from amqtask.message.text import show
from amqtask.records import record

#: A signature in Celery's JSON form.
Document: TypeAlias = dict[str, Any]

#: Levels that a signature may nest.
DEPTH = 100

CHAIN, GROUP, CHORD = "celery.chain", "celery.group", "celery.chord"
MAP, STARMAP, CHUNKS = "celery.map", "celery.starmap", "celery.chunks"
#: Returns one of its arguments; the body of a chord whose value is the list itself.
ACCUMULATE = "celery.accumulate"

_KINDS = {MAP: "xmap", STARMAP: "xstarmap"}
_LISTS = ("link", "link_error")
_ROUTE = ("queue", "exchange", "routing_key")


@record(frozen=True, slots=True)
class Step:
    """One call of one task.

    Attributes:
        immutable: It takes no arguments from whatever comes before.
        options: As the call takes them, and in addition ``link`` and ``link_error``
            (lists of signatures in JSON form), and ``task_id``, ``group_id``,
            ``group_index``, ``chord``, ``root_id`` and ``reply_to`` once ids are fixed.
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    immutable: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps, one after the other; ``options`` hold for all of them."""

    steps: tuple[Node, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    immutable: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Members side by side; ``task_id`` among the options is the group's id."""

    members: tuple[Node, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    immutable: bool = False


@dataclass(frozen=True, slots=True)
class Chord:
    """A group, and what gets the list of its values."""

    header: Group
    body: Node
    options: Mapping[str, Any] = field(default_factory=dict)
    immutable: bool = False


Node: TypeAlias = "Step | Chain | Group | Chord"


# -- from and to JSON -----------------------------------------------------------------


def parse(document: object, depth: int = DEPTH) -> Node:
    """Return the signature that a document in Celery's form says.

    Raises:
        MalformedMessage: It is none, or nests too deeply.
    """
    if depth <= 0:
        raise MalformedMessage(f"a signature nests deeper than {DEPTH} levels")
    if not isinstance(document, Mapping) or not isinstance(document.get("task"), str):
        raise _wrong(document, "a dict with a 'task'")
    args, kwargs, options = (document.get(name) for name in ("args", "kwargs", "options"))
    args = () if args is None else args
    kwargs = {} if kwargs is None else kwargs
    options = {} if options is None else options
    if not isinstance(args, list | tuple):
        raise _wrong(args, "a list of arguments")
    if not isinstance(kwargs, dict) or not isinstance(options, dict):
        raise _wrong(document, "a dict whose kwargs and options are dicts")
    immutable = bool(document.get("immutable"))
    node = _composite(document["task"], kwargs, options, immutable, depth)
    if node is None:
        return Step(document["task"], tuple(args), kwargs, options, immutable)
    return merge(node, tuple(args), {}, {}) if args else node


def _composite(
    task: str, kwargs: Document, options: Document, immutable: bool, depth: int
) -> Node | None:
    if task == CHAIN and "tasks" in kwargs:
        return Chain(_nodes(kwargs["tasks"], depth), options, immutable)
    if task == GROUP and "tasks" in kwargs:
        return Group(_nodes(kwargs["tasks"], depth), options, immutable)
    if task == CHORD and "header" in kwargs:
        body = parse(kwargs.get("body"), depth - 1)
        return Chord(_header(kwargs["header"], depth), body, options, immutable)
    if task == CHUNKS and "it" in kwargs:
        return _chunks(kwargs, options, depth)
    return None


def _nodes(value: object, depth: int) -> tuple[Node, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list of signatures")
    return tuple(parse(each, depth - 1) for each in value)


def _header(value: object, depth: int) -> Group:
    if isinstance(value, list | tuple):
        return Group(_nodes(value, depth))
    node = parse(value, depth - 1)
    return node if isinstance(node, Group) else Group((node,))


def _chunks(kwargs: Document, options: Document, depth: int) -> Group:
    step, size, items = parse(kwargs.get("task"), depth - 1), kwargs.get("n"), kwargs["it"]
    if not isinstance(step, Step) or not isinstance(items, list | tuple):
        raise _wrong(kwargs, "chunks: a task and a list")
    if not isinstance(size, int) or size < 1:
        raise MalformedMessage(f"n of chunks is {show(size)}, not a number from 1 up")
    return replace(chunks(step, items, size), options=options)


def _wrong(value: object, wanted: str) -> MalformedMessage:
    return MalformedMessage(f"a signature has {show(value)}, not {wanted}")


def dump(node: Node, *, chord_size: int | None = None) -> Document:
    """Return a signature as a document in Celery's form.

    Args:
        chord_size: Members that a body waits for; put beside it as Celery once did.
    """
    document: Document = {}
    match node:
        case Step():
            document = _document(node.task, node, _KINDS.get(node.task), dict(node.kwargs))
            document["args"] = list(node.args)
        case Chain():
            document = _document(CHAIN, node, "chain", {"tasks": [dump(s) for s in node.steps]})
        case Group():
            tasks = [dump(member) for member in node.members]
            document = _document(GROUP, node, "group", {"tasks": tasks})
        case Chord(header=header, body=body):
            parts = {"header": dump(header), "body": dump(body), "kwargs": {}}
            document = _document(CHORD, node, "chord", parts)
    if chord_size is not None:
        document["chord_size"] = chord_size
    return document


def _document(task: str, node: Node, kind: str | None, kwargs: Document) -> Document:
    document = {
        "task": task,
        "args": [],
        "kwargs": kwargs,
        "options": dict(node.options),
        "immutable": node.immutable,
    }
    if kind is not None:  # what is not there is null to Celery; a long chain is shorter for it
        document["subtask_type"] = kind
    return document


def chord_size(document: Mapping[str, Any]) -> int | None:
    """Return how many members a body waits for, where its document says so."""
    size = document.get("chord_size")
    return size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None


# -- partial application --------------------------------------------------------------


def merge(
    node: Node, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Node:
    """Return a signature with more arguments, before its own, and with options in place of its own.

    Keyword arguments and options given here win. A chain hands arguments to its first
    step, a group and a chord to each member. What is immutable takes options only.
    """
    if options:
        node = replace(node, options=merge_options(node.options, options))
    if node.immutable or not (args or kwargs):
        return node
    match node:
        case Step():
            return replace(node, args=(*args, *node.args), kwargs={**node.kwargs, **kwargs})
        case Chain(steps=(first, *rest)):
            return replace(node, steps=(merge(first, args, kwargs, {}), *rest))
        case Chord():
            header = merge(node.header, args, kwargs, {})
            assert isinstance(header, Group)
            return replace(node, header=header)
        case Group():
            return replace(
                node, members=tuple(merge(member, args, kwargs, {}) for member in node.members)
            )
    return node


def merge_options(base: Mapping[str, Any], said: Mapping[str, Any]) -> Document:
    """Return options with what is said in place of the base's; lists and headers are joined.

    A route given anew replaces the whole route, and a countdown an eta.
    """
    merged = dict(base)
    get = said.get
    if not (get("queue") is get("exchange") is get("routing_key") is None):
        for part in _ROUTE:
            merged.pop(part, None)
    if said.get("countdown") is not None:
        merged.pop("eta", None)
    if said.get("eta") is not None:
        merged.pop("countdown", None)
    for name, value in said.items():
        if name in _LISTS:
            merged[name] = [*as_list(merged.get(name)), *as_list(value)]
        elif name == "headers" and merged.get(name) and value:
            merged[name] = {**merged[name], **value}
        else:
            merged[name] = value
    return merged


def as_list(value: Any) -> list[Any]:
    """Return what may be a list, one thing or None as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


# -- many arguments -------------------------------------------------------------------


def mapped(step: Step, items: Sequence[Any], *, star: bool) -> Step:
    """Return the step that calls a task once for each item, in one run.

    Args:
        star: True unpacks each item into the arguments.
    """
    task = STARMAP if star else MAP
    return Step(task, kwargs={"task": dump(step), "it": list(items)}, immutable=True)


def chunks(step: Step, items: Sequence[Any], size: int) -> Group:
    """Return the group that calls a task for all items, ``size`` of them in one run."""
    return Group(tuple(mapped(step, part, star=True) for part in _batches(items, size)))


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
