"""What follows a call in eager mode: the decisions of a worker, acted on in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from amqtask.app import App
from amqtask.errors import ChordError
from amqtask.message import Call
from amqtask.message.republish import exception_text
from amqtask.send import Outgoing
from amqtask.worker.follow import takes
from amqtask.workflow.advance import Advance, Ended, body_failed, body_ready
from amqtask.workflow.outgoing import prepare
from amqtask.workflow.ports import Done, Follow, Opening, Part


class Following:
    """Acts on what follows one call.

    Args:
        app: Whose joins and routes count.
        call: The call that has ended.
        ended: Called with each call that never runs.

    Attributes:
        outgoing: What runs next.
    """

    def __init__(self, app: App, call: Call, ended: Callable[[Call, Ended], object]) -> None:
        self._app = app
        self._call = call
        self._ended = ended
        self.outgoing: list[Outgoing] = []

    @property
    def takes(self) -> Callable[[str], int]:
        """See `amqtask.worker.follow.takes`."""
        return partial(takes, self._app)

    def act(self, advance: Advance) -> None:
        """Do all of it."""
        for opening in advance.launch.openings:
            self._app.joins.open(opening, _raising)
        for start in advance.launch.starts:
            self.outgoing.append(
                prepare(
                    self._app.sender,
                    self._app.tasks,
                    start,
                    parent_id=self._call.id,
                    reply_to=None,
                )
            )
        for ended in advance.ended:
            self._ended(self._call, ended)
        for part in advance.parts:
            self._app.joins.part(part, self, _raising, lambda: True)

    def send_body(self, part: Part, values: Sequence[Any], done: Done) -> None:
        """See `Follow.send_body`."""
        self.act(Advance(launch=body_ready(part, values)))
        done(None)

    def fail_body(self, part: Part, error: ChordError, done: Done) -> None:
        """See `Follow.fail_body`."""
        self.act(body_failed(part, error, self.takes))
        done(None)


class JoinsHere:
    """Joins the members of chords in this process."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Part]] = {}

    def open(self, opening: Opening, done: Done) -> None:
        """See `Joins.open`."""
        self._parts[opening.group_id] = {}
        done(None)

    def part(self, part: Part, follow: Follow, done: Done, ours: Callable[[], bool]) -> None:
        """See `Joins.part`."""
        parts = self._parts[part.group_id]
        parts.setdefault(part.id, part)
        wanted = (part.size or 0) + sum(each.extra for each in parts.values())
        if len(parts) < wanted:
            done(None)
            return
        ordered = sorted(parts.values(), key=_place)
        failed = next((each for each in ordered if each.error is not None), None)
        if failed is None:
            follow.send_body(part, [each.value for each in ordered], done)
            return
        assert failed.error is not None
        text = (
            f"member {failed.index} of chord {part.group_id} (task {failed.task!r}, id {failed.id})"
        )
        error = ChordError(f"{text} failed: {exception_text(failed.error)}", failed.id, failed.task)
        follow.fail_body(part, error, done)


def _place(part: Part) -> tuple[bool, int]:
    return part.index is None, part.index or 0


def _raising(error: Exception | None) -> None:
    if error is not None:
        raise error
