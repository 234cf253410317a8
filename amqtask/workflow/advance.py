"""What follows the end of a call: pure decisions, no I/O.

value      callbacks and the next step of the chain get it; a chord member's part has it
error      errbacks get (id, exception, traceback); all that was to follow ends as
           failed, and so does the part of whatever chord the last of it is in
cancelled  all that was to follow ends as revoked; no errback
replaced   what runs in its place begins
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from amqtask.errors import ChordError, TaskRevoked, WorkflowFailed
from amqtask.message.model import NO_EMBED, Call, Embed
from amqtask.message.republish import exception_text
from amqtask.message.results import decode_exception, encode_exception
from amqtask.message.signature import (
    Chain,
    Chord,
    Document,
    Group,
    Node,
    Step,
    as_list,
    chord_size,
    merge,
    parse,
)
from amqtask.message.text import cut
from amqtask.workflow.freeze import Frame, derived_id, freeze, leaves
from amqtask.workflow.launch import Launch, start
from amqtask.workflow.named import given, handed_on, instead
from amqtask.workflow.ports import Part
from amqtask.workflow.shape import attach, normal, single, then

#: Says that a call is an errback, so that the exception it gets is made one again.
ERRBACK_HEADER = "x-amqtask-errback"

#: Tells how many arguments an errback takes, by its task's name: 1 or 3.
Takes = Callable[[str], int]

_TEXT = 500


@dataclass(slots=True)
class Advance:
    """What follows the end of a call.

    Attributes:
        launch: What begins now.
        ended: Calls that never run now, and how each of them ended.
        parts: What became of members of chords.
    """

    launch: Launch = field(default_factory=Launch)
    ended: list[Ended] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.launch or self.ended or self.parts)


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that never runs.

    Attributes:
        step: The call, with its id.
        error: What to store for it.
        state: ``FAILURE`` or ``REVOKED``.
    """

    step: Step
    error: WorkflowFailed | TaskRevoked
    state: str = "FAILURE"


def succeeded(call: Call, value: Any, added: Sequence[Document] = ()) -> Advance:
    """Return what follows a value.

    Args:
        added: Members that the call adds to the chord it is in.

    Raises:
        MalformedMessage: What was to follow is no signature.
        ConfigurationError: It has no meaning.
    """
    result, embed = Advance(), call.embed
    for position, callback in enumerate(embed.callbacks or ()):
        node = _ready(parse(callback), call, "link", position)
        result.launch.add(merge(node, (value,), {}, {}))
    value = handed_on(call, value)
    if embed.chain:
        head = parse(embed.chain[-1])
        if isinstance(head, Step):  # by far the most: the rest travels on unread
            step = merge(_ready(head, call, "chain", len(embed.chain)), (value,), {}, {})
            assert isinstance(step, Step)
            result.launch.starts.append(start(step, embed.chain[:-1]))
        else:
            result.launch.add(merge(_next(embed.chain, call), (value,), {}, {}))
    if embed.chord is not None and call.group is not None:
        for each in added:
            place = {"group_id": call.group, "group_index": None, "chord": embed.chord}
            result.launch.add(attach(parse(each), place))
        result.parts.append(_part(call, value, None, len(added)))
    return result


def failed(
    call: Call,
    error: BaseException,
    traceback: str | None,
    takes: Takes,
    *,
    what: str = "failed",
) -> Advance:
    """Return what follows a failure.

    Args:
        traceback: Its text.
        takes: See `Takes`.
        what: Verb for the texts.
    """
    result = Advance()
    _errbacks(result.launch, call, call.embed.errbacks, error, traceback, takes)
    reason = f"{_named(call.task, call.id)} {what}: {_text(error)}"
    _end(result, call, _following(call), WorkflowFailed(reason, call.id, call.task), "FAILURE")
    if call.embed.chord is not None and call.group is not None:
        result.parts.append(_part(call, None, error, 0))
    return result


def stopped(call: Call, why: str) -> Advance:
    """Return what follows a call that was cancelled, or ended without an outcome.

    Args:
        why: As in "was cancelled".
    """
    result = Advance()
    text = f"{_named(call.task, call.id)}, which it was to follow, {why}"
    _end(result, call, _following(call), TaskRevoked(text), "REVOKED")
    if call.embed.chord is not None and call.group is not None:
        result.parts.append(_part(call, None, TaskRevoked(f"it {why}"), 0))
    return result


def body_failed(part: Part, error: ChordError, takes: Takes) -> Advance:
    """Return what follows when a chord cannot complete: its body ends, its errbacks fire."""
    result, body = Advance(), normal(parse(part.body))
    for step in _firsts(body):
        call = _call_of(step, part.call)
        errbacks = as_list(step.options.get("link_error"))
        _errbacks(result.launch, call, errbacks, error, None, takes)
    _end(result, part.call, [body], error, "FAILURE")
    return result


def body_ready(part: Part, values: Sequence[Any]) -> Launch:
    """Return what the body of a complete chord begins with."""
    launch = Launch()
    node = _ready(parse(part.body), part.call, "body", part.group_id)
    launch.add(merge(node, (list(values),), {}, {}))
    return launch


def replacement(call: Call, node: Node, frame: Frame) -> Node:
    """Return what runs in place of a call: with its id, and with all that was to follow it."""
    embed = call.embed
    options: dict[str, Any] = {
        "task_id": call.id,
        "group_id": call.group,
        "group_index": call.group_index,
        "chord": embed.chord,
        "replaced_task_nesting": call.replaced_task_nesting + 1,
    }
    if embed.callbacks:
        options["link"] = embed.callbacks
    whole = instead(call, _with_errbacks(node, embed.errbacks))
    shaped = attach(single(normal(whole)), options)
    shaped = freeze(shaped, frame)
    return then(shaped, _next(embed.chain, call)) if embed.chain else shaped


def heard(call: Call) -> Call:
    """Return a call as its task sees it.

    An errback gets the exception itself, a named step the results that it takes.

    Raises:
        MalformedMessage: A result that it takes did not come.
    """
    if not call.headers:
        return call
    if not call.headers.get(ERRBACK_HEADER) or len(call.args) < 3:
        return given(call)
    id_, error, traceback, *rest = call.args
    if not isinstance(error, dict) or "exc_type" not in error:
        return call  # a later step of an errback that is a chain
    text = traceback if isinstance(traceback, str) else None
    return replace(call, args=(id_, decode_exception(error, text), traceback, *rest))


def follows(call: Call) -> bool:
    """Tell whether anything follows a call."""
    embed = call.embed
    return embed is not NO_EMBED and bool(
        embed.callbacks or embed.errbacks or embed.chain or embed.chord
    )


def dependents(call: Call) -> list[str]:
    """Return the ids of all that fails when a call does, the bodies of its chords included."""
    found: list[str] = []
    waiting = _following(call)
    chords = [call.embed.chord]
    while waiting or chords:
        if not waiting:
            document = chords.pop()
            waiting = [] if document is None else [normal(parse(document))]
            continue
        for step in leaves(waiting.pop()):
            found.append(str(step.options.get("task_id")))
            chords.append(step.options.get("chord"))
    return found


# -- parts ----------------------------------------------------------------------------


def _with_errbacks(node: Node, errbacks: list[Document] | None) -> Node:
    return merge(node, (), {}, {"link_error": errbacks}) if errbacks else node


def _next(chain: Sequence[Document], call: Call) -> Node:
    """Return the rest of a chain, which travels back to front, in the one form."""
    return _ready(Chain(tuple(parse(each) for each in reversed(chain))), call, "chain", len(chain))


def _ready(node: Node, call: Call, *what: object) -> Node:
    """Return a signature in the one form and with ids; those it lacks follow from the call's."""
    made = count()
    frame = Frame(
        root=call.root_id or call.id, new_id=lambda: derived_id(call.id, *what, next(made))
    )
    return freeze(normal(node), frame)


def _part(call: Call, value: Any, error: BaseException | None, extra: int) -> Part:
    body, group = call.embed.chord, call.group
    assert body is not None
    assert group is not None
    size = chord_size(body)
    return Part(group, call.group_index, size, body, call.id, call.task, value, error, extra, call)


def _following(call: Call) -> list[Node]:
    embed = call.embed
    nodes = [_ready(parse(each), call, "link", n) for n, each in enumerate(embed.callbacks or ())]
    return [*nodes, _next(embed.chain, call)] if embed.chain else nodes


def _end(
    result: Advance,
    call: Call,
    nodes: Iterable[Node],
    error: WorkflowFailed | TaskRevoked,
    state: str,
) -> None:
    """End every step of these, and the part of each chord that one of them is in."""
    for node in nodes:
        for step in leaves(node):
            if not step.options.get("task_id"):
                continue  # Celery gives some their id when they are sent: nobody waits for those
            result.ended.append(Ended(step, error, state))
            chord, group = step.options.get("chord"), step.options.get("group_id")
            if isinstance(chord, dict) and isinstance(group, str):
                result.parts.append(_part(_call_of(step, call), None, error, 0))


def _call_of(step: Step, before: Call) -> Call:
    """Return a step that never runs as the call that it would have been."""
    options = step.options
    return Call(
        task=step.task,
        id=str(options.get("task_id")),
        embed=Embed(chord=options.get("chord")),
        root_id=options.get("root_id") or before.root_id or before.id,
        parent_id=before.id,
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        ignore_result=options.get("ignore_result"),
        reply_to=options.get("reply_to") or before.reply_to,
        correlation_id=str(options.get("task_id")),
    )


def _firsts(node: Node) -> list[Step]:
    """Return what a signature begins with, whose errbacks stand for the whole."""
    match node:
        case Step():
            return [node]
        case Chain():
            return _firsts(node.steps[0])
        case Group():
            return [step for member in node.members for step in _firsts(member)]
        case Chord():
            return _firsts(node.body)
    raise AssertionError(f"{node!r} is no signature")


def _errbacks(
    launch: Launch,
    call: Call,
    errbacks: Iterable[Document] | None,
    error: BaseException,
    traceback: str | None,
    takes: Takes,
) -> None:
    for position, document in enumerate(errbacks or ()):
        node = parse(document)
        (first, *_) = _firsts(node)
        args = (call.id, encode_exception(error), traceback)[: takes(first.task)]
        if len(args) > 1:
            node = merge(node, (), {}, {"headers": {ERRBACK_HEADER: True}})
        launch.add(merge(_ready(node, call, "link_error", position), args, {}, {}))


def _named(task: str, id_: str) -> str:
    return f"task {task!r} (id {id_})"


def _text(error: BaseException) -> str:
    return cut(exception_text(error), _TEXT)
