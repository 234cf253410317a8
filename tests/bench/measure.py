"""Turns, medians and spreads: what makes figures of a noisy machine comparable.

All contenders of a case run once in each round, each time in another order, so that what else the
machine does hits them alike. Ratios are taken within a round, and summed up after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

#: What a row's figure is: things a second (more is better), or milliseconds or mebibytes (less is).
Unit = Literal["/s", "ms", "MiB"]
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Reading:
    """What one contender did in one round.

    Attributes:
        count: Things done.
        seconds: Time they took.
        cpu: Seconds of processor time that the measured process used, over all its threads; None
            where that says nothing.
        broker: The same of the broker, with all else that it did meanwhile.
        tail: Seconds that half, 95 and 99 of 100 single things took at most.
        size: Bytes, where memory is what is measured.
    """

    count: int
    seconds: float
    cpu: float | None = None
    broker: float | None = None
    tail: Sequence[float] | None = None
    size: int = 0

    def value(self, unit: Unit) -> float:
        """Return the figure in ``unit``."""
        cost = self.cost(unit)
        return 1 / cost if unit == "/s" else cost

    def cost(self, unit: Unit) -> float:
        """Return what less of is better: seconds, milliseconds or mebibytes for each thing."""
        if unit == "MiB":
            return self.size / _MIB
        return self.seconds / self.count * (1e3 if unit == "ms" else 1)

    @property
    def cpu_us(self) -> float | None:
        """Microseconds of processor time for each thing."""
        return None if self.cpu is None else self.cpu / self.count * 1e6

    @property
    def broker_us(self) -> float | None:
        """Microseconds of the broker's processor time for each thing."""
        return None if self.broker is None else self.broker / self.count * 1e6

    @property
    def tail_ms(self) -> Sequence[float] | None:
        """The tail in milliseconds."""
        return None if self.tail is None else [seconds * 1e3 for seconds in self.tail]


#: One round of one contender: a reading for each of its rows.
Run = Callable[[], Mapping[str, Reading]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One that takes part.

    Attributes:
        name: What it is called where it fails.
        run: Has it do its work.
    """

    name: str
    run: Run


@dataclass(frozen=True, slots=True)
class Goal:
    """How one row is meant to stand beside another, or beside a figure.

    Attributes:
        row: Whose figure it is.
        beside: The row it is compared with, or a figure in the case's unit.
        least: How many times as good it has to be, at least; whatever the unit, 2 is twice as fast.
        hard: What stands in the way, for a reader who sees that it was missed.
    """

    row: str
    beside: str | float
    least: float = 1
    hard: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders that do the same work.

    Attributes:
        key: Its name on the command line.
        title: What the work is.
        note: What a reader has to know of how it is done.
        contenders: Who does it.
        baseline: Name of the row that the others are compared with.
        unit: What its figures are.
        goals: How rows are meant to stand beside each other.
        rounds: How often each contender runs; None leaves that to the command.
        pictured: Whether the plot shows it.
    """

    key: str
    title: str
    note: str
    contenders: Sequence[Contender]
    baseline: str
    unit: Unit = "/s"
    goals: Sequence[Goal] = ()
    rounds: int | None = None
    pictured: bool = False


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
    """One line of a table; what was not measured is None.

    Attributes:
        value: The figure, in the case's unit.
        ratio: How many times as good as the baseline of the same round: above 1 is faster,
            or smaller, whatever the unit.
        cpu_us: Microseconds of processor time for each thing.
        cpu_ratio: How many times the baseline's processor time; below 1 is cheaper.
        broker_us: Microseconds of the broker's processor time for each thing.
        tail_ms: Milliseconds that half, 95 and 99 of 100 took at most.
    """

    name: str
    value: Spread
    ratio: Spread | None
    cpu_us: Spread | None = None
    cpu_ratio: Spread | None = None
    broker_us: Spread | None = None
    tail_ms: Sequence[Spread] | None = None


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
    """A case and what came out.

    Attributes:
        failures: Why a contender has no figures, or not those of all rounds.
    """

    case: Case
    rows: Sequence[Row]
    verdicts: Sequence[Verdict] = ()
    failures: Sequence[str] = ()


def turns(count: int, rounds: int) -> Iterator[list[int]]:
    """Yield the order of the contenders in each round: each is first, and last, as often."""
    for number in range(rounds):
        shift = number // 2 % count
        order = [(index + shift) % count for index in range(count)]
        yield order[::-1] if number % 2 else order


def measure(
    case: Case, rounds: int, progress: Callable[[str], None], clean: Callable[[], None]
) -> Table:
    """Run a case; a contender that fails is left out from there on, and the others go on.

    Args:
        rounds: How often each contender runs.
        progress: Told what came out, a line for each reading.
        clean: Called after a failure, to have the others find what they expect.
    """
    rounds = case.rounds or rounds
    readings: list[dict[str, Reading]] = []
    failed: dict[int, str] = {}
    for number, order in enumerate(turns(len(case.contenders), rounds), 1):
        where = f"{case.key} round {number}/{rounds}"
        found: dict[str, Reading] = {}
        for index in order:
            contender = case.contenders[index]
            if index in failed:
                continue
            try:
                taken = contender.run()
            # what others' programs do is not in our hands, and hours of figures are worth keeping
            except Exception as error:
                failed[index] = f"{contender.name} failed in round {number}: {error!r}"
                progress(f"{where}: {failed[index]}")
                clean()
                continue
            found.update(taken)
            for name, reading in taken.items():
                progress(f"{where}: {name} {reading.value(case.unit):,.0f} {case.unit}")
        readings.append(found)
    return Table(case, summed_up(case, readings), judged(case, readings), list(failed.values()))


def summed_up(case: Case, rounds: Sequence[Mapping[str, Reading]]) -> list[Row]:
    """Make a table's rows of the readings of all rounds; the baseline's comes first."""
    names = dict.fromkeys(name for found in rounds for name in found)
    return [
        _row(case, name, rounds) for name in sorted(names, key=lambda name: name != case.baseline)
    ]


def judged(case: Case, rounds: Sequence[Mapping[str, Reading]]) -> list[Verdict]:
    """Hold the readings of all rounds against the case's goals, as far as there are any."""
    verdicts = []
    for goal in case.goals:
        ratios = [
            ratio for found in rounds if (ratio := _reached(case.unit, goal, found)) is not None
        ]
        if ratios:
            verdicts.append(Verdict(goal, Spread.of(ratios)))
    return verdicts


def _reached(unit: Unit, goal: Goal, found: Mapping[str, Reading]) -> float | None:
    own = found.get(goal.row)
    if own is None:
        return None
    if isinstance(goal.beside, str):
        other = found.get(goal.beside)
        return None if other is None else other.cost(unit) / own.cost(unit)
    return own.value(unit) / goal.beside if unit == "/s" else goal.beside / own.value(unit)


def _row(case: Case, name: str, rounds: Sequence[Mapping[str, Reading]]) -> Row:
    unit = case.unit
    own = [found[name] for found in rounds if name in found]
    pairs = [
        (found[name], found[case.baseline])
        for found in rounds
        if name in found and case.baseline in found
    ]
    tails = [tail for reading in own if (tail := reading.tail_ms) is not None]
    return Row(
        name,
        Spread.of([reading.value(unit) for reading in own]),
        _spread([other.cost(unit) / reading.cost(unit) for reading, other in pairs]),
        _spread([reading.cpu_us for reading in own]),
        _spread(
            [
                reading.cpu / reading.count / (other.cpu / other.count)
                for reading, other in pairs
                if reading.cpu is not None and other.cpu
            ]
        ),
        _spread([reading.broker_us for reading in own]),
        [Spread.of(values) for values in zip(*tails, strict=True)] or None,
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread.of(known) if known else None
