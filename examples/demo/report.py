"""What became of the calls, counted and checked: no broker here, so that it can be tested alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from rich import box
from rich.table import Table


@dataclass(slots=True)
class Kind:
    """The calls published under one routing key, and what should and did become of them.

    Attributes:
        name: The routing key.
        retries: Retries that these calls should need, all together.
        fails: Whether they should end in the dead-letter queue.
        delay: Seconds that each was put off by.
        first_sent: Unix seconds, when the first was handed over.
        waits: Seconds from publishing to the start of the attempt that counted.
    """

    name: str
    sent: int = 0
    retries: int = 0
    fails: bool = False
    delay: float = 0.0
    done: int = 0
    retried: int = 0
    dead: int = 0
    first_sent: float = 0.0
    last_started: float = 0.0
    waits: list[float] = field(default_factory=list)

    def ran(self, sent: float, started: float, attempt: int) -> None:
        """Count a call that ended well."""
        self.done += 1
        self.retried += attempt - 1
        self.waits.append(max(0.0, started - sent))
        self.last_started = max(self.last_started, started)

    @property
    def rate(self) -> float | None:
        """Calls a second from the first publish to the last start; None where that says nothing."""
        took = self.last_started - self.first_sent
        return self.done / took if self.done > 1 and took > 0 else None

    def wrong(self) -> list[str]:
        """Return what is not as it should be, a line each."""
        wanted = {
            "done": 0 if self.fails else self.sent,
            "retried": self.retries,
            "dead": self.sent if self.fails else 0,
        }
        lines = [
            f"{self.name}: {getattr(self, what)} {what}, {number} expected"
            for what, number in wanted.items()
            if getattr(self, what) != number
        ]
        if self.waits and min(self.waits) < self.delay:
            lines.append(f"{self.name}: started after {min(self.waits):.3f} s, before its time")
        return lines


def table(kinds: Sequence[Kind]) -> Table:
    """Return the summary, a row for each kind; it fits 80 columns."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("kind", no_wrap=True)
    for head in ("sent", "done", "retried", "dead", "rate", "waited", "p95"):
        made.add_column(head, justify="right", no_wrap=True)
    for kind in kinds:
        waits = kind.waits
        made.add_row(
            kind.name,
            *(str(number) for number in (kind.sent, kind.done, kind.retried, kind.dead)),
            "-" if kind.rate is None else f"{kind.rate:,.0f}/s",
            _duration(median(waits)) if waits else "-",
            _duration(quantiles(waits, n=20)[-1]) if len(waits) > 1 else "-",
        )
    return made


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
