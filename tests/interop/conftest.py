"""Fixtures of the interop tests: both workers, both clients, and queues that suit both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqtask import App, Queue
from tests.interop.sides import CeleryWorker, CeleryWorkers
from tests.servers import Names

MakeApp = Callable[..., App]


@pytest.fixture(scope="session")
def _celery_workers() -> Iterator[CeleryWorkers]:
    pytest.importorskip("celery", reason='Celery is not installed: pip install "amqtask[interop]"')
    workers = CeleryWorkers()
    yield workers
    workers.stop()


@pytest.fixture
def celery_worker(broker: str, _celery_workers: CeleryWorkers) -> CeleryWorker:
    """The Celery worker on this broker; one for all tests."""
    return _celery_workers.on(broker)


@pytest.fixture
def make_app(broker: str) -> Iterator[MakeApp]:
    """Makes an amqtask app with one queue, by default one that suits Celery."""
    made: list[App] = []

    def make(queue: str | Queue, **settings: Any) -> App:
        if isinstance(queue, str):
            queue = Queue(queue, type="classic", exchange="", dead_letter=False)
        said = {"backend": "rpc://", "delay_prefix": Names().delay_prefix(), **settings}
        app = App(
            "interop", broker=broker, queues=[queue], default_queue=queue.name, environ={}, **said
        )
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def make_celery(broker: str, names: Names) -> Iterator[Callable[[str], Any]]:
    """Makes a Celery client with one queue, which Celery declares."""
    pytest.importorskip("celery", reason='Celery is not installed: pip install "amqtask[interop]"')
    from kombu import pools

    from tests.interop.celery_app import make

    made: list[Any] = []

    def make_client(queue: str) -> Any:
        app = make(broker, queue, names.exchange("celeryev"))
        made.append(app)
        return app

    yield make_client
    for app in made:
        if app.backend.result_consumer._consumer is not None:
            app.backend.result_consumer.stop()
        app.close()
    reset: Any = pools.reset
    reset()  # they are the process's, not the app's
