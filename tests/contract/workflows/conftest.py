"""One app and one worker in this process for each broker and backend."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from amqtask import App
from tests.contract.backends.places import PREFIX, STORED
from tests.contract.workflows.tasks import Tasks
from tests.integration.worker.inprocess import Worker
from tests.servers import Names

#: Where the table runs: brokers, with one backend that keeps nothing and two that count.
PLACES = [
    ("embedded", "rpc"),
    ("embedded", "redis"),
    ("embedded", "postgresql"),
    ("rabbitmq", "rpc"),
    ("rabbitmq", "redis"),
    ("rabbitmq", "postgresql"),
    ("rabbitmq4", "rpc"),
]


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and a backend."""
    broker, backend = request.param
    url: str = request.getfixturevalue(broker).url
    if backend == "rpc":
        yield url, "rpc://"
        return
    with STORED[backend](request) as kept:
        yield url, kept


@pytest.fixture(scope="module")
def tasks(place: tuple[str, str]) -> Iterator[Tasks]:
    """The tasks, with a worker that runs them."""
    with ExitStack() as stack:
        app = stack.enter_context(app_on(*place))
        made = Tasks(app)
        worker = Worker(app)
        stack.callback(worker.stop)
        worker.start()
        yield made


@contextmanager
def app_on(broker: str, backend: str) -> Iterator[App]:
    """Make an app with a queue of its own, and delete that in the end."""
    names = Names()
    app = App(
        f"workflows-{uuid.uuid4().hex[:6]}",
        broker=broker,
        backend=backend,
        default_queue=names.queue(),
        delay_prefix=names.delay_prefix(),
        cancel_exchange=names.cancel_exchange(),
        result_prefix=PREFIX,
        concurrency=4,
        environ={},
    )
    try:
        yield app
    finally:
        app.close()
        names.delete(broker)
