"""Whether a consumer that the broker has confirmed gets anything at all.

    listening --quiet, with room for more--> asks the queue --nothing waits--> listening
        ^                                       |
        |                                       `--messages wait, or nobody consumes it--+
        `----something was delivered---- asks once more, soon <--------------------------'
                                                `--the same--> deaf

The broker's word for it is not enough: RabbitMQ 3.10 keeps the consumers of a
quorum queue that was deleted and declared again at once, and hands them
messages that never arrive. Not even the queue shows that, as those messages
count as delivered. So there a consumer that has been quiet for long and holds
nothing is made anew, which costs less than to believe it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from amqtask.errors import AccessRefused, ChannelClosed, TransportError
from amqtask.transport.session import Session

log = logging.getLogger(__name__)

#: Seconds of quiet after which the queue is asked.
LOOK = 20.0
#: Seconds until it is asked once more: a healthy consumer is served in far less.
AGAIN = 2.0
#: Seconds of quiet after which a consumer is made anew, where the broker is known to lose some.
RENEW = 60.0
#: Seconds between looks at most. A waiting consumer of a single active one looks deaf for ever.
MOST = 600.0
#: Seconds that the broker has to answer.
_ANSWER = 10.0
#: The version from which on RabbitMQ cancels every consumer of a deleted queue (tried: 4.0).
_CANCELS = (4, 0)


class Progress(Protocol):
    """What a consumer has been given."""

    @property
    def last(self) -> int:
        """The last delivery's tag."""
        ...

    @property
    def outstanding(self) -> int:
        """Deliveries not settled yet."""
        ...


class Watch:
    """Watches over the consumers that follow each other on one queue.

    Args:
        queue: The queue's name.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._pause = LOOK
        self._allowed = True

    async def until_deaf(self, session: Session, progress: Progress, prefetch: int) -> str | None:
        """Wait until a consumer is deaf; return what speaks for it.

        Returns:
            A text; None when nothing does, and it is to be made anew all the same.
        """
        seen, quiet = progress.last, 0.0
        while True:
            await asyncio.sleep(self._pause)
            quiet += self._pause
            if self._hears(progress, seen, prefetch):
                seen, quiet, self._pause = progress.last, 0.0, LOOK
                continue
            if await self._ask(session) is None:
                version = session.rabbitmq
                loses = version is not None and version < _CANCELS
                if loses and quiet >= RENEW and progress.outstanding == 0:
                    return None
                continue
            await asyncio.sleep(AGAIN)
            if self._hears(progress, seen, prefetch):
                continue
            if (why := await self._ask(session)) is not None:
                self._pause = min(MOST, self._pause * 2)
                return why

    @staticmethod
    def _hears(progress: Progress, seen: int, prefetch: int) -> bool:
        """Whether something was delivered since, or nothing can be for want of room."""
        return progress.last != seen or progress.outstanding >= prefetch

    async def _ask(self, session: Session) -> str | None:
        """Return what is wrong with the queue, seen from here; None when nothing is."""
        if not self._allowed:
            return None
        try:
            async with asyncio.timeout(_ANSWER):
                channel = await session.channel()
                try:
                    _, ready, consumers = await channel.declare_queue(self._queue, passive=True)
                finally:
                    await channel.close()
        except AccessRefused as error:
            # RabbitMQ 4.3.0 wants the right to configure a queue of whoever looks at it
            log.info(
                "consumer.unwatched queue=%r error=%r: it is consumed, and not asked whether "
                "its messages arrive",
                self._queue,
                str(error),
            )
            self._allowed = False
        except ChannelClosed as error:
            return "the queue is gone" if error.code == 404 else None
        except (TransportError, TimeoutError):
            return None  # the session ends, or is about to: others see to that
        else:
            if consumers == 0:
                return "it has no consumer"
            if ready:
                return f"{ready} messages wait in it"
        return None
