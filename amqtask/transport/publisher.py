"""Publish with pipelined confirms: every message ends confirmed or as a typed error.

One publication:

    waiting --channel up, route declared--> sent --ack--> confirmed
       |                                     |--return + ack--> Unroutable
       |                                     |--nack--> Nacked
       |                                     `--channel or connection lost--> waiting
       `--deadline (from any state)--> PublishTimeout, or Blocked under an alarm

The channel also takes direct replies once somebody asks for them: RabbitMQ
answers to the channel that a call was published on.

A message sent on a channel that is lost before the confirm is sent again on
the next one: it may then exist twice, with the same id, but it is never lost.
At most `WINDOW` messages are unconfirmed; the others wait their turn here, so
a slow broker costs memory in one place only.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable

from pika.spec import Basic, BasicProperties

from amqtask.errors import (
    AccessRefused,
    AmqtaskError,
    Blocked,
    ChannelClosed,
    MessageTooLarge,
    PublishError,
    PublishTimeout,
    TransportError,
    Unroutable,
)
from amqtask.transport.direct import DirectReplies
from amqtask.transport.link import Link
from amqtask.transport.publication import REDECLARE, Publication, Requirement, note_return
from amqtask.transport.session import Channel, Session

log = logging.getLogger(__name__)

#: Most messages sent and not yet confirmed.
WINDOW = 4096
#: Bytes of bodies sent and not yet confirmed above which no further message is sent.
WINDOW_BYTES = 64 * 1024 * 1024
#: Pieces of frames written at once: a few hundred messages.
_FLUSH_PIECES = 2000
#: Seconds between looks for publications past their deadline.
SWEEP = 0.1

_TOO_LARGE = re.compile(r"message size (\d+) is larger than")
_NO_EXCHANGE = re.compile(r"no exchange '(.*)' in vhost")


class Publisher:
    """Publishes over a link; lives on the link's loop.

    Args:
        link: Where sessions come from.
        max_message_size: Bytes of body above which nothing is even tried.

    Threads: on the loop only, but for `try_send`; other threads go through `Transport.publish`.
    """

    def __init__(self, link: Link, *, max_message_size: int) -> None:
        self._link = link
        self._max_message_size = max_message_size
        self._waiting: deque[Publication] = deque()
        self._unconfirmed: dict[int, Publication] = {}
        self._preparing: dict[Requirement, list[Publication]] = {}
        self._ready: set[Requirement] = set()  # prepared in this session
        self._channel: Channel | None = None
        self._closed = False
        self._tag = 0
        self._bytes = 0  # of bodies that are not confirmed
        self._sweeper: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        #: What comes back to this publisher's own channel.
        self.replies = DirectReplies()
        link.on_change.append(self._link_changed)

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()
        if not self._tasks:
            self._spawn(self._run())

    @property
    def pending(self) -> int:
        """How many publications have no outcome yet."""
        preparing = sum(len(group) for group in self._preparing.values())
        return len(self._waiting) + len(self._unconfirmed) + preparing

    def send(self, *publications: Publication) -> None:
        """Publish; each outcome arrives through ``publication.on_done``."""
        for publication in publications:
            if (error := self._refusal(publication)) is None:
                self._waiting.append(publication)
            else:
                publication.finish(error)
        if not self._waiting:
            return
        self._idle.clear()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)
        if self._channel is not None:
            self._pump()
        elif self._link.refused:
            self._link_changed()
        else:
            self.start()

    def try_send(self, publication: Publication) -> bool:
        """Publish from another thread, in a turn of the loop, if it can go out at once.

        Returns:
            False when `send` has to do it.
        """
        channel = self._channel
        if (
            channel is None
            or not channel.is_open
            or channel.session.blocked is not None
            or self._waiting
            or self._sweeper is None
            or self._full
            or not self._ready.issuperset(publication.requires)
            or self._refusal(publication) is not None
        ):
            return False
        self._idle.clear()
        try:
            channel.write(self._frames(channel, publication))
        except BaseException:
            # thrown into this thread, by a time limit or ctrl-c: who knows what was written. The
            # next connection sends again what has no confirm.
            self._channel = None
            channel.session.abort_soon()
            raise
        return True

    def _refusal(self, publication: Publication) -> PublishError | None:
        """Return why a publication is not even tried."""
        size = len(publication.message.body)
        if size > self._max_message_size:
            return publication.fail(
                MessageTooLarge,
                f"its body has {size} bytes, max_message_size is {self._max_message_size}",
                hint="store the data elsewhere and send a reference to it",
            )
        if self._closed:  # nobody would ever give it an outcome
            return publication.fail(PublishTimeout, "the app was closed")
        return None

    async def consume_replies(self, session: Session) -> None:
        """Take direct replies on the channel of now; for a `Requirement`.

        Raises:
            ConfigurationError: The broker gives none.
        """
        channel = self._channel
        # where it changed meanwhile, what needs this asks again
        if channel is not None and channel.session is session:
            await self.replies.consume(channel)

    async def drain(self, timeout: float) -> bool:
        """Wait until nothing is pending; False when ``timeout`` seconds were not enough."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Fail what is pending and what still comes, and stop; the link stays its owner's."""
        self._closed = True
        for publication in self._take_all():
            publication.finish(publication.fail(PublishTimeout, "the app was closed"))
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._link.on_change.remove(self._link_changed)

    # -- one session after the other ------------------------------------------

    def _spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        while True:
            session = await self._link.up()
            try:
                channel = await session.channel()
                await self._serve(channel)
            except TransportError as error:
                log.info("publisher.channel_lost error=%r: opening another", str(error))
                await asyncio.sleep(0.05)  # a broker that refuses channels is not hammered

    async def _serve(self, channel: Channel) -> None:
        await channel.confirm(self._on_confirm)
        channel.raw.add_on_return_callback(self._on_return)
        self._pump_on_unblock(channel.session)
        self._tag = 0
        self._ready.clear()
        self._channel = channel
        channel.closed.add_done_callback(self._on_channel_closed)
        self._pump()
        raise await asyncio.shield(channel.closed)

    def _pump_on_unblock(self, session: Session) -> None:
        if self._pump not in session.on_unblocked:
            session.on_unblocked.append(self._pump)

    def _on_channel_closed(self, closed: asyncio.Future[TransportError]) -> None:
        self._channel = None
        error = closed.result()
        again: list[Publication] = []
        for publication in self._unconfirmed.values():
            verdict = self._verdict(publication, error)
            if verdict is None:
                again.append(publication)
            else:
                publication.finish(verdict)
        self._unconfirmed.clear()
        self._bytes = 0
        # what was on its way goes first, in its order, when the next channel is up
        self._waiting.extendleft(reversed(again))
        if self.replies.consuming:
            self.replies.lost({each.message.message_id or "" for each in self._each()})
        self._check_idle()

    def _verdict(self, publication: Publication, error: TransportError) -> PublishError | None:
        """Decide what a closed channel means for one unconfirmed message; None: send it again."""
        if isinstance(error, AccessRefused):
            return publication.fail(PublishError, str(error), hint=error.hint)
        if not isinstance(error, ChannelClosed):
            return None
        if found := _NO_EXCHANGE.search(error.text):
            if found[1] != publication.exchange:
                return None
            if publication.requires and publication.sends < 2:
                return None  # deleted under us: the next channel declares it anew
            return publication.fail(Unroutable, error.text, hint=publication.hint)
        if found := _TOO_LARGE.search(error.text):
            if len(publication.message.body) < int(found[1]):
                return None
            return publication.fail(MessageTooLarge, error.text)
        return publication.fail(PublishError, str(error))

    # -- sending ----------------------------------------------------------------

    def _pump(self) -> None:
        """Send as much of what waits as channel, window and alarms allow."""
        channel, waiting = self._channel, self._waiting
        if channel is None or not channel.is_open or channel.session.blocked is not None:
            return
        ready = self._ready
        pieces: list[bytes | memoryview] = []
        while waiting and not self._full:
            publication = waiting.popleft()
            if publication.done:
                continue
            for requirement in publication.requires:
                if requirement not in ready:
                    self._prepare(channel.session, requirement, publication)
                    break
            else:
                pieces += self._frames(channel, publication)
                if len(pieces) > _FLUSH_PIECES:
                    channel.write(pieces)
                    pieces = []
        channel.write(pieces)

    @property
    def _full(self) -> bool:
        """Whether as much is under way as may be."""
        return len(self._unconfirmed) >= WINDOW or self._bytes >= WINDOW_BYTES

    def _frames(self, channel: Channel, publication: Publication) -> list[bytes | memoryview]:
        """Return what is to be written to publish it, which counts as sent from here on.

        It is nothing when it cannot be written; the publication has failed then.
        """
        pieces = publication.frames(channel)
        if pieces is None:
            return []
        self._tag += 1
        self._bytes += len(publication.message.body)
        self._unconfirmed[self._tag] = publication
        return pieces

    def _prepare(self, session: Session, requirement: Requirement, first: Publication) -> None:
        """Hold ``first`` back, and all that need the same, until the requirement is met."""
        first.waits_for = requirement.name
        if (group := self._preparing.get(requirement)) is not None:
            group.append(first)
            return
        self._preparing[requirement] = [first]
        channel = self._channel

        async def prepare() -> None:
            error: AmqtaskError | None = None
            try:
                if first.returned is not None:
                    await asyncio.sleep(REDECLARE)
                await requirement.prepare(session)
            except TransportError as lost:
                # with our own channel gone, too, the next one tries it anew
                if session.is_open and self._channel is channel:
                    error = lost
            except AmqtaskError as failed:
                error = failed
            group = self._preparing.pop(requirement)
            for publication in group:
                publication.waits_for = None
            if error is not None:
                for publication in group:
                    # a mismatch speaks for itself; the rest says what was not sent
                    publication.finish(
                        publication.fail(PublishError, str(error), hint=error.hint)
                        if isinstance(error, TransportError)
                        else error
                    )
                self._check_idle()
                return
            if self._channel is channel:
                self._ready.add(requirement)
            self._waiting.extendleft(reversed(group))
            self._pump()

        self._spawn(prepare())

    # -- outcomes -----------------------------------------------------------------

    def _on_confirm(self, tag: int, multiple: bool, nacked: bool) -> None:
        unconfirmed = self._unconfirmed
        if multiple:
            # tags are sent in order, so the dict is in order: the front is what is covered
            covered = []
            for sent in unconfirmed:
                if sent > tag:
                    break
                covered.append(sent)
            for sent in covered:
                self._confirmed(unconfirmed.pop(sent), nacked)
        elif (publication := unconfirmed.pop(tag, None)) is not None:
            self._confirmed(publication, nacked)
        if self._waiting:
            self._pump()
        elif not unconfirmed:
            self._check_idle()

    def _confirmed(self, publication: Publication, nacked: bool) -> None:
        self._bytes -= len(publication.message.body)
        if publication.done:
            return
        if not publication.judge(nacked=nacked):
            self._ready.difference_update(publication.requires)
            self._waiting.append(publication)

    def _on_return(
        self, _: object, method: Basic.Return, props: BasicProperties, __: bytes
    ) -> None:
        note_return(self._unconfirmed.values(), method, props)

    def _sweep(self) -> None:
        """Fail what is past its deadline."""
        now = time.monotonic()
        self._sweeper = None
        late = [p for p in self._each() if p.deadline is not None and p.deadline <= now]
        for publication in late:
            publication.finish(self._too_late(publication))
        if late:
            self._waiting = deque(p for p in self._waiting if not p.done)
        # a sent one keeps its tag until its confirm comes, done or not
        self._check_idle()
        if self.pending:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _too_late(self, publication: Publication) -> PublishError:
        session = self._link.session
        if session is not None and session.blocked is not None:
            return publication.fail(
                Blocked,
                f"broker {session.url} takes no messages: {session.blocked}",
                hint="free memory or disk on the broker, or raise its watermark",
            )
        if publication.sends:
            return publication.fail(
                PublishTimeout,
                "no confirm before the deadline; it was sent and may still arrive",
            )
        if self._link.last_error is not None:
            return publication.fail(PublishTimeout, str(self._link.last_error))
        waits_for = publication.waits_for or "its turn"
        return publication.fail(PublishTimeout, f"it waited for {waits_for} until its deadline")

    def _link_changed(self) -> None:
        """Fail at once what no broker will ever take with these credentials."""
        error = self._link.last_error
        if self._link.refused and error is not None:
            for publication in self._take_all():
                publication.finish(error)

    def _each(self) -> list[Publication]:
        preparing = [p for group in self._preparing.values() for p in group]
        return [*self._waiting, *self._unconfirmed.values(), *preparing]

    def _take_all(self) -> list[Publication]:
        taken = [p for p in self._each() if not p.done]
        self._waiting.clear()
        self._unconfirmed.clear()
        self._bytes = 0
        self._check_idle()
        return taken

    def _check_idle(self) -> None:
        if not self.pending:
            self._idle.set()
