"""How far a workflow is, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqtask.message.results import READY_STATES

if TYPE_CHECKING:
    from amqtask.result.handle import AsyncResult


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of some calls have ended, and how.

    Attributes:
        done: Ended with a value.
        failed: Ended with an exception, cancelled, or never to run as what they follow failed.
        waiting: Wait, run, or are unknown.
    """

    done: int
    failed: int
    waiting: int

    @property
    def total(self) -> int:
        """How many there are."""
        return self.done + self.failed + self.waiting

    @property
    def ended(self) -> bool:
        """Whether none waits any more."""
        return not self.waiting

    @classmethod
    def of(cls, results: Iterable[AsyncResult[Any]]) -> Tally:
        """Look at each of these; asks the backend for those that have not ended."""
        done = failed = waiting = 0
        for result in results:
            state = result.state
            if state == "SUCCESS":
                done += 1
            elif state in READY_STATES:
                failed += 1
            else:
                waiting += 1
        return cls(done, failed, waiting)
