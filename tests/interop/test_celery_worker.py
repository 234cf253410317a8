"""A Celery worker runs what amqtask sends, and amqtask reads its results."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from amqtask import RemoteError, RetriesExhausted, RetryPolicy, TaskRevoked
from amqtask.backends import Pending
from amqtask.message.results import RemoteTraceback, ResultMeta
from tests.interop.conftest import MakeApp
from tests.interop.sides import VALUES, CeleryWorker

#: Seconds within which a worker on a busy machine answers.
ANSWER = 60.0


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The states that arrive here, in their order; asking for the state could miss one."""
    seen: list[str] = []
    resolve = Pending.resolve

    def note(self: Pending, meta: ResultMeta) -> None:
        seen.append(meta.status)
        resolve(self, meta)

    monkeypatch.setattr(Pending, "resolve", note)
    return seen


def ask(
    make_app: MakeApp, worker: CeleryWorker, task: str, *args: Any, **options: Any
) -> dict[str, Any]:
    """Send a call to the Celery worker and return its answer."""
    app = make_app(worker.queue)
    answer: dict[str, Any] = app.send_task(task, args, **options).get(ANSWER)
    return answer


def test_arguments_and_result(make_app: MakeApp, celery_worker: CeleryWorker):
    """Every kind of argument reaches Celery's task as itself, and comes back as itself."""
    app = make_app(celery_worker.queue)
    result = app.send_task("celery.echo", VALUES, {"key": VALUES[2]})
    answer = result.get(ANSWER)
    assert answer["args"] == VALUES
    assert answer["kwargs"] == {"key": Decimal("12.50")}
    assert answer["types"] == [type(value).__name__ for value in VALUES]
    assert result.state == "SUCCESS"
    assert result.successful()


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"serializer": "msgpack"}])
def test_other_forms_of_body(
    make_app: MakeApp, celery_worker: CeleryWorker, options: dict[str, Any]
):
    """Celery unpacks a compressed body and one in msgpack."""
    if "serializer" in options:
        pytest.importorskip("msgpack")
    answer = ask(make_app, celery_worker, "celery.echo", "a" * 5000, {"x": [1]}, **options)
    assert answer["args"] == ["a" * 5000, {"x": [1]}]


def test_states_of_the_users_own(make_app: MakeApp, celery_worker: CeleryWorker, states: list[str]):
    """What a Celery task reports arrives before its outcome."""
    result = make_app(celery_worker.queue).send_task("celery.reporting")
    assert result.get(ANSWER) == "end"
    assert states == ["PROGRESS", "SUCCESS"]


def test_call_of_a_celery_task(make_app: MakeApp, celery_worker: CeleryWorker):
    """Celery's workers answer direct replies, too."""
    app = make_app(celery_worker.queue, backend="rpc+direct://")
    assert app.send_task("celery.echo", [1]).get(ANSWER)["args"] == [1]
    with pytest.raises(KeyError):
        app.send_task("celery.fail", [True]).get(ANSWER)


def test_exception_that_both_know(make_app: MakeApp, celery_worker: CeleryWorker):
    """A task's exception is raised here in its class, with its arguments and the remote traceback."""
    app = make_app(celery_worker.queue)
    result = app.send_task("celery.fail", [True])
    with pytest.raises(KeyError) as caught:
        result.get(ANSWER)
    assert caught.value.args == ("no such user", 7)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert 'raise KeyError("no such user", 7)' in caught.value.__cause__.text
    assert result.state == "FAILURE"
    assert result.failed()


def test_exception_that_only_celery_knows(make_app: MakeApp, celery_worker: CeleryWorker):
    """An exception of a class that is not imported here keeps its name and arguments."""
    app = make_app(celery_worker.queue)
    with pytest.raises(RemoteError, match="Bounced") as caught:
        app.send_task("celery.fail", [False]).get(ANSWER)
    assert caught.value.exc_type == "Bounced"
    assert caught.value.exc_module == "tests.interop.celery_only"
    assert caught.value.exc_args == ("mail", 550)


def test_what_celery_sees(make_app: MakeApp, celery_worker: CeleryWorker):
    """A Celery task finds in its request what the caller said."""
    expires = datetime.now(UTC) + timedelta(minutes=5)
    request = ask(
        make_app,
        celery_worker,
        "celery.request",
        task_id="order-17",
        expires=expires,
        priority=3,
        time_limit=30,
        soft_time_limit=20.5,
        shadow="shown",
        headers={"mine": 1, "tags": ["a"]},
        retry=RetryPolicy(max_retries=2),
    )
    headers = request["headers"]
    assert headers.pop("x-amqtask-retry")["max_retries"] == 2
    assert headers == {"mine": 1, "tags": ["a"]}
    assert request["id"] == request["root_id"] == request["correlation_id"] == "order-17"
    assert request["parent_id"] is None
    assert request["retries"] == 0
    assert request["eta"] is None
    assert datetime.fromisoformat(request["expires"]) == expires
    assert request["timelimit"] == [30, 20.5]
    assert request["shadow"] == "shown"
    assert request["priority"] == 3
    assert request["argsrepr"] == "()"
    assert request["kwargsrepr"] == "{}"


def test_delay(make_app: MakeApp, celery_worker: CeleryWorker):
    """A delayed call waits in the broker, keeps its ``eta``, and Celery does not start it early."""
    before = time.time()
    request = ask(make_app, celery_worker, "celery.request", countdown=0.5, headers={"mine": 1})
    eta = datetime.fromisoformat(request["eta"])
    assert eta.timestamp() >= before + 0.5
    assert request["started"] >= eta.timestamp()
    assert request["retries"] == 0
    # what the broker noted on the way
    assert {name for name in request["headers"] if not name.startswith("x-")} == {"mine"}


def test_expired(make_app: MakeApp, celery_worker: CeleryWorker):
    """Celery does not start what expired on its way; the caller hears of it as a revoked task."""
    app = make_app(celery_worker.queue)
    # the delay keeps the broker from dropping it first
    result = app.send_task("celery.request", countdown=0.3, expires=0.1)
    with pytest.raises(TaskRevoked, match="^expired$"):
        result.get(ANSWER)
    assert result.state == "REVOKED"


@pytest.mark.parametrize("delay", [0, 0.2])
def test_retry_by_celery(
    make_app: MakeApp, celery_worker: CeleryWorker, states: list[str], delay: float
):
    """Celery's own retry of our message keeps id, arguments, headers, limits, priority, reply address.

    After a delay the message came through an exchange that Celery never heard of.
    """
    app = make_app(celery_worker.queue)
    result = app.send_task(
        "celery.retrying",
        [2, 0.1],
        countdown=delay or None,
        headers={"mine": {"x": 1}},
        priority=3,
        time_limit=30,
        soft_time_limit=20,
        shadow="shown",
    )
    request = result.get(ANSWER)
    assert states == ["RETRY", "RETRY", "SUCCESS"]
    assert request["id"] == request["correlation_id"] == result.id
    assert request["retries"] == 2
    assert request["headers"]["mine"] == {"x": 1}
    assert request["priority"] == 3
    assert request["timelimit"] == [30, 20]
    assert request["shadow"] == "shown"


def test_retries_of_celery_run_out(make_app: MakeApp, celery_worker: CeleryWorker):
    """Celery's error for a task without retries left is ours for the same thing."""
    app = make_app(celery_worker.queue)
    result = app.send_task("celery.hopeless")
    with pytest.raises(RetriesExhausted, match=f"Can't retry celery.hopeless.{result.id}. "):
        result.get(ANSWER)
    assert result.state == "FAILURE"


def test_result_that_nobody_wants(make_app: MakeApp, celery_worker: CeleryWorker):
    """Without a backend Celery gets an empty reply address, and goes on to the next task."""
    silent = make_app(celery_worker.queue, backend=None)
    silent.send_task("celery.echo", ["unheard"])
    assert ask(make_app, celery_worker, "celery.echo", "heard")["args"] == ["heard"]


def test_worker_has_nothing_to_complain_about(make_app: MakeApp, celery_worker: CeleryWorker):
    """None of our messages makes a Celery worker log an error, but for tasks that fail on purpose."""
    ask(make_app, celery_worker, "celery.echo", 1)
    ask(make_app, celery_worker, "celery.request", countdown=0.1, expires=60, priority=1)
    ask(make_app, celery_worker, "celery.retrying", 1, 0)
    complaints = [
        line
        for line in celery_worker.errors()
        if "celery.fail" not in line
        and "celery.hopeless" not in line
        and not line.startswith("Traceback")
    ]
    assert complaints == []
