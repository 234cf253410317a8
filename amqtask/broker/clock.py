"""Time that tests can advance.

Every wait of the broker that a message can notice (TTLs, expiring queues,
held confirms) hangs on a `Clock`, so that a test of a delay of an hour takes
no hour. Advancing fires what falls due in its own order, each at its own
instant, so that a message that is dead-lettered from one waiting queue into
the next waits there from the right moment on. Heartbeats stay on real time:
the peer at the other end of a socket does not travel along.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class Timer:
    """Something to do at an instant; `cancel` takes it back."""

    __slots__ = ("_cancelled", "action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action = action
        self._cancelled = False

    def cancel(self) -> None:
        """Take it back; harmless when it has been done."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether it was taken back."""
        return self._cancelled


class Clock:
    """The broker's time: real time plus what `advance` added.

    Its own calls are for the broker's event loop; `Broker.advance` is for tests.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        #: The instant being replayed while `advance` runs.
        self._instant: float | None = None
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return seconds since some instant; it never goes back."""
        instant = self._instant  # once: another thread may look while `advance` runs
        if instant is not None:
            return instant
        return self._real() + self._ahead

    def _real(self) -> float:
        """Return the seconds that pass by themselves."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since 1970, advanced along."""
        return time.time() + self.now() - time.monotonic()

    @property
    def due(self) -> float | None:
        """The instant of the next timer; None when there is none."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let timers fire on ``loop``."""
        self._loop = loop
        self._arm()

    def stop(self) -> None:
        """Forget all timers."""
        self._loop = None
        self._timers.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        """Do ``action`` as soon as `now` is ``when``."""
        timer = Timer(when, action)
        heapq.heappush(self._timers, (when, next(self._count), timer))
        if self._timers[0][2] is timer and self._instant is None:
            self._arm()
        return timer

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do ``action`` after so many seconds."""
        return self.call_at(self.now() + seconds, action)

    def advance(self, seconds: float) -> None:
        """Let time pass at once; what falls due meanwhile is done, in order.

        Args:
            seconds: How much; negative ones are an error.
        """
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds!r} seconds")
        target = self.now() + seconds
        try:
            self._fire(target)
            # before the instant is forgotten, so that nobody ever sees time go back
            self._ahead += seconds
        finally:
            self._instant = None
        self._arm()

    def _fire(self, until: float) -> None:
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._instant = max(when, self._instant or when)
                timer.action()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        due = self.due
        if self._loop is not None and due is not None:
            self._handle = self._loop.call_later(max(0.0, due - self.now()), self._ring)

    def _ring(self) -> None:
        self._handle = None
        try:
            self._fire(self.now())
        finally:
            self._instant = None
        self._arm()
