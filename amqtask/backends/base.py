"""The port between the library and whatever keeps results.

A backend does two things: in the worker it stores an outcome (`save`), in the
client it hands out a `Pending` that will hold it (`watch`). Nobody polls: the
backend resolves the `Pending` when the outcome arrives.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from amqtask.message.results import READY_STATES, ResultMeta
from amqtask.transport import Requirement


class Pending:
    """The outcome of one call, here or still to come.

    Threads: safe from any thread; coroutines use `wait_async`.
    """

    __slots__ = ("__weakref__", "_callbacks", "meta", "raised", "task_id")

    #: One lock for all: it is held for a few instructions only.
    _lock = threading.Lock()

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.meta: ResultMeta | None = None
        self._callbacks: list[Callable[[], object]] = []
        #: Whether somebody got the failure it ended with.
        self.raised = False

    @property
    def ready(self) -> bool:
        """Whether the outcome is final."""
        meta = self.meta
        return meta is not None and meta.status in READY_STATES

    def resolve(self, meta: ResultMeta) -> None:
        """Take a state that arrived; a final one wakes whoever waits and stays."""
        with self._lock:
            if self.ready:
                return
            self.meta = meta
            if meta.status not in READY_STATES:
                return
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_ready(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once the outcome is final, in whatever thread that happens."""
        with self._lock:
            if not self.ready:
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback: Callable[[], object]) -> None:
        """Take a callback back."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, timeout: float | None) -> bool:
        """Block until the outcome is final; False after ``timeout`` seconds."""
        if self.ready:
            return True
        event = threading.Event()
        self.on_ready(event.set)
        try:
            return event.wait(timeout)
        finally:
            self.forget(event.set)

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
            return False
        finally:
            self.forget(wake)
        return True


def _forked() -> None:
    Pending._lock = threading.Lock()  # the parent's may have been held


os.register_at_fork(after_in_child=_forked)


class Backend(Protocol):
    """What a result backend offers.

    Threads: every method may be called from any thread.
    """

    def watch(self, task_id: str) -> Pending:
        """Return the `Pending` of a call; the same one while anybody holds it."""
        ...

    def reply_to(self) -> str:
        """Return the address to put into calls, ``""`` when outcomes are stored."""
        ...

    def requirements(self) -> Sequence[Requirement]:
        """Return what must be ready before a call whose outcome is wanted goes out."""
        ...

    def save(
        self,
        meta: ResultMeta,
        *,
        reply_to: str,
        correlation_id: str,
        done: Callable[[Exception | None], object],
    ) -> None:
        """Store an outcome or a state; must not block.

        Args:
            done: Called once, from any thread, with None when it is safe, or with
                the error that kept it from being stored.
        """
        ...

    def forget(self, task_id: str) -> None:
        """Drop what is kept of a call."""
        ...
