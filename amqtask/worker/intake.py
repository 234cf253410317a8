"""Take deliveries in, and hold no more of them than there is work for.

Each queue has its own consumer, and the slots of its group. A prefetch given by the user is kept. Without
one it follows the pace: as many deliveries as there are slots, plus what the
last second's pace would use up in `AHEAD` seconds. So quick tasks find the
next one waiting, and a long task does not sit on deliveries that an idle
worker could run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from amqtask.app import App
from amqtask.topology.plan import queue_plan
from amqtask.transport import Consumer, Delivery, Session
from amqtask.transport.declare import declare
from amqtask.worker.acktime import AckTime

log = logging.getLogger(__name__)

#: Seconds of work to hold ready beyond the slots.
AHEAD = 0.25
#: Deliveries held per queue at most, however quick they are.
MOST = 1024
#: Bytes of bodies held per queue at most, as far as their average tells.
MOST_BYTES = 32 * 1024 * 1024
#: Seconds between two looks at the pace.
LOOK = 1.0


def fitting_prefetch(slots: int, current: int, delivered: int, size: int) -> int:
    """Return the prefetch that fits the pace of the last second.

    It changes by powers of two, and only when the fit is off by a factor of
    two: each change costs a cancel and a consume.

    Args:
        slots: Tasks that can run at once.
        current: Prefetch now.
        delivered: Deliveries in the last second.
        size: Their bytes in all.
    """
    average = size / delivered if delivered else 0
    most = min(MOST, max(1, int(MOST_BYTES / average))) if average else MOST
    want = max(slots, min(most, slots + int(delivered * AHEAD)))
    if current // 2 < want < current * 2:
        return current
    if want == slots:
        return slots
    return min(max(slots, most), 1 << (want - 1).bit_length())


class Intake:
    """The consumers of one worker process.

    Args:
        slots: Of each queue to consume, the tasks that can run at once.
        prefetch: Deliveries held per queue; None lets it follow the pace.
        submit: Called on the I/O loop with each delivery.
        before: Awaited with each session before anything is consumed on it.
        on_change: Called on the I/O loop when a consumer starts or stops consuming.

    Threads: I/O loop only.
    """

    def __init__(
        self,
        app: App,
        slots: Mapping[str, int],
        *,
        prefetch: int | None,
        submit: Callable[[Delivery], None],
        before: Callable[[Session], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        self._app = app
        self._slots = slots
        self._fixed = prefetch is not None
        self._submit = submit
        self._before = before
        self._pace: dict[str, list[int]] = {name: [0, 0] for name in slots}
        self._look: asyncio.TimerHandle | None = None
        self._acktime = AckTime(app)
        link = app.transport.link("consume")
        self.consumers = [
            Consumer(
                link,
                name,
                prefetch=own if prefetch is None else prefetch,
                on_delivery=partial(self._on_delivery, self._pace[name]),
                prepare=partial(self._prepare, name),
                arguments=partial(self._acktime.arguments, name),
                on_change=lambda _: on_change(),
            )
            for name, own in slots.items()
        ]

    def start(self) -> None:
        """Begin to consume."""
        for consumer in self.consumers:
            consumer.start()

    async def stop(self) -> None:
        """Take no more deliveries; those here can still be settled."""
        if self._look is not None:
            self._look.cancel()
        await asyncio.gather(*(consumer.stop() for consumer in self.consumers))

    async def close(self) -> None:
        """Send the acks that wait, and close the channels."""
        await asyncio.gather(*(consumer.close() for consumer in self.consumers))

    @property
    def consuming(self) -> bool:
        """Whether every queue is consumed right now."""
        return all(consumer.consuming for consumer in self.consumers)

    def unready(self) -> list[str]:
        """Return for each queue that is not consumed why not."""
        return [
            f"queue {each.queue!r} is not consumed: {each.error}"
            for each in self.consumers
            if not each.consuming
        ]

    async def _prepare(self, name: str, session: Session) -> None:
        self._acktime.warn(name, session)
        await declare(session, queue_plan(self._app.queue(name), self._app.settings))
        await self._before(session)

    def _on_delivery(self, pace: list[int], delivery: Delivery) -> None:
        pace[0] += 1
        pace[1] += len(delivery.message.body)
        if self._look is None and not self._fixed:  # an idle worker has nothing to look at
            self._look = asyncio.get_running_loop().call_later(LOOK, self._follow_pace)
        self._submit(delivery)

    def _follow_pace(self) -> None:
        again = False
        for consumer in self.consumers:
            pace, slots = self._pace[consumer.queue], self._slots[consumer.queue]
            fitting = fitting_prefetch(slots, consumer.prefetch, *pace)
            again = again or bool(pace[0])
            pace[:] = 0, 0
            if fitting != consumer.prefetch and consumer.consuming:
                log.debug(
                    "intake.prefetch queue=%r from=%d to=%d",
                    consumer.queue,
                    consumer.prefetch,
                    fitting,
                )
                consumer.set_prefetch(fitting)
            again = again or consumer.prefetch != slots
        self._look = (
            asyncio.get_running_loop().call_later(LOOK, self._follow_pace) if again else None
        )
