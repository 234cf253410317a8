"""Fixtures of the transport tests: an app with names of its own, a proxy, a look from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from amqtask import App, Queue
from amqtask.transport import BrokerURL, Link
from amqtask.transport.backoff import Backoff
from tests.helpers import TIMEOUT
from tests.integration.transport.peer import Peer
from tests.proxy import Proxy, proxied
from tests.servers import Names

#: For what takes long and is not the broker's doing.
ONE_BROKER = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
#: For what only this version does, and the embedded broker after it.
RABBITMQ_4 = pytest.mark.parametrize("broker", ["embedded", "rabbitmq4"], indirect=True)

MakeApp = Callable[..., App]
MakeLink = Callable[..., Link]


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail when asyncio had to log an exception that nobody took."""
    yield
    complaints = [each for when in ("call", "teardown") for each in caplog.get_records(when)]
    unheard = [each.getMessage() for each in complaints if each.name == "asyncio"]
    assert not unheard


@pytest.fixture
def peer(broker: str, names: Names) -> Iterator[Peer]:
    """A client that is not ours."""
    client = Peer(broker)
    yield client
    client.close()


@pytest.fixture
def proxy(broker: str) -> Iterator[Proxy]:
    """A proxy to the broker."""
    with proxied(broker) as made:
        yield made


@pytest.fixture
def make_app(broker: str, names: Names) -> Iterator[MakeApp]:
    """Makes apps whose exchanges and queues no other test has; the first queue is the default."""
    made: list[App] = []
    settings: dict[str, Any] = {
        "exchange": names.exchange("app"),
        "dead_letter_exchange": names.exchange("dead"),
        "publish_timeout": TIMEOUT,
        "delay_prefix": "test-nothing-is-delayed",  # deleting real levels takes half a second
    }

    def make(*queues: str | Queue, url: str | list[str] | None = None, **said: Any) -> App:
        first = queues[0]
        default = first if isinstance(first, str) else first.name
        said = {"default_queue": default, **settings, **said}
        app = App("test", broker=url or broker, queues=queues, environ={}, **said)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close(timeout=0.5)


@pytest.fixture
async def make_link(broker: str) -> AsyncIterator[MakeLink]:
    """Makes links on the test's own loop."""
    made: list[Link] = []

    def make(url: str | None = None, *, heartbeat: int = 30, connect_timeout: float = 5) -> Link:
        link = Link(
            [BrokerURL.parse(url or broker)],
            name="test",
            heartbeat=heartbeat,
            connect_timeout=connect_timeout,
            backoff=Backoff(first=0.02, cap=0.1),
        )
        made.append(link)
        return link

    yield make
    for link in made:
        await link.close()
