"""A schedule of one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from amqtask.policy.schedule.base import instant


@dataclass(frozen=True, slots=True)
class Once:
    """Due at one instant, and never again.

    Attributes:
        at: The instant, in UTC.
    """

    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", instant(self.at, "the instant of once()"))

    def next(self, after: datetime) -> datetime | None:
        """Return the instant when it is later than ``after``."""
        return self.at if self.at > after else None

    def to_plain(self) -> Mapping[str, Any]:
        """Return ``{"once": "2026-12-01T08:00:00+00:00"}``."""
        return {"once": self.at.isoformat()}

    def __str__(self) -> str:
        return f"once {self.at.isoformat()}"


def once(at: datetime | str) -> Once:
    """Return a schedule that is due at one instant.

    Args:
        at: Aware datetime, or ISO 8601 text with an offset.

    Raises:
        ConfigurationError: It is neither, or has no time zone.
    """
    return Once(instant(at, "the instant of once()"))
