"""A broker that lets nobody hold a message for long: survived, explained, and fitted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from amqtask import App, Queue
from amqtask.errors import ConfigurationError
from amqtask.testing.servers import Server, from_program
from tests.helpers import eventually
from tests.integration.worker.inprocess import Worker

#: A second, looked at twice in each, instead of half an hour and once a minute.
SHORT = "[{rabbit, [{consumer_timeout, 1000}, {channel_tick_interval, 500}]}]."


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """A private RabbitMQ that takes messages back after a second."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(from_program("rabbitmq", config=SHORT))
        except ConfigurationError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(params=["quorum", "classic"])
def app(hasty: Server, request: pytest.FixtureRequest) -> Iterator[App]:
    queue = Queue(f"work-{request.param}", type=request.param)
    with App(
        "hasty", broker=hasty.url, queues=[queue], default_queue=queue.name, environ={}
    ) as made:
        yield made


def test_a_task_that_runs_over_it(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Its message is delivered again while it runs, the worker goes on, and the log says why."""
    runs: list[bool] = []
    ended = threading.Event()
    quick: list[int] = []

    @app.task(name="t.slow", bind=True)
    def slow(self) -> None:
        runs.append(self.redelivered)
        if len(runs) == 1:
            assert ended.wait(60)

    @app.task(name="t.quick")
    def quickly(number: int) -> None:
        quick.append(number)

    worker = Worker(app, concurrency=4).start()
    try:
        app.send_task("t.slow")
        eventually(lambda: len(runs) == 2)
        assert runs == [False, True]
        eventually(lambda: worker.node.ready)
        app.send_task("t.quick", (1,))
        eventually(lambda: quick == [1])
        ended.set()
        eventually(lambda: worker.node.running == 0)
    finally:
        ended.set()
        worker.stop()
    assert f"consumer.timeout queue='{app.settings.default_queue}' seconds=1: a delivery" in (
        caplog.text
    )
    assert "Queue(consumer_timeout=...)" in caplog.text


def test_a_limit_that_does_not_fit_is_said_at_the_start(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """This RabbitMQ takes no word of a queue on it, so all that can be done is to say so, once."""

    @app.task(time_limit=7200)
    def slow() -> None: ...

    worker = Worker(app).start()
    worker.stop()
    said = [r.getMessage() for r in caplog.records if "consumer.timeout_short" in r.msg]
    assert len(said) == 1
    assert "seconds=1800 limit=7200" in said[0]
