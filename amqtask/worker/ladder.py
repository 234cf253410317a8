"""The shutdown ladder: how a process is told to end, gently first and for certain at last.

    running --signal--> warm --deadline, signal--> cancel --clean-up over, signal--> now --late, signal--> kill
        `--SIGQUIT---------------------------------------------------------------------^

    warm     take nothing new, give back what has not started, finish what runs
    cancel   ask what runs to end, and let it clean up
    now      give back what still runs, and end
    kill     SIGKILL

`Ladder` decides and knows no clock of its own; `Descent` has it done to processes.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from typing import Protocol

#: Seconds a process has to give back what it runs and end, before it is killed.
QUICK = 5.0


class Rung(enum.IntEnum):
    """Where on the ladder; a larger one is ruder."""

    RUNNING = 0
    WARM = 1
    CANCEL = 2
    NOW = 3
    KILL = 4


class Ladder:
    """Which rung holds, and until when.

    Args:
        warm: Seconds for what runs to finish; None waits for as long as it takes.
        cleanup: Seconds for what was cancelled to clean up.
        quick: Seconds to give back what runs and end.

    Attributes:
        rung: Where it stands; it only ever goes down.
        due: The time at which `tick` goes one further; None where nothing presses.
    """

    def __init__(self, *, warm: float | None, cleanup: float, quick: float = QUICK) -> None:
        self._spans: dict[Rung, float | None] = {
            Rung.WARM: warm,
            Rung.CANCEL: cleanup,
            Rung.NOW: quick,
        }
        self.rung = Rung.RUNNING
        self.due: float | None = None

    def press(self, now: float, least: Rung = Rung.WARM) -> Rung:
        """Go one rung down, and at least to ``least``; returns the rung that holds then."""
        return self._enter(min(Rung.KILL, max(self.rung + 1, least)), now)

    def tick(self, now: float) -> Rung:
        """Go one rung down when the present one is over; returns the rung that holds then."""
        if self.due is not None and now >= self.due:
            return self._enter(self.rung + 1, now)
        return self.rung

    def _enter(self, rung: int, now: float) -> Rung:
        self.rung = Rung(rung)
        span = self._spans.get(self.rung)
        self.due = None if span is None else now + span
        return self.rung


class Descends(Protocol):
    """What can be told to take a rung."""

    def take(self, rung: Rung) -> None:
        """Do what the rung asks; one taken before is no trouble."""


class Descent:
    """Leads processes down a ladder, on the running loop.

    Args:
        ladder: Decides.
        who: Asked at each rung for those that still run.
        on_rung: Called with each new rung, before anybody takes it.
    """

    def __init__(
        self,
        ladder: Ladder,
        who: Callable[[], Iterable[Descends]],
        on_rung: Callable[[Rung], None] = lambda _: None,
    ) -> None:
        self._ladder = ladder
        self._who = who
        self._on_rung = on_rung
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rung(self) -> Rung:
        """The rung that holds."""
        return self._ladder.rung

    def press(self, least: Rung = Rung.WARM) -> None:
        """Go one rung down, and at least to ``least``."""
        if self._ladder.rung is not Rung.KILL:
            self._ladder.press(self._loop.time(), least)
            self._apply()

    def close(self) -> None:
        """Stop the clock: everybody has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        before = self._ladder.rung
        # a timer may ring a hair early by the clock it is compared with
        if self._ladder.tick(max(self._loop.time(), self._ladder.due or 0.0)) is not before:
            self._apply()

    def _apply(self) -> None:
        self.close()
        if self._ladder.due is not None:
            self._timer = self._loop.call_at(self._ladder.due, self._tick)
        self._on_rung(self._ladder.rung)
        for each in list(self._who()):
            each.take(self._ladder.rung)
