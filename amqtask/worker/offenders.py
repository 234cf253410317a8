"""What the supervisor remembers of deliveries that harmed a child, to warn the children that follow.

A *suspect* ran in a child that died: it runs isolated when it comes again, so
that a killer takes no neighbour with it. One that is *condemned* ran past its
hard deadline in a child that had to be killed for it: it does not run again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Deliveries remembered; the oldest are forgotten first.
MOST = 1000
#: Seconds for which they are.
KEEP = 3600.0


class Offenders:
    """Bounded in number and age."""

    def __init__(self, *, most: int = MOST, keep: float = KEEP) -> None:
        self._most = most
        self._keep = keep
        # id -> when, whether condemned, why; oldest first
        self._known: dict[str, tuple[float, bool, str]] = {}

    def suspect(self, ids: Iterable[str], why: str, now: float) -> list[dict[str, Any]]:
        """Remember suspects; returns what children are told of them.

        One that is condemned already stays so.
        """
        fresh = [each for each in ids if not self._known.get(each, (0.0, False, ""))[1]]
        for each in fresh:
            self._note(each, (now, False, why))
        return [{"do": "suspect", "ids": fresh, "why": why}] if fresh else []

    def condemn(self, task_id: str, why: str, now: float) -> list[dict[str, Any]]:
        """Remember one that must not run again; returns what children are told of it."""
        self._note(task_id, (now, True, why))
        return [{"do": "condemn", "id": task_id, "why": why}]

    def words(self, now: float) -> list[dict[str, Any]]:
        """Return what a new child is told."""
        words: list[dict[str, Any]] = []
        by_reason: dict[str, list[str]] = {}
        for each, (when, condemned, why) in self._known.items():
            if now - when > self._keep:
                continue
            if condemned:
                words.append({"do": "condemn", "id": each, "why": why})
            else:
                by_reason.setdefault(why, []).append(each)
        return words + [{"do": "suspect", "ids": ids, "why": why} for why, ids in by_reason.items()]

    def _note(self, task_id: str, entry: tuple[float, bool, str]) -> None:
        self._known.pop(task_id, None)
        self._known[task_id] = entry
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
