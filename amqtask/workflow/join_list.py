"""The chords that RabbitMQ joins and that have waited for long: a queue with a note of each.

AMQP has no way to ask which queues there are. So the worker that hears the first alarm of
a chord notes it here. Nobody takes a note out when the chord is joined: whoever reads the
list leaves out, and drops, what has no queue any more. A note goes by itself a day after
its chord was to be given up, and the oldest go first when there are too many.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from amqtask.clock import wall
from amqtask.errors import AmqtaskError, MessageError
from amqtask.message.model import Message
from amqtask.settings import Settings
from amqtask.transport import Publication, Requirement, Session
from amqtask.transport.taking import Desk, Gone
from amqtask.workflow.alarm import OpenJoin, Waiting

log = logging.getLogger("amqtask.chord")

#: Notes that it holds at most.
_MOST = 100_000
#: Seconds that a note outlives the time at which its chord is given up, and the broker's limit.
_RESERVE, _LONGEST = 24 * 3600.0, 4_294_967.0
_DUE = "x-amqtask-due"


def list_name(settings: Settings) -> str:
    """Return the name of the list of an app's chords."""
    return f"{settings.exchange}.joins"


class JoinList:
    """Notes chords, and reads the notes.

    Args:
        name: Of the queue.
        publish: Publishes, and returns once it is confirmed.

    Threads: on the I/O loop only.
    """

    def __init__(self, name: str, publish: Callable[[Publication], Awaitable[None]]) -> None:
        self._name = name
        self._publish = publish
        self._requires = (Requirement(f"list of chords {name!r}", partial(_make, name)),)

    async def add(self, waiting: Waiting, left: float) -> None:
        """Note a chord; one that cannot be noted is not listed, and no worse off."""
        now = wall()
        message = Message(
            waiting.dump(),
            {_DUE: int(now + left)},
            content_type="application/json",
            content_encoding="utf-8",
            message_id=waiting.group_id,
            timestamp=int(now),
            expiration=str(round(min(left + _RESERVE, _LONGEST) * 1000)),
            type="amqtask.join.note",
        )
        try:
            await self._publish(Publication(message, "", self._name, requires=self._requires))
        except AmqtaskError as error:
            log.warning(
                "chord.not_listed group=%s error=%r: `amqtask joins list` does not show it",
                waiting.group_id,
                str(error),
            )

    async def read(self, desk: Desk, queue_of: Callable[[str], str]) -> list[OpenJoin]:
        """Return the chords that have a queue.

        Args:
            queue_of: Returns the queue of a chord.

        Raises:
            Taken: Somebody else reads it just now.
        """
        try:
            hold = await desk.take(self._name)
        except Gone:
            return []  # no chord has waited for long yet
        try:
            notes: dict[str, list[Message]] = {}
            for each in hold.messages:
                notes.setdefault(each.message_id or "", []).append(each)
            found = []
            for group_id, (*older, newest) in notes.items():
                shown = await _open(desk, queue_of(group_id), group_id, newest)
                # at once: should there be too many for the time that is left, they get fewer
                hold.drop(older if shown is not None else [*older, newest])
                if shown is not None:
                    found.append(shown)
            return found
        finally:
            await hold.let_go()


async def _open(desk: Desk, queue: str, group_id: str, note: Message) -> OpenJoin | None:
    try:
        waiting = Waiting.load(group_id, note.body)
        # one in the queue stands for the alarm
        came = min(max(0, (await desk.count(queue)).ready - 1), waiting.size)
    except Gone:
        return None
    except MessageError as error:
        log.error("chord.note_malformed group=%s error=%r: it is dropped", group_id, str(error))
        return None
    due: Any = note.headers.get(_DUE)
    return OpenJoin(waiting, "broker", came, float(due or 0))


async def _make(name: str, session: Session) -> None:
    channel = await session.channel()
    try:
        arguments = {"x-queue-type": "classic", "x-max-length": _MOST}
        await channel.declare_queue(name, durable=True, arguments=arguments)
    finally:
        await channel.close()
