"""The I/O thread and the mailboxes: in order, whole, and alive after somebody's bug."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from amqtask.transport.threads import IOThread, Mailbox
from tests.helpers import aeventually, eventually


async def test_a_mailbox_keeps_the_order_of_each_thread() -> None:
    """Eight threads post at once; each one's calls arrive complete and in its order."""
    mailbox = Mailbox(asyncio.get_running_loop())
    got: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for number in range(2000):
            mailbox.post(got.append, (thread, number))

    threads = [threading.Thread(target=post, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    await aeventually(lambda: len(got) == 16_000)
    for thread in threads:
        thread.join()
    for each in range(8):
        assert [number for thread, number in got if thread == each] == list(range(2000))


async def test_a_burst_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up costs a system call, so posts before the drain share one."""
    loop = asyncio.get_running_loop()
    real, wakeups = loop.call_soon_threadsafe, 0

    def count(*args):
        nonlocal wakeups
        wakeups += 1
        return real(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    mailbox = Mailbox(loop)
    got: list[int] = []
    for number in range(100):
        mailbox.post(got.append, number)
    await aeventually(lambda: len(got) == 100)
    assert wakeups == 1


async def test_a_call_that_raises_does_not_cost_the_next_its_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error is logged, the calls behind it run."""
    mailbox = Mailbox(asyncio.get_running_loop())
    got: list[str] = []
    mailbox.post(lambda: 1 / 0)
    mailbox.post(got.append, "next")
    await aeventually(lambda: got)
    assert "mailbox.call_failed" in caplog.text
    assert got == ["next"]


async def test_what_it_is_bound_to_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """A repr that raises as well would leave the calls behind it where they are."""
    loop = asyncio.get_running_loop()
    ran = asyncio.Event()

    class Hostile:
        def __repr__(self) -> str:
            raise ValueError("no text")

        def call(self) -> None:
            raise RuntimeError("its bug")

    mailbox = Mailbox(loop)
    mailbox.post(Hostile().call)
    mailbox.post(ran.set)
    await asyncio.wait_for(ran.wait(), 60)
    assert "mailbox.call_failed function=" in caplog.text
    assert "Hostile.call" in caplog.text


async def test_what_a_call_posts_waits_for_the_next_turn() -> None:
    """A call that posts again and again does not keep the loop from its sockets."""
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    seen: list[object] = []

    def again(left: int) -> None:
        seen.append(left)
        if left:
            mailbox.post(again, left - 1)

    mailbox.post(again, 3)
    loop.call_soon(lambda: loop.call_soon(seen.append, "loop"))
    await aeventually(lambda: 0 in seen)
    assert seen.index("loop") < seen.index(0)


def test_a_closed_loop_drops_calls_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """A caller whose loop has ended waits for nothing, so nobody fails."""
    loop = asyncio.new_event_loop()
    loop.close()
    with caplog.at_level(logging.DEBUG):
        Mailbox(loop).post(print)
    assert "mailbox.closed" in caplog.text


def test_the_thread_starts_on_first_use_and_stops() -> None:
    """Nothing runs before the first use; after stop the next use starts anew."""
    io = IOThread("test-io")
    assert io.started is False
    for _ in range(2):
        assert io.run(_where(), timeout=60) == "test-io"
        assert (io.started, io.is_current) == (True, False)
        io.stop()
        assert io.started is False
    io.stop()
    eventually(lambda: "test-io" not in [each.name for each in threading.enumerate()])


def test_many_first_uses_start_one_thread() -> None:
    """Sixteen threads that all come first share one loop."""
    io = IOThread()
    loops: list[asyncio.AbstractEventLoop] = []
    barrier = threading.Barrier(16)

    def use() -> None:
        barrier.wait()
        loops.append(io.loop)

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, loops))) == 1
    io.stop()


def test_run_gives_up_after_its_timeout() -> None:
    """A coroutine that does not end is cancelled, and the caller told."""
    io, ended = IOThread(), threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    io.run(_where(), timeout=60)  # its thread is there, so that it begins
    with pytest.raises(TimeoutError):
        io.run(forever(), timeout=0.5)
    assert ended.wait(60)
    io.stop()


def test_stop_cancels_what_still_waits() -> None:
    """What runs on the loop when it ends gets to clean up."""
    io, started, ended = IOThread(), threading.Event(), threading.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    io.submit(forever())
    assert started.wait(60)
    io.stop()
    assert ended.is_set()


async def _where() -> str:
    return threading.current_thread().name


def test_a_turn_is_free_while_the_loop_waits() -> None:
    """Another thread that has it keeps the loop from its work, and finds nothing half done."""
    io = IOThread()
    io.post(lambda: None)
    eventually(lambda: not io.turn.locked())
    seen: list[bool] = []
    with io.turn:
        io.post(lambda: seen.append(io.turn.locked()))
        assert seen == []
    eventually(lambda: seen)
    assert seen == [True]
    io.stop()
    assert not io.turn.locked()


async def test_a_post_that_is_cut_off_does_not_silence_the_mailbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A time limit thrown into the thread that posts, before the loop was woken."""
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    got: list[int] = []

    def struck(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "call_soon_threadsafe", struck)
        with pytest.raises(KeyboardInterrupt):
            mailbox.post(got.append, 1)
    mailbox.post(got.append, 2)
    await aeventually(lambda: got == [1, 2])
