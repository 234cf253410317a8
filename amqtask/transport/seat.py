"""A seat for one: whoever is the single active consumer of a queue leads, the others wait.

    waiting --a delivery comes--> leading --release()--> over
       `--channel or session ends, cancelled, deaf--> over <--'  `--no proof in time

A broker delivers the messages of such a queue to one consumer at a time, and
chooses the next one when its channel ends. What the leader holds unacked, the
records, then goes back and comes to its successor.

Leading is not believed, it is shown: whatever is published to the queue comes back
to its active consumer, so a mark of our own that comes back says that we led after
it was sent. `Seat.may` is true for `LEASE` seconds from then on. A process that was
stopped, or a machine that slept, has to show it again first, and what it then sends
goes over the very connection whose end made another one leader: the broker takes
nothing from there any more.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, replace
from typing import Any

from amqtask.clock import awake
from amqtask.errors import ConnectionLost, TransportError
from amqtask.message.model import Message
from amqtask.transport.frames import publish_frames
from amqtask.transport.session import Channel, Session
from amqtask.transport.watch import Watch

#: ``type`` property of a mark.
MARK = "amqtask.mark"
#: Seconds for which one proof is enough. A broker needs as long, at two missed heartbeats of
#: a second each, to give up on a connection that went silent right after it.
LEASE = 2.0
#: Seconds that a proof may take; beyond, the connection is given up.
PATIENCE = 10.0
#: Seconds after which the broker forgets a mark that nobody took.
_MARK_EXPIRES = 60.0
#: Deliveries held at most, the most that AMQP can say.
_HOLD = 65535


@dataclass(frozen=True, slots=True)
class Held:
    """A record that is held unacked.

    Attributes:
        tag: Its delivery tag.
        message: What came.
    """

    tag: int
    message: Message


class Seat:
    """One consumer in line, from its first to its last moment; made by `Seat.sit`.

    Attributes:
        session: The connection that stands for it.
        over: Done when it is over; its result says why.
        held: Records that are held, in the order they came.
        news: Set whenever a record came that was not written here.
        last: The last delivery's tag.

    Threads: on the session's loop only.
    """

    def __init__(self, session: Session, queue: str) -> None:
        loop = asyncio.get_running_loop()
        self.session = session
        self.queue = queue
        self.over: asyncio.Future[str] = loop.create_future()
        self.held: dict[int, Held] = {}
        self.news = asyncio.Event()
        self.last = 0
        self._active = asyncio.Event()
        self._channel: Channel
        self._proved = float("-inf")
        self._sent = 0
        self._confirms: dict[int, asyncio.Future[None]] = {}
        self._awaited: dict[str, asyncio.Future[int]] = {}

    @classmethod
    async def sit(cls, session: Session, queue: str) -> Seat:
        """Begin to wait in line; the queue has ``x-single-active-consumer``.

        Raises:
            TransportError: The session ended, or the queue cannot be consumed.
        """
        seat = cls(session, queue)
        channel = seat._channel = await session.channel()
        channel.closed.add_done_callback(seat._on_closed)
        channel.raw.add_on_cancel_callback(seat._on_cancel)
        channel.raw.add_on_return_callback(seat._on_return)
        await channel.confirm(seat._on_confirm)
        await channel.qos(_HOLD)
        await channel.consume(queue, seat._on_delivery)
        return seat

    # -- waiting ------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Records that are held."""
        return len(self.held)

    async def lead(self) -> bool:
        """Wait for this one's turn; all records that were there are in `held` then.

        Returns:
            Whether it leads; False when it is better to get in line anew, as brokers are known
            to forget consumers.

        Raises:
            TransportError: The seat was lost before.
        """
        # who is first in line finds no message in an empty queue, and would never know
        self._post(self._mark())
        active = asyncio.ensure_future(self._active.wait())
        watching = asyncio.ensure_future(Watch(self.queue).until_deaf(self.session, self, _HOLD))
        try:
            ends: list[asyncio.Future[Any]] = [active, watching, self.over]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            active.cancel()
            watching.cancel()
        if self.over.done():
            raise ConnectionLost(self.over.result())
        if not self._active.is_set():
            if (why := watching.result()) is None:
                return False
            raise ConnectionLost(f"nothing arrives from {self.queue!r}: {why}")
        await self.prove()
        return True

    def send(self, message: Message) -> None:
        """Publish a record to whoever leads, and wait for nothing."""
        self._post(replace(message, message_id=uuid.uuid4().hex))

    # -- leading ------------------------------------------------------------------

    def may(self) -> bool:
        """Return whether this one leads, as far as can be known here without asking."""
        return not self.over.done() and awake() - self._proved <= LEASE

    async def prove(self) -> None:
        """Show that this one leads now.

        Raises:
            TransportError: It does not, or it could not be shown in time.
        """
        tag = await self._come_back(self._mark())
        self._channel.raw.basic_ack(tag)

    async def put(self, message: Message) -> int:
        """Add a record, and hold it; returns its tag. It is a proof too.

        Raises:
            TransportError: This one does not lead any more, or could not show it in time; the
                record may be in the queue all the same.
        """
        tag = await self._come_back(replace(message, message_id=uuid.uuid4().hex))
        self.held[tag] = Held(tag, message)
        return tag

    def drop(self, *tags: int) -> None:
        """Take records out of the queue."""
        for tag in tags:
            if self.held.pop(tag, None) is not None and not self.over.done():
                self._channel.raw.basic_ack(tag)

    async def release(self) -> None:
        """Leave; what is held goes back, and the next one in line gets it."""
        self._end("it was released")
        await self._channel.close()

    # -- inside -------------------------------------------------------------------

    @staticmethod
    def _mark() -> Message:
        expires = str(round(_MARK_EXPIRES * 1000))
        return Message(b"", message_id=uuid.uuid4().hex, expiration=expires, type=MARK)

    async def _come_back(self, message: Message) -> int:
        """Publish, and wait until the broker has confirmed it and delivered it here."""
        name = message.message_id
        assert name is not None
        back: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._awaited[name] = back
        sent = awake()
        try:
            confirm = self._post(message)
            while not (back.done() and confirm.done()) and not self.over.done():
                ends: list[asyncio.Future[Any]] = [
                    each for each in (back, confirm, self.over) if not each.done()
                ]
                done, _ = await asyncio.wait(
                    ends, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
                )
                # an alarm holds up everybody's messages, and is no reason to leave
                if not done and self.session.blocked is None:
                    break
        finally:
            self._awaited.pop(name, None)
        if back.done() and confirm.done():
            self._proved = max(self._proved, sent)
            return back.result()
        if not self.over.done():
            self._end(f"a message to {self.queue!r} did not come back within {PATIENCE:g} s")
            # whatever is wrong with it, the next one in line gets its turn at once
            self.session.abort()
        raise ConnectionLost(self.over.result())

    def _post(self, message: Message) -> asyncio.Future[None]:
        """Publish to the queue, on the channel that consumes it; the future is its confirm."""
        if self.over.done():
            raise ConnectionLost(self.over.result())
        channel = self._channel
        channel.write(publish_frames(channel.number, "", self.queue, message, channel.body_max))
        self._sent += 1
        confirm = self._confirms[self._sent] = asyncio.get_running_loop().create_future()
        return confirm

    def _end(self, why: str) -> None:
        if not self.over.done():
            self.over.set_result(why)

    def _on_delivery(self, tag: int, _: bool, __: str, ___: str, message: Message) -> None:
        self.last = tag
        awaited = self._awaited.get(message.message_id or "")
        if awaited is not None and not awaited.done():
            awaited.set_result(tag)
        elif message.type == MARK:  # of somebody in line, or one that nobody waits for any more
            self._channel.raw.basic_ack(tag)
        else:
            self.held[tag] = Held(tag, message)
            self.news.set()
        self._active.set()

    def _on_confirm(self, tag: int, multiple: bool, nacked: bool) -> None:
        covered = [each for each in self._confirms if each <= tag] if multiple else [tag]
        for each in covered:
            future = self._confirms.pop(each, None)
            if future is None or future.done():
                continue  # nobody waits for it any more
            if nacked:
                self._end(f"queue {self.queue!r} refused a message")
            else:
                future.set_result(None)

    def _on_return(self, *_: Any) -> None:
        self._end(f"queue {self.queue!r} is gone")

    def _on_cancel(self, _: Any) -> None:
        self._end(f"the broker cancelled the consumer of {self.queue!r} (deleted or moved)")

    def _on_closed(self, closed: asyncio.Future[TransportError]) -> None:
        self._end(str(closed.result()))
