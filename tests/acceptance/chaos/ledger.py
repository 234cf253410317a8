"""What the tasks have done, written by themselves.

Each process has a database of its own. One for all would have one lock for all, and a process
that is stopped while it holds it would stop every other: the ledger would measure itself. A
database survives the SIGKILL of its writer, because each event is handed to the kernel before
the task goes on (WAL, no fsync: machines do not lose their power here).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TABLE = """
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY, run TEXT, word TEXT, id TEXT, attempt INTEGER, kind TEXT,
    pid INTEGER, ppid INTEGER, at REAL)
"""
#: What a run's last event says: it returned, it wants another attempt, it failed for good.
ENDS = ("done", "again", "failed")


@dataclass(frozen=True, slots=True)
class Event:
    """One line: a run began, or ended.

    Attributes:
        run: Which run of the task's code; a repeat has another.
        word: ``begun``, or one of `ENDS`.
        id: Of the call.
        attempt: 1 is the first.
        kind: Name of the task.
        pid: The process.
        ppid: Its parent when it started.
        at: `time.monotonic`, which all processes of a machine share.
    """

    run: str
    word: str
    id: str
    attempt: int
    kind: str
    pid: int
    ppid: int
    at: float


class Ledger:
    """The writer of one process.

    Threads: any thread and any loop may write.
    """

    def __init__(self, folder: Path) -> None:
        self._ppid = os.getppid()
        self._lock = threading.Lock()
        path = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.sqlite"
        self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=OFF")
        self._base.execute("PRAGMA cache_size=16")  # pages; 2 MiB of them would look like a leak
        self._base.execute(_TABLE)

    def write(self, run: str, word: str, id: str, attempt: int, kind: str) -> None:
        """Add an event; it is safe from a SIGKILL once this returns."""
        line = (run, word, id, attempt, kind, os.getpid(), self._ppid, time.monotonic())
        with self._lock:
            self._base.execute("INSERT INTO event VALUES (NULL,?,?,?,?,?,?,?,?)", line)


class Reader:
    """Reads what all processes have written, a little more at each call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, int] = {}

    def news(self) -> Iterator[Event]:
        """Yield the events since the last call; in order within each process."""
        for path in sorted(self._folder.glob("*.sqlite")):
            with _opened(path) as base:
                try:
                    rows = base.execute(
                        "SELECT seq, run, word, id, attempt, kind, pid, ppid, at FROM event"
                        " WHERE seq > ? ORDER BY seq",
                        (self._seen.get(path, 0),),
                    ).fetchall()
                except sqlite3.OperationalError as error:
                    if "no such table" not in str(error):  # its writer has just begun
                        raise
                    continue
            if rows:
                self._seen[path] = rows[-1][0]
            for row in rows:
                yield Event(*row[1:])


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    base = sqlite3.connect(path, timeout=30.0)
    try:
        yield base
    finally:
        base.close()
