"""Chords that a result backend joins: its store keeps the parts and tells when they are all there.

    parts --gathered while the store is busy--> one batch --> waiting: nothing more to do
                                                          |-> ready: body sent, parts dropped
                                                          `-> ready, a member failed: body failed

The store calls one part of each chord ready, and its member's delivery is acked
only after the body is safe. When its worker dies, the member is delivered
again, and its part is called ready again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from amqtask.backends import StoredBackend
from amqtask.backends.chords import ChordPart, Standing
from amqtask.errors import EncodeError
from amqtask.workflow.join_counted import CountedChords
from amqtask.workflow.join_parts import Gathered, dump, gather, gone, keep, nested, read
from amqtask.workflow.join_work import LoopWork, conclude, fail
from amqtask.workflow.ports import Done, Follow, Opening, Part

if TYPE_CHECKING:
    from amqtask.app import App

log = logging.getLogger("amqtask.chord")

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

        async def work() -> None:
            chords = self._chords()
            await asyncio.wrap_future(
                self._backend.run(
                    lambda: chords.open(opening.group_id, opening.size, self._expires)
                )
            )

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
                load = partial(self._backend.load_group, part.group_id)
                nodes = await asyncio.wrap_future(self._backend.run(load))
                gathered = nested(gathered, nodes)
            sent = await conclude(part, gathered, waiting.follow)
        end = partial(self._chords().end, entry, sent=sent, expires=self._expires)
        await asyncio.wrap_future(self._backend.run(end))

    def _gathered(self, part: Part, said: Sequence[Any]) -> Gathered:
        parts = [read(each) for each in said]
        # Celery's keys have them in order, and say no more than that
        return Gathered(parts) if self._as_celery else gather(parts, part.size or 0)
