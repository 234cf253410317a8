"""This process: its id, ids that are nobody else's, and locks that its forked children can take.

A call costs some 30 microseconds, and asking the system for the process's id or
having a `uuid.UUID` made would be a tenth of that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from weakref import WeakSet

_pid = os.getpid()
# os.urandom gives up the GIL, which the I/O thread takes: a change of threads for each id
_random: Callable[[int], bytes] = getattr(os, "getrandom", os.urandom)
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def pid() -> int:
    """Return the id of this process, after a fork as well."""
    return _pid


def new_id() -> str:
    """Return a random id, as text of a UUID of version 4."""
    # asked of the system each time: a generator of ours would repeat itself after a fork
    random = _random(16).hex()
    return (
        f"{random[:8]}-{random[8:12]}-4{random[13:16]}-"
        f"{_VARIANT[random[16]]}{random[17:20]}-{random[20:]}"
    )


class Lock:
    """A lock that is free in a forked child, whichever of the parent's threads held it.

    It is for what may be found half done there, such as something made at its first use.
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_locks: WeakSet[Lock] = WeakSet()


def _after_fork() -> None:
    global _pid
    _pid = os.getpid()
    for lock in list(_locks):
        lock._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
