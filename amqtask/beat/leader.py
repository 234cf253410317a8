"""Which of several beats leads: whoever is the single active consumer of the state's queue.

    connecting --queue declared, in line--> standby --its turn--> leading
        ^   ^                                  |                     |
        |   `--------- lost, after a pause ----'                     |
        `------------------- lost, or handed over -------------------'

The queue holds the state itself, so the lead and the state change hands as one:
there is no moment in which somebody leads without the state, or two have it. See
`amqtask.transport.seat` for what keeps a beat that lost the lead from acting on it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from amqtask.errors import AmqtaskError, ConnectionLost
from amqtask.message.model import Message
from amqtask.transport import Link, Session
from amqtask.transport.backoff import Backoff, Repeats
from amqtask.transport.publication import REDECLARE
from amqtask.transport.seat import Seat

log = logging.getLogger(__name__)

#: Seconds in which beats that lost their queue together come back, each at its own moment.
_SPREAD = 0.3

Role = Literal["connecting", "standby", "leading"]


class Leader:
    """Gets a beat into the lead, time and again.

    Args:
        link: A connection of its own: who leads speaks over it alone.
        queue: The queue that holds the state.
        prepare: Makes or checks the queue.
        on_change: Called whenever `role` or `error` changed.

    Attributes:
        role: What it is now.
        error: Why it is neither leading nor in line; None while it is.

    Threads: on the link's loop only.
    """

    def __init__(
        self,
        link: Link,
        queue: str,
        prepare: Callable[[Session], Awaitable[None]],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.role: Role = "connecting"
        self.error: AmqtaskError | None = ConnectionLost("not connected yet")
        self._link = link
        self._queue = queue
        self._prepare = prepare
        self._on_change = on_change
        self._backoff = Backoff(first=0.2, cap=5.0)
        self._repeats = Repeats()
        self._gone = False

    async def lead(self, memory: Message | None = None) -> Seat:
        """Wait until this one leads, however long that takes.

        Args:
            memory: The last record of one that led before; it gives this to whoever leads now,
                as the queue may have been deleted meanwhile.
        """
        self._link.start()
        while True:
            session = await self._link.up()
            try:
                if (seat := await self._stand(session, memory)) is not None:
                    return seat
                memory = None
            except AmqtaskError as error:
                self._set("connecting", error)
                wait = self._backoff.next()
                said = session.is_open and self._repeats.due(str(error), time.monotonic())
                log.log(
                    logging.WARNING if said else logging.DEBUG,
                    "beat.out_of_line queue=%r error=%r: trying again in %.1f s%s",
                    self._queue,
                    str(error),
                    wait,
                    f"\n{error.hint}" if error.hint else "",
                )
                await asyncio.sleep(wait)

    def lost(self, why: str) -> None:
        """Say that the seat that `lead` returned is over."""
        self._set("connecting", ConnectionLost(why))
        self._gone = True

    async def _stand(self, session: Session, memory: Message | None) -> Seat | None:
        """Stand in line once; returns the lead, or None to get in line anew."""
        if self._gone:
            # where the queue was deleted, one that is there again at once has deaf consumers on
            # RabbitMQ 3.10 (tried), and beats that come all at once make nothing quicker
            await asyncio.sleep(REDECLARE + random.random() * _SPREAD)  # noqa: S311 - spreads load
            self._gone = False
        await self._prepare(session)
        seat = await Seat.sit(session, self._queue)
        leads = False
        try:
            if memory is not None:
                seat.send(memory)
            if self.role != "standby":
                log.info("beat.standby queue=%r: in line for the lead", self._queue)
            self._set("standby", None)
            leads = await seat.lead()
        finally:
            if not leads:
                await seat.release()
        if not leads:
            return None
        self._backoff.reset()
        self._repeats.reset()
        self._set("leading", None)
        return seat

    def _set(self, role: Role, error: AmqtaskError | None) -> None:
        self.role, self.error = role, error
        self._on_change()
