"""What the supervisor looks at once a second: who is silent, hung, deaf or outgrown.

    a child whose beats stop      reported; killed once its board shows a task far beyond its hard
                                  deadline, or when it was silent for half the deaf timeout
    a child that does not consume replaced after half the deaf timeout, while others do consume
    a child that others stop      followed by another one, though it may take its time
    a worker that does not        ends after the deaf timeout
    a child over its limits       replaced, the new one first, one child at a time

Judging is done by small functions of what was seen and when.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from amqtask.worker.board import BoardEntry
from amqtask.worker.crew import Crew
from amqtask.worker.ladder import Rung
from amqtask.worker.lines import Beat
from amqtask.worker.places import Place
from amqtask.worker.spawn import ChildProcess, describe
from amqtask.worker.spec import WorkerSpec

log = logging.getLogger(__name__)

#: Seconds between two rounds.
ROUND = 1.0
#: Seconds without a beat after which a child is reported.
SILENT = 10.0
#: Seconds beyond its hard deadline after which a task costs a silent child its life.
OVERDUE = 5.0
#: The same for a child that beats: it should have got rid of the task itself.
LONG_OVERDUE = 20.0
#: Seconds that a child has to be gone after it said that it ends, or gives itself up.
HANGING = 10.0
#: Seconds after which a child that somebody else told to stop is followed, though it still stops.
LEAVING = 5.0
#: Seconds by which a round may be late before silence is put down to the machine.
LATE = 3.0


def overdue(entries: Iterable[BoardEntry], wall: float, by: float) -> list[BoardEntry]:
    """Return what runs although its hard deadline passed more than ``by`` seconds ago."""
    return [entry for entry in entries if entry.deadline and wall - entry.deadline > by]


def outgrown(beat: Beat, spec: WorkerSpec) -> str | None:
    """Return why a child should be replaced; None when it should not.

    One that has not finished a task is never too large: its successor would
    be as large, and so on without end.
    """
    if spec.max_tasks_per_child is not None and beat.finished >= spec.max_tasks_per_child:
        return f"it has run {beat.finished} tasks"
    most = spec.max_memory_per_child
    if most is not None and beat.finished and beat.rss > most:
        return f"it holds {beat.rss >> 20} MiB"
    return None


class Since:
    """Since when something has been so, of each who it is so of."""

    def __init__(self) -> None:
        self._begun: dict[object, float] = {}

    def look(self, who: object, so: bool, now: float) -> float:
        """Return for how many seconds it has been so; 0 when it is not."""
        if not so:
            self._begun.pop(who, None)
            return 0.0
        return now - self._begun.setdefault(who, now)

    def keep(self, who: Iterable[object]) -> None:
        """Forget all others."""
        kept = set(who)
        self._begun = {each: when for each, when in self._begun.items() if each in kept}


class Rounds:
    """Looks after a crew.

    Args:
        crew: Whom it looks after.
        spec: What the crew was given.
        deaf_timeout: Seconds without consuming after which `on_deaf` is called; 0 never is.
        on_deaf: Called with the reasons.
    """

    def __init__(
        self,
        crew: Crew,
        spec: WorkerSpec,
        *,
        deaf_timeout: float,
        on_deaf: Callable[[list[str]], None],
    ) -> None:
        self._crew = crew
        self._spec = spec
        self._deaf_timeout = deaf_timeout
        self._on_deaf = on_deaf
        self._unready = Since()
        self._last = self._fresh = time.monotonic()
        self._heard = self._last
        self._replacing: set[asyncio.Task[None]] = set()

    def silence(self, child: ChildProcess, now: float) -> float:
        """Return for how many seconds a child has said nothing, though everything was running."""
        if child.heard == child.started:
            return 0.0  # it has not begun to beat: it imports the app
        return now - max(child.heard, self._fresh)

    def look(self, now: float, wall: float) -> None:
        """Make one round.

        Args:
            now: `time.monotonic`.
            wall: `time.time`.
        """
        if (
            now - self._last > ROUND + LATE
        ):  # all of us were stopped, or starved: nobody is to blame
            self._fresh = now
        self._last = now
        for child in list(self._crew.children()):
            if not child.has_ended():
                self._look_at(child, now, wall)
        for place in list(self._crew.places):
            if place.child is not None and place.next is None and not place.closed:
                self._judge(place, place.child, now)
        self._unready.keep(self._crew.children())
        self._judge_worker(now)

    def close(self) -> None:
        """Stop what is under way."""
        for task in self._replacing:
            task.cancel()

    # -- each child ---------------------------------------------------------------

    def _look_at(self, child: ChildProcess, now: float, wall: float) -> None:
        silence = self.silence(child, now)
        if silence > SILENT and not child.silent and child.ending is None:
            child.silent = True
            log.warning(
                "child.silent pid=%d seconds=%.0f ran=%r: a task may hold the interpreter; it is "
                "killed once a hard time limit has passed",
                child.pid,
                silence,
                describe(child.ran(), wall),
            )
        elif child.silent and silence < ROUND + LATE:
            child.silent = False
            log.info("child.heard_again pid=%d", child.pid)
        self._end_if_hung(child, silence, now, wall)

    def _end_if_hung(self, child: ChildProcess, silence: float, now: float, wall: float) -> None:
        if child.fate is not None:
            return
        if child.ending is not None:  # whatever it did, it should be gone any moment
            if now - max(child.ending, self._fresh) > HANGING:
                child.kill("it hung at its end")
            return
        if silence > OVERDUE:
            late = overdue(child.ran(), wall, OVERDUE)
        elif now - self._fresh > LONG_OVERDUE:
            late = overdue(child.ran(), wall, LONG_OVERDUE)
        else:
            return
        for entry in late:
            self._crew.condemn(entry.id, f"task {entry.task!r} ran over its hard time limit")
        if late:
            child.kill(f"{describe(late, wall)} ran over its hard time limit, and nothing ended it")
        elif self._deaf_timeout and silence > self._deaf_timeout / 2:
            child.kill(f"it was silent for {silence:.0f} s")

    def _judge(self, place: Place[ChildProcess], child: ChildProcess, now: float) -> None:
        unready = self._unready.look(child, not child.ready, now)
        if child.rung is not Rung.RUNNING and unready > LEAVING and child.ending is None:
            log.info("child.leaving pid=%d: it was told to stop, another one takes over", child.pid)
            place.follow()
            return
        if child.rung is not Rung.RUNNING or child.silent:
            return
        reason = outgrown(child.beat, self._spec)
        if reason is not None and child.ready:
            self._replace(place, "child.recycled pid=%d: %s, another one takes over", child, reason)
        elif self._crew.ready and self._deaf_timeout and unready > self._deaf_timeout / 2:
            self._unready.look(child, False, now)  # should the new one fail, as long again
            why = "; ".join(child.reasons)
            self._replace(place, "child.deaf pid=%d: %s, another one takes over", child, why)

    def _replace(
        self, place: Place[ChildProcess], line: str, child: ChildProcess, why: str
    ) -> None:
        if self._replacing:
            return  # one at a time; it will still be so at a later round

        async def replace() -> None:
            log.info(line, child.pid, why)
            await self._crew.replace(place)

        task = asyncio.create_task(replace(), name=f"amqtask replace {child.pid}")
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    # -- the worker ---------------------------------------------------------------

    def _judge_worker(self, now: float) -> None:
        if any(child.ready and not child.silent for child in self._crew.children()):
            self._heard = now
        deaf = now - max(self._heard, self._fresh)
        if self._deaf_timeout and deaf > self._deaf_timeout:
            self._heard = now
            self._on_deaf(self.reasons())

    def reasons(self) -> list[str]:
        """Return why places do not consume; empty when all do."""
        found: list[str] = []
        for place in self._crew.places:
            child = place.child
            if child is None:
                found.append(f"process {place.index}: died, another one starts soon")
            elif child.silent:
                found.append(f"process {place.index} (pid {child.pid}): silent")
            elif not child.ready:
                why = "; ".join(child.reasons) or "it does not say"
                found.append(f"process {place.index} (pid {child.pid}): {why}")
        return found
