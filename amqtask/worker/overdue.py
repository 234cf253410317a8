"""Have chords given up that a store keeps and nobody completes.

    waiting --about once a minute--> looking --none due--> waiting
                                        `--some--> taken --alarm confirmed--> put off --> waiting

In RabbitMQ the alarm of a chord rings by itself; a store only tells when it is asked. So
every process of a worker asks, which costs a store one look at an index. Whoever finds a
chord has it to himself for a minute, and sends its alarm to a queue of his own: a task
message, which a worker acks once the body's end is safe. One that dies before the alarm is
confirmed leaves the chord to the next look; an alarm that gets lost is sent again in an hour.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from amqtask.app import App
from amqtask.backends import StoredBackend
from amqtask.backends.chords import OpenChord, Register
from amqtask.clock import wall
from amqtask.errors import AmqtaskError, MessageError
from amqtask.message import encode
from amqtask.transport import Publication
from amqtask.workflow.alarm import Waiting

log = logging.getLogger("amqtask.chord")

T = TypeVar("T")

#: Seconds between two looks, about: processes look at different moments.
EVERY = 60.0
#: Seconds that whoever has taken a chord has to send its alarm.
CLAIM = 60.0
#: Seconds after which an alarm is sent again, if its chord is still open.
AGAIN = 3600.0
#: Chords that are taken at once.
MOST = 100


class Overdue:
    """Looks for chords whose time is over.

    Args:
        app: Whose chords they are.
        queue: One that this worker consumes: where alarms go.
        every: Seconds between two looks; less than `EVERY` where chords wait for less.

    Threads: I/O loop only.
    """

    def __init__(self, app: App, queue: str, every: float | None = None) -> None:
        self._app = app
        self._queue = queue
        self._every = every or min(EVERY, max(1.0, app.settings.join_expires / 2))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, where a store keeps chords on record; a second call does nothing."""
        backend = self._app.backend
        if self._task is not None or not isinstance(backend, StoredBackend) or not backend.joins:
            return
        register = backend.store.register()
        if register is None:
            log.info(
                "chord.unwatched backend=%s: chords that nobody completes expire there unseen",
                backend,
            )
            return
        self._task = asyncio.create_task(self._run(backend, register), name="amqtask overdue")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, backend: StoredBackend, register: Register) -> None:
        while True:
            await asyncio.sleep(self._every * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                while await self._look(backend, register) == MOST:
                    pass
            except AmqtaskError as error:
                log.warning(
                    "chord.not_looked error=%r: overdue chords are looked for again in %.0f s",
                    str(error),
                    self._every,
                )

    async def _look(self, backend: StoredBackend, register: Register) -> int:
        now = wall()
        taken = await _asked(backend, partial(register.take, now, now + CLAIM, MOST))
        sent: list[str] = []
        try:
            for each in taken:
                await self._ring(backend, register, each, sent)
        finally:  # what has no alarm is taken again when its claim is over
            if sent:
                log.info("chord.overdue groups=%s: their alarms are sent", sent)
                await _asked(backend, partial(register.put_off, sent, now + AGAIN))
        return len(taken)

    async def _ring(
        self, backend: StoredBackend, register: Register, chord: OpenChord, sent: list[str]
    ) -> None:
        """Send the alarm of a chord, which is among those sent once the broker has it."""
        try:
            waiting = Waiting.load(chord.group_id, chord.record)
        except MessageError as error:
            log.error(
                "chord.record_malformed group=%s error=%r: dropped", chord.group_id, str(error)
            )
            await _asked(backend, partial(register.drop, chord.group_id))
            return
        queue = self._app.queue(self._queue)
        publication = Publication(
            encode(waiting.alarm()),
            "",
            self._queue,
            requires=(self._app.sender.queue_requirement(queue),),
            deadline=time.monotonic() + self._app.settings.publish_timeout,
        )
        await self._app.transport.publish_and_await(publication)
        sent.append(chord.group_id)


async def _asked(backend: StoredBackend, function: Callable[[], T]) -> T:
    return await asyncio.wrap_future(backend.run(function))
