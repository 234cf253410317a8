"""What tasks do here, whoever runs them, and how it is noted: imports no library."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: Seconds that one task of the realistic mix waits, and computes.
WAITS, COMPUTES = 0.005, 0.0002
#: How many of them run at once.
AT_ONCE = 50
#: Seconds between two calls to a worker that shall be idle when the next one comes.
APART = 0.01
_HUNDREDTHS = (50, 95, 99)

_delays: list[float] = []


def write_mark(path: str) -> None:
    """Write the time, and the processor time this process has used, to a file."""
    _write(path, [time.monotonic(), time.process_time()])


def compute() -> None:
    """Keep one processor busy for the computing part of the mix."""
    end = time.thread_time() + COMPUTES
    while time.thread_time() < end:
        pass


def mix() -> None:
    """Wait and compute, as a plain function."""
    time.sleep(WAITS)
    compute()


async def amix() -> None:
    """Wait and compute, on the event loop."""
    await asyncio.sleep(WAITS)
    compute()


def note_start(sent: float, path: str) -> None:
    """Note how long ago a call was sent; with a path, write down all that was noted."""
    _delays.append(time.monotonic() - sent)
    if path:
        _write(path, _delays)
        _delays.clear()


def tail(seconds: Sequence[float]) -> list[float]:
    """Return what half, 95 and 99 of 100 took at most."""
    ordered = sorted(seconds)
    return [ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in _HUNDREDTHS]


def clock() -> tuple[float, float]:
    """Return the time, and the processor time used so far."""
    return time.perf_counter(), time.process_time()


def clocked(began: tuple[float, float], count: int) -> dict[str, Any]:
    """Return what was measured since ``began``; see `clock`."""
    return {
        "count": count,
        "seconds": time.perf_counter() - began[0],
        "cpu": time.process_time() - began[1],
    }


# -- the limit of the mix: the same work without any library -------------------------


def in_threads(count: int) -> dict[str, Any]:
    """Do the mix in threads."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: mix(), range(AT_ONCE)))
        began = clock()
        list(pool.map(lambda _: mix(), range(count)))
        return clocked(began, count)


def on_loop(count: int) -> dict[str, Any]:
    """Do the mix on an event loop."""

    async def some(number: int) -> None:
        for _ in range(number):
            await amix()

    async def main() -> dict[str, Any]:
        began = clock()
        await asyncio.gather(*(some(count // AT_ONCE) for _ in range(AT_ONCE)))
        return clocked(began, count // AT_ONCE * AT_ONCE)

    return asyncio.run(main())


def finish() -> None:
    """Nothing is left open."""


def _write(path: str, values: Sequence[float]) -> None:
    unfinished = Path(f"{path}.part")
    unfinished.write_text(json.dumps(values))
    unfinished.rename(path)
