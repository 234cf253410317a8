"""Take deliveries in, and hold no more of them than there is work for.

Each queue has its own consumer, and the slots of its group. A prefetch given by the user is kept. Without
one it follows the pace: as many deliveries as there are slots, plus what the
last second's pace would use up in `AHEAD` seconds. So quick tasks find the
next one waiting, and a long task does not sit on deliveries that an idle
worker could run.

A burst may be over before its second is, so every `GLANCE` seconds the prefetch
may grow: by as many as were done since the glance before, which says less of
what comes, but as much as that again is soon done. Only a whole second's pace
lets it shrink.
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
#: Seconds between two glances at the pace, and glances until it is looked at as a whole.
GLANCE, GLANCES = 0.05, 20


def fitting_prefetch(
    slots: int, current: int, delivered: int, size: int, ahead: float = AHEAD
) -> int:
    """Return the prefetch that fits the pace of the last second.

    It changes by powers of two, and only when the fit is off by a factor of
    two: each change costs a cancel and a consume.

    Args:
        slots: Tasks that can run at once.
        current: Prefetch now.
        delivered: Deliveries in the last second.
        size: Their bytes in all.
        ahead: Part of them to hold ready beyond the slots.
    """
    average = size / delivered if delivered else 0
    most = min(MOST, max(1, int(MOST_BYTES / average))) if average else MOST
    want = max(slots, min(most, slots + int(delivered * ahead)))
    if current // 2 < want < current * 2:
        return current
    if want == slots:
        return slots
    return min(max(slots, most), 1 << (want - 1).bit_length())


def bursting_prefetch(slots: int, current: int, delivered: int, size: int) -> int:
    """Return the prefetch that fits what came since the last glance, at least that of now.

    What came may all be here still, as far as the prefetch goes: only the rest is done for certain.

    Args:
        slots: See `fitting_prefetch`.
        current: As there.
        delivered: Deliveries since the last glance.
        size: Their bytes in all.
    """
    done = delivered - current
    if done <= 0:
        return current
    return max(current, fitting_prefetch(slots, current, done, size * done // delivered, 1.0))


class _Pace:
    """What one queue has delivered in this second, and of that up to the last glance."""

    __slots__ = ("count", "seen", "seen_size", "size")

    def __init__(self) -> None:
        self.count = self.size = self.seen = self.seen_size = 0

    def glance(self) -> tuple[int, int]:
        """Return deliveries, and their bytes, since the last glance."""
        since = self.count - self.seen, self.size - self.seen_size
        self.seen, self.seen_size = self.count, self.size
        return since

    def reset(self) -> tuple[int, int]:
        """Return the deliveries, and their bytes, of a second that is over."""
        whole = self.count, self.size
        self.count = self.size = self.seen = self.seen_size = 0
        return whole


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
        self._pace = {name: _Pace() for name in slots}
        self._look: asyncio.TimerHandle | None = None
        self._glances = 0
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

    def _on_delivery(self, pace: _Pace, delivery: Delivery) -> None:
        pace.count += 1
        pace.size += len(delivery.message.body)
        if self._look is None and not self._fixed:  # an idle worker has nothing to look at
            self._look_later()
        self._submit(delivery)

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(GLANCE, self._follow_pace)

    def _follow_pace(self) -> None:
        self._glances += 1
        if self._glances < GLANCES:
            for consumer in self.consumers:
                since = self._pace[consumer.queue].glance()
                slots = self._slots[consumer.queue]
                self._fit(consumer, bursting_prefetch(slots, consumer.prefetch, *since))
            self._look_later()
            return
        self._glances, again = 0, False
        for consumer in self.consumers:
            pace, slots = self._pace[consumer.queue].reset(), self._slots[consumer.queue]
            self._fit(consumer, fitting_prefetch(slots, consumer.prefetch, *pace))
            again = again or bool(pace[0]) or consumer.prefetch != slots
        self._look = None
        if again:
            self._look_later()

    def _fit(self, consumer: Consumer, prefetch: int) -> None:
        if prefetch != consumer.prefetch and consumer.consuming:
            log.debug(
                "intake.prefetch queue=%r from=%d to=%d",
                consumer.queue,
                consumer.prefetch,
                prefetch,
            )
            consumer.set_prefetch(prefetch)
