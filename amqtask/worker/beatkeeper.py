"""The beat of a worker: a process beside those that run tasks, kept as they are.

    starting --in line, leading--> filled --it dies, hangs--> pause (back-off) --> starting
                                     |--restart: the next one is in line--> the old one hands over
                                     `--stop--> handing over --> ended

It is a process of its own so that a rolling restart gives it new code, which the
supervisor cannot import a second time. What it needs is in `amqtask.beat.child`;
nothing of a beat is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from amqtask.worker.crew import PATIENCE
from amqtask.worker.ladder import Ladder
from amqtask.worker.places import Place
from amqtask.worker.spawn import ChildProcess, death
from amqtask.worker.spec import WorkerSpec
from amqtask.worker.starting import Start, start_python
from amqtask.worker.status import Status

#: Seconds that one has to hand over: longer than it takes what is under way for lost.
HAND_OVER = 20.0
#: Seconds of silence after which one is killed; by then the broker has long given the lead to others.
HUNG = 60.0


class BeatProcess(ChildProcess):
    """A child that runs a beat.

    Attributes:
        shown: How the beat is, as it told last.
        dead: Why it does not tick, in its own words; empty while it does.
    """

    KIND = "beat"
    AFTERMATH = "what falls due meanwhile is caught up as its entry says"

    def __init__(self, spec: WorkerSpec, index: int = 0, start: Start = start_python) -> None:
        super().__init__(replace(spec, beat=True), index, start)
        self.shown: Mapping[str, Any] = {"role": "connecting"}
        self.dead: tuple[str, ...] = ()

    def _hear(self, said: dict[str, Any]) -> None:
        super()._hear(said)
        if said.get("event") == "beat":
            self.shown = said.get("shown", self.shown)
            self.dead = tuple(map(str, said.get("dead", ())))

    def epitaph(self, code: int) -> str:
        """Return what is known of its end, for people: it runs no tasks."""
        return f"pid={self.pid} {death(code)}"


class BeatKeeper:
    """Keeps a beat running from `open` until it is told to stop.

    Args:
        spawn: Starts one in a place.
        wanted: False keeps none, and nothing is told of it.
    """

    def __init__(self, spawn: Callable[[int], BeatProcess], *, wanted: bool = True) -> None:
        self._wanted = wanted
        self._opened = False
        self._place: Place[BeatProcess] = Place(
            0,
            spawn=spawn,
            ladder=lambda: Ladder(warm=HAND_OVER, cleanup=0.0),
            on_said=lambda _: None,
            on_end=lambda *_: None,
        )

    def open(self) -> None:
        """Start the first one."""
        if self._wanted:
            self._opened = True
            self._place.open()

    def children(self) -> Iterator[BeatProcess]:
        """Yield every process, those that start and those that hand over included."""
        return self._place.children()

    def stop(self) -> None:
        """Let nobody follow, and have the beat hand over."""
        self._place.vacate()

    async def ended(self) -> None:
        """Wait until every process has ended, after `stop`."""
        await self._place.ended()

    async def restart(self) -> bool:
        """Have one with new code get in line, then the present one hand over.

        Returns:
            Whether the new one took its place. If not, the present one goes on.
        """
        if self._place.child is None:
            return True  # the one that starts next has the new code anyway
        return await self._place.replace(PATIENCE)

    def look(self, silence: Callable[[BeatProcess], float]) -> None:
        """Make one round: one that hangs holds the lead for nothing.

        Args:
            silence: Tells for how many seconds a process has said nothing.
        """
        for child in list(self.children()):
            if child.has_ended() or child.fate is not None:
                continue
            if child.dead:
                child.kill("; ".join(child.dead))
            elif (seconds := silence(child)) > HUNG:
                child.kill(f"it was silent for {seconds:.0f} s")

    def status(self) -> Status:
        """Return how the beat is, for those who probe the worker."""
        if not self._opened or self._place.closed:
            return Status("beat")
        child = self._place.child
        if child is None:
            return Status("beat", deaf=("beat: died, another one starts soon",))
        deaf = () if child.ready else (f"beat: {'; '.join(child.reasons)}",)
        dead = tuple(f"beat (pid {child.pid}): {reason}" for reason in child.dead)
        shown = {"pid": child.pid, **child.shown, "rss": child.beat.rss}
        return Status("beat", dead, deaf, (shown,))
