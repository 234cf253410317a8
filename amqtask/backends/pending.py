"""The outcome of one call, here or still to come.

    unknown --a state arrives--> known --SUCCESS, FAILURE, REVOKED--> ready
       |                           |
       `-----------error-----------`----------------------------> broken off

Whoever waits registers a callback; the backend resolves. While anybody waits
the backend is asked to follow the call, so a handle that nobody waits on
costs no subscription and no polling.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Protocol

from amqtask.errors import AmqtaskError
from amqtask.message.results import READY_STATES, ResultMeta


class Source(Protocol):
    """What a `Pending` asks for news."""

    def want(self, pending: Pending) -> None:
        """Follow the call until `unwant` or its end; must not block."""
        ...

    def unwant(self, pending: Pending) -> None:
        """Nobody waits any more; must not block."""
        ...


class Pending:
    """The outcome of one call.

    Args:
        source: Asked to follow the call while somebody waits; None where outcomes
            come by themselves.

    Attributes:
        meta: The last state that is known; None for none.
        error: Why no outcome can be had; None while one may come.
        raised: Whether somebody got the failure it ended with.

    Threads: safe from any thread; coroutines use `wait_async`.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_source",
        "_watchers",
        "error",
        "meta",
        "raised",
        "task_id",
    )

    #: One lock for all: it is held for a few instructions only.
    _lock = threading.Lock()

    def __init__(self, task_id: str, source: Source | None = None) -> None:
        self.task_id = task_id
        self.meta: ResultMeta | None = None
        self.error: AmqtaskError | None = None
        self.raised = False
        self._source = source
        self._callbacks: list[Callable[[], object]] = []
        self._watchers: list[Callable[[ResultMeta], object]] = []

    @property
    def ready(self) -> bool:
        """Whether the outcome is final, or none can be had."""
        meta = self.meta
        return (meta is not None and meta.status in READY_STATES) or self.error is not None

    @property
    def awaited(self) -> bool:
        """Whether anybody waits or watches."""
        return bool(self._callbacks or self._watchers)

    def resolve(self, meta: ResultMeta) -> None:
        """Take a state that arrived; a final one wakes whoever waits and stays."""
        with self._lock:
            if self.ready or meta == self.meta:
                return
            self.meta = meta
            watchers = list(self._watchers)
            callbacks: list[Callable[[], object]] = []
            if meta.status in READY_STATES:
                callbacks, self._callbacks = self._callbacks, []
        for watcher in watchers:
            watcher(meta)
        for callback in callbacks:
            callback()

    def fail(self, error: AmqtaskError) -> None:
        """Break the wait off: no outcome can be had."""
        with self._lock:
            if self.ready:
                return
            self.error = error
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def reset(self) -> None:
        """Forget what is known, as after a `forget`."""
        with self._lock:
            self.meta = self.error = None

    def on_ready(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once the outcome is final, in whatever thread that happens."""
        with self._lock:
            if not self.ready:
                first = not self.awaited
                self._callbacks.append(callback)
                if first and self._source is not None:
                    self._source.want(self)
                return
        callback()

    def forget(self, callback: Callable[[], object]) -> None:
        """Take a callback back."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
                self._left()

    def follow(self, watcher: Callable[[ResultMeta], object]) -> None:
        """Call ``watcher`` with each state that arrives, beginning with the one that is known."""
        with self._lock:
            meta = self.meta
            first = not self.awaited
            self._watchers.append(watcher)
            if first and not self.ready and self._source is not None:
                self._source.want(self)
        if meta is not None:
            watcher(meta)

    def unfollow(self, watcher: Callable[[ResultMeta], object]) -> None:
        """Take a watcher back."""
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
                self._left()

    def wait(self, timeout: float | None) -> bool:
        """Block until the outcome is final; False after ``timeout`` seconds."""
        if self.ready:
            return True
        # a lock of its own, which costs a third of an Event
        arrived = threading.Lock()
        arrived.acquire()
        self.on_ready(arrived.release)
        try:
            return arrived.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        finally:
            self.forget(arrived.release)

    async def wait_async(self, timeout: float | None) -> bool:
        """Await the final outcome; False after ``timeout`` seconds."""
        if self.ready:
            return True
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(arrived.set)

        self.on_ready(wake)
        try:
            async with asyncio.timeout(timeout):
                await arrived.wait()
        except TimeoutError:
            return self.ready  # it may have come in the loop's turn that ended the wait
        finally:
            self.forget(wake)
        return True

    def _left(self) -> None:
        if not self.awaited and not self.ready and self._source is not None:
            self._source.unwant(self)


def _forked() -> None:
    Pending._lock = threading.Lock()  # the parent's may have been held


os.register_at_fork(after_in_child=_forked)
