"""Chords that a result backend joins: its store keeps the parts and tells when they are all there.

    parts --gathered while the store is busy--> one batch --> waiting: nothing more to do
                                                          |-> ready: body sent, parts dropped
                                                          `-> ready, a member failed: body failed

The store calls one part of each chord ready, and its member's delivery is acked
only after the body is safe. When its worker dies, the member is delivered
again, and its part is called ready again.

An open chord is on record in the store, where it has a register, with when it is given up.
A worker that finds it there past that time sends its alarm, see `amqtask.worker.overdue`,
which takes the chord from whoever comes with a part, and fails the body.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from amqtask.backends import StoredBackend
from amqtask.backends.chords import ChordPart, OpenChord, Register, Standing
from amqtask.clock import wall
from amqtask.errors import BackendError, EncodeError, MessageError
from amqtask.workflow.alarm import OpenJoin, Waiting, is_by_hand
from amqtask.workflow.join_counted import CountedChords
from amqtask.workflow.join_parts import Gathered, dump, gather, gone, keep, nested, read
from amqtask.workflow.join_work import LoopWork, conclude, fail, give_up
from amqtask.workflow.ports import EXPIRE, Done, Follow, Opening, Part

if TYPE_CHECKING:
    from amqtask.app import App

log = logging.getLogger("amqtask.chord")

T = TypeVar("T")

#: Parts that go to the store in one batch at most.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class _Waiting:
    part: Part
    entry: ChordPart
    follow: Follow
    done: Done


class StoreJoins:
    """Joins chords in a store.

    Args:
        app: Its connections and settings.
        backend: Where the parts are kept.

    Threads: `open` and `part` from any thread; the store is asked in the backend's own.
    """

    def __init__(self, app: App, backend: StoredBackend) -> None:
        self._transport = app.transport
        self._backend = backend
        self._expires = app.settings.join_expires
        self._as_celery = backend.store.chords() is not None
        self._work = LoopWork()
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._busy = False

    def open(self, opening: Opening, done: Done) -> None:
        """See `Joins.open`."""
        now = wall()
        record = Waiting.of(opening, now).dump()
        chord = OpenChord(opening.group_id, record, now + self._expires)

        async def work() -> None:
            chords = self._chords()
            await self._ask(lambda: chords.open(chord, opening.size, self._expires))

        self._work.run(self._transport.io, work, done)

    def part(self, part: Part, follow: Follow, done: Done, ours: Callable[[], bool]) -> None:
        """See `Joins.part`.

        Delivery: a crash before ``done`` repeats the part, which then counts once.
        """
        if part.size is None and not self._as_celery:
            # Celery's client has sent a task of its own that looks for the results
            log.debug("chord.not_ours group=%s: sent by a Celery client", part.group_id)
            done(None)
            return
        if part.task == EXPIRE:
            self._work.run(self._transport.io, partial(self._expire, part, follow), done)
            return
        kept = keep(part)
        try:
            body = dump(kept, as_celery=self._as_celery)
        except EncodeError as error:
            done(error)
            return
        entry = ChordPart(part.group_id, part.id, part.index, kept.ok, part.extra, part.size, body)
        with self._lock:
            self._waiting.append(_Waiting(part, entry, follow, done))
            if self._busy:
                return
            self._busy = True
        self._backend.run(self._batch)

    # -- those that are open ----------------------------------------------------------

    @property
    def register(self) -> Register | None:
        """Where open chords are on record, for the backend's thread; None where they are not."""
        return self._backend.store.register()

    async def listing(self, most: int) -> list[OpenJoin]:
        """Return the chords that are open, on any loop.

        Raises:
            BackendError: The store keeps no list, or does not answer.
        """
        return await self._ask(lambda: self._shown(self._registered().list(most)))

    async def find(self, group_id: str) -> OpenJoin | None:
        """Return one chord; raises as `listing`."""

        def look() -> list[OpenJoin]:
            found = self._registered().find(group_id)
            return [] if found is None else self._shown([found])

        return next(iter(await self._ask(look)), None)

    def _registered(self) -> Register:
        register = self.register
        if register is None:
            raise BackendError(
                f"backend {self._backend.store} cannot tell which chords are open in it",
                hint="Redis, SQL and MongoDB can, and so does RabbitMQ without any of them",
            )
        return register

    def _shown(self, found: Sequence[OpenChord]) -> list[OpenJoin]:
        waiting = {}
        for each in found:
            try:
                waiting[each.group_id] = Waiting.load(each.group_id, each.record)
            except MessageError as error:
                log.error("chord.record_malformed group=%s error=%r", each.group_id, str(error))
        came = self._chords().came({each.group_id: each.size for each in waiting.values()})
        return [
            OpenJoin(waiting[each.group_id], "store", came[each.group_id], each.due)
            for each in found
            if each.group_id in came
        ]

    async def _ask(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._backend.run(function))

    # -- in the backend's thread ------------------------------------------------------

    def _chords(self) -> Any:
        return self._backend.store.chords() or CountedChords(self._backend.store)

    def _batch(self) -> None:
        """Keep what waits; what comes meanwhile is the next batch."""
        with self._lock:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        try:
            chords = self._chords()
            standings: Sequence[tuple[Standing, Any]] = chords.add(
                [each.entry for each in batch], self._expires
            )
        except Exception as error:  # all of them are tried again, and count once
            for each in batch:
                each.done(error)
        else:
            for each, (standing, said) in zip(batch, standings, strict=True):
                if standing in (Standing.WAITING, Standing.OVER):
                    each.done(None)
                else:
                    self._work.run(
                        self._transport.io, partial(self._end, each, standing, said), each.done
                    )
        with self._lock:
            more = self._busy = bool(self._waiting)
        if more:
            self._backend.run(self._batch)

    # -- on the I/O loop --------------------------------------------------------------

    async def _end(self, waiting: _Waiting, standing: Standing, said: Any) -> None:
        part, entry = waiting.part, waiting.entry
        if standing is Standing.GONE:
            await fail(part, waiting.follow, gone(part.group_id))
            sent = False
        else:
            gathered = self._gathered(part, said)
            if part.size is None and gathered.failed is None:
                # Celery's client says in the store how groups within the header are nested
                nodes = await self._ask(partial(self._backend.load_group, part.group_id))
                gathered = nested(gathered, nodes)
            sent = await conclude(part, gathered, waiting.follow)
        await self._ask(partial(self._chords().end, entry, sent=sent, expires=self._expires))

    async def _expire(self, part: Part, follow: Follow) -> None:
        """Do what an alarm asks for: give up, join what was complete all the time, or wait on."""
        chords, by_hand = self._chords(), is_by_hand(part)
        entry = ChordPart(part.group_id, part.id, None, False, 0, part.size, b"")
        standing, said = await self._ask(
            lambda: chords.give_up(entry, self._expires, by_hand=by_hand)
        )
        if standing is Standing.OVER:
            log.info("chord.over group=%s: it has ended before its alarm came", part.group_id)
            await self._ask(partial(self._strike_off, part.group_id))
        if standing is Standing.WAITING:
            log.info("chord.waits group=%s: a part came, or somebody joins it", part.group_id)
        if standing is not Standing.READY:
            return
        gathered = gather([read(each) for each in said], part.size or 0)
        if gathered.complete:
            over = await conclude(part, gathered, follow)
        else:
            why = "by hand" if by_hand else f"after {self._expires:g} s"
            await give_up(part, gathered, why, follow)
            over = True
        await self._ask(lambda: chords.end(entry, sent=over, expires=self._expires))

    def _strike_off(self, group_id: str) -> None:
        if (register := self.register) is not None:
            register.drop(group_id)

    def _gathered(self, part: Part, said: Sequence[Any]) -> Gathered:
        parts = [read(each) for each in said]
        # Celery's keys have them in order, and say no more than that
        return Gathered(parts) if self._as_celery else gather(parts, part.size or 0)
