"""The sandbox: a broker for one test, a worker in its process, and time that jumps.

Nothing here waits: whatever takes an hour happens at once, and in its order.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pika
import pytest

from amqtask import App, Queue, Reject, RetryPolicy, current_task
from amqtask.clock import wall
from amqtask.testing import CallParked, Sandbox, sandbox
from tests.helpers import eventually

HOUR = 3600.0


@pytest.fixture
def app() -> Iterator[App]:
    made = App(
        "sandboxed",
        broker="amqp://127.0.0.1:1/",
        backend="rpc://",
        queues=["email", Queue("notes", type="classic", dead_letter=False)],
        environ={},
    )
    yield made
    made.close()


@pytest.fixture
def box(app: App) -> Iterator[Sandbox]:
    with sandbox(app) as made:
        yield made


def test_a_call_and_its_result(app: App, box: Sandbox) -> None:
    """Sent, run, answered: all of it has happened when the worker is idle."""

    @app.task(queue="email")
    def add(a: int, b: int) -> int:
        return a + b

    with box.worker(app) as worker:
        results = [add.delay(n, 1) for n in range(20)]
        worker.run_until_idle()
        assert [result.get(timeout=0) for result in results] == list(range(1, 21))
        assert worker.counts["done"] == 20
    box.assert_sent(add, 3, 1, queue="email", times=1)


def test_calls_that_tasks_send_count_too(app: App, box: Sandbox) -> None:
    """A worker is idle when the whole tree of calls has run."""
    ran = []

    @app.task
    def tree(depth: int) -> None:
        ran.append(depth)
        if depth:
            tree.delay(depth - 1)
            tree.delay(depth - 1)

    with box.worker(app, concurrency=4) as worker:
        tree.delay(4)
        worker.run_until_idle()
    assert len(ran) == 2**5 - 1


def test_a_slow_task_is_waited_for(app: App, box: Sandbox) -> None:
    """Idle means that nothing runs; what does not end in time is named."""
    began, go = threading.Event(), threading.Event()

    @app.task(queue="email")
    def slow() -> None:
        began.set()
        go.wait()

    with box.worker(app) as worker:
        slow.delay()
        assert began.wait(60)
        with pytest.raises(AssertionError, match="queue 'email': 0 waiting, 1 unacked"):
            worker.run_until_idle(timeout=0.05)
        go.set()
        worker.run_until_idle()
        assert worker.counts["done"] == 1


def test_a_delay_of_a_year(app: App, box: Sandbox) -> None:
    """It passes at once, not a tick too early, and the task sees that time."""
    seen = []

    @app.task
    def later() -> None:
        seen.append(wall())

    box.freeze()
    with box.worker(app):
        start = box.now()
        later.options(countdown=365 * 24 * HOUR).delay()
        box.advance(365 * 24 * HOUR - 1)
        assert seen == []
        assert [letter.task for letter in box.delayed()] == [later.name]
        box.advance(1)
        assert [at - start for at in seen] == [pytest.approx(365 * 24 * HOUR)]
    assert box.delayed() == []


def test_time_passes_in_order(app: App, box: Sandbox) -> None:
    """What falls due first runs first, at its own time: back-off starts when the attempt failed."""
    box.freeze()
    start = box.now()
    ran = []

    @app.task(retry=RetryPolicy(max_retries=3, on=(OSError,), backoff=60, jitter=False))
    def flaky() -> None:
        ran.append((f"attempt {current_task.attempt}", round(wall() - start)))
        if current_task.attempt < 4:
            raise OSError

    @app.task
    def note(name: str) -> None:
        ran.append((name, round(wall() - start)))

    with box.worker(app):
        flaky.delay()
        note.options(countdown=100).delay("at 100")
        note.options(countdown=30).delay("at 30")
        box.advance(HOUR)
    assert ran == [
        ("attempt 1", 0),
        ("at 30", 30),
        ("attempt 2", 60),
        ("at 100", 100),
        ("attempt 3", 180),
        ("attempt 4", 420),
    ]
    assert box.now() - start == pytest.approx(HOUR)


def test_drain_jumps_to_the_end(app: App, box: Sandbox) -> None:
    """As far as calls wait, and no further; a task that never ends is told of."""
    box.freeze()
    start = box.now()

    @app.task
    def step(left: int) -> None:
        if left:
            step.options(countdown=600).delay(left - 1)

    with box.worker(app) as worker:
        step.delay(5)
        worker.drain()
        assert worker.counts["done"] == 6
        assert box.now() - start == pytest.approx(3000)
        step.delay(10**6)
        with pytest.raises(AssertionError, match="calls were left .* does a task call itself"):
            worker.drain(timeout=0.2)


def test_expiry_is_of_that_time(app: App, box: Sandbox) -> None:
    """A call that nobody took in time never runs: a worker parks it, or the broker by itself."""

    @app.task(queue="email")
    def never() -> None:
        raise AssertionError("it ran")

    with box.worker(app):  # makes the queue
        pass
    never.options(expires=60, ignore_result=True).delay()
    asked_for = never.options(expires=60).delay()
    assert [letter.task for letter in box.messages("email")] == [never.name] * 2
    box.advance(61)
    assert [letter.id for letter in box.messages("email")] == [asked_for.id]
    (letter,) = box.dead_letters("email")
    assert (letter.task, letter.reason) == (never.name, "expired")
    with box.worker(app) as worker:
        worker.run_until_idle()
    assert asked_for.state == "REVOKED"
    assert [letter.reason for letter in box.dead_letters("email")] == ["expired"] * 2


def test_a_failure_is_raised_in_the_test(app: App, box: Sandbox) -> None:
    """As the very exception; then it has been seen, and its dead letter says the rest."""
    error = ValueError("no such order")

    @app.task(queue="email")
    def fail(order: int) -> None:
        raise error

    with box.worker(app) as worker:
        fail.delay(7)
        with pytest.raises(ValueError, match="no such order") as caught:
            worker.run_until_idle()
        assert caught.value is error
        worker.run_until_idle()
    (letter,) = box.dead_letters("email")
    assert (letter.args, letter.reason, letter.attempts) == ((7,), "failed", 1)
    assert "no such order" in str(letter.exception)
    assert "raise error" in str(letter.traceback)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failure_that_is_retried_is_none(app: App, box: Sandbox, is_async: bool) -> None:
    """Only the one that ends the call counts."""

    def flaky(attempts: int) -> None:
        if current_task.attempt < attempts:
            raise OSError("not yet")

    async def aflaky(attempts: int) -> None:
        flaky(attempts)

    policy = RetryPolicy(max_retries=1, on=(OSError,))
    task = app.task(retry=policy)(aflaky if is_async else flaky)
    with box.worker(app) as worker:
        task.delay(2)
        worker.drain()
        task.delay(3)
        with pytest.raises(OSError, match="not yet"):
            worker.drain()


def test_several_failures(app: App, box: Sandbox) -> None:
    """The first is raised, the others are its notes; or all are taken, to be looked at."""

    @app.task(queue="notes")
    def fail(number: int) -> None:
        raise ValueError(number)

    with box.worker(app, ["notes"], concurrency=1) as worker:
        fail.delay(1)
        fail.delay(2)
        with pytest.raises(ValueError, match="1") as caught:
            worker.run_until_idle()
        assert any("failed too: ValueError(2)" in note for note in caught.value.__notes__)
        fail.delay(3)
        failures = eventually(worker.take_failures)
        assert [(each.task, repr(each.error), each.attempt) for each in failures] == [
            (fail.name, "ValueError(3)", 1)
        ]


def test_a_failure_that_the_test_got_is_seen(app: App, box: Sandbox) -> None:
    """`result.get()` has raised it: once is enough."""

    @app.task
    def fail() -> None:
        raise ValueError("no")

    with box.worker(app):
        result = fail.delay()
        with pytest.raises(ValueError, match="no"):
            result.get(timeout=60)
    assert box.take_failures() == []


def test_an_unseen_failure_fails_at_the_end(app: App) -> None:
    """A test that forgot to look does not pass."""

    @app.task
    def fail() -> None:
        raise ValueError("unseen")

    def test() -> None:
        with sandbox(app) as box, box.worker(app):
            fail.delay()
            eventually(lambda: box.dead_letters("default"))

    with pytest.raises(ValueError, match="unseen"):
        test()


def test_a_cancelled_call(app: App, box: Sandbox) -> None:
    """It does not run when its time comes, and that is no failure."""

    @app.task
    def never() -> None:
        raise AssertionError("it ran")

    with box.worker(app) as worker:
        app.cancel(never.options(countdown=HOUR).delay().id)
        worker.run_until_idle()
        box.advance(2 * HOUR)
        assert worker.counts["revoked"] == 1


def test_what_no_task_raised(app: App, box: Sandbox) -> None:
    """An unknown task, or a result that does not serialise: its dead letter is the failure."""

    @app.task
    def give() -> object:
        return object()

    with box.worker(app) as worker:
        app.send_task("nobody", queue="email")
        with pytest.raises(
            CallParked, match=r"'nobody' .* in 'email.dead': unknown_task"
        ) as parked:
            worker.run_until_idle()
        assert parked.value.letter.queue == "email.dead"
        give.delay()
        with pytest.raises(CallParked, match="result_unserialisable"):
            worker.run_until_idle()


def test_signals_and_exits(app: App, box: Sandbox) -> None:
    """A task that rejects raises that; one that exits does not end the tests."""

    @app.task
    def reject() -> None:
        raise Reject("not for me")

    @app.task
    def leave() -> None:
        raise SystemExit(3)

    with box.worker(app) as worker:
        reject.delay()
        with pytest.raises(Reject, match="not for me"):
            worker.run_until_idle()
        leave.delay()
        with pytest.raises(AssertionError, match=r"raised SystemExit\(3\)"):
            worker.run_until_idle()


def test_faults(app: App, box: Sandbox) -> None:
    """A worker whose connections are cut goes on, and the sandbox waits for it."""
    ran = []

    @app.task
    def add(number: int) -> None:
        ran.append(number)

    with box.worker(app) as worker:
        add.delay(1)
        worker.run_until_idle()
        assert box.faults.cut_connections() == 2
        add.delay(2)
        worker.run_until_idle()
        box.faults.double_deliveries("default")
        add.delay(3)
        worker.run_until_idle()
    assert ran == [1, 2, 3, 3]


def test_isolation(app: App) -> None:
    """The next test finds nothing of this one: no calls, no time, no broker."""
    urls = app.transport.urls

    @app.task
    def add() -> None: ...

    with sandbox(app) as one:
        with one.worker(app):
            pass
        add.delay()
        one.advance(HOUR)
        assert len(one.messages("default")) == 1
        inside = app.transport.urls
    assert app.transport.urls == urls
    assert app.producer.on_sent == []
    assert "run" not in vars(add)
    assert abs(wall() - time.time()) < 60
    with sandbox(app) as two:
        assert app.transport.urls != inside
        assert two.messages("default") == []
        assert two.sent() == []
        assert abs(two.now() - time.time()) < 60


def test_any_client_may_connect(box: Sandbox) -> None:
    """It is a broker, with a URL."""
    connection = pika.BlockingConnection(pika.URLParameters(box.url))
    connection.channel().queue_declare("mine", durable=True)
    connection.close()
    assert box.messages("mine") == []


async def test_in_a_coroutine(app: App, box: Sandbox) -> None:
    """The test's own loop goes on while the worker runs."""

    @app.task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async with box.worker(app) as worker:
        result = await double.adelay(4)
        assert await asyncio.wait_for(result.aget(), 60) == 8
        await double.options(countdown=HOUR).adelay(5)
        await worker.arun_until_idle()
        assert worker.counts["done"] == 1
        await worker.adrain()
        assert worker.counts["done"] == 2


def test_time_stands_still_meanwhile(app: App, box: Sandbox) -> None:
    """While the test waits, and after `freeze`, only `advance` moves it; a tick is given."""
    seen = []

    @app.task
    def look() -> None:
        before = wall()
        time.sleep(0.01)
        seen.append((wall() - before, wall() - start))

    box.freeze()
    start = box.now()
    with box.worker(app):
        for countdown in (0.01, 0.51, 7):
            look.options(countdown=countdown).delay()
        box.advance(0.5)
        assert len(seen) == 2
        box.advance(7)
    assert [(passed, round(at, 3)) for passed, at in seen] == [(0, 0.05), (0, 0.55), (0, 7)]
    assert box.now() - start == pytest.approx(7.55)


@pytest.mark.parametrize("uptime", [1_300.1, 1_500.9, 20_000.3, 300_000.7])
def test_a_tick_is_given_however_long_the_machine_runs(
    app: App, box: Sandbox, uptime: float
) -> None:
    """Sums of seconds differ in their last digits, and by what the clock shows: it is no matter."""
    seen = []

    @app.task
    def look() -> None:
        seen.append(1)

    box.freeze()
    box._clock._stopped = uptime
    with box.worker(app):
        for countdown in (0.51, 1.01, 1.51, 2.01):
            look.options(countdown=countdown).delay()
            box.advance(countdown - 0.01)
            assert seen.pop()


def test_time_does_not_go_back(box: Sandbox) -> None:
    """Nobody could take what happened back."""
    with pytest.raises(ValueError, match="cannot go back"):
        box.advance(-1)
