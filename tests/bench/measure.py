"""Turns, medians and spreads: what makes figures of a noisy machine comparable.

All contenders of a case run once in each round, each time in another order, so that what else the
machine does hits them alike. Ratios are taken within a round, and summed up after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

#: What a row's figure is: things a second (more is better), or milliseconds (less is better).
Unit = Literal["/s", "ms"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one contender did in one round.

    Attributes:
        count: Things done.
        seconds: Time they took.
        cpu: Seconds of processor time that the measured process used, over all its threads; None
            where that says nothing.
    """

    count: int
    seconds: float
    cpu: float | None = None

    def value(self, unit: Unit) -> float:
        """Return the figure in ``unit``."""
        return self.count / self.seconds if unit == "/s" else self.seconds / self.count * 1e3

    @property
    def cpu_us(self) -> float | None:
        """Microseconds of processor time for each thing."""
        return None if self.cpu is None else self.cpu / self.count * 1e6


#: One round of one contender: a reading for each of its rows.
Run = Callable[[], Mapping[str, Reading]]


@dataclass(frozen=True, slots=True)
class Goal:
    """How one row is meant to stand beside another.

    Attributes:
        row: Whose figure it is.
        beside: The row it is compared with.
        least: How many times as good it has to be, at least; whatever the unit, 2 is twice as fast.
    """

    row: str
    beside: str
    least: float


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders that do the same work.

    Attributes:
        key: Its name on the command line.
        title: What the work is.
        note: What a reader has to know of how it is done.
        runs: The contenders.
        baseline: Name of the row that the others are compared with.
        unit: What its figures are.
        goals: How rows are meant to stand beside each other.
    """

    key: str
    title: str
    note: str
    runs: Sequence[Run]
    baseline: str
    unit: Unit = "/s"
    goals: Sequence[Goal] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the least and the most around it."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum values up."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        value: The figure, in the case's unit.
        cpu_us: Microseconds of processor time for each thing, or None.
        ratio: How many times as good as the baseline of the same round: above 1 is faster,
            whatever the unit.
        cpu_ratio: How many times the baseline's processor time; below 1 is cheaper. None where
            either has none.
    """

    name: str
    value: Spread
    cpu_us: Spread | None
    ratio: Spread
    cpu_ratio: Spread | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, and the ratio that came out."""

    goal: Goal
    ratio: Spread

    @property
    def reached(self) -> bool:
        """Whether the median round reached it."""
        return self.ratio.middle >= self.goal.least


@dataclass(frozen=True, slots=True)
class Table:
    """A case and what came out."""

    case: Case
    rows: Sequence[Row]
    verdicts: Sequence[Verdict] = ()


def turns(count: int, rounds: int) -> Iterator[list[int]]:
    """Yield the order of the contenders in each round: each is first, and last, as often."""
    for number in range(rounds):
        shift = number // 2 % count
        order = [(index + shift) % count for index in range(count)]
        yield order[::-1] if number % 2 else order


def measure(case: Case, rounds: int, progress: Callable[[str], None]) -> Table:
    """Run a case.

    Args:
        rounds: How often each contender runs.
        progress: Told what came out, a line for each reading.
    """
    readings: list[dict[str, Reading]] = []
    for number, order in enumerate(turns(len(case.runs), rounds), 1):
        found: dict[str, Reading] = {}
        for index in order:
            for name, reading in case.runs[index]().items():
                found[name] = reading
                value = reading.value(case.unit)
                progress(f"{case.key} round {number}/{rounds}: {name} {value:,.0f} {case.unit}")
        readings.append(found)
    return Table(case, summed_up(case, readings), judged(case, readings))


def summed_up(case: Case, rounds: Sequence[Mapping[str, Reading]]) -> list[Row]:
    """Make a table's rows of the readings of all rounds; the baseline's comes first."""
    names = sorted(rounds[0], key=lambda name: name != case.baseline)
    return [_row(case, name, rounds) for name in names]


def judged(case: Case, rounds: Sequence[Mapping[str, Reading]]) -> list[Verdict]:
    """Hold the readings of all rounds against the case's goals."""
    return [
        Verdict(goal, Spread.of([_times(found[goal.row], found[goal.beside]) for found in rounds]))
        for goal in case.goals
    ]


def _times(reading: Reading, other: Reading) -> float:
    """Return how many times as fast a reading is as another."""
    return other.seconds / other.count / (reading.seconds / reading.count)


def _row(case: Case, name: str, rounds: Sequence[Mapping[str, Reading]]) -> Row:
    own = [found[name] for found in rounds]
    base = [found[case.baseline] for found in rounds]
    values = [reading.value(case.unit) for reading in own]
    ratios = [_times(reading, other) for reading, other in zip(own, base, strict=True)]
    cpu = [used for reading in own if (used := reading.cpu_us) is not None]
    cpu_ratios = [
        used / other_used
        for reading, other in zip(own, base, strict=True)
        if (used := reading.cpu_us) is not None and (other_used := other.cpu_us)
    ]
    return Row(
        name,
        Spread.of(values),
        Spread.of(cpu) if cpu else None,
        Spread.of(ratios),
        Spread.of(cpu_ratios) if cpu_ratios else None,
    )
