"""A beat inside the test's process, for the test's time.

    made --start--> leading, or standing by --stop--> stopped

It is the beat of production, on an event loop and a thread of its own. As time
is the test's to move, it is asked to look at the clock whenever that was moved,
and says when it wants to be asked next.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from amqtask.app import App
from amqtask.beat.service import Beat as Service
from amqtask.beat.state import State, snapshot
from amqtask.beat.tally import utcnow
from amqtask.errors import AmqtaskError
from amqtask.testing.threads import Beside, LoopThread
from amqtask.testing.worker import PATIENCE

#: Seconds between two looks whether it leads.
_LOOK = 0.005


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a beat that leads has before it, once it has sent what is due.

    Attributes:
        fire: When something is due again; None when nothing will be.
    """

    fire: datetime | None


class _Service(Service):
    """A beat in whose world time jumps, and that nobody was there before."""

    def __init__(self, app: App, name: str) -> None:
        super().__init__(app, lambda: app.entries, name=name)
        # so that it does not wait for others that might remember what was fired
        self._memory = snapshot(State())

    def _watch_clock(self) -> None:
        """Say nothing of jumps, which are the test's."""

    async def catch_up(self) -> Ahead | None:
        """Send all that is due; returns what is ahead then, or None when it does not lead.

        Raises:
            TransportError: It has lost the lead.
        """
        while (term := self.term) is not None:
            wake = await term.tick(utcnow())
            if wake is None or wake > utcnow():
                return Ahead(wake)
        return None


class Beat(Beside):
    """Sends an app's schedule in this process; made by `Sandbox.beat`.

    Use it in ``with`` or ``async with``, or call `start`; the end of the test
    stops it anyway. `Sandbox.advance` stops at each instant at which it has
    something to send.

    Threads: from the test's thread; ``async with`` from its loop.
    """

    def __init__(self, app: App, name: str, led: Callable[[], bool]) -> None:
        self.app = app
        self.name = name
        self._led = led
        self._thread: LoopThread | None = None
        self._service: _Service | None = None

    # -- life -----------------------------------------------------------------

    def start(self) -> Self:
        """Start it and wait until it leads, or stands by for another one that does.

        Raises:
            AssertionError: It does neither.
        """
        if self._thread is None:
            self._thread = LoopThread("amqtask-test-beat")
            try:
                self._thread.run(self._start(), PATIENCE)
            except TimeoutError:
                raise AssertionError(
                    f"beat {self.name!r} does not lead after {PATIENCE:g} s; its log says why"
                ) from None
        return self

    async def _start(self) -> None:
        self._service = _Service(self.app, self.name)
        self._service.start()
        while not (  # noqa: ASYNC110 - that it leads is told to nobody
            self.leads or (self._service.role == "standby" and self._led())
        ):
            await asyncio.sleep(_LOOK)

    def stop(self) -> None:
        """Hand the lead over, and end."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                assert self._service is not None
                thread.run(self._service.stop())
            finally:
                thread.close()

    # -- what a test does with it ---------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._thread is not None

    @property
    def leads(self) -> bool:
        """Whether it is the one that sends."""
        return self.running and self._service is not None and self._service.term is not None

    @property
    def counts(self) -> Counter[str]:
        """Instants so far, by what became of them: ``due``, ``caught_up``, ``missed``, ``skipped``."""
        return Counter() if self._service is None else self._service.tally.counts

    def catch_up(self, deadline: float) -> Ahead | None:
        """Send what is due; returns what is ahead then, or None when it does not lead.

        Args:
            deadline: `time.monotonic` until when that may take.

        Raises:
            TimeoutError: It took longer.
        """
        if self._thread is None or self._service is None:
            return None
        try:
            left = max(0.0, deadline - time.monotonic())
            return self._thread.run(self._service.catch_up(), left)
        except AmqtaskError:
            return None  # it has lost the lead on the way
