"""What a supervisor asks of the broker itself: to declare the topology, and how much waits.

It keeps no connection to declare, and one of its own, opened when it is first
needed, to count. The children have theirs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from amqtask.app import App
from amqtask.errors import AccessRefused, ChannelClosed, ConfigurationError, TransportError
from amqtask.transport import Session
from amqtask.transport.backoff import Backoff
from amqtask.transport.declare import declare
from amqtask.transport.session import Channel

log = logging.getLogger(__name__)


async def open_session(app: App, purpose: str) -> Session:
    """Connect to the first broker URL that answers.

    Raises:
        TransportError: None did; the last one's error.
    """
    refused: TransportError | None = None
    for url in app.transport.urls:
        try:
            return await Session.open(
                url,
                epoch=0,
                name=f"{app.name} {purpose}",
                heartbeat=app.settings.heartbeat,
                timeout=app.settings.connect_timeout,
            )
        except AccessRefused:
            raise
        except TransportError as error:
            refused = error
    assert refused is not None
    raise refused


async def declare_topology(app: App, queues: Sequence[str], on_wait: Callable[[str], None]) -> None:
    """Declare what an app wants for some queues; tries until a broker answers.

    Args:
        app: Whose topology it is.
        queues: Names of the queues meant.
        on_wait: Called with the reason each time there is no broker.

    Raises:
        AccessRefused: Credentials, vhost or permissions.
        ConfigurationError: The broker holds something else under a name.
        ChannelClosed: Something that is not ours to make is missing.
    """
    backoff = Backoff(first=0.5, cap=5.0)
    # a worker runs without cancelling where it may not have it, and says so by itself
    plan = app.topology(queues, cancelling=False)
    while True:
        try:
            session = await open_session(app, "prepare")
            try:
                await declare(session, plan)
            finally:
                await session.close()
        except (AccessRefused, ConfigurationError, ChannelClosed):
            raise
        except TransportError as error:
            log.warning("worker.waiting error=%r", str(error))
            on_wait(str(error))
        else:
            return
        await asyncio.sleep(backoff.next())


class Backlog:
    """Counts the messages that wait in some queues, on a connection of its own.

    A queue that is not there counts as empty: the children say what is wrong with it.

    Args:
        app: Where the brokers are.
        queues: Names of the queues.
    """

    def __init__(self, app: App, queues: Sequence[str]) -> None:
        self._app = app
        self._queues = queues
        self._session: Session | None = None
        self._channel: Channel | None = None

    async def count(self) -> int | None:
        """Return how many messages are ready; None when the broker does not tell."""
        try:
            return sum([await self._ready(queue) for queue in self._queues])
        except TransportError as error:
            log.debug("backlog.unknown error=%r", str(error))
            await self.close()
            return None

    async def close(self) -> None:
        """Disconnect; the next count connects again."""
        session, self._session, self._channel = self._session, None, None
        if session is not None:
            await session.close()

    async def _ready(self, queue: str) -> int:
        if self._session is None or not self._session.is_open:
            self._session = await open_session(self._app, "scale")
        if self._channel is None or not self._channel.is_open:
            self._channel = await self._session.channel()
        try:
            async with asyncio.timeout(self._app.settings.connect_timeout):
                return (await self._channel.declare_queue(queue, passive=True))[1]
        except ChannelClosed as error:
            log.debug("backlog.no_queue queue=%r error=%r", queue, str(error))
            return 0
        except TimeoutError:
            raise TransportError(f"the broker does not say what waits in {queue!r}") from None
