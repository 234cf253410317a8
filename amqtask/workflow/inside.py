"""What a running task can do to the workflow that it is a step of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqtask.errors import ConfigurationError
from amqtask.message.signature import Document, Node, dump
from amqtask.workflow.advance import replacement
from amqtask.workflow.client import check, frame_of, handle_of
from amqtask.workflow.freeze import derived_id, freeze
from amqtask.workflow.shape import attach, normal, single

if TYPE_CHECKING:
    from amqtask.app import App
    from amqtask.message.model import Call
    from amqtask.result import AsyncResult


def replacement_of(app: App, call: Call, node: Node) -> Document:
    """Return what runs in place of a call, in JSON form and with all ids.

    Raises:
        ConfigurationError: The signature has no meaning.
        ArgumentsError: The arguments of a step do not fit its task.
    """
    check(app, normal(node), 0)
    return dump(replacement(call, node, frame_of(app, call.root_id or call.id, call.reply_to)))


def addition_of(
    app: App, call: Call, node: Node, position: int
) -> tuple[Document, AsyncResult[Any]]:
    """Return a member for the chord that a call is in, and its handle.

    Args:
        position: How many the call has added before.

    Raises:
        ConfigurationError: The call is in no chord, or the signature has no meaning.
    """
    if call.embed.chord is None or call.group is None:
        raise ConfigurationError(
            f"add_to_chord in task {call.task!r} (id {call.id}), which is no member of a chord",
            hint="in a chain within a chord the last step is the member",
        )
    shaped = single(normal(node))
    check(app, shaped, 0)
    # the same id when this call runs again
    member = attach(shaped, {"task_id": derived_id(call.id, "added", position)})
    frozen = freeze(member, frame_of(app, call.root_id or call.id, call.reply_to))
    return dump(frozen), handle_of(app, frozen)
