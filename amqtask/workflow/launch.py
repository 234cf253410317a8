"""From a signature and its arguments to the first messages: pure, ids included.

Step    itself
Chain   its first step, with the rest travelling in the message
Group   every member
Chord   every member of the header, with the body travelling in each; its body at
        once, with an empty list, when there is none
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amqtask.errors import MalformedMessage
from amqtask.message.model import Embed
from amqtask.message.signature import (
    Chain,
    Chord,
    Document,
    Group,
    Node,
    Step,
    as_list,
    dump,
    merge,
)
from amqtask.message.text import show
from amqtask.records import record
from amqtask.workflow.ports import Opening
from amqtask.workflow.shape import attach


@record(frozen=True, slots=True)
class Start:
    """One message to be published.

    Attributes:
        step: Task, arguments and options; ``task_id`` is among these.
        embed: What follows it.
    """

    step: Step
    embed: Embed

    @property
    def id(self) -> str:
        """Id of the call."""
        return str(self.step.options["task_id"])


@dataclass(slots=True)
class Launch:
    """What a workflow begins with: the chords are opened first, then the messages go out."""

    starts: list[Start] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.starts or self.openings)

    def add(self, node: Node) -> None:
        """Add what ``node`` begins with: in the one form, its ids fixed, its arguments merged."""
        match node:
            case Step():
                self.starts.append(start(node, ()))
            case Chain(steps=(Step() as first, *rest)):
                # Celery's workers pop the next one off the end
                self.starts.append(start(first, [dump(step) for step in reversed(rest)]))
            case Group():
                self._members(node, None)
            case Chord(header=Group(members=())):
                self.add(merge(node.body, ([],), {}, {}))
            case Chord():
                body = dump(node.body, chord_size=len(node.header.members))
                self.openings.append(
                    Opening(str(node.header.options["task_id"]), len(node.header.members), body)
                )
                self._members(node.header, body)
            case _:
                raise AssertionError(f"{node!r} is not in the one form")

    def _members(self, group: Group, body: Document | None) -> None:
        for index, member in enumerate(group.members):
            place: dict[str, Any] = {"group_id": group.options["task_id"], "group_index": index}
            if body is not None:
                place["chord"] = body
            self.add(attach(member, place))


def launch(node: Node) -> Launch:
    """Return what a workflow begins with; see `Launch.add`."""
    made = Launch()
    made.add(node)
    return made


def start(step: Step, chain: Sequence[Document]) -> Start:
    """Return the message of a step.

    Args:
        chain: What follows it, the next one last.

    Raises:
        MalformedMessage: Its callbacks are none.
    """
    options = step.options
    # Celery hands the rest of a chain to the body of a chord as one of its options
    chain = [*chain, *(_signatures("chain", options.get("chain")) or ())]
    return Start(
        step,
        Embed(
            callbacks=_signatures("link", options.get("link")),
            errbacks=_signatures("link_error", options.get("link_error")),
            chain=chain or None,
            chord=_chord(options.get("chord")),
        ),
    )


def _signatures(name: str, value: Any) -> list[Document] | None:
    documents = as_list(value)
    for each in documents:
        if not isinstance(each, dict):
            raise MalformedMessage(f"{name} of a signature has {show(each)}, not a signature")
    return documents or None


def _chord(value: Any) -> Document | None:
    if value is None or isinstance(value, dict):
        return value
    raise MalformedMessage(f"chord of a signature is {show(value)}, not a signature")
