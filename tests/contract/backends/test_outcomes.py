"""What holds on every backend: outcomes arrive, whoever waits is woken, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pika
import pika.exceptions
import pytest

from amqtask import AsyncResult, Progress, ResultTimeout, ResultTooLarge, as_completed
from amqtask.errors import EncodeError
from amqtask.message.results import encode_exception
from amqtask.testing import Server
from tests.contract.backends.conftest import Ends, MakeApp
from tests.helpers import TIMEOUT, aeventually, eventually
from tests.servers import Names


def our_threads() -> int:
    """Return how many threads of the library there are."""
    return len([each for each in threading.enumerate() if each.name.startswith("amqtask")])


VALUES = [
    None,
    5,
    "ünïcode",
    [1, {"a": [None, True]}],
    datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
    Decimal("12.50"),
    UUID("12345678-1234-5678-1234-567812345678"),
    b"\xff\x00",
    "x" * 100_000,
]


def waiting(*results: AsyncResult[Any]) -> bool:
    """Whether somebody waits for each of these."""
    return all(result._need().awaited for result in results)


def test_values_arrive(ends: Ends):
    """Whatever a task may return is returned to the caller, of the same type."""
    for value in VALUES:
        result = ends.call()
        ends.save(result, value=value)
        assert result.get(TIMEOUT) == value
        assert type(result.get()) is type(value)
        assert (result.state, result.ready(), result.successful()) == ("SUCCESS", True, True)


def test_a_failure_arrives(ends: Ends):
    """The exception is raised in its class, with its arguments and the traceback as its cause."""
    result = ends.call()
    ends.save(result, "FAILURE", encode_exception(KeyError("no user", 7)), traceback="at line 1")
    with pytest.raises(KeyError) as caught:
        result.get(TIMEOUT)
    assert caught.value.args == ("no user", 7)
    assert str(caught.value.__cause__) == '\n"""\nat line 1\n"""'
    assert (result.state, result.failed(), result.traceback) == ("FAILURE", True, "at line 1")
    assert isinstance(result.get(propagate=False), KeyError)


def test_a_waiting_thread_is_woken(ends: Ends):
    """Waiting begins before the outcome is there."""
    result = ends.call()
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(result.get(TIMEOUT)))
    thread.start()
    eventually(lambda: waiting(result))
    ends.save(result, value="woken")
    thread.join()
    assert got == ["woken"]


async def test_a_waiting_coroutine_is_woken(ends: Ends):
    """Awaiting begins before the outcome is there, and blocks nobody."""
    result = ends.call()
    task = asyncio.create_task(result.aget(TIMEOUT))
    await aeventually(lambda: waiting(result))
    await asyncio.to_thread(ends.save, result, value="woken")
    assert await task == "woken"


def test_a_timeout(ends: Ends):
    """What does not come in time is said so, and can still come."""
    result = ends.call()
    with pytest.raises(ResultTimeout):
        result.get(0.05)
    assert not waiting(result)
    ends.save(result, value=1)
    assert result.get(TIMEOUT) == 1


def test_states_on_the_way(ends: Ends):
    """A watcher sees progress, and its end; what a state holds is known meanwhile."""
    result = ends.call()
    seen: list[Progress] = []
    thread = threading.Thread(target=lambda: seen.extend(result.watch(TIMEOUT)))
    thread.start()
    eventually(lambda: waiting(result))
    for done in (1, 2):
        ends.save(result, "PROGRESS", {"done": done, "total": 2, "file": "a"})
        eventually(lambda done=done: len(seen) == done)  # type: ignore[misc]
    assert (result.state, result.info) == ("PROGRESS", {"done": 2, "total": 2, "file": "a"})
    assert not result.ready()
    ends.save(result, value="end")
    thread.join()
    assert seen == [Progress(1, 2, {"file": "a"}), Progress(2, 2, {"file": "a"})]
    assert seen[0].fraction == 0.5


async def test_watching_without_blocking(ends: Ends):
    """Coroutines watch with ``async for``."""
    result = ends.call()
    seen: list[float] = []

    async def watch() -> None:
        async for progress in result.awatch(TIMEOUT):
            seen.append(progress.done)  # noqa: PERF401 - each is looked at as it comes

    task = asyncio.create_task(watch())
    await aeventually(lambda: waiting(result))
    await asyncio.to_thread(ends.save, result, "PROGRESS", {"current": 1, "total": 2})
    await aeventually(lambda: seen)
    await asyncio.to_thread(ends.save, result, value="end")
    await task
    assert seen == [1]


def test_a_thousand_waiters_have_one_reader(ends: Ends):
    """However many wait, threads and coroutines, one thread of the process reads for them."""
    results = [ends.call() for _ in range(100)]
    before = our_threads()
    got: list[Any] = []
    async_got: list[Any] = []

    async def all_of_them() -> None:
        handles = [result for result in results for _ in range(9)]
        async_got.extend(await asyncio.gather(*(handle.aget(TIMEOUT * 3) for handle in handles)))

    threads = [
        threading.Thread(target=lambda r=result: got.append(r.get(TIMEOUT * 3)))
        for result in results
    ]
    threads.append(threading.Thread(target=lambda: asyncio.run(all_of_them())))
    for thread in threads:
        thread.start()
    eventually(lambda: all(len(result._need()._callbacks) == 10 for result in results))
    ours = our_threads() - before  # a driver has threads of its own, as many as it likes
    for wait in [ends.begin(result, value=number) for number, result in enumerate(results)]:
        wait()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(100))
    assert sorted(async_got) == sorted(list(range(100)) * 9)
    assert ours <= 2


def test_in_the_order_of_their_ends(ends: Ends):
    """as_completed yields each handle once its call has ended."""
    first, second, third = (ends.call() for _ in range(3))
    ends.save(second, value=2)
    second.get(TIMEOUT)
    ended = iter(as_completed([first, second, third], TIMEOUT))
    assert next(ended) == second
    ends.save(third, value=3)
    assert next(ended) == third
    ends.save(first, "FAILURE", encode_exception(ValueError("x")))
    assert next(ended) == first
    assert list(ended) == []


def test_what_is_too_large_is_said_to_be(make_large: Any):
    """A result over result_max_size is refused with both sizes, and nothing is stored."""
    ends = make_large
    result = ends.call()
    with pytest.raises(ResultTooLarge, match=r"has \d+ bytes, result_max_size is 1000"):
        ends.save(result, value="x" * 2000)
    ends.save(result, value="x" * 100)
    assert result.get(TIMEOUT) == "x" * 100


@pytest.fixture
def make_large(ends: Ends) -> Ends:
    """Both ends, with a worker that stores a thousand bytes at most."""
    url = ends.worker.settings.backend
    assert url is not None
    ends.worker.close()
    ends.worker.__init__(  # type: ignore[misc]
        "small",
        environ={},
        backend=url,
        broker=ends.worker.settings.broker,
        result_prefix=ends.worker.settings.result_prefix,
        result_max_size=1000,
    )
    return ends


def test_what_does_not_serialise_is_said_at_once(ends: Ends):
    """Saving raises before anything is stored."""
    result = ends.call()
    with pytest.raises(EncodeError, match="cannot encode the result"):
        ends.save(result, value=object())


def test_forget(ends: Ends):
    """A forgotten result is unknown again."""
    result = ends.call()
    ends.save(result, value=1)
    assert result.get(TIMEOUT) == 1
    result.forget()
    assert result.state == "PENDING"


async def test_forgetting_without_blocking(ends: Ends):
    """Coroutines forget with aforget."""
    result = ends.call()
    await asyncio.to_thread(ends.save, result, value=1)
    assert await result.aget(TIMEOUT) == 1
    await result.aforget()
    await result.arefresh()
    assert result._need().meta is None


def test_nothing_is_left_after_close(ends: Ends):
    """Threads and connections end with the app, and come back with the next use."""
    result = ends.call()
    ends.save(result, value=1)
    assert result.get(TIMEOUT) == 1
    ends.app.close()
    ends.worker.close()
    eventually(
        lambda: not [each for each in threading.enumerate() if each.name.startswith("amqtask-re")]
    )
    again = ends.call()
    ends.save(again, value=2)
    assert again.get(TIMEOUT) == 2


def test_no_queue_is_left_after_close(open_app: MakeApp, rabbitmq: Server, names: Names):
    """The queue for replies goes with the app; rpc+direct:// has none."""
    queue = names.queue()
    app = open_app("rpc://", broker=rabbitmq.url, queues=[queue])
    app.send_task("t.task", queue=queue)
    assert app.backend is not None
    address = app.backend.reply_to()
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.url))) as connection:
        connection.channel().queue_declare(address, passive=True)
        app.close()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            connection.channel().queue_declare(address, passive=True)


def test_a_forked_child_has_connections_of_its_own(ends: Ends):
    """A child waits and stores by itself, and takes nothing from its parent."""
    before = ends.call()
    ends.save(before, value="parent")
    assert before.get(TIMEOUT) == "parent"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if ends.app.backend is not None and ends.app.backend.can.stores:
                result = ends.call()
                ends.save(result, value="child")
                code = 0 if result.get(TIMEOUT) == "child" else 2
            else:
                code = 0 if ends.app.result(before.id).state == "SUCCESS" else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    after = ends.call()
    ends.save(after, value="after")
    assert after.get(TIMEOUT) == "after"
