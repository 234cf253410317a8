"""The children of a worker: as many places as there are processes, and what harmed whom.

A child that dies tells, by its run board, what it ran. The others, and all
that follow, are warned of it; see `amqtask.worker.offenders`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from amqtask.worker.ladder import Ladder, Rung
from amqtask.worker.lines import GAVE_UP
from amqtask.worker.offenders import Offenders
from amqtask.worker.places import Place
from amqtask.worker.spawn import ChildProcess, death
from amqtask.worker.spec import WorkerSpec

log = logging.getLogger(__name__)

#: Children in a row that may die before they get ready, while no other one works.
HOPELESS = 5
#: Seconds that one which is to replace another has to get ready.
PATIENCE = 60.0


class Crew:
    """All children, whatever became of them.

    Args:
        spec: What each child is given.
        on_change: Called when a child got ready, stopped being so, or ended.
        on_hopeless: Called when children die again and again before they consume.
        spawn: Starts a child of a spec in a place.

    Attributes:
        places: Where children work now.
        counts: Jobs settled by children that have stopped, by outcome.
        failed: Whether a process did not end well that was told to, after the crew was closed.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        on_change: Callable[[], None],
        on_hopeless: Callable[[], None],
        spawn: Callable[[WorkerSpec, int], ChildProcess] = ChildProcess,
    ) -> None:
        self.places: list[Place[ChildProcess]] = []
        self.counts: Counter[str] = Counter()
        self.failed = False
        self._spec = spec
        self._on_change = on_change
        self._on_hopeless = on_hopeless
        self._spawn_child = spawn
        self._leaving: list[Place[ChildProcess]] = []
        self._offenders = Offenders()
        self._turn = asyncio.Lock()
        self._opened = 0
        self._fruitless = 0
        self._closed = False

    # -- who is here --------------------------------------------------------------

    def children(self) -> Iterator[ChildProcess]:
        """Yield every process, those that start and those that retire included."""
        for place in [*self.places, *self._leaving]:
            yield from place.children()

    @property
    def ready(self) -> int:
        """Places whose child consumes every queue."""
        return sum(place.child is not None and place.child.ready for place in self.places)

    @property
    def size(self) -> int:
        """Places there are."""
        return len(self.places)

    # -- how many -----------------------------------------------------------------

    def resize(self, processes: int) -> None:
        """Open places, or vacate those that have the least to do."""
        while not self._closed and len(self.places) < processes:
            place = Place(
                self._opened,
                spawn=self._spawn,
                ladder=self._ladder,
                on_said=self._said,
                on_end=self._ended,
            )
            self._opened += 1
            self.places.append(place)
            place.open()
        while len(self.places) > processes:
            place = min(reversed(self.places), key=_running)
            self.places.remove(place)
            self._leaving.append(place)
            place.vacate()

    def close(self) -> None:
        """Let nobody follow those who are here; ending them is the caller's."""
        self._closed = True
        for place in self.places:
            place.close()

    async def ended(self) -> None:
        """Wait until every process has ended, after `close`."""
        await asyncio.gather(*(place.ended() for place in [*self.places, *self._leaving]))

    # -- one after the other ------------------------------------------------------

    async def replace(self, place: Place[ChildProcess], *, patience: float = PATIENCE) -> bool:
        """Replace the child of a place, the new one first; only one place at a time does so."""
        async with self._turn:
            return await place.replace(patience)

    async def restart(self) -> bool:
        """Replace every child, one after the other; stops at the first that cannot be."""
        for place in list(self.places):
            if place.closed or self._closed:
                continue
            if not await self.replace(place):
                return place.closed
        return True

    # -- what they are told -------------------------------------------------------

    def tell(self, **word: Any) -> None:
        """Say something to every child."""
        for child in self.children():
            child.say(**word)

    def condemn(self, task_id: str, why: str) -> None:
        """Have a delivery settled as timed out when it comes again, wherever it comes."""
        for word in self._offenders.condemn(task_id, why, time.monotonic()):
            self.tell(**word)

    # -- a child's life -----------------------------------------------------------

    def _spawn(self, index: int) -> ChildProcess:
        child = self._spawn_child(self._spec, index)
        for word in self._offenders.words(time.monotonic()):
            child.say(**word)
        return child

    def _ladder(self) -> Ladder:
        return Ladder(warm=self._spec.shutdown_timeout, cleanup=self._spec.cleanup_timeout)

    def _said(self, child: ChildProcess) -> None:
        if child.ready:
            self._fruitless = 0
        self._on_change()

    def _ended(self, child: ChildProcess, code: int) -> None:
        self.counts.update(child.counts)
        self._leaving = [place for place in self._leaving if not place.empty]
        well = code == 0 or (code == GAVE_UP and child.gave_up is not None)
        if not well:
            # one that died before it heard of the stop died of something else, as any other day
            self.failed |= self._closed and (child.stopping or child.rung is Rung.KILL)
            self._warn_of(child, code)
            if not child.was_ready and not self._closed:
                self._count_fruitless(child, code)
        self._on_change()

    def _warn_of(self, child: ChildProcess, code: int) -> None:
        why = f"it ran in a process that ended by {death(code)}"
        ids = [entry.id for entry in child.ran()]
        for word in self._offenders.suspect(ids, why, time.monotonic()):
            self.tell(**word)

    def _count_fruitless(self, child: ChildProcess, code: int) -> None:
        self._fruitless += 1
        if self._fruitless < HOPELESS or self.ready:
            return
        log.error(
            "worker.hopeless: %d children in a row died before they consumed (the last, pid %d, %s); "
            "see their output above",
            self._fruitless,
            child.pid,
            death(code),
        )
        self._on_hopeless()


def _running(place: Place[ChildProcess]) -> int:
    return place.child.beat.running if place.child is not None else 0
