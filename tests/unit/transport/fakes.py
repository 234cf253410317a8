"""A link, a session and a channel without a socket, for the logic that runs on top of them.

They have what publisher and consumer use of the real ones; the integration tests show that the
real ones behave like this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pika.frame
import pika.spec
from pika.spec import Basic, BasicProperties

from amqtask.errors import ChannelClosed, ConnectionLost, TransportError
from amqtask.message.model import Message
from amqtask.transport import BrokerURL, Link, Publication, Session
from amqtask.transport.confirms import OnConfirm
from amqtask.transport.deliveries import Sink

URL = BrokerURL.parse("amqp://user:secret@mq.example/")


class Raw:
    """pika's channel: keeps the callbacks and notes what is settled."""

    def __init__(self) -> None:
        self.on_return: Callable[..., None] = lambda *_: None
        self.on_cancel: Callable[..., None] = lambda *_: None
        self.settled: list[tuple[Any, ...]] = []

    def add_on_return_callback(self, callback: Callable[..., None]) -> None:
        self.on_return = callback

    def add_on_cancel_callback(self, callback: Callable[..., None]) -> None:
        self.on_cancel = callback

    def basic_nack(self, tag: int, *, requeue: bool) -> None:
        self.settled.append(("nack", tag, requeue))

    def basic_reject(self, tag: int, *, requeue: bool) -> None:
        self.settled.append(("reject", tag, requeue))


class FakeChannel:
    """A channel that keeps what is published, and says what a test has it say."""

    number = 1
    body_max = 1 << 17

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.closed: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()
        self.raw = Raw()
        self.published: list[tuple[str, str]] = []
        self.on_confirm: OnConfirm | None = None
        self.prefetch: list[int] = []
        self.consumers: dict[str, Sink] = {}
        self._buffer = b""

    @property
    def is_open(self) -> bool:
        return not self.closed.done()

    async def confirm(self, on_confirm: OnConfirm) -> None:
        self.on_confirm = on_confirm

    def send_acks(self, tags: Sequence[tuple[int, bool]]) -> None:
        self.raw.settled += (("ack", *each) for each in tags)

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        data = b"".join(pieces)
        while data:
            size, frame = pika.frame.decode_frame(data)
            method = getattr(frame, "method", None)
            if isinstance(method, Basic.Publish):
                self.published.append((method.exchange, method.routing_key))
            data = data[size:]

    async def qos(self, prefetch: int) -> None:
        self.prefetch.append(prefetch)

    async def consume(
        self, queue: str, sink: Sink, *, arguments: dict[str, Any] | None = None
    ) -> str:
        self.arguments = arguments
        tag = f"{queue}-{len(self.prefetch)}"
        self.consumers[tag] = sink
        return tag

    async def cancel(self, tag: str) -> None:
        self.consumers.pop(tag, None)

    async def declare_queue(self, name: str, *, passive: bool) -> tuple[str, int, int]:
        assert passive
        looks = self.session.looks
        looked = looks.pop(0) if len(looks) > 1 else looks[0]
        if isinstance(looked, Exception):
            raise looked
        return name, *looked

    async def close(self) -> None:
        if self.is_open:
            self.end(ConnectionLost("closed here"))

    # -- what the broker does -----------------------------------------------------

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self._confirm(tag, multiple, False)

    def nack(self, tag: int, *, multiple: bool = False) -> None:
        self._confirm(tag, multiple, True)

    def give_back(self, publication: Publication, text: str = "NO_ROUTE") -> None:
        """basic.return of this message."""
        self.raw.on_return(
            None,
            Basic.Return(312, text, publication.exchange, publication.routing_key),
            BasicProperties(message_id=publication.message.message_id),
            publication.message.body,
        )

    def deliver(self, body: bytes, tag: int, *, redelivered: bool = False) -> None:
        (sink,) = self.consumers.values()
        sink(tag, redelivered, "x", "k", Message(body, message_id="m"))

    def cancelled(self) -> None:
        """basic.cancel from the broker."""
        self.consumers.clear()
        self.raw.on_cancel(None)

    def end(self, error: TransportError) -> None:
        if not self.closed.done():
            self.closed.set_result(error)

    def refuse(self, code: int, text: str) -> None:
        """channel.close with a reply code."""
        self.end(
            ChannelClosed(
                f"broker {self.session.url} closed a channel: {code} {text}", code=code, text=text
            )
        )

    def _confirm(self, *said: Any) -> None:
        assert self.on_confirm is not None
        self.on_confirm(*said)


class FakeSession:
    """A session with as many channels as are asked for."""

    url = URL

    def __init__(self, epoch: int = 1) -> None:
        self.rabbitmq: tuple[int, int] | None = (4, 0)
        #: Ready messages and consumers, or the error, of each passive declare; the last one stays.
        self.looks: list[tuple[int, int] | Exception] = [(0, 1)]
        self.epoch = epoch
        self.blocked: str | None = None
        self.on_unblocked: list[Callable[[], None]] = []
        self.channels: list[FakeChannel] = []
        self.is_open = True

    async def channel(self) -> FakeChannel:
        if not self.is_open:
            raise ConnectionLost("connection lost")
        channel = FakeChannel(self)
        self.channels.append(channel)
        return channel

    def abort_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        """The connection ends, and every channel with it."""
        self.is_open = False
        for channel in self.channels:
            channel.end(ConnectionLost(f"connection to broker {URL} was lost"))

    def unblock(self) -> None:
        self.blocked = None
        for callback in self.on_unblocked:
            callback()


class FakeLink:
    """A link that is up when a test says so."""

    def __init__(self) -> None:
        self.on_change: list[Callable[[], None]] = []
        self.refused = False
        self.last_error: TransportError | None = None
        self.current: FakeSession | None = None
        self._up = asyncio.Event()

    def start(self) -> None:
        pass

    @property
    def session(self) -> FakeSession | None:
        return self.current if self.current is not None and self.current.is_open else None

    async def up(self) -> FakeSession:
        while self.session is None:
            self._up.clear()
            await self._up.wait()
        return self.session

    def connect(self) -> FakeSession:
        self.last_error = None
        self.current = FakeSession(self.current.epoch + 1 if self.current else 1)
        self._up.set()
        self._changed()
        return self.current

    def lose(self) -> None:
        assert self.current is not None
        self.last_error = ConnectionLost(f"connection to broker {URL} was lost")
        self.current.lose()
        self._changed()

    def fail(self, error: TransportError, *, refused: bool = False) -> None:
        """A round in which no URL answered."""
        self.last_error, self.refused = error, refused
        self._changed()

    def _changed(self) -> None:
        for callback in self.on_change:
            callback()


def as_link(link: FakeLink) -> Link:
    return cast(Link, link)


def as_fake(session: Session) -> FakeSession:
    return cast(FakeSession, session)


def publication(key: str = "q", *, exchange: str = "x", **said: Any) -> Publication:
    """Return a publication of a task message to ``exchange`` under ``key``."""
    body = said.pop("body", b"body")
    message = Message(body, {"task": "t.add"}, message_id=said.pop("id", f"id-{key}"))
    return Publication(message, exchange, key, **{"task": "t.add", **said})
