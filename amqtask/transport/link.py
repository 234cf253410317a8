"""Keep one session alive to one of several brokers.

    stopped --start--> connecting --ok--> up --lost--> waiting --> connecting ...
                            `--no URL answers--> waiting (back-off) --^

A link hands out sessions; it never repairs one. Publisher and consumers each
run a loop of their own on top: wait for a session, serve it until it ends,
start over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from amqtask.errors import AccessRefused, ConnectionLost, TransportError
from amqtask.transport.backoff import Backoff, Repeats
from amqtask.transport.session import Session
from amqtask.transport.url import BrokerURL

log = logging.getLogger(__name__)


class Link:
    """A supervised connection.

    Args:
        urls: Brokers to try, in order; the one that worked last is tried first.
        name: The connection's name in RabbitMQ's tools.
        heartbeat: Seconds.
        connect_timeout: Seconds for one attempt at one URL.

    Attributes:
        last_error: Why there is no session now; None while there is one.
        refused: True when every URL refused the credentials in the last round.
        on_change: Called without arguments whenever a session starts or ends,
            and after each round in which no URL answered.

    Threads: not thread-safe; use it on one loop.
    """

    def __init__(
        self,
        urls: Sequence[BrokerURL],
        *,
        name: str,
        heartbeat: int,
        connect_timeout: float,
        backoff: Backoff | None = None,
    ) -> None:
        self.urls = list(urls)
        self.name = name
        self.last_error: TransportError | None = None
        self.refused = False
        self.on_change: list[Callable[[], None]] = []
        self._heartbeat = heartbeat
        self._connect_timeout = connect_timeout
        self._backoff = backoff or Backoff()
        self._repeats = Repeats()
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect; a second call does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"amqtask link {self.name}")

    @property
    def session(self) -> Session | None:
        """The open session, or None."""
        session = self._session
        return session if session is not None and session.is_open else None

    async def up(self) -> Session:
        """Wait for an open session and return it."""
        while True:
            await self._up.wait()
            if (session := self.session) is not None:
                return session
            await asyncio.sleep(0)  # lost just now: let the supervisor see it first

    async def close(self) -> None:
        """Stop connecting and close the session in good order."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if (session := self.session) is not None:
            await session.close()

    def abandon(self) -> None:
        """Drop everything at once; for loops that are about to end."""
        if self._task is not None:
            self._task.cancel()
        if (session := self.session) is not None:
            session.abort()

    async def _run(self) -> None:
        while True:
            session = await self._connect()
            self._session = session
            self.last_error = None
            self._backoff.reset()
            self._repeats.reset()
            self._up.set()
            self._changed()
            log.info(
                "broker.connected name=%r url=%s epoch=%d", self.name, session.url, session.epoch
            )
            self.last_error = await asyncio.shield(session.closed)
            self._up.clear()
            self._changed()
            log.warning(
                "broker.lost name=%r epoch=%d error=%r: connecting again",
                self.name,
                session.epoch,
                str(self.last_error),
            )

    async def _connect(self) -> Session:
        """Try the URLs in turn, with a back-off after each round, until one answers."""
        while True:
            errors: list[TransportError] = []
            for url in list(self.urls):
                self._epoch += 1
                try:
                    session = await Session.open(
                        url,
                        epoch=self._epoch,
                        name=self.name,
                        heartbeat=self._heartbeat,
                        timeout=self._connect_timeout,
                    )
                except TransportError as error:
                    errors.append(error)
                else:
                    self.refused = False
                    self.urls.remove(url)
                    self.urls.insert(0, url)
                    return session
            self.last_error = errors[-1] if errors else ConnectionLost("no broker URL is set")
            self.refused = bool(errors) and all(isinstance(e, AccessRefused) for e in errors)
            self._changed()
            wait = self._backoff.next()
            said = "; ".join(str(error) for error in errors)
            log.log(
                logging.WARNING if self._repeats.due(said, time.monotonic()) else logging.DEBUG,
                "broker.unreachable name=%r error=%r: next try in %.1f s, then again and again",
                self.name,
                said,
                wait,
            )
            await asyncio.sleep(wait)

    def _changed(self) -> None:
        for callback in self.on_change:
            callback()
