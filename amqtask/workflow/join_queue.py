"""Chords that RabbitMQ alone joins: a durable queue for each, which its members fill.

    opened --part, part, ...--> full --taken--> body sent, confirmed --> deleted
       |                          ^               `--a member failed: body failed, let go
       |                          '--the member, sent back, ended well: as if it had never failed
       `--nothing came for join_expires: a worker gives it up, body failed --> deleted

A queue is made before the first member is sent, and deleted after the body is
safe. So a member that comes too late, or twice, finds no queue, and the chord
does not begin again: its part comes back from the broker, and is left.

Each member has its part confirmed and then counts what is in the queue; who
counts enough takes it all. Two may do so, but the broker gives a queue to one,
and the other one waits, with its delivery unacked, until the queue is gone or
its own. A worker that dies leaves the queue as it was, and its delivery to
another one, which counts again. So somebody with a delivery in hand always
looks at a full queue, and nothing has to be polled. A member need not count
while its worker has another part of the same chord on its way, whose delivery
it holds: that one counts later.

The first message in the queue is its alarm: a task message that the broker
moves to a worker's queue when ``join_expires`` has passed. It rings for the first time
after `LISTED_AFTER`, and the chord goes on the list of those that wait for long, since
AMQP cannot tell which queues there are. Most chords are joined by then, and pay nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from amqtask.clock import wall
from amqtask.errors import (
    BackendError,
    ConnectionLost,
    EncodeError,
    PublishTimeout,
    Unroutable,
)
from amqtask.message import accepted, decode, encode
from amqtask.message.model import Message
from amqtask.message.signature import chord_size
from amqtask.transport import Publication, Requirement
from amqtask.transport.backoff import Backoff
from amqtask.transport.taking import Desk, Gone, Hold, Taken
from amqtask.workflow.alarm import OPENED_HEADER, OpenJoin, Waiting, is_by_hand, target_of
from amqtask.workflow.join_list import JoinList, list_name
from amqtask.workflow.join_parts import Gathered, dump, gather, keep, load
from amqtask.workflow.join_work import LoopWork, called, conclude, give_up
from amqtask.workflow.ports import EXPIRE, Done, Follow, Opening, Part

if TYPE_CHECKING:
    from amqtask.app import App

log = logging.getLogger("amqtask.chord")

#: Start of the queues' names.
PREFIX = "amqtask.join."
#: Seconds after which a chord goes on the list of those that are open.
LISTED_AFTER = 300.0
#: Chords that one process joins at the same time.
_TAKES = 8
#: What a part says it is, and notes that the body has failed, or that the alarm comes again.
PART, _FAILED, WAITS = "amqtask.join.part", "amqtask.join.failed", "amqtask.join.waits"
#: Seconds that an untouched queue outlives its alarm, and what RabbitMQ takes at most for both.
_RESERVE, _LONGEST = 7 * 24 * 3600.0, 4_294_967.0


class QueueJoins:
    """Joins chords by queues.

    Args:
        app: Its connections and settings.

    Threads: `open` and `part` from any thread; all else runs on the I/O loop.
    Fork: a child goes on with connections of its own.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._transport = app.transport
        self._wait = min(app.settings.join_expires, _LONGEST - _RESERVE)
        self._desk: Desk | None = None
        self._opener: Desk | None = None
        self._takes: asyncio.Semaphore
        self._work = LoopWork()
        #: The chords that have waited for long.
        self.list = JoinList(list_name(app.settings), self._published)
        #: By chord, of each part that is not confirmed yet, what tells whether its delivery is ours.
        self._on_their_way: dict[str, list[Callable[[], bool]]] = {}
        self._noting = threading.Lock()

    # -- what is asked of it ----------------------------------------------------------

    def open(self, opening: Opening, done: Done) -> None:
        """See `Joins.open`: makes the queue and sets its alarm."""
        self._work.run(self._transport.io, partial(self._open, opening), done)

    def part(self, part: Part, follow: Follow, done: Done, ours: Callable[[], bool]) -> None:
        """See `Joins.part`.

        Delivery: a crash before ``done`` repeats the part, which then counts once.
        """
        if part.size is None:
            done(_unjoinable(part))
            return
        if part.task == EXPIRE:
            work = partial(self._expire, part, follow, ours)
            self._work.run(self._transport.io, work, done)
            return
        try:
            body = dump(keep(part))
        except EncodeError as error:
            done(error)
            return
        with self._noting:
            self._on_their_way.setdefault(part.group_id, []).append(ours)
        kept = partial(self._kept, part, follow, done, ours)
        try:
            self._publish(_publication(part.group_id, _message(body, part.id, PART)), kept)
        except BaseException:
            self._others(part, ours)  # nobody may rely on it
            raise

    def _kept(
        self,
        part: Part,
        follow: Follow,
        done: Done,
        ours: Callable[[], bool],
        error: Exception | None,
    ) -> None:
        others = self._others(part, ours)
        if error is None and any(each() for each in others):
            done(None)  # one of them looks, or its delivery goes to somebody who does
        elif error is None:
            work = partial(self._look, part, follow, ours)
            self._work.run(self._transport.io, work, done)
        elif isinstance(error, Unroutable):
            self._work.run(self._transport.io, partial(self._over, part, error), done)
        else:
            done(error)

    def _others(self, part: Part, ours: Callable[[], bool]) -> Sequence[Callable[[], bool]]:
        """Note that a part is on its way no longer; returns the others of its chord that are."""
        with self._noting:
            others = self._on_their_way[part.group_id]
            others.remove(ours)
            if not others:
                del self._on_their_way[part.group_id]
            return list(others)

    # -- those that are open ----------------------------------------------------------

    async def listing(self, most: int) -> list[OpenJoin]:
        """Return the chords that have waited for `LISTED_AFTER`, on the I/O loop.

        Raises:
            TransportError: The connection ended, or the broker refuses it.
        """
        backoff = _backoff()
        while True:
            try:
                found = await self.list.read(self._counting, PREFIX.__add__)
            except Taken:
                await asyncio.sleep(backoff.next())
            else:
                return sorted(found, key=lambda each: each.due)[:most]

    async def find(self, group_id: str) -> OpenJoin | None:
        """Return one chord, however long it has waited; None where there is none.

        Raises:
            TransportError: As `listing`.
        """
        backoff = _backoff()
        while True:
            try:
                hold = await self._counting.take(PREFIX + group_id)
            except Gone:
                return None
            except Taken:
                await asyncio.sleep(backoff.next())
                continue
            try:
                return self._shown(group_id, hold)
            finally:
                await hold.let_go()

    def _shown(self, group_id: str, hold: Hold) -> OpenJoin:
        waiting = self._waiting(group_id, hold)
        if waiting is None:
            raise BackendError(
                f"the alarm of chord {group_id} is on its way to a worker, which decides now",
                hint="ask again once a worker of its body's queue has had the time to",
            )
        parts = [each for each in hold.messages if each.type == PART]
        gathered = gather([load(each.body) for each in parts], waiting.size)
        newest = max((each.timestamp or 0 for each in parts), default=0)
        due = max(waiting.opened, newest) + self._wait
        return OpenJoin(waiting, "broker", len(gathered.parts), due, gathered.missing)

    def _waiting(self, group_id: str, hold: Hold) -> Waiting | None:
        """Return what the alarm in a queue says, or what is in its place."""
        for each in hold.messages:
            if each.type == WAITS and each.body:
                return Waiting.load(group_id, each.body)
            if each.type not in (PART, _FAILED, WAITS):
                most = self._app.settings.max_decoded_size
                call = decode(each, accepted(["json"]), max_decoded_size=most)
                if call.task == EXPIRE and call.embed.chord is not None:
                    opened = call.headers.get(OPENED_HEADER) or each.timestamp or 0
                    size = chord_size(call.embed.chord) or 0
                    return Waiting(group_id, size, call.embed.chord, float(opened), call.reply_to)
        return None

    # -- opening ----------------------------------------------------------------------

    async def _open(self, opening: Opening) -> None:
        queue, target = PREFIX + opening.group_id, target_of(self._app, opening.body)
        timeout = self._app.settings.publish_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._opening.make(queue, _arguments(target, self._wait))
        except TimeoutError:
            raise PublishTimeout(
                f"the queue of chord {opening.group_id} was not made in {timeout:g} s, so nothing "
                "of the chord was sent",
                hint="see whether the broker is there and takes messages",
            ) from None
        call = Waiting.of(opening, wall()).alarm()
        # where the broker puts the alarm, which nobody would hear otherwise
        needs = (self._app.sender.queue_requirement(self._app.queue(target)),)
        deadline = time.monotonic() + timeout
        message = encode(call, ttl_ms=round(min(self._wait, LISTED_AFTER) * 1000))
        await self._published(_publication(opening.group_id, message, needs, deadline))

    # -- counting ---------------------------------------------------------------------

    async def _look(self, part: Part, follow: Follow, ours: Callable[[], bool]) -> None:
        """Take the queue if it is full; return once nothing is left to do for this part."""
        assert part.size is not None
        backoff = _backoff()
        while True:
            try:
                there = await self._counting.count(PREFIX + part.group_id)
                # the alarm is one more; while somebody has it, what is counted is not all
                if there.consumers or there.ready > part.size:
                    await self._take(part, partial(self._join, follow=follow))
                return
            except Gone:
                return
            except Taken:
                # whoever has it may die, or find that a part came twice and let go
                await asyncio.sleep(backoff.next())
            _check(ours, part)

    async def _expire(self, part: Part, follow: Follow, ours: Callable[[], bool]) -> None:
        """Do what an alarm asks for: join, wait on, or give up."""
        backoff = _backoff()
        while True:
            try:
                await self._take(part, partial(self._give_up, follow=follow))
                return
            except Gone:
                return  # joined meanwhile
            except Taken:
                await asyncio.sleep(backoff.next())
            _check(ours, part)

    async def _over(self, part: Part, error: Unroutable) -> None:
        """See that the queue which took no part is gone; raises if it is only out of reach.

        In a cluster it lives on one node: while that is down, the broker returns parts, too.
        """
        try:
            await self._counting.count(PREFIX + part.group_id)
        except Gone:
            log.info(
                "chord.over group=%s id=%s: it was joined or given up before, this part is left",
                part.group_id,
                part.id,
            )
        else:
            raise ConnectionLost(f"the queue of chord {part.group_id} was away: {error}")

    @property
    def _opening(self) -> Desk:
        # a client that waits for no results has this connection only
        link = self._transport.link("publish")
        if self._opener is None or self._opener.link is not link:
            self._opener = Desk(link)
        return self._opener

    @property
    def _counting(self) -> Desk:
        # never the connection that publishes: an alarm of the broker would block it
        link = self._transport.link("consume")
        if self._desk is None or self._desk.link is not link:
            self._desk, self._takes = Desk(link), asyncio.Semaphore(_TAKES)
        return self._desk

    async def _take(self, part: Part, decide: Callable[..., Any]) -> None:
        desk = self._counting
        async with self._takes:
            hold = await desk.take(PREFIX + part.group_id)
            try:
                await decide(hold, part)
            finally:
                await hold.let_go()

    # -- what a queue that was taken comes to -------------------------------------------

    async def _join(self, hold: Hold, part: Part, follow: Follow) -> None:
        gathered, noted = _read(hold, part)
        if not gathered.complete or (gathered.failed and noted):
            return
        if await conclude(part, gathered, follow):
            await hold.delete()
        else:  # kept: the member may be sent back from the dead-letter queue
            await self._published(_publication(part.group_id, _message(b"", part.id, _FAILED)))

    async def _give_up(self, hold: Hold, part: Part, follow: Follow) -> None:
        gathered, noted = _read(hold, part)
        waiting, by_hand = Waiting.of_alarm(part), is_by_hand(part)
        # what is in the place of an alarm that rang is no news: it would put off the next one again
        news = (each for each in hold.messages if each.type != WAITS)
        newest = max((each.timestamp or 0 for each in news), default=0)
        left = max(newest, waiting.opened) + self._wait - wall()
        if gathered.complete and not (gathered.failed and noted):
            await conclude(part, gathered, follow)
        elif left > 1 and not by_hand:
            await self._ring_again(waiting, left)
            if not noted:
                await self.list.add(waiting, left)
            return
        elif not noted:
            why = "by hand" if by_hand else f"after {self._wait:g} s without a part"
            await give_up(part, gathered, why, follow)
        await hold.delete()

    async def _ring_again(self, waiting: Waiting, left: float) -> None:
        """Have the alarm come once more, through the delay levels.

        Behind the parts it would never come: the broker looks at the head of a queue only.
        """
        group_id = waiting.group_id
        # in its place, for whoever counts
        note = _message(waiting.dump(), f"{group_id}-alarm", WAITS)
        await self._published(_publication(group_id, note))
        until = datetime.fromtimestamp(wall() + left, UTC)
        queue = self._app.queue(target_of(self._app, waiting.body))
        address = self._app.sender.delayed(queue, until)
        publication = Publication(
            encode(replace(waiting.alarm(), eta=until)),
            address.exchange,
            address.routing_key,
            address=address.anew,
            requires=(self._app.sender.queue_requirement(queue), *address.requires),
        )
        await self._published(publication)

    # -- publishing -------------------------------------------------------------------

    def _publish(self, publication: Publication, done: Done) -> None:
        publication.on_done = lambda publication: done(publication.error)
        self._transport.publish(publication)

    async def _published(self, publication: Publication) -> None:
        await called(partial(self._publish, publication))


def _publication(
    group_id: str,
    message: Message,
    requires: tuple[Requirement, ...] = (),
    deadline: float | None = None,
) -> Publication:
    """Return a message on its way into the queue of a chord."""
    return Publication(message, "", PREFIX + group_id, requires=requires, deadline=deadline)


def _check(ours: Callable[[], bool], part: Part) -> None:
    if not ours():
        raise ConnectionLost(f"the delivery of {part.id} is no longer this worker's")


def _unjoinable(part: Part) -> BackendError:
    return BackendError(
        f"chord {part.group_id} (member {part.id}) was sent by a Celery client, which keeps the "
        "number of its members in a result backend; this worker has none that can join it",
        hint="give the worker the same backend, redis:// for example, or send it by amqtask",
    )


def _read(hold: Hold, part: Part) -> tuple[Gathered, bool]:
    """Return the parts of a queue, and whether it has the note that the body has failed."""
    assert part.size is not None
    kept = [load(each.body) for each in hold.messages if each.type == PART]
    noted = any(each.type == _FAILED for each in hold.messages)
    return gather(kept, part.size), noted


def _message(body: bytes, message_id: str, kind: str) -> Message:
    return Message(
        body,
        content_type="application/json",
        content_encoding="utf-8",
        message_id=message_id,
        timestamp=int(wall()),
        type=kind,
    )


def _arguments(target: str, wait: float) -> dict[str, Any]:
    """Return those of a chord's queue: classic, whose count is exact once a message is confirmed."""
    return {
        "x-queue-type": "classic",
        "x-expires": round(min(wait + _RESERVE, _LONGEST) * 1000),
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": target,
    }


_backoff = partial(Backoff, first=0.02, cap=1.0)
