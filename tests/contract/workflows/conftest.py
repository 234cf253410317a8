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


@pytest.fixture(scope="module", params=["embedded", "rabbitmq", "rabbitmq4"])
def place(request: pytest.FixtureRequest) -> str:
    """The URL of each broker."""
    url: str = request.getfixturevalue(request.param).url
    return url


@pytest.fixture(scope="module", params=["rpc", "redis", "postgresql"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of each kind of backend: one that keeps nothing, and two that count."""
    if request.param == "rpc":
        yield "rpc://"
        return
    with STORED[request.param](request) as url:
        yield url


@pytest.fixture(scope="module")
def tasks(place: str, backend: str) -> Iterator[Tasks]:
    """The tasks, with a worker that runs them."""
    with ExitStack() as stack:
        app = stack.enter_context(app_on(place, backend))
        made = Tasks(app)
        worker = Worker(app)
        stack.callback(worker.stop)
        worker.start()
        yield made


@contextmanager
def app_on(place: str, backend: str) -> Iterator[App]:
    """Make an app with a queue of its own, and delete that in the end."""
    names = Names()
    app = App(
        f"workflows-{uuid.uuid4().hex[:6]}",
        broker=place,
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
        names.delete(place)
