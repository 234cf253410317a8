"""How many processes there should be: a decision from what the children and the queues report.

    steady --every slot busy and messages waiting, twice running--> more
       `--one process fewer would do, for long enough--> one fewer

More come quickly, for messages wait; fewer come slowly, for the next burst may be near.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Looks in a row that must find a worker overloaded before more processes start.
SURE = 2
#: Share of the slots of one process fewer that may be in use before it would be too few.
ROOM = 0.75


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has to do, at one moment.

    Attributes:
        processes: How many there are, those that start included.
        settled: Whether all of them consume; while one starts or stops nothing is decided.
        slots: Tasks at once in each process.
        running: Tasks that run, over all processes.
        busy: Whether no process has a free slot.
        backlog: Messages that wait, in the queues and in the processes; None when not known.
    """

    processes: int
    settled: bool
    slots: int
    running: int
    busy: bool
    backlog: int | None


class Scaler:
    """Decides from one look to the next.

    Args:
        least: Processes at least.
        most: Processes at most.
        idle: Seconds for which one process fewer must have been enough.
    """

    def __init__(self, least: int, most: int, *, idle: float) -> None:
        self.least = least
        self.most = most
        self._idle = idle
        self._overloaded = 0
        self._spare_since: float | None = None

    def look(self, now: float, load: Load) -> int:
        """Return how many processes there should be.

        Args:
            now: A time in seconds that never goes back.
            load: What there is to do.
        """
        within = min(self.most, max(self.least, load.processes))
        if within != load.processes or not load.settled:
            self._forget()
            return within
        if load.busy and load.backlog:
            self._spare_since = None
            self._overloaded += 1
            if self._overloaded < SURE:
                return within
            self._forget()
            return min(self.most, within + more(load))
        self._overloaded = 0
        if not spare(load):
            self._spare_since = None
            return within
        if self._spare_since is None:
            self._spare_since = now
        if now - self._spare_since < self._idle:
            return within
        self._spare_since = None
        return max(self.least, within - 1)

    def _forget(self) -> None:
        self._overloaded = 0
        self._spare_since = None


def more(load: Load) -> int:
    """Return how many processes the backlog is worth: at most as many again as there are."""
    assert load.backlog is not None
    return max(1, min(load.processes, -(-load.backlog // max(1, load.slots))))


def spare(load: Load) -> bool:
    """Whether one process fewer would do, with room to spare."""
    if load.busy or load.processes < 2:
        return False
    return not load.backlog and load.running <= (load.processes - 1) * load.slots * ROOM
