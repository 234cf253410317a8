"""The time of day, as all of amqtask reads it.

Tests let hours pass at once: the broker's clock jumps, and a worker that looked
at another one would take a call that just came for one that is hours early. So
everything that compares instants (etas, expiry, what is left of a delay) asks
`wall`, and a test gives it the broker's time for as long as it runs.

What is measured rather than compared stays on real time: how long a task ran,
the deadline of a publish, heartbeats, back-off after a lost connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_source: Callable[[], float] = time.time
#: Linux's monotonic clock stands still while a machine sleeps; this one does not.
_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def wall() -> float:
    """Return seconds since 1970; those of `time.time`, unless a test says otherwise."""
    return _source()


def awake() -> float:
    """Return seconds that never go back, and also pass while the machine sleeps.

    That is what a right that runs out is measured by. Where the system cannot tell how long
    it slept, they stand still meanwhile.
    """
    if _BOOT is not None:
        return time.clock_gettime(_BOOT)
    return time.monotonic()


@contextmanager
def telling(source: Callable[[], float]) -> Iterator[None]:
    """Have `wall` return what ``source`` does, for as long as the block runs.

    Threads: it holds for the whole process; blocks may be nested, not interleaved.
    """
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before
