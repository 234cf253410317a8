"""Time that is advanced does what falls due, in order, each at its instant."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest

from amqtask.broker import Clock


def test_due_in_order_at_their_instants():
    clock = Clock()
    start = clock.now()
    seen: list[tuple[str, float]] = []

    def see(name: str) -> None:
        seen.append((name, round(clock.now() - start, 3)))

    for name, after in (("b", 20.0), ("a", 10.0), ("c", 30.0)):
        clock.call_at(start + after, partial(see, name))
    clock.advance(25)
    assert seen == [("a", 10), ("b", 20)]
    clock.advance(10)
    assert [name for name, _ in seen] == ["a", "b", "c"]


def test_what_follows_is_timed_from_what_came_before():
    """A message that hops through three waiting queues waits in each from the right moment."""
    clock = Clock()
    start = clock.now()
    seen: list[float] = []

    def hop() -> None:
        seen.append(clock.now() - start)
        if len(seen) < 3:
            clock.call_later(10, hop)

    clock.call_at(start + 10, hop)
    clock.advance(100)
    assert seen == [pytest.approx(10), pytest.approx(20), pytest.approx(30)]


def test_cancelled_is_not_done():
    clock = Clock()
    timer = clock.call_later(1, lambda: pytest.fail("it was cancelled"))
    timer.cancel()
    clock.advance(2)
    assert timer.cancelled


def test_does_not_go_back():
    clock = Clock()
    with pytest.raises(ValueError, match="time cannot go back by 1 seconds"):
        clock.advance(-1)


def test_wall_time_goes_along():
    clock = Clock()
    before = clock.wall()
    clock.advance(3600)
    assert clock.wall() - before == pytest.approx(3600, abs=1)


async def test_rings_by_itself():
    clock = Clock()
    clock.start(asyncio.get_running_loop())
    rung = asyncio.Event()
    clock.call_later(0.001, rung.set)
    await asyncio.wait_for(rung.wait(), 5)
    clock.stop()


def test_the_next_instant_is_known() -> None:
    """So that whoever drives the clock can go from one to the next; what was cancelled is none."""
    clock = Clock()
    assert Clock().due is None
    first = clock.call_at(clock.now() + 5, lambda: None)
    second = clock.call_at(clock.now() + 9, lambda: None)
    assert clock.due == first.when
    first.cancel()
    assert clock.due == second.when


def test_nobody_sees_time_go_back() -> None:
    """Another thread that looks, again and again, while the clock is advanced."""
    clock = Clock()
    seen: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(clock.now())

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(200):
        for delay in (1.0, 2.0):
            clock.call_later(delay, lambda: time.sleep(0))
        clock.advance(10)
    done.set()
    looking.join()
    assert seen == sorted(seen)
