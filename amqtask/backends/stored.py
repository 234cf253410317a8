"""A backend over a store: all that does not depend on which store it is.

save --encode, cap--> queue --batch, guard--> store.save --> done
wait --> reader thread (news, or looks with a back-off) --> Pending
close --> what waits is stored, threads end, connections go; the next use opens again
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

from amqtask.backends.base import Can, Done, Found, Record, Store
from amqtask.backends.codec import Codec
from amqtask.backends.pending import Pending
from amqtask.backends.reader import Reader, deliver
from amqtask.backends.writer import Writer
from amqtask.errors import MessageError, ResultTooLarge
from amqtask.message.results import READY_STATES, ResultMeta
from amqtask.message.serializers import JSON
from amqtask.settings import Settings
from amqtask.transport import Requirement

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two looks for what is past its time, in stores that do not do it themselves.
EXPIRE_EVERY = 3600.0

_living: WeakSet[StoredBackend] = WeakSet()
#: Parents' stores, kept so that a child's collector does not close what the parent uses.
_inherited: list[Store] = []


class StoredBackend:
    """Keeps outcomes in a `Store`.

    Args:
        kind: The store's class.
        url: Its URL.
        settings: The app's settings.

    Threads: safe from any thread.
    Fork: a child makes connections of its own; handles made before go on working.
    """

    def __init__(
        self, kind: Callable[[str, Settings, Codec], Store], url: str, settings: Settings
    ) -> None:
        self._kind = kind
        self._url = url
        self._settings = settings
        self._codec = Codec(settings)
        self._pendings: WeakValueDictionary[str, Pending] = WeakValueDictionary()
        self._open()
        _living.add(self)

    def _open(self) -> None:
        self._lock = threading.Lock()
        self.store = self._kind(self._url, self._settings, self._codec)
        self._writer = Writer(self._save, self._expire)
        self._reader = Reader(self.store, self._writer.run)
        self._expire_at = time.monotonic() + random.uniform(0, EXPIRE_EVERY)  # noqa: S311

    @property
    def can(self) -> Can:
        """What the store can do."""
        return self.store.can

    @property
    def joins(self) -> bool:
        """Whether chords are joined here."""
        return self.can.counts and self.can.keeps

    def watch(self, task_id: str) -> Pending:
        """See `Backend.watch`."""
        with self._lock:
            pending = self._pendings.get(task_id)
            if pending is None:
                pending = self._pendings[task_id] = Pending(task_id, self)
        return pending

    def want(self, pending: Pending) -> None:
        """See `Source.want`."""
        self._reader.want(pending)

    def unwant(self, pending: Pending) -> None:
        """See `Source.unwant`."""
        self._reader.unwant(pending)

    def reply_to(self) -> str:
        """See `Backend.reply_to`: nothing is sent back."""
        return ""

    def requirements(self) -> Sequence[Requirement]:
        """See `Backend.requirements`: the broker need have nothing."""
        return ()

    def save(self, meta: ResultMeta, *, reply_to: str, correlation_id: str, done: Done) -> None:
        """See `Backend.save`.

        Delivery: ``done`` is called once the store has it.
        """
        try:
            body = self._codec.encode(meta, self.can.largest)
        except ResultTooLarge as error:
            done(error)
            return
        self._writer.save(Record(meta.task_id, body, self._expires(meta.status), meta), done)

    # -- looking ------------------------------------------------------------------

    def refresh(self, pending: Pending) -> None:
        """See `Backend.refresh`."""
        found = self.store.load([pending.task_id])
        self._take(pending, found)

    async def arefresh(self, pending: Pending) -> None:
        """See `Backend.arefresh`."""
        found = await self._on_thread(lambda: self.store.load([pending.task_id]))
        self._take(pending, found)

    def _take(self, pending: Pending, found: Mapping[str, Found]) -> None:
        if pending.task_id in found:
            deliver(pending, found[pending.task_id], self._codec)

    def forget(self, task_id: str) -> None:
        """See `Backend.forget`."""
        self.store.forget([task_id])
        self._forgotten(task_id)

    async def aforget(self, task_id: str) -> None:
        """See `Backend.aforget`."""
        await self._on_thread(lambda: self.store.forget([task_id]))
        self._forgotten(task_id)

    def _forgotten(self, task_id: str) -> None:
        pending = self._pendings.get(task_id)
        if pending is not None:
            pending.reset()

    async def _on_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._writer.run(function))

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Call what blocks in the thread that writes; `store` may be used there."""
        return self._writer.run(function)

    # -- groups -------------------------------------------------------------------

    def save_group(self, group_id: str, members: object) -> None:
        """See `Backend.save_group`."""
        body = JSON.dumps({"result": members})
        self.store.save_group(group_id, body, self._settings.result_expires)

    def load_group(self, group_id: str) -> Any | None:
        """See `Backend.load_group`.

        Raises:
            MessageError: It cannot be read.
        """
        body = self.store.load_group(group_id)
        if body is None:
            return None
        document = self._codec.decode_value(body)
        return document.get("result") if isinstance(document, dict) else document

    def forget_group(self, group_id: str) -> None:
        """See `Backend.forget_group`."""
        self.store.forget_group(group_id)

    def count(self, key: str, by: int = 1) -> int:
        """Add to a counter of the store and return it; blocks. Where `Can.counts` is true."""
        return self.store.count(key, by, self._settings.result_expires)

    def expire(self) -> int:
        """Drop what is past its time now and return how much that was; blocks."""
        return self.store.expire(datetime.now(UTC))

    def close(self, timeout: float) -> None:
        """See `Backend.close`."""
        self._reader.close(timeout)
        if not self._writer.close(timeout):
            log.warning("results.closed: what was not stored in %g s is not", timeout)
        self.store.close()

    def __repr__(self) -> str:
        return f"<StoredBackend {self.store}>"

    # -- in the writer's thread ---------------------------------------------------

    def _save(self, records: Sequence[Record]) -> None:
        if not self.can.guards:
            records = self._unguarded(records)
        if records:
            self.store.save(records)

    def _unguarded(self, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out what would replace a SUCCESS.

        As in Celery, somebody else's write may come between this look and ours.
        """
        found = self.store.load([record.id for record in records])
        kept = [record for record in records if not self._succeeded(found.get(record.id))]
        if len(kept) < len(records):
            log.debug("result.kept count=%d: there is a success already", len(records) - len(kept))
        return kept

    def _succeeded(self, found: Found | None) -> bool:
        if found is None:
            return False
        try:
            meta = self._codec.decode(found) if isinstance(found, bytes) else found
        except MessageError:
            return False  # what nobody can read may be replaced
        return isinstance(meta, ResultMeta) and meta.status == "SUCCESS"

    def _expire(self) -> None:
        if self.can.expires or time.monotonic() < self._expire_at:
            return
        self._expire_at = time.monotonic() + EXPIRE_EVERY
        if count := self.expire():
            log.info("result.expired backend=%s count=%d", self.store, count)

    def _expires(self, status: str) -> float | None:
        failures = self._settings.result_failure_expires
        if status == "FAILURE" and failures is not None:
            return failures
        return self._settings.result_expires


def _forked() -> None:
    for backend in list(_living):
        waiting = [pending for pending in backend._pendings.values() if pending.awaited]
        _inherited.append(backend.store)
        backend.store.forked()
        backend._open()
        for pending in waiting:  # the child's one thread may be waiting, deep in a callback
            if pending.meta is None or pending.meta.status not in READY_STATES:
                backend._reader.want(pending)


os.register_at_fork(after_in_child=_forked)
