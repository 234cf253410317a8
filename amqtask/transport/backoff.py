"""How long to wait before trying again, and how often to say so."""

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


@dataclass(slots=True)
class Repeats:
    """Which of many equal lines are logged: the first, then ever fewer.

    A broker that is away for a night is tried again every few seconds; one line for each
    try would bury everything else.

    Attributes:
        first: Seconds of silence after the first line.
        cap: Longest silence in seconds.
    """

    first: float = 10.0
    cap: float = 600.0
    _said: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)

    def due(self, text: str, now: float) -> bool:
        """Return whether to say ``text`` now; each text has its own turn.

        Args:
            now: Monotonic seconds.
        """
        silence, until = self._said.get(text, (self.first / 2, now))
        if now < until:
            return False
        if len(self._said) >= _TEXTS and text not in self._said:
            del self._said[next(iter(self._said))]
        silence = min(self.cap, silence * 2)
        self._said[text] = (silence, now + silence)
        return True

    def reset(self) -> None:
        """Start over: the next line is said, whatever it is."""
        self._said.clear()


#: Texts that are told apart; errors come in few forms.
_TEXTS = 16
