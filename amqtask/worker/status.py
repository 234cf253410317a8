"""What a worker says of itself to those who probe it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Status:
    """How a worker is, at one moment.

    Attributes:
        name: The worker's name.
        dead: What does not tick; empty while the worker is alive.
        deaf: Why it does not consume all it should; empty while it is ready.
        children: One mapping for each process: its id and what its last beat told.
    """

    name: str
    dead: tuple[str, ...] = ()
    deaf: tuple[str, ...] = ()
    children: tuple[dict[str, object], ...] = field(default=())

    @property
    def live(self) -> bool:
        """Whether everything ticks."""
        return not self.dead

    @property
    def ready(self) -> bool:
        """Whether every queue is consumed by every process."""
        return not self.deaf
