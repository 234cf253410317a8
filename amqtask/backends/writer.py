"""The thread that writes to a store: what waits goes out together.

    idle --something comes--> writing (all that came meanwhile) --> idle

While a batch is being written the next one gathers, so a slow store gets
larger batches instead of a longer queue of single writes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from amqtask.backends.base import Done, Record
from amqtask.errors import AmqtaskError, BackendError, BackendUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Records of one batch at most.
BATCH = 500
#: Bytes of their bodies above which a batch is closed.
BATCH_BYTES = 4 * 1024 * 1024

_Job = tuple[Callable[[], object], Future[object]]


class Writer:
    """A daemon thread, started on first use, that writes records and runs other calls between.

    Args:
        save: Writes records, each of another call.
        idle: Called between two batches, for what has to be done now and then.

    Threads: every method may be called from any thread.
    """

    def __init__(
        self, save: Callable[[Sequence[Record]], None], idle: Callable[[], object]
    ) -> None:
        self._save = save
        self._idle = idle
        self._changed = threading.Condition()
        self._records: deque[tuple[Record, Done]] = deque()
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._busy = False

    def save(self, record: Record, done: Done) -> None:
        """Write a record soon; ``done`` is called in the thread."""
        with self._changed:
            self._records.append((record, done))
            self._wake()

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Call a function in the thread, before records that wait."""
        future: Future[T] = Future()
        with self._changed:
            self._jobs.append((function, future))  # type: ignore[arg-type]
            self._wake()
        return future

    def close(self, timeout: float) -> bool:
        """Write what waits, at most ``timeout`` seconds, and end; False when that was too short."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: not (self._records or self._jobs or self._busy), timeout
            )
            self._closed = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
            left, self._records = self._records, deque()
        for record, tell in left:
            tell(BackendUnavailable(f"result (id {record.id}) was not stored: the app was closed"))
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return done

    def _wake(self) -> None:
        if self._closed:
            self._closed = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="amqtask-results", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._records or self._jobs or self._ended(me))
                if self._ended(me):
                    return
                self._busy = True
                jobs, self._jobs = list(self._jobs), deque()
                batch = self._take()
            for function, future in jobs:
                _call(function, future)
            self._write(batch)
            try:
                self._idle()
            except AmqtaskError as error:
                log.warning("result.expire_failed error=%r: tried again later", str(error))

    def _ended(self, me: threading.Thread) -> bool:
        return self._thread is not me

    def _take(self) -> list[tuple[Record, Done]]:
        """Take the next batch: of each call one record, so that a store need not mind the order."""
        batch: list[tuple[Record, Done]] = []
        ids: set[str] = set()
        size = 0
        while self._records and len(batch) < BATCH and size < BATCH_BYTES:
            record = self._records[0][0]
            if record.id in ids:
                break
            ids.add(record.id)
            size += len(record.body)
            batch.append(self._records.popleft())
        return batch

    def _write(self, batch: Sequence[tuple[Record, Done]]) -> None:
        if not batch:
            return
        try:
            self._save([record for record, _ in batch])
        except BackendError as error:
            if len(batch) > 1 and not isinstance(error, BackendUnavailable):
                # one of them is not taken; the others must not wait for it
                for one in batch:
                    self._write([one])
                return
            _tell(batch, error)
        except Exception as error:  # a store's bug must not end the thread that all wait for
            log.exception("result.store_failed: a bug in the backend, tried again")
            _tell(batch, BackendUnavailable(f"the backend failed: {error!r}"))
        else:
            _tell(batch, None)


def _tell(batch: Sequence[tuple[Record, Done]], error: BackendError | None) -> None:
    for _, done in batch:
        done(error)


def _call(function: Callable[[], object], future: Future[object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # it is the caller's, who waits for it
        future.set_exception(error)
