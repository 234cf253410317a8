"""The messages of a workflow, ready to be published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amqtask.errors import ConfigurationError
from amqtask.message.signature import Step
from amqtask.message.text import show
from amqtask.options import Options
from amqtask.policy.retry import RETRY_HEADER
from amqtask.send import Outgoing, Place, Sender
from amqtask.workflow.launch import Start

if TYPE_CHECKING:
    from amqtask.registry import Registry

#: Options that only a process has, and no message.
_HERE = frozenset({"call_timeout", "retry"})
_PLAIN = tuple(field.name for field in fields(Options) if field.name not in _HERE)
_NAMES = frozenset(_PLAIN)
#: Options of which a frozen step of ours has one, where its task does.
_WHERE = frozenset({"queue", "exchange", "routing_key"})
_TIMES = ("eta", "expires")


def plain(said: Options) -> dict[str, Any]:
    """Return what is said in options as data that travels."""
    found = {name: value for name in _PLAIN if (value := getattr(said, name)) is not None}
    for name in ("queue", "exchange"):
        if name in found and not isinstance(found[name], str):
            found[name] = found[name].name
    if not isinstance(found.get("expires", 0), int | float | datetime):
        found["expires"] = found["expires"].total_seconds()
    if said.retry is not None:
        found["headers"] = {**found.get("headers", {}), RETRY_HEADER: said.retry.to_header()}
    return found


def call_options(said: Mapping[str, Any]) -> Options:
    """Return the options of a step; what only other clients know is left out.

    Raises:
        ConfigurationError: A value is out of range.
    """
    known = {name: said[name] for name in _NAMES & said.keys() if said[name] is not None}
    for name in _TIMES:
        if isinstance(known.get(name), str):
            known[name] = _moment(name, known[name])
    return Options(**known)


def prepare(
    sender: Sender,
    tasks: Registry,
    start: Start,
    *,
    parent_id: str | None,
    reply_to: str | None,
) -> Outgoing:
    """Return a step as it is published.

    Args:
        parent_id: The call that it follows, or that sends it.
        reply_to: Where its outcome goes when it does not say so itself; None for this
            process's own address, whatever it says.

    Raises:
        EncodeError: An argument or header does not serialise.
        ConfigurationError: A bad option or route.
    """
    step = start.step
    place = Place(
        embed=start.embed,
        group=step.options.get("group_id"),
        group_index=step.options.get("group_index"),
        root_id=step.options.get("root_id"),
        parent_id=parent_id,
        reply_to=None if reply_to is None else step.options.get("reply_to") or reply_to,
        nesting=step.options.get("replaced_task_nesting") or 0,
        stamped_headers=step.options.get("stamped_headers"),
        stamps=_stamps(step),
    )
    task = tasks.get(step.task)
    said = step.options
    if task is not None and reply_to is not None and not _WHERE & said.keys():
        # of another client, which leaves it to whoever sends the step
        said = {**plain(task.defaults), **said}
    return sender.prepare(step.task, step.args, step.kwargs, call_options(said), task, place)


def _stamps(step: Step) -> dict[str, Any]:
    names = step.options.get("stamped_headers") or ()
    return {name: step.options[name] for name in names if name in step.options}


def _moment(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} of a signature is {show(text)}, not a time") from error
