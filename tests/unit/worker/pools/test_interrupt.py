"""Exceptions raised in a thread from outside hit the task that is meant, and nothing else."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest

from amqtask import SoftTimeLimitExceeded, TaskCancelled
from amqtask.worker.pools.interrupt import ThreadRun, Window
from tests.helpers import eventually


class Caller:
    """A thread that calls through a window of its own."""

    def __init__(self, function: Any) -> None:
        self.run: ThreadRun | None = None
        self.ended: tuple[Any, BaseException | None] | None = None
        self._thread = threading.Thread(target=self._call, args=(function,), daemon=True)
        self._thread.start()

    def _call(self, function: Any) -> None:
        window = Window()
        self.run = window.next()
        self.ended = window.call(function)

    def wait(self) -> tuple[Any, BaseException | None]:
        self._thread.join(10)
        assert self.ended is not None
        return self.ended


@pytest.mark.parametrize(
    ("verb", "kind"), [("soft", SoftTimeLimitExceeded), ("cancel", TaskCancelled)]
)
def test_it_is_raised_in_the_task(verb, kind):
    """Wherever its code is; the thread goes on with what it raised."""
    began = threading.Event()

    def spins():
        began.set()
        while True:
            pass

    caller = Caller(spins)
    assert began.wait(10)
    getattr(caller.run, verb)()
    value, error = caller.wait()
    assert value is None
    assert type(error) is kind


def test_a_task_may_catch_it():
    """It is an exception like any other, and the value stands."""
    began = threading.Event()

    def cleans_up():
        try:
            began.set()
            while True:
                pass
        except SoftTimeLimitExceeded:
            return "clean"

    caller = Caller(cleans_up)
    assert began.wait(10)
    assert caller.run is not None
    caller.run.soft()
    assert caller.wait() == ("clean", None)


def test_one_that_comes_before_the_task_begins():
    """It is raised as soon as it does: a limit may be that short."""
    window = Window()
    run = window.next()
    run.soft()
    value, error = window.call(lambda: "ran")
    assert value is None
    assert isinstance(error, SoftTimeLimitExceeded)


def test_one_that_comes_too_late_hits_nobody():
    """Neither the worker's own code, nor the next task."""
    window = Window()
    first = window.next()
    assert window.call(lambda: 1) == (1, None)
    first.soft()
    second = window.next()
    first.cancel()
    assert window.call(lambda: 2) == (2, None)
    second.soft()
    for _ in range(1000):
        time.monotonic()


def test_it_does_not_leave_the_call_whenever_it_comes():
    """Thrown at random moments, thousands of times: each call has its own value or error.

    Between the calls runs code of the worker's, where one that came late would end the thread.
    """
    window_of: list[Window] = []
    runs: list[ThreadRun] = []
    ended: list[tuple[int, Any, BaseException | None]] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            window = Window()
            window_of.append(window)
            for number in range(4000):
                runs.append(window.next())
                value, error = window.call(task, number)
                ended.append((number, value, error))
        except BaseException as error:
            failed.append(error)
        finally:
            stop.set()

    def task(number: int) -> int:
        total = 0
        for step in range(20):
            total += step
        return number

    def throw(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            if runs:
                run = runs[-1]
                run.soft() if chance.random() < 0.5 else run.cancel()

    thread = threading.Thread(target=work, daemon=True)
    throwers = [threading.Thread(target=throw, args=(seed,), daemon=True) for seed in range(2)]
    for each in (*throwers, thread):
        each.start()
    eventually(stop.is_set)
    for each in (*throwers, thread):
        each.join(10)
    assert failed == []
    assert [number for number, _, _ in ended] == list(range(4000))
    for number, value, error in ended:
        assert (value == number and error is None) or isinstance(
            error, SoftTimeLimitExceeded | TaskCancelled
        )


def test_where_it_is():
    """The stack begins with the task's own code."""
    began, go = threading.Event(), threading.Event()

    def waits():
        began.set()
        go.wait(10)

    caller = Caller(waits)
    assert began.wait(10)
    assert caller.run is not None
    stack = caller.run.stack()
    go.set()
    caller.wait()
    assert "go.wait(10)" in stack
    assert not caller.run.kill()
