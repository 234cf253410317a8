"""An application's connections: one to publish, one to consume, one thread for both.

They are two because RabbitMQ stops reading from a connection that publishes
while an alarm is on: on a shared one, acks and heartbeats would stop too.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from amqtask.errors import PublishTimeout
from amqtask.message.model import Message
from amqtask.settings import Settings
from amqtask.transport.link import Link
from amqtask.transport.publication import Publication, Requirement
from amqtask.transport.publisher import Publisher
from amqtask.transport.replies import ReplyQueue
from amqtask.transport.session import Session
from amqtask.transport.threads import IOThread, Mailbox
from amqtask.transport.url import BrokerURL

#: Seconds granted beyond a publication's deadline before the I/O thread counts as dead.
_GRACE = 5.0

_living: weakref.WeakSet[Transport] = weakref.WeakSet()


class Transport:
    """The way to the broker for one application in one process.

    Nothing connects before the first use.

    Args:
        settings: Broker URLs, timeouts, sizes.
        name: Goes into the connections' names.

    Threads: every public method may be called from any thread and any loop.
    Fork: a child starts with no connections and makes its own.
    """

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._ending = threading.Lock()
        self.urls = [BrokerURL.parse(url) for url in settings.broker]
        #: Counts up when a fork made every connection of before unusable.
        self.generation = 0
        self._reset()
        _living.add(self)

    def _reset(self) -> None:
        self.generation += 1
        self.io = IOThread()
        self._publisher: Publisher | None = None
        self._outbox: deque[Publication] = deque()
        self._outgoing = False  # whether the I/O loop is about to look there
        self._links: dict[str, Link] = {}
        self._replies: list[ReplyQueue] = []
        self._mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = (
            weakref.WeakKeyDictionary()
        )

    # -- on the I/O loop --------------------------------------------------------

    def link(self, purpose: str) -> Link:
        """Return the link for ``"publish"`` or ``"consume"``; I/O loop only."""
        link = self._links.get(purpose)
        if link is None:
            link = self._links[purpose] = Link(
                self.urls,
                name=f"{self._name} {purpose} {socket.gethostname()}:{os.getpid()}",
                heartbeat=self._settings.heartbeat,
                connect_timeout=self._settings.connect_timeout,
            )
        return link

    @property
    def publisher(self) -> Publisher:
        """The publisher; I/O loop only."""
        if self._publisher is None:
            self._publisher = Publisher(
                self.link("publish"), max_message_size=self._settings.max_message_size
            )
            self._publisher.start()
        return self._publisher

    def _send_all(self) -> None:
        # cleared before the look, so what comes now is seen by this one or causes another
        self._outgoing = False
        outbox = self._outbox
        self.publisher.send(*(outbox.popleft() for _ in range(len(outbox))))

    # -- from anywhere ------------------------------------------------------------

    def publish(self, publication: Publication) -> None:
        """Send; ``publication.on_done`` is called on the I/O loop."""
        if self.io.is_current:
            self._post(publication)
            return
        with self._ending:  # never to a thread that has ended, which would lose it
            self._post(publication)

    def _post(self, publication: Publication) -> None:
        self._outbox.append(publication)
        if not self._outgoing:
            self._outgoing = True
            try:
                self.io.post(self._send_all)
            except BaseException:  # as in `Mailbox.post`
                self._outgoing = False
                raise

    def _publish_soon(self, publication: Publication) -> None:
        """Send what somebody waits for: in this thread, unless the I/O loop is at work.

        That is two changes of threads less. Many calls at once go to the loop together, which is
        cheaper still.
        """
        io, publisher = self.io, self._publisher
        if publisher is not None and not self._outbox and not io.turn.locked():
            with io.turn:
                if publisher.try_send(publication):
                    return
        self.publish(publication)

    def publish_and_wait(self, publication: Publication, timeout: float) -> None:
        """Send and block until the outcome.

        Args:
            timeout: The publication's own deadline, in seconds from now.

        Raises:
            PublishError: And what else the publication failed with.
        """
        waiter = threading.Lock()
        waiter.acquire()
        publication.on_done = lambda _: waiter.release()
        self._publish_soon(publication)
        if not waiter.acquire(timeout=timeout + _GRACE):
            raise publication.fail(PublishTimeout, "the I/O thread does not answer")
        if publication.error is not None:
            raise publication.error

    async def publish_and_await(self, publication: Publication) -> None:
        """Send and await the outcome, on the caller's loop.

        Raises:
            PublishError: And what else the publication failed with.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mailbox = self.mailbox()

        def settle() -> None:
            if not future.done():
                if publication.error is None:
                    future.set_result(None)
                else:
                    future.set_exception(publication.error)

        publication.on_done = lambda _: mailbox.post(settle)
        self._publish_soon(publication)
        await future

    def move_to(self, urls: Sequence[BrokerURL]) -> list[BrokerURL]:
        """Disconnect, and use other brokers from the next use on; returns those of before."""
        self.close()
        before, self.urls = self.urls, list(urls)
        return before

    def mailbox(self) -> Mailbox:
        """Return the mailbox of the running loop."""
        loop = asyncio.get_running_loop()
        mailbox = self._mailboxes.get(loop)
        if mailbox is None:
            mailbox = self._mailboxes[loop] = Mailbox(loop)
        return mailbox

    def open_replies(self, *, expires: float, on_reply: Callable[[Message], None]) -> ReplyQueue:
        """Start a reply queue for this process; see `ReplyQueue`."""
        replies = ReplyQueue(expires=expires, on_reply=on_reply)
        self._replies.append(replies)
        self.io.post(lambda: replies.start(self.link("consume")))
        return replies

    def direct_replies(
        self,
        on_reply: Callable[[Message], None],
        on_lost: Callable[[Collection[str]], None],
    ) -> Requirement:
        """Return what a call needs whose reply comes straight back; see `DirectReplies.take`."""
        self.io.post(lambda: self.publisher.replies.take(on_reply, on_lost))

        async def prepare(session: Session) -> None:
            await self.publisher.consume_replies(session)

        return Requirement("direct replies", prepare)

    def close(self, timeout: float = 5.0) -> None:
        """Wait for what is on its way, at most ``timeout`` seconds, and disconnect.

        The next use connects again.
        """
        if not self.io.started:
            return
        io = self.io
        with suppress(TimeoutError):
            io.run(self._close(timeout), timeout + _GRACE)
        with self._ending:
            io.stop()
            self._reset()

    async def _close(self, timeout: float) -> None:
        if self._publisher is not None:
            await self._publisher.drain(timeout)
            await self._publisher.close()
        for replies in self._replies:
            await replies.close()
        for link in self._links.values():
            await link.close()


def _forked() -> None:
    for transport in list(_living):
        transport._ending = threading.Lock()  # the parent's may have been held
        transport._reset()


def _exiting() -> None:
    for transport in list(_living):
        transport.close(timeout=1.0)
    # after its clients, which would take its end for a loss
    if (memory := sys.modules.get("amqtask.broker.memory")) is not None:
        memory.stop()


os.register_at_fork(after_in_child=_forked)
atexit.register(_exiting)
