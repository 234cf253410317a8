"""What is cancelled, as this worker process knows it.

    no session --up--> bound --reads the register--> following --session or queue lost--> no session
                         `--refused--> off (looks again, later and later) --> bound

Bound means: a queue of our own gets every record from now on. Only then the
register is read, which has those of before, so none is missed in between. The
register hands its records to one reader at a time: we take all, leave them
unsettled, and give them back by closing the channel, whereupon the next reader
has its turn.

Where the records end is shown by a mark of our own, put behind them: what came
before it is what was there. Neither a count nor a pause would tell, as both
look the same while another reader holds everything.

A record that is over is taken out by whoever reads it. The broker would keep
it behind one that lasts longer, as that of a call delayed by a month does.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from amqtask.app import App
from amqtask.clock import wall
from amqtask.errors import AmqtaskError, ConnectionLost
from amqtask.message.cancellation import MARK, Cancellation, decode_cancellation, encode_mark
from amqtask.message.model import Message
from amqtask.topology.cancelling import cancel_plan, register_name
from amqtask.transport import Channel, Publication, Session
from amqtask.transport.backoff import Backoff
from amqtask.transport.declare import declare

log = logging.getLogger(__name__)

#: Seconds that consuming waits for the register on each session.
PATIENCE = 5.0
#: Seconds after which a mark that has not come back is put anew.
MARK_AGAIN = 20.0
#: Seconds that a mark stays, should its writer die: the line of readers may be long.
MARK_EXPIRES = 60.0
#: Deliveries a reader holds at most, the most that AMQP can say. The register's limit is far
#: below half of it, and as many again may come in while one reader holds the others.
_HOLD = 65535


class Known:
    """Cancellations by id: those that count longest, at most ``limit``.

    Threads: `get` from any thread, `add` from one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._records: dict[str, Cancellation] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, id: str) -> bool:
        return id in self._records

    def add(self, record: Cancellation, now: float) -> bool:
        """Take a record in; returns whether it says anything new."""
        if record.until <= now:
            return False
        known = self._records.get(record.id)
        if known is None:
            if len(self._records) >= self._limit:
                self._make_room(now)
            self._records[record.id] = record
            return True
        merged = Cancellation(
            record.id, known.terminate or record.terminate, max(known.until, record.until)
        )
        self._records[record.id] = merged
        return merged.terminate and not known.terminate

    def get(self, id: str, now: float) -> Cancellation | None:
        """Return what is known of a call; None when it is not cancelled."""
        record = self._records.get(id)
        return record if record is not None and record.until > now else None

    def _make_room(self, now: float) -> None:
        """Forget what is over, and a tenth at least: doing it for each record would take long."""
        going = len(self._records) - self._limit + 1 + self._limit // 10
        keep = sorted(self._records.values(), key=lambda record: record.until)[going:]
        # a new dict: `get` may look at the old one now
        self._records = {record.id: record for record in keep if record.until > now}


class _Turn:
    """What one session knows: whether the register was read on it, and until when to wait."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.settled = asyncio.Event()  # read, or not to be had
        self.deadline = asyncio.get_running_loop().time() + PATIENCE
        self.told = False


class Cancelled:
    """Follows what is cancelled.

    Args:
        app: Whose settings name exchange and limits.
        on_cancel: Called on the I/O loop with the id of each call that is newly cancelled, and
            whether to end it for certain. The call may be here or not.

    Attributes:
        ready: Whether all that was cancelled so far is known now.
        error: Why not; None while it is, or while it is on its way.

    Threads: `get` from any thread, everything else on the I/O loop.
    """

    def __init__(self, app: App, on_cancel: Callable[[str, bool], object]) -> None:
        settings = app.settings
        self._transport = app.transport
        self._link = app.transport.link("consume")
        self._on_cancel = on_cancel
        self._plan = cancel_plan(settings)
        self._exchange = settings.cancel_exchange
        self._register = register_name(settings)
        self._limit = settings.cancel_limit
        self._known = Known(settings.cancel_limit)
        self._since = 0  # notices since the register was read
        self._outgrown = asyncio.Event()
        self._turn: _Turn | None = None
        self._task: asyncio.Task[None] | None = None
        self._said = ""
        self.ready = False
        self.error: AmqtaskError | None = None

    def start(self) -> None:
        """Begin to follow; a second call does nothing."""
        if self._task is None:
            self._link.start()
            self._task = asyncio.create_task(self._run(), name="amqtask cancelled")

    async def close(self) -> None:
        """Stop following; what is known stays known."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def get(self, id: str) -> Cancellation | None:
        """Return the cancellation of a call, or None."""
        # asked for every job, of which hardly any is cancelled
        return self._known.get(id, wall()) if id in self._known else None

    async def caught_up(self, session: Session) -> None:
        """Wait until the register was read on ``session``, or cannot be, at most `PATIENCE`.

        What consumes waits for it first: a call cancelled while nobody was connected must not
        run. A session that ends meanwhile ends the wait.
        """
        turn = self._turn_of(session)
        left = turn.deadline - asyncio.get_running_loop().time()
        await _first(turn.settled, session.closed, timeout=max(0.0, left))
        if not turn.settled.is_set() and session.is_open and not turn.told:
            turn.told = True
            log.warning(
                "cancel.late: the register %r was not read within %g s, other workers may be "
                "reading it: consuming without it until it is this one's turn",
                self._register,
                PATIENCE,
            )

    # -- following --------------------------------------------------------------------

    def _turn_of(self, session: Session) -> _Turn:
        if self._turn is None or self._turn.session is not session:
            self._turn = _Turn(session)
        return self._turn

    async def _run(self) -> None:
        backoff = Backoff(first=1.0, cap=60.0)
        while True:
            session = await self._link.up()
            turn = self._turn_of(session)
            try:
                await self._follow(session, turn, backoff)
            except AmqtaskError as error:
                self.ready = False
                if not session.is_open:
                    continue  # the link says so
                self.error = error
                turn.settled.set()
                wait = backoff.next()
                self._say_off(error, wait)
                await asyncio.sleep(wait)

    async def _follow(self, session: Session, turn: _Turn, backoff: Backoff) -> None:
        """Know what is cancelled, until something on this session ends that."""
        await declare(session, self._plan)
        channel = await session.channel()
        try:
            lost = await self._listen(channel)
            while True:
                self._since = 0
                self._outgrown.clear()
                await self._read(session)
                backoff.reset()
                self.ready, self.error, self._said = True, None, ""
                turn.settled.set()
                log.debug("cancel.ready register=%r known=%d", self._register, len(self._known))
                await _first(lost, channel.closed, self._outgrown)
                if channel.closed.done():
                    raise channel.closed.result()
                if lost.done():
                    raise ConnectionLost(f"the queue of our own on {self._exchange!r} was deleted")
        finally:
            await channel.close()

    async def _listen(self, channel: Channel) -> asyncio.Future[None]:
        """Have every record from now on come here; the future is done when that has ended."""
        queue = f"{self._exchange}.{uuid.uuid4()}"
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_cancel(_: Any) -> None:
            if not lost.done():
                lost.set_result(None)

        channel.raw.add_on_cancel_callback(on_cancel)
        await channel.declare_queue(
            queue, exclusive=True, auto_delete=True, arguments={"x-max-length": self._limit}
        )
        await channel.bind_queue(queue, self._exchange, "")
        await channel.consume_unacked(queue, self._on_notice)
        return lost

    def _on_notice(self, _: int, __: bool, ___: str, ____: str, message: Message) -> None:
        record = decode_cancellation(message.body)
        if record is None:
            log.warning("cancel.malformed: a record that cannot be read is passed over")
            return
        self._take(record)
        self._since += 1
        # the register fills up with what is over, and only reading it takes that out
        if self._since >= max(100, self._limit // 2):
            self._outgrown.set()

    def _take(self, record: Cancellation) -> None:
        if self._known.add(record, wall()):
            self._on_cancel(record.id, record.terminate)

    # -- the register -----------------------------------------------------------------

    async def _read(self, session: Session) -> None:
        """Take in all that is in the register, and leave it there for others.

        Raises:
            AmqtaskError: The session ended, the register is missing, or may not be read or
                marked.
        """
        channel = await session.channel()
        nonce = uuid.uuid4().hex
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def sink(tag: int, _: bool, __: str, ___: str, message: Message) -> None:
            if ended.done():
                return  # the channel is closing
            if message.type == MARK:
                if message.body == nonce.encode():
                    channel.raw.basic_ack(tag)
                    ended.set_result(None)
                return  # another reader's: it finds it when its turn comes
            record = decode_cancellation(message.body)
            if record is None or record.until <= wall():
                channel.raw.basic_ack(tag)  # out of the register
            else:
                self._take(record)

        def on_cancel(_: Any) -> None:
            if not ended.done():
                ended.set_exception(ConnectionLost(f"the register {self._register!r} was deleted"))

        channel.raw.add_on_cancel_callback(on_cancel)
        try:
            await channel.qos(_HOLD)
            await channel.consume(self._register, sink)
            while not ended.done():
                self._mark(nonce, ended)
                await _first(ended, channel.closed, timeout=MARK_AGAIN)
                if channel.closed.done():
                    raise channel.closed.result()
            ended.result()
        finally:
            if not ended.cancel() and not ended.cancelled():
                ended.exception()  # heard, whatever else ended the reading first
            await channel.close()  # gives everything back

    def _mark(self, nonce: str, ended: asyncio.Future[None]) -> None:
        """Put a mark at the end; not over this connection, which must never be blocked."""
        self._transport.publish(
            Publication(
                encode_mark(nonce, MARK_EXPIRES),
                "",
                self._register,
                deadline=time.monotonic() + MARK_AGAIN,
                on_done=partial(_on_marked, ended),
            )
        )

    def _say_off(self, error: AmqtaskError, wait: float) -> None:
        # the same words again are of use to nobody
        level = logging.DEBUG if str(error) == self._said else logging.WARNING
        self._said = str(error)
        log.log(
            level,
            "cancel.off error=%r: calls that are cancelled run here all the same; "
            "looking again in %.0f s%s",
            str(error),
            wait,
            f"\n{error.hint}" if error.hint else "",
        )


def _on_marked(ended: asyncio.Future[None], publication: Publication) -> None:
    if publication.error is not None and not ended.done():
        ended.set_exception(publication.error)


async def _first(*ends: asyncio.Future[Any] | asyncio.Event, timeout: float | None = None) -> None:
    """Wait for the first of these, at most ``timeout`` seconds."""
    waiting: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(end.wait()) if isinstance(end, asyncio.Event) else end for end in ends
    ]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future, end in zip(waiting, ends, strict=True):
            if future is not end:
                future.cancel()
