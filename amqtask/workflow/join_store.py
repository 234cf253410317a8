"""Chords that a result backend joins: its store keeps the parts and tells when they are all there.

    openings --gathered while the store is busy--> one batch --> opened: the members are sent

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
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from amqtask.backends import StoredBackend
from amqtask.backends.chords import ChordPart, OpenChord, Register, Standing
from amqtask.clock import wall
from amqtask.errors import BackendError, BackendUnavailable, EncodeError, MessageError
from amqtask.records import record
from amqtask.workflow.alarm import OpenJoin, Waiting, is_by_hand
from amqtask.workflow.join_counted import CountedChords
from amqtask.workflow.join_parts import Gathered, dump, gather, gone, keep, nested, read
from amqtask.workflow.join_work import LoopWork, conclude, fail, give_up
from amqtask.workflow.ports import EXPIRE, Done, Follow, Opening, Part

if TYPE_CHECKING:
    from amqtask.app import App

log = logging.getLogger("amqtask.chord")

T = TypeVar("T")

#: Parts, or openings, that go to the store in one batch at most.
_BATCH = 500


@record(frozen=True, slots=True)
class _Waiting:
    part: Part
    entry: ChordPart
    follow: Follow
    done: Done


class _Batches(Generic[T]):
    """Gathers what comes while the store is busy.

    Args:
        backend: In its thread a batch is worked on.
        work: Called there with each batch; must not raise.

    Threads: `add` from any thread.
    """

    def __init__(self, backend: StoredBackend, work: Callable[[Sequence[T]], None]) -> None:
        self._backend = backend
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[T] = []
        self._busy = False

    def add(self, item: T) -> None:
        """Have it worked on soon."""
        with self._lock:
            self._waiting.append(item)
            if self._busy:
                return
            self._busy = True
        self._backend.run(self._next)

    def _next(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        self._work(batch)
        with self._lock:
            more = self._busy = bool(self._waiting)
        if more:
            self._backend.run(self._next)


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
        self._openings: _Batches[tuple[Opening, Done]] = _Batches(backend, self._open)
        self._parts: _Batches[_Waiting] = _Batches(backend, self._add)

    def open(self, opening: Opening, done: Done) -> None:
        """See `Joins.open`."""
        self._openings.add((opening, done))

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
        self._parts.add(_Waiting(part, entry, follow, done))

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

    def _open(self, batch: Sequence[tuple[Opening, Done]]) -> None:
        try:
            sizes = {self._on_record(opening): opening.size for opening, _ in batch}
            self._chords().open(sizes, self._expires)
        except Exception as error:  # whoever sends the chord decides what follows from it
            if len(batch) > 1 and not isinstance(error, BackendUnavailable):
                # one of them is not taken; the others must not wait for it
                for each in batch:
                    self._open([each])
                return
            for _, done in batch:
                done(error)
        else:
            for _, done in batch:
                done(None)

    def _on_record(self, opening: Opening) -> OpenChord:
        now = wall()
        return OpenChord(opening.group_id, Waiting.of(opening, now).dump(), now + self._expires)

    def _add(self, batch: Sequence[_Waiting]) -> None:
        try:
            standings: Sequence[tuple[Standing, Any]] = self._chords().add(
                [each.entry for each in batch], self._expires
            )
        except Exception as error:  # all of them are tried again, and count once
            for each in batch:
                each.done(error)
            return
        for each, (standing, said) in zip(batch, standings, strict=True):
            if standing in (Standing.WAITING, Standing.OVER):
                each.done(None)
            else:
                work = partial(self._end, each, standing, said)
                self._work.run(self._transport.io, work, each.done)

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
