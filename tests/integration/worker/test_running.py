"""What tasks get and give: arguments, their context, results and exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from amqtask import Context, NoBackend, RemoteError, allow_waiting, current_task
from tests.helpers import eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line
from tests.servers import Names


def test_plain_and_async_tasks(app, running: Running):
    """Plain functions run in threads, coroutine functions on the loop that started the worker."""

    @app.task
    def plain(a, b=1):
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return "on a loop"
        return a + b

    @app.task
    async def coroutine(a, b=1):
        await asyncio.sleep(0)
        return a + b, threading.current_thread().name

    worker = running(app)
    assert plain.delay(1).get(60) == 2
    assert plain.delay(1, b=5).get(60) == 6
    value, thread = coroutine.delay(1, b=5).get(60)
    assert (value, thread) == (6, worker._thread.name)


def test_kinds_of_values_both_ways(app, running: Running):
    """Arguments and results keep the types that the serializer has a form for."""
    values = [datetime(2026, 11, 23, tzinfo=UTC), Decimal("1.50"), UUID(int=7), b"\x00\xff", None]

    @app.task
    def same(given, kinds):
        return [given, [type(each).__name__ for each in given] == kinds]

    running(app)
    assert same.delay(values, [type(v).__name__ for v in values]).get(60) == [values, True]


def test_bound_tasks_get_their_context(make_app: MakeApp, queue, running: Running):
    """bind=True hands over what is known of the run; current_task is the same."""
    app = make_app(queue)

    @app.task(bind=True)
    def about(self: Context):
        assert current_task.id == self.id
        assert current_task
        return [
            [self.task, self.id, list(self.args), self.retries, self.attempt, dict(self.headers)],
            [self.queue, self.routing_key, self.redelivered, self.hostname, self.request.id],
        ]

    running(app)
    result = about.options(task_id="the-id", headers={"tenant": "acme"}).delay()
    assert result.get(60) == [
        [about.name, "the-id", [], 0, 1, {"tenant": "acme"}],
        [queue, queue, False, "test-worker", "the-id"],
    ]


def test_current_task_in_coroutines_is_each_ones_own(app, running: Running):
    """Two coroutines that run at once do not see each other's task."""
    met = asyncio.Barrier(2)

    @app.task
    async def who():
        await met.wait()
        before = current_task.id
        await met.wait()
        return before == current_task.id, current_task.id

    running(app)
    results = [who.delay(), who.delay()]
    assert [r.get(60) for r in results] == [[True, r.id] for r in results]


def test_calls_from_a_task_know_their_parents(app, running: Running):
    """A call sent by a task carries the sender's id as parent, and the root of the whole tree."""

    @app.task(bind=True)
    def leaf(self: Context):
        return [self.parent_id, self.root_id]

    @app.task(bind=True)
    def middle(self: Context):
        with allow_waiting():
            return [self.id, leaf.delay().get(60)]

    @app.task
    def root():
        with allow_waiting():
            return middle.delay().get(60)

    running(app)
    result = root.delay()
    middle_id, (parent, top) = result.get(60)
    assert (parent, top) == (middle_id, result.id)


def test_exception_keeps_type_arguments_and_traceback(app, running: Running):
    """An exception whose class is imported here is raised here, with the remote traceback as cause."""

    @app.task
    def fails():
        raise LookupError("no such customer", 7)

    running(app)
    result = fails.delay()
    with pytest.raises(LookupError) as caught:
        result.get(60)
    assert type(caught.value) is LookupError
    assert caught.value.args == ("no such customer", 7)
    assert 'raise LookupError("no such customer", 7)' in str(caught.value.__cause__)
    assert "amqtask/worker" not in str(caught.value.__cause__)
    assert result.state == "FAILURE"
    assert result.failed()
    assert result.traceback is not None
    assert result.traceback.startswith("Traceback (most recent call last):")


def test_exception_of_an_unknown_class(app, running: Running):
    """A class that cannot be found from here comes back as RemoteError with all that is known."""

    @app.task
    def fails():
        class Hidden(Exception):
            pass

        raise Hidden("why", 3)

    running(app)
    with pytest.raises(RemoteError) as caught:
        fails.delay().get(60)
    assert caught.value.exc_type.endswith("Hidden")
    assert caught.value.exc_args == ("why", 3)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_no_exception_ends_the_worker(app, queue, running: Running, line: Line, error, kind):
    """SystemExit and its kin are failures of the task, not orders to the worker."""

    @app.task
    def plain(stop):
        if stop:
            raise error(3)
        return "alive"

    @app.task
    async def coroutine(stop):
        return plain(stop)

    task = plain if kind == "plain" else coroutine
    worker = running(app, concurrency=1)
    with pytest.raises(RemoteError) as caught:
        task.delay(True).get(60)
    assert caught.value.exc_type == error.__name__
    assert task.delay(False).get(60) == "alive"
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-exception"] == f"{error.__name__}: 3"
    assert worker.node.ready


def test_an_exception_that_cannot_be_shown(app, queue, running: Running, line: Line, caplog):
    """An exception that raises when it is looked at is parked, and told, like any other."""

    class Hostile(Exception):
        def __str__(self):
            raise ValueError("no text")

        __repr__ = __str__

    @app.task
    def fails():
        raise Hostile(object())

    @app.task
    def good():
        return 1

    running(app)
    with pytest.raises(RemoteError):
        fails.delay().get(60)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-exception"].endswith("Hostile: <its text cannot be had>")
    assert good.delay().get(60) == 1
    eventually(lambda: "Hostile: <its text cannot be had>: parked in" in caplog.text)


def test_cancelled_by_itself(app, queue, running: Running, line: Line):
    """A coroutine that ends cancelled while nobody stops the worker has failed."""

    @app.task
    async def gives_up():
        here = asyncio.current_task()
        assert here is not None
        here.cancel()
        await asyncio.sleep(30)

    running(app)
    with pytest.raises(RemoteError) as caught:
        gives_up.delay().get(60)
    assert caught.value.exc_type == "CancelledError"
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "failed"


def test_ignore_result(make_app: MakeApp, queue, running: Running):
    """ignore_result of call or task sends no reply address, and no reply."""
    app = make_app(queue)
    seen = []

    @app.task(bind=True)
    def kept(self):
        seen.append(self.call.reply_to)
        return 1

    @app.task(bind=True, ignore_result=True)
    def quiet(self):
        seen.append(self.call.reply_to)
        return 2

    worker = running(app)
    assert kept.delay().get(60) == 1
    for result in (kept.options(ignore_result=True).delay(), quiet.delay()):
        with pytest.raises(NoBackend) as caught:
            result.get(60)
        assert str(caught.value) == f"results are off for task {result.task!r} (id {result.id})"
    eventually(lambda: worker.node.counts["done"] == 3)
    assert seen[0]
    assert seen[1:] == [None, None]


def test_nobody_waits_for_the_result(app, queue, running: Running, line: Line):
    """A reply queue that is gone does not keep a task from being done."""

    @app.task(name="t.one")
    def one():
        return 1

    worker = running(app)
    line.send(
        queue,
        [[], {}, {}],
        {"task": "t.one", "id": "A"},
        reply_to="no-such-queue",
        correlation_id="A",
    )
    eventually(lambda: worker.node.counts["done"] == 1)
    eventually(lambda: worker.held == 0)
    assert line.size(f"{queue}.dead") == 0


def test_result_that_does_not_serialise(app, queue, running: Running, line: Line):
    """It is a failure that names the task; the message is parked, for it ran without leaving a result."""

    @app.task(name="t.odd")
    def odd():
        return {"when": object()}

    worker = running(app)
    result = odd.options(task_id="A").delay()
    error = result.get(60, propagate=False)
    assert str(error).startswith("result of task 't.odd' (id A): cannot encode the result: ")
    assert "object" in str(error)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "result_unserialisable"
    eventually(lambda: worker.node.counts["failed"] == 1)
    assert worker.node.counts["done"] == 0


def test_result_too_large(make_app: MakeApp, queue, running: Running, line: Line):
    """A result over max_message_size is a failure too; the worker goes on."""
    app = make_app(queue, max_message_size=10_000)

    @app.task
    def many(size):
        return "x" * size

    worker = running(app)
    error = many.delay(20_000).get(60, propagate=False)
    assert type(error).__name__ == "MessageTooLarge"
    assert "max_message_size is 10000" in str(error)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "result_too_large"
    eventually(lambda: worker.node.counts["failed"] == 1)
    assert worker.node.counts["done"] == 0
    assert many.delay(10).get(60) == "x" * 10


def test_failure_too_large_to_tell(make_app: MakeApp, queue, running: Running, line: Line):
    """An exception whose arguments are too much for a message is told in short."""
    app = make_app(queue, max_message_size=10_000)

    @app.task
    def fails():
        raise ValueError("x" * 20_000)

    running(app)
    error = fails.delay().get(60, propagate=False)
    assert isinstance(error, ValueError)
    assert 1_000 < len(str(error)) < 5_000
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "failed"


def test_several_queues_share_one_worker(make_app: MakeApp, names: Names, running: Running):
    """A worker runs the tasks of every queue it was given, and of no other."""
    email, reports, other = names.queue("email"), names.queue("reports"), names.queue("other")
    app = make_app(email, reports, other)

    @app.task
    def where():
        return current_task.queue

    running(app, email, reports)
    elsewhere = where.options(queue=other).delay()
    assert where.options(queue=email).delay().get(60) == email
    assert where.options(queue=reports).delay().get(60) == reports
    assert not elsewhere.ready()
    running(app, other)
    assert elsewhere.get(60) == other


def test_topics_find_their_queue(make_app: MakeApp, names: Names, running: Running):
    """A topic under a queue's name goes to that queue and keeps its routing key."""
    email = names.queue("email")
    app = make_app(email)

    @app.task
    def where():
        return [current_task.queue, current_task.routing_key]

    running(app)
    assert where.options(routing_key=f"{email}.welcome").delay().get(60) == [
        email,
        f"{email}.welcome",
    ]


def test_as_many_at_once_as_there_are_slots(app, running: Running):
    """Plain tasks and coroutines each have so many slots, and fill them."""
    together = threading.Barrier(3)
    meeting = asyncio.Barrier(3)

    @app.task
    def plain():
        return together.wait(60) >= 0

    @app.task
    async def coroutine():
        return await meeting.wait() >= 0

    running(app, concurrency=3)
    results = [task.delay() for task in (plain, coroutine) for _ in range(6)]
    assert [r.get(60) for r in results] == [True] * 12
