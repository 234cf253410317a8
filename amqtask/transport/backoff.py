"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Exponential waits with jitter, starting over after a success.

    Attributes:
        first: Seconds before the first retry.
        cap: Longest wait in seconds.
    """

    first: float = 0.1
    cap: float = 5.0
    _failures: int = field(default=0, init=False)

    def next(self) -> float:
        """Return the next wait in seconds: between half of the step and all of it."""
        step = min(self.cap, self.first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return step * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """Start over at the first wait."""
        self._failures = 0
