"""Both pools: no more at once than their size, in order, and all back that has not started."""

from __future__ import annotations

import asyncio
import threading

from amqtask.worker.pools import LoopPool, ThreadPool
from tests.helpers import TIMEOUT, aeventually, eventually


class Work:
    """Counts what runs, and holds it at a gate."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.running = 0
        self.most = 0
        self.ended: list[int] = []

    def begin(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)

    def end(self, job: int) -> None:
        with self.lock:
            self.running -= 1
            self.ended.append(job)

    def __call__(self, job: int) -> None:
        self.begin()
        assert self.gate.wait(TIMEOUT)
        self.end(job)

    async def coroutine(self, job: int) -> None:
        self.begin()
        try:
            await aeventually(self.gate.is_set)
        finally:
            self.end(job)


# -- threads ------------------------------------------------------------------------


def test_threads_up_to_the_size():
    """As many jobs run as there are slots, and not one more."""
    work = Work()
    pool = ThreadPool(3, work)
    for job in range(10):
        pool.submit(job)
    eventually(lambda: work.running == 3)
    work.gate.set()
    pool.join()
    assert work.most == 3
    assert sorted(work.ended) == list(range(10))


def test_threads_start_when_they_are_needed():
    """A pool without work has no threads, and with work never more than its size."""
    work = Work()
    work.gate.set()
    pool = ThreadPool(4, work)
    assert pool._threads == []
    for job in range(50):
        pool.submit(job)
    pool.join()
    assert 1 <= len(pool._threads) <= 4
    assert pool._threads[0].name == "amqtask-task-0"


def test_threads_run_in_order():
    """One slot runs jobs in the order they came in."""
    work = Work()
    pool = ThreadPool(1, work)
    for job in range(20):
        pool.submit(job)
    work.gate.set()
    pool.join()
    assert work.ended == list(range(20))


def test_threads_give_back_what_has_not_started():
    """What runs stays, the rest comes back in order; joining waits for what runs."""
    work = Work()
    pool = ThreadPool(2, work)
    for job in range(6):
        pool.submit(job)
    eventually(lambda: work.running == 2)
    assert pool.take_back() == [2, 3, 4, 5]
    assert pool.take_back() == []
    work.gate.set()
    pool.join()
    assert sorted(work.ended) == [0, 1]


def test_taking_back_during_a_join():
    """A quick stop that overtakes a warm one leaves no thread behind that nobody ends."""
    work = Work()
    pool = ThreadPool(2, work)
    for job in range(2):
        pool.submit(job)
    eventually(lambda: work.running == 2)
    joining = threading.Thread(target=pool.join)
    joining.start()
    eventually(lambda: pool._tokens.qsize() == 2)
    assert pool.take_back() == []
    work.gate.set()
    joining.join(TIMEOUT)
    assert not joining.is_alive()


def test_join_of_an_unused_pool():
    """There is nothing to wait for."""
    pool: ThreadPool[int] = ThreadPool(4, lambda _: None)
    pool.join()
    assert pool.take_back() == []


def test_task_threads_do_not_keep_a_process():
    """They are daemons: a task that never ends must not keep a process from ending."""
    work = Work()
    pool = ThreadPool(1, work)
    pool.submit(1)
    eventually(lambda: work.running == 1)
    assert all(thread.daemon for thread in pool._threads)
    work.gate.set()
    pool.join()


# -- coroutines ---------------------------------------------------------------------


async def test_coroutines_up_to_the_size():
    """As many run at once as the size says; the others follow."""
    work = Work()
    pool = LoopPool(asyncio.get_running_loop(), 3, work.coroutine)
    for job in range(10):
        pool.submit(job)
    await aeventually(lambda: work.running == 3)
    work.gate.set()
    await aeventually(lambda: len(work.ended) == 10)
    assert work.most == 3
    await pool.join()


async def test_coroutines_from_another_thread():
    """Jobs come from the I/O thread and run on the user's loop, in order."""
    ran: list[tuple[int, bool]] = []
    loop = asyncio.get_running_loop()

    async def run(job: int) -> None:
        ran.append((job, asyncio.get_running_loop() is loop))

    pool = LoopPool(loop, 1, run)

    def submit() -> None:
        for job in range(50):
            pool.submit(job)

    thread = threading.Thread(target=submit)
    thread.start()
    await aeventually(lambda: len(ran) == 50)
    thread.join()
    await pool.join()
    assert ran == [(job, True) for job in range(50)]


async def test_coroutines_give_back_what_has_not_started():
    """What runs stays, the rest comes back in order."""
    work = Work()
    pool = LoopPool(asyncio.get_running_loop(), 2, work.coroutine)
    for job in range(6):
        pool.submit(job)
    await aeventually(lambda: work.running == 2)
    assert pool.take_back() == [2, 3, 4, 5]
    work.gate.set()
    await pool.join()
    assert sorted(work.ended) == [0, 1]


async def test_cancelled_coroutines_make_room():
    """A cancelled job ends, and joining does not wait for its time."""
    work = Work()
    pool = LoopPool(asyncio.get_running_loop(), 2, work.coroutine)
    for job in range(2):
        pool.submit(job)
    await aeventually(lambda: work.running == 2)
    pool.cancel()
    await pool.join()
    assert sorted(work.ended) == [0, 1]
    assert not work.gate.is_set()


async def test_join_waits_for_what_follows():
    """A job that starts when another ends is waited for too."""
    work = Work()
    pool = LoopPool(asyncio.get_running_loop(), 1, work.coroutine)
    for job in range(3):
        pool.submit(job)
    await aeventually(lambda: work.running == 1)
    work.gate.set()
    await pool.join()
    assert work.ended == [0, 1, 2]
