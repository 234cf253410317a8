"""An amqtask worker runs what a Celery client sends, and the client reads its results."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pika
import pytest

from amqtask import App, Context, Ignore, Queue, Reject, RetryPolicy
from amqtask.worker import Node
from tests.helpers import eventually
from tests.interop.conftest import MakeApp
from tests.interop.sides import VALUES, CeleryWorker, running
from tests.servers import Names

celery = pytest.importorskip("celery", reason='pip install "amqtask[interop]"')

#: Seconds within which a worker on a busy machine answers.
ANSWER = 60.0

MakeCelery = Callable[[str], Any]


class Unknown(Exception):
    """An exception whose class the client's process does not find."""

    __module__ = "mail.server"


def add_tasks(app: App) -> None:
    """Register the tasks that the Celery client calls."""

    @app.task(name="ours.echo")
    def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
        types = [type(value).__name__ for value in args]
        return {"args": args, "kwargs": kwargs, "types": types}

    @app.task(name="ours.add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="ours.fail")
    def fail(known: bool) -> None:
        if known:
            raise KeyError("no such user", 7)
        raise Unknown("mail", 550)

    @app.task(bind=True, name="ours.request")
    def request(self: Context) -> dict[str, Any]:
        return described(self)

    @app.task(bind=True, name="ours.reporting")
    def reporting(self: Context) -> str:
        self.progress(1, 4, file="a")
        return "end"

    @app.task(bind=True, name="ours.retrying", max_retries=2)
    def retrying(self: Context, times: int, countdown: float) -> dict[str, Any]:
        if self.retries < times:
            self.retry(f"attempt {self.attempt} was not enough", countdown=countdown)
        return described(self)

    @app.task(name="ours.unstable", retry=RetryPolicy(max_retries=1, on=(OSError,), backoff=0.05))
    def unstable() -> None:
        raise OSError(104, "connection reset")

    @app.task(name="ours.ignoring")
    def ignoring() -> None:
        raise Ignore

    @app.task(name="ours.rejecting")
    def rejecting() -> None:
        raise Reject("not mine")

    @app.task(name="ours.exiting")
    def exiting() -> None:
        sys.exit(3)


def described(context: Context) -> dict[str, Any]:
    """Return what a task knows about its call."""
    call = context.call
    return {
        "id": call.id,
        "root_id": call.root_id,
        "parent_id": call.parent_id,
        "group": call.group,
        "retries": call.retries,
        "eta": call.eta,
        "expires": call.expires,
        "limits": [call.hard_limit, call.soft_limit],
        "headers": dict(call.headers),
        "priority": call.priority,
        "shadow": call.shadow,
        "stamps": dict(call.stamps),
        "started": time.time(),
    }


@pytest.fixture
def client(names: Names, make_celery: MakeCelery) -> Any:
    """A Celery client; its queue is declared by whoever comes first."""
    return make_celery(names("shared"))


@pytest.fixture
def worker(client: Any, make_app: MakeApp) -> AbstractContextManager[Node]:
    """An amqtask worker on the client's queue, to be entered by the test."""
    app = make_app(client.conf.task_default_queue, accept_content=["json", "msgpack"])
    add_tasks(app)
    return running(app, app.settings.default_queue)


def test_arguments_and_result(client: Any, worker: AbstractContextManager[Node]):
    """Every kind of argument that Celery serialises reaches our task as itself, and comes back."""
    with worker:
        result = client.send_task("ours.echo", VALUES, {"key": VALUES[2]})
        answer = result.get(timeout=ANSWER)
    assert answer["args"] == VALUES
    assert answer["kwargs"] == {"key": Decimal("12.50")}
    assert answer["types"] == [type(value).__name__ for value in VALUES]
    assert result.state == "SUCCESS"
    assert result.date_done.tzinfo is not None
    assert result.children == []


def test_queue_that_celery_declared(client: Any, worker: AbstractContextManager[Node]):
    """We take a queue that a Celery client declared, with what already waits in it."""
    waiting = client.send_task("ours.add", [1, 2])
    with worker:
        assert waiting.get(timeout=ANSWER) == 3


def test_queue_that_we_declared(client: Any, worker: AbstractContextManager[Node]):
    """A Celery client declares our queue anew as its own without a conflict."""
    with worker:
        assert client.send_task("ours.add", [1, 2]).get(timeout=ANSWER) == 3


def test_quorum_queue_with_dead_letters(
    broker: str, names: Names, make_app: MakeApp, make_celery: MakeCelery
):
    """A Celery client that leaves declaring to us sends to our usual queue, dead letters and all."""
    from tests.interop.celery_app import Queue as CeleryQueue

    client = make_celery(names("other"))
    name = names.queue("usual")
    app = make_app(Queue(name))
    add_tasks(app)
    target = CeleryQueue(name, exchange="", routing_key=name, no_declare=True)
    with running(app, name) as node:
        assert client.send_task("ours.add", [1, 2], queue=target).get(timeout=ANSWER) == 3
        failing = client.send_task("ours.fail", [True], queue=target)
        with pytest.raises(KeyError):
            failing.get(timeout=ANSWER)
        eventually(lambda: node.counts["failed"] == 1)
    with pika.BlockingConnection(pika.URLParameters(broker)) as connection:
        _, parked, _ = connection.channel().basic_get(f"{name}.dead", auto_ack=True)
    assert parked is not None
    assert parked.correlation_id == failing.id
    assert parked.headers is not None
    assert parked.headers["amqtask-exception"] == "KeyError: ('no such user', 7)"


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"serializer": "msgpack"}])
def test_other_forms_of_body(
    client: Any, worker: AbstractContextManager[Node], options: dict[str, Any]
):
    """A body that Celery compressed, or wrote in msgpack, is read."""
    if "serializer" in options:
        pytest.importorskip("msgpack")
    with worker:
        result = client.send_task("ours.echo", ["a" * 5000, {"x": [1]}], **options)
        assert result.get(timeout=ANSWER)["args"] == ["a" * 5000, {"x": [1]}]


def test_exceptions(client: Any, worker: AbstractContextManager[Node]):
    """A task's exception is raised at the client, with its arguments; the traceback is there as text."""
    with worker:
        known = client.send_task("ours.fail", [True])
        with pytest.raises(KeyError) as caught:
            known.get(timeout=ANSWER)
        assert caught.value.args == ("no such user", 7)
        assert known.state == "FAILURE"
        assert 'raise KeyError("no such user", 7)' in known.traceback
        unknown = client.send_task("ours.fail", [False])
        # Celery makes a class of the name when it finds none
        with pytest.raises(Exception, match=r"\('mail', 550\)") as made:
            unknown.get(timeout=ANSWER)
        assert type(made.value).__name__ == "Unknown"


def test_unknown_task(client: Any, worker: AbstractContextManager[Node]):
    """The client of a task that nobody registered gets Celery's own error for it."""
    from celery.exceptions import NotRegistered

    with worker:
        result = client.send_task("ours.missing")
        with pytest.raises(NotRegistered):
            result.get(timeout=ANSWER)
        assert client.send_task("ours.add", [1, 2]).get(timeout=ANSWER) == 3


def test_what_we_see(client: Any, worker: AbstractContextManager[Node]):
    """A task of ours finds in its context what the Celery client said."""
    expires = datetime.now(UTC) + timedelta(minutes=5)
    with worker:
        result = client.send_task(
            "ours.request",
            task_id="order-17",
            expires=expires,
            priority=3,
            time_limit=30,
            soft_time_limit=20.5,
            shadow="shown",
            headers={"mine": 1, "part": 0.5, "tags": ["a", None]},
            root_id="the-root",
            parent_id="the-parent",
        )
        seen = result.get(timeout=ANSWER)
    assert seen.pop("started") > 0
    assert seen == {
        "id": "order-17",
        "root_id": "the-root",
        "parent_id": "the-parent",
        "group": None,
        "retries": 0,
        "eta": None,
        "expires": expires,
        "limits": [30, 20.5],
        "headers": {"mine": 1, "part": 0.5, "tags": ["a", None]},
        "priority": 3,
        "shadow": "shown",
        "stamps": {},
    }


def test_countdown(client: Any, worker: AbstractContextManager[Node], broker: str):
    """A call with a countdown, which Celery sends at once, waits in the broker and is never early."""
    queue = client.conf.task_default_queue
    before = time.time()
    with worker as node:
        delayed = client.send_task("ours.request", countdown=4, priority=2, expires=30)
        # it is not held: what comes after it runs first
        assert client.send_task("ours.add", [1, 2]).get(timeout=ANSWER) == 3
        eventually(lambda: node.counts["again"] == 1)
        with pika.BlockingConnection(pika.URLParameters(broker)) as connection:
            waiting = connection.channel().queue_declare(queue, passive=True).method.message_count
        seen = delayed.get(timeout=ANSWER)
    assert waiting == 0
    assert seen["started"] >= seen["eta"].timestamp() - 0.05
    assert before + 4 <= seen["eta"].timestamp()
    assert seen["retries"] == 0
    assert seen["priority"] == 2
    assert seen["expires"] is not None


def test_expired(client: Any, worker: AbstractContextManager[Node]):
    """What expired while it waited is not started; the client hears of it as a revoked task."""
    from celery.exceptions import TaskRevokedError

    with worker as node:
        result = client.send_task("ours.request", countdown=0.3, expires=0.1)
        with pytest.raises(TaskRevokedError, match="expired"):
            result.get(timeout=ANSWER)
        assert result.state == "REVOKED"
        assert node.counts["done"] == 0


def test_retries(client: Any, worker: AbstractContextManager[Node]):
    """Our retry of Celery's message keeps all that Celery said; the client sees state RETRY."""
    states: list[tuple[str, Any]] = []
    with worker:
        result = client.send_task(
            "ours.retrying",
            [2, 0.1],
            headers={"mine": {"x": 1.5}},
            priority=3,
            time_limit=30,
            shadow="shown",
            root_id="the-root",
            stamped_headers=["tenant"],
            tenant="a",
        )
        seen = result.get(
            timeout=ANSWER, on_message=lambda meta: states.append((meta["status"], meta["result"]))
        )
    assert [state for state, _ in states] == ["RETRY", "RETRY", "SUCCESS"]
    assert [error["exc_message"] for _, error in states[:2]] == [
        ["attempt 1 was not enough"],
        ["attempt 2 was not enough"],
    ]
    assert seen["id"] == result.id
    assert seen["retries"] == 2
    assert seen["root_id"] == "the-root"
    assert seen["headers"] == {"mine": {"x": 1.5}}
    assert seen["priority"] == 3
    assert seen["limits"] == [30, None]
    assert seen["shadow"] == "shown"
    assert seen["stamps"] == {"tenant": "a"}


def test_progress_is_read_by_celery(client: Any, worker: AbstractContextManager[Node]):
    """A client that follows a task sees its reports as states of the task's own."""
    states: list[tuple[str, Any]] = []
    with worker:
        result = client.send_task("ours.reporting")
        seen = result.get(
            timeout=ANSWER, on_message=lambda meta: states.append((meta["status"], meta["result"]))
        )
    assert seen == "end"
    assert states[0] == ("PROGRESS", {"done": 1, "total": 4, "file": "a"})


def test_state_retry_is_read_by_celery(client: Any, worker: AbstractContextManager[Node]):
    """A client that asks while a task waits for its retry gets state RETRY and the reason."""
    with worker:
        result = client.send_task("ours.retrying", [1, 60])
        eventually(lambda: result.state == "RETRY", timeout=ANSWER)
        assert str(result.info) == "attempt 1 was not enough"
        assert not result.ready()


def test_retries_run_out(client: Any, worker: AbstractContextManager[Node]):
    """When no retry is left the client gets the task's own error, or Celery's for a bare retry."""
    from celery.exceptions import MaxRetriesExceededError

    with worker:
        with pytest.raises(OSError, match="connection reset") as caught:
            client.send_task("ours.unstable").get(timeout=ANSWER)
        assert type(caught.value) is ConnectionResetError
        with pytest.raises(MaxRetriesExceededError, match="after its 2 retries"):
            client.send_task("ours.retrying", [9, 0.05]).get(timeout=ANSWER)


def test_no_result(client: Any, worker: AbstractContextManager[Node]):
    """A call with ``ignore_result``, and a task that raises Ignore, send nothing back."""
    with worker as node:
        unwanted = client.send_task("ours.add", [1, 2], ignore_result=True)
        ignored = client.send_task("ours.ignoring")
        wanted = client.send_task("ours.add", [3, 4])
        assert wanted.get(timeout=ANSWER) == 7
        eventually(lambda: node.counts["done"] == 2 and node.counts["ignored"] == 1)
        assert unwanted.state == "PENDING"
        assert ignored.state == "PENDING"


@pytest.mark.parametrize(
    ("task", "name", "text"),
    [("ours.rejecting", "Reject", "not mine"), ("ours.exiting", "SystemExit", "3")],
)
def test_errors_that_are_no_exceptions(
    client: Any, worker: AbstractContextManager[Node], task: str, name: str, text: str
):
    """Reject and SystemExit reach the client as an Exception of that name.

    Celery raises a class by its module: SystemExit itself would end the client.
    """
    with worker:
        result = client.send_task(task)
        with pytest.raises(Exception, match=f"^{text}$") as caught:
            result.get(timeout=ANSWER)
        assert type(caught.value).__name__ == name
        assert result.state == "FAILURE"


def test_client_that_left(names: Names, make_celery: MakeCelery, make_app: MakeApp):
    """A result that no client waits for any more costs neither the task nor the worker."""
    leaving, staying = make_celery(names("shared")), None
    queue = leaving.conf.task_default_queue
    app = make_app(queue)
    add_tasks(app)
    # nothing declares its reply queue
    leaving.send_task("ours.add", [1, 2], reply_to="amqtask-no-such-queue")
    staying = make_celery(queue)
    with running(app, queue) as node:
        assert staying.send_task("ours.add", [3, 4]).get(timeout=ANSWER) == 7
        eventually(lambda: node.counts["done"] == 2)


def test_many_at_once(client: Any, worker: AbstractContextManager[Node]):
    """The results of a Celery group find their callers, each its own."""
    with worker:
        group = celery.group(client.signature("ours.add", (number, 1)) for number in range(50))
        results = group.apply_async()
        assert results.get(timeout=ANSWER) == [number + 1 for number in range(50)]


def test_steps_follow(client: Any, worker: AbstractContextManager[Node]):
    """A chain and a callback of Celery's client go on over rpc: each step's result finds its caller."""
    with worker:
        add = client.signature("ours.add", (1, 2))
        result = celery.chain(add, client.signature("ours.add", (10,))).apply_async()
        assert result.get(timeout=ANSWER) == 13
        callback = client.signature("ours.add", (100,)).set(task_id="the-callback")
        assert add.apply_async(link=callback).get(timeout=ANSWER) == 3
        assert client.AsyncResult("the-callback").get(timeout=ANSWER) == 103


def test_call_from_a_celery_task(celery_worker: CeleryWorker, make_app: MakeApp, names: Names):
    """A Celery task that calls one of ours is its parent; both belong to the same tree."""
    app = make_app(names.queue("ours"))
    seen: list[Context] = []
    came = threading.Event()

    @app.task(bind=True, name="ours.note")
    def note(self: Context, value: int) -> None:
        seen.append(self)
        came.set()

    queue = app.settings.default_queue
    with running(app, queue):
        sending = make_app(celery_worker.queue)
        forwarded = sending.send_task("celery.forward", ["ours.note", queue, [5]])
        id_ = forwarded.get(ANSWER)
        assert came.wait(ANSWER)
    (context,) = seen
    assert context.id == id_
    assert context.args == (5,)
    assert context.parent_id == forwarded.id
    assert context.root_id == forwarded.id
