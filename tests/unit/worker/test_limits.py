"""Limits in force, and what is done to a job that is over one; time is a test's to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from amqtask.message.model import Call
from amqtask.options import Options
from amqtask.transport import IOThread
from amqtask.worker.job import Job, Kind
from amqtask.worker.limits import GRACE, SETTLE_TIMEOUT, Limits, limits_of
from amqtask.worker.outcome import Verdict
from tests.unit.worker.fakes import delivery


@pytest.mark.parametrize(
    ("call", "task", "settings", "limits"),
    [
        ((None, None), (None, None), (None, None), (0, 0)),
        ((None, None), (None, None), (9, 8), (9, 8)),
        ((None, None), (5, 4), (9, 8), (5, 4)),
        ((3, 2), (5, 4), (9, 8), (3, 2)),
        ((3, None), (None, 2), (9, None), (3, 2)),
        ((3, None), (None, 3), (None, None), (3, 0)),  # never seen before the hard one
        ((None, 4), (None, None), (2, None), (2, 0)),
    ],
)
def test_the_nearest_word_counts(call, task, settings, limits):
    """Each limit for itself: the call's, then the task's, then the setting."""
    hard, soft = call
    assert (
        limits_of(
            Call("t", "A", hard_limit=hard, soft_limit=soft),
            Options(time_limit=task[0], soft_time_limit=task[1]),
            Options(time_limit=settings[0], soft_time_limit=settings[1]),
        )
        == limits
    )


class Timer:
    def __init__(self, wait: float, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.wait, self.function, self.args = wait, function, args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class IO:
    """Stands for the I/O thread: posts happen at once, timers when a test says so."""

    def __init__(self) -> None:
        self.loop = self
        self.timers: list[Timer] = []

    def post(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def call_later(self, wait: float, function: Callable[..., object], *args: Any) -> Timer:
        self.timers.append(Timer(wait, function, args))
        return self.timers[-1]

    def ring(self) -> float:
        timer = self.timers.pop(0)
        if not timer.cancelled:
            timer.function(*timer.args)
        return timer.wait


class FakeRun:
    """Notes what is asked of what runs."""

    def __init__(self, *, killable: bool = False) -> None:
        self.asked: list[str] = []
        self._killable = killable

    def soft(self) -> None:
        self.asked.append("soft")

    def cancel(self) -> None:
        self.asked.append("cancel")

    def kill(self) -> bool:
        self.asked.append("kill")
        return self._killable

    def stack(self) -> str:
        return "  here\n"


class Desk:
    """Limits with everything around them stood in for."""

    def __init__(self, kind: Kind, *, soft: float = 1.0, hard: float = 2.0) -> None:
        self.io = IO()
        self.taken: list[Job] = []
        self.given_up: list[str] = []
        self.limits = Limits(cast(IOThread, self.io), self._take, self.given_up.append)
        self.job = Job(delivery(), kind=kind)
        self.job.hard, self.job.soft = hard, soft
        self.run = self.job.run = FakeRun(killable=kind is Kind.PROCESS)
        self.job.started = 1.0
        self.limits.begin(self.job)

    def _take(self, job: Job) -> bool:
        self.taken.append(job)
        return True


@pytest.mark.parametrize("kind", list(Kind))
def test_the_soft_limit(kind):
    """It is raised in the task; nothing else follows from it."""
    desk = Desk(kind, hard=0)
    desk.io.ring()
    assert desk.run.asked == ["soft"]
    assert desk.job.verdict is None
    assert desk.io.timers == []


def test_a_job_that_ends_is_watched_no_more():
    """Its timers go, and one that rings at that very moment finds that it has ended."""
    desk = Desk(Kind.THREAD)
    first, second = desk.io.timers
    desk.job.ended = 2.0
    first.function(*first.args)
    second.function(*second.args)
    desk.limits.end(desk.job)
    assert first.cancelled
    assert second.cancelled
    assert desk.run.asked == []


def test_a_runner_is_killed():
    """Its own thread sees the end and settles; the process is not given up."""
    desk = Desk(Kind.PROCESS, soft=0)
    desk.io.ring()
    assert desk.run.asked == ["kill"]
    assert desk.job.verdict is Verdict.TIMEOUT
    assert desk.taken == []
    assert desk.given_up == []


def test_a_thread_takes_the_end_of_its_process():
    """It is settled first; when that is safe, and not before, the process is given up."""
    desk = Desk(Kind.THREAD, soft=0)
    desk.io.ring()
    assert desk.taken == [desk.job]
    assert desk.given_up == []
    assert desk.job.after is not None
    desk.job.after()
    assert desk.given_up == ["task '?' (id A) is over its hard limit of 2 s"]
    assert desk.io.ring() == SETTLE_TIMEOUT
    assert len(desk.given_up) == 1


def test_a_settlement_that_takes_too_long():
    """The process is given up all the same: the broker delivers the job again."""
    desk = Desk(Kind.THREAD, soft=0)
    desk.io.ring()
    desk.io.ring()
    assert len(desk.given_up) == 1


def test_a_coroutine_has_a_moment():
    """It is cancelled, and taken for hung only when it has not ended a second later."""
    desk = Desk(Kind.LOOP, soft=0)
    desk.io.ring()
    assert desk.run.asked == ["kill", "cancel"]
    assert desk.taken == []
    assert desk.io.ring() == GRACE
    assert desk.taken == [desk.job]


def test_a_coroutine_that_ends_in_that_moment():
    """There is nothing to give up."""
    desk = Desk(Kind.LOOP, soft=0)
    desk.limits._take = lambda job: False
    desk.io.ring()
    desk.io.ring()
    assert desk.io.timers == []
    assert desk.job.after is None  # its settlement, under way by now, gives up nothing
    assert desk.given_up == []


@pytest.mark.parametrize("kind", [Kind.THREAD, Kind.LOOP])
def test_termination_gives_a_moment_too(kind):
    """A cancelled task may clean up before its process is given up for it."""
    desk = Desk(kind, soft=0, hard=0)
    desk.io.timers.clear()
    desk.limits.terminate(desk.job, Verdict.CANCELLED)
    assert desk.run.asked == ["kill", "cancel"]
    assert desk.taken == []
    assert desk.io.ring() == GRACE
    assert desk.taken == [desk.job]


def test_asking_to_end():
    """The first reason stays: a job that is over its limit is not given back by a stop."""
    desk = Desk(Kind.THREAD)
    desk.job.verdict = Verdict.TIMEOUT
    desk.limits.stop(desk.job, Verdict.STOPPING)
    assert desk.run.asked == ["cancel"]
    assert desk.job.verdict is Verdict.TIMEOUT
