"""Jobs that have not started, in order; shared by all pools."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

J = TypeVar("J")


class Waiting(Generic[J]):
    """A queue that can be looked into, and taken from at any place.

    Threads: every method from any thread; a job is handed out once.
    """

    __slots__ = ("_jobs", "add", "take")

    def __init__(self) -> None:
        self._jobs: deque[J] = deque()
        #: Put a job at the end.
        self.add = self._jobs.append
        #: Take the first out; raises IndexError when there is none.
        self.take = self._jobs.popleft

    def __len__(self) -> int:
        return len(self._jobs)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def all(self) -> list[J]:
        """Return those that wait."""
        while True:
            try:
                return list(self._jobs)
            except RuntimeError:  # changed by another thread meanwhile
                continue

    def withdraw(self, job: J) -> bool:
        """Take ``job`` out; False when it has started, or is out already."""
        try:
            self._jobs.remove(job)
        except (ValueError, IndexError):  # the latter when it was changed meanwhile
            return False
        return True

    def drain(self) -> list[J]:
        """Take all out."""
        jobs = []
        try:
            while True:
                jobs.append(self.take())
        except IndexError:
            return jobs
