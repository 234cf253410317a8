"""How far a task is: what it reports, and what a watcher sees.

A task may report in its innermost loop. One report is on its way at a time,
and of those that come meanwhile only the newest follows, so reporting costs
the task nothing and the backend what it can take.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amqtask.message.results import ResultMeta

#: The state that a report is stored under, as Celery's users call it.
PROGRESS = "PROGRESS"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task is.

    Attributes:
        done: Units done.
        total: Units there are; None when that is not known.
        meta: What the task said besides.
    """

    done: float
    total: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fraction(self) -> float | None:
        """The part that is done, 0 to 1; None when the total is not known."""
        return self.done / self.total if self.total else None

    @classmethod
    def of(cls, meta: ResultMeta) -> Progress | None:
        """Return what a state says of progress; None when it says nothing.

        Celery's users write ``current`` where amqtask writes ``done``.
        """
        if not isinstance(meta.result, Mapping):
            return None
        said = dict(meta.result)
        done = said.pop("done", said.pop("current", None))
        total = said.pop("total", None)
        if isinstance(done, bool) or not isinstance(done, int | float):
            return None
        return cls(done, total if isinstance(total, int | float) else None, said)


class Reporter:
    """Sends the states of one run, one at a time.

    Args:
        save: Stores a state and calls back when it is done with it.

    Threads: safe from any thread.
    """

    __slots__ = ("_closed", "_lock", "_next", "_quiet", "_save", "_sending")

    def __init__(
        self, save: Callable[[ResultMeta, Callable[[Exception | None], object]], None]
    ) -> None:
        self._save = save
        self._lock = threading.Lock()
        self._next: ResultMeta | None = None
        self._sending = False
        self._closed = False
        self._quiet = threading.Condition(self._lock)

    def report(self, meta: ResultMeta) -> None:
        """Send a state now, or once the one before is through."""
        with self._lock:
            if self._closed:
                return
            if self._sending:
                self._next = meta
                return
            self._sending = True
        self._save(meta, self._done)

    def close(self, timeout: float = 0.0) -> None:
        """Send nothing more: what follows is the outcome, and nothing may come after it.

        Args:
            timeout: Seconds to wait for the report that is on its way.
        """
        with self._quiet:
            self._closed = True
            self._next = None
            self._quiet.wait_for(lambda: not self._sending, timeout)

    def _done(self, error: Exception | None) -> None:
        # a report that was not stored is not missed: the next one says more
        with self._lock:
            meta, self._next = self._next, None
            self._sending = meta is not None
            if not self._sending:
                self._quiet.notify_all()
        if meta is not None:
            self._save(meta, self._done)
