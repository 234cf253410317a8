"""Fixtures of the backends' contract: both ends of each backend, the worker's and the caller's."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pika
import pytest

from amqtask import App, AsyncResult
from amqtask.backends import Backend, StoredBackend
from amqtask.message.results import READY_STATES, ResultMeta
from tests.contract.backends.places import MESSAGES, PREFIX, STORED, places
from tests.helpers import TIMEOUT
from tests.servers import Names

MakeApp = Callable[..., App]


class Ends:
    """The worker's end and the caller's end of one backend.

    Attributes:
        app: The caller's.
        worker: The worker's; another app, as in another process.
    """

    def __init__(self, app: App, worker: App, reply_to: Callable[[str], str]) -> None:
        self.app = app
        self.worker = worker
        self._reply_to = reply_to

    @property
    def stored(self) -> StoredBackend:
        """The caller's backend, where it stores."""
        assert isinstance(self.app.backend, StoredBackend)
        return self.app.backend

    def call(self) -> AsyncResult[Any]:
        """Return the handle of a new call."""
        return self.app.result(str(uuid.uuid4()), "t.task")

    def save(
        self, result: AsyncResult[Any], status: str = "SUCCESS", value: Any = None, **said: Any
    ) -> None:
        """Store a state as a worker does, and wait until it is safe."""
        self.begin(result, status, value, **said)()

    def begin(
        self,
        result: AsyncResult[Any],
        status: str = "SUCCESS",
        value: Any = None,
        *,
        by: Backend | None = None,
        **said: Any,
    ) -> Callable[[], None]:
        """Begin to store a state; calling what is returned waits until it is safe."""
        backend = by or self.worker.backend
        assert backend is not None
        done = threading.Event()
        errors: list[Exception | None] = []

        def tell(error: Exception | None) -> None:
            errors.append(error)
            done.set()

        ready = status in READY_STATES
        meta = ResultMeta(
            result.id, status, value, date_done=datetime.now(UTC) if ready else None, **said
        )
        backend.save(meta, reply_to=self._reply_to(result.id), correlation_id=result.id, done=tell)

        def wait() -> None:
            assert done.wait(TIMEOUT), "the backend did not say that it is done"
            if errors[0] is not None:
                raise errors[0]

        return wait


@pytest.fixture(scope="session")
def _places(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Returns where a backend keeps things, made at the first question."""
    with places(request) as place:
        yield place


@pytest.fixture
def open_app() -> Iterator[MakeApp]:
    """Makes apps with a backend, and closes them."""
    made: list[App] = []

    def make(url: str, **settings: Any) -> App:
        said = {"result_prefix": PREFIX, "backend": url, **settings}
        app = App(f"contract-{uuid.uuid4().hex[:6]}", environ={}, **said)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture(params=list(STORED))
def stored_url(request: pytest.FixtureRequest, _places: Callable[[str], str]) -> str:
    """The URL of each backend that stores."""
    return _places(request.param)


@pytest.fixture
def stored(stored_url: str, open_app: MakeApp) -> Ends:
    """Both ends of each backend that stores."""
    return Ends(open_app(stored_url), open_app(stored_url), lambda _: "")


@pytest.fixture
def make_ends(stored_url: str, open_app: MakeApp) -> Callable[..., Ends]:
    """Makes both ends of each backend that stores, with settings."""

    def make(**settings: Any) -> Ends:
        app, worker = (open_app(stored_url, **settings) for _ in range(2))
        return Ends(app, worker, lambda _: "")

    return make


@pytest.fixture(params=[*STORED, *MESSAGES])
def ends(
    request: pytest.FixtureRequest, open_app: MakeApp, _places: Callable[[str], str]
) -> Iterator[Ends]:
    """Both ends of each backend."""
    name: str = request.param
    if name in STORED:
        url = _places(name)
        yield Ends(open_app(url), open_app(url), lambda _: "")
        return
    broker = request.getfixturevalue("rabbitmq").url
    names = Names()
    queue = names.queue()
    app, worker = (open_app(f"{name}://", broker=broker, queues=[queue]) for _ in range(2))
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    channel = connection.channel()

    def reply_to(task_id: str) -> str:
        """Return the address that a worker would find in a call of the caller."""
        app.send_task("t.task", queue=queue, task_id=task_id)
        _, properties, _ = channel.basic_get(queue, auto_ack=True)
        assert properties is not None
        return cast(str, properties.reply_to)

    try:
        yield Ends(app, worker, reply_to)
    finally:
        connection.close()
        names.delete(broker)
