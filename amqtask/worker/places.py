"""One place for a child, filled again and again.

    starting --ready--> filled --child ends--> pause (back-off) --> starting
                          |--replace: the next one is ready--> filled, the old one retires
                          `--close--> nobody follows

What was replaced retires on its own: it goes down a ladder while its successor
works, so a long task holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from amqtask.transport.backoff import Backoff
from amqtask.worker.ladder import Descent, Ladder, Rung
from amqtask.worker.lines import GAVE_UP
from amqtask.worker.spawn import ChildProcess

log = logging.getLogger(__name__)

C = TypeVar("C", bound=ChildProcess)

#: Seconds a child must have lived for its death to count as the first of a row.
HEALTHY = 10.0


class Place(Generic[C]):
    """Keeps a child running until it is closed.

    Args:
        index: Which place of the worker it is.
        spawn: Starts a child.
        ladder: Makes the ladder that a retiring child goes down.
        on_said: Called after each thing a child said.
        on_end: Called with each child that ended and its exit code, before another one starts.

    Attributes:
        child: Who works here; None in a pause.
        next: Who is about to follow it; None while nobody is.
        retiring: Who was replaced, and finishes what it runs.
    """

    def __init__(
        self,
        index: int,
        *,
        spawn: Callable[[int], C],
        ladder: Callable[[], Ladder],
        on_said: Callable[[C], None],
        on_end: Callable[[C, int], None],
    ) -> None:
        self.index = index
        self.child: C | None = None
        self.next: C | None = None
        self.retiring: dict[C, Descent] = {}
        self._spawn = spawn
        self._ladder = ladder
        self._on_said = on_said
        self._on_end = on_end
        self._backoff = Backoff(first=0.2, cap=10.0)
        self._closed = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def closed(self) -> bool:
        """Whether nobody follows any more."""
        return self._closed.is_set()

    @property
    def empty(self) -> bool:
        """Whether it is closed, and the last child has ended."""
        return self.closed and not self._tasks

    def children(self) -> Iterator[C]:
        """Yield every process that belongs here, the retiring ones last."""
        yield from (child for child in (self.child, self.next) if child is not None)
        yield from list(self.retiring)

    def open(self) -> None:
        """Start the first child."""
        self.child = self._start()

    def close(self) -> None:
        """Let nobody follow; ending those who are here is the caller's."""
        self._closed.set()
        self._changed.set()

    def vacate(self) -> None:
        """Close, and have whoever is here retire: the worker needs this place no more."""
        self.close()
        for child in (self.child, self.next):
            if child is not None:
                self._retire(child)
        self.child = self.next = None

    def follow(self) -> None:
        """Start a successor now, and have the present one, which stops already, retire."""
        if self.closed or self.child is None or self.next is not None:
            return
        self._retire(self.child)
        self.child = None
        self._keep(self._fill(), "amqtask follow")

    async def replace(self, patience: float) -> bool:
        """Start another child, and have the present one retire once that is ready.

        Args:
            patience: Seconds the new one has to get ready.

        Returns:
            Whether it took over. If not, the present one goes on.
        """
        if self.closed or self.child is None or self.next is not None:
            return False
        try:
            fresh = self.next = self._start()
        except OSError as error:
            log.error("child.not_started error=%r: the old one goes on", str(error))
            return False
        try:
            async with asyncio.timeout(patience):
                while self.next is fresh and not fresh.ready and not self.closed:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.error(
                "%s.not_ready pid=%d seconds=%g reasons=%s: it is ended, the old one goes on",
                fresh.KIND,
                fresh.pid,
                patience,
                list(fresh.reasons),
            )
        if self.next is fresh and fresh.ready and not self.closed:
            self._promote()
        elif self.next is fresh and not self.closed:
            self.next = None
            self._retire(fresh, Rung.NOW)
        return self.child is fresh

    async def ended(self) -> None:
        """Wait until every process of a closed place has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- a child's life -----------------------------------------------------------

    def _start(self) -> C:
        child = self._spawn(self.index)
        self._keep(self._live(child), f"amqtask child {child.pid}")
        return child

    def _keep(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, child: C) -> None:
        code = await child.watch(lambda _: self._said(child))
        refill = False
        if child in self.retiring:
            self.retiring.pop(child).close()
        elif child is self.next:
            self.next = None
        elif child is self.child:
            self.child, refill = None, not self.closed
        self._changed.set()
        self._on_end(child, code)
        if not refill:
            self._report(child, code)
        elif self.next is not None:  # the one that was to replace it is on its way already
            self._report(child, code)
            self._promote()
        else:
            await self._refill(child, code)
        child.close()

    def _said(self, child: C) -> None:
        self._changed.set()
        self._on_said(child)

    async def _refill(self, child: C, code: int) -> None:
        if code == GAVE_UP and child.gave_up is not None:
            log.warning(
                "child.gave_up pid=%d reason=%r: another one starts at once, its other tasks "
                "went back to their queues",
                child.pid,
                child.gave_up,
            )
        else:
            if child.was_ready and time.monotonic() - child.started > HEALTHY:
                self._backoff.reset()
            wait = self._backoff.next()
            log.error(
                "%s.died %s: another one starts in %.1f s, %s",
                child.KIND,
                child.epitaph(code),
                wait,
                child.AFTERMATH,
            )
            await self._pause(wait)
        await self._fill()

    async def _fill(self) -> None:
        while not self.closed:
            try:
                self.child = self._start()
            except OSError as error:  # no memory, processes or descriptors left
                wait = self._backoff.next()
                log.error("child.not_started error=%r: again in %.1f s", str(error), wait)
                await self._pause(wait)
            else:
                return

    def _report(self, child: C, code: int) -> None:
        if code:
            log.error(
                "%s.died %s: nobody follows it, %s",
                child.KIND,
                child.epitaph(code),
                child.AFTERMATH,
            )
        else:
            log.info("%s.ended pid=%d counts=%s", child.KIND, child.pid, dict(child.counts))

    def _promote(self) -> None:
        old, self.child, self.next = self.child, self.next, None
        if old is not None:
            self._retire(old)

    def _retire(self, child: C, least: Rung = Rung.WARM) -> None:
        if child not in self.retiring:
            self.retiring[child] = Descent(self._ladder(), lambda: [child])
        self.retiring[child].press(least)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
