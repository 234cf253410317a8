"""The I/O thread: one event loop in a daemon thread, for callers without one.

User code never runs here, so heartbeats, confirms and acks go on while a task
computes. Threads hand work to a loop through its `Mailbox`, in both
directions; a burst of posts wakes the loop once.
"""

from __future__ import annotations

import asyncio

# The next two are what asyncio and socket import at the first connection, in the I/O thread. A
# fork in the middle of that would leave the child with half a module, and its lock held for good.
import concurrent.futures.thread  # noqa: F401
import encodings.idna  # noqa: F401
import logging
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Mailbox:
    """Calls for a loop from other threads: in order, one wake-up a burst."""

    __slots__ = ("_awake", "_inbox", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._awake = False

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` on the loop, soon; dropped when the loop is closed."""
        self._inbox.append((function, args))
        # The flag is set before the wake-up and cleared before the drain, so an item is
        # either seen by a drain or causes a wake-up of its own.
        if not self._awake:
            self._awake = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                log.debug("mailbox.closed: the loop is closed, nobody waits for this call")
            except BaseException:
                # thrown into this thread, by a time limit or ctrl-c: without a wake-up under way
                # the flag would have everybody wait for one
                self._awake = False
                raise

    def _drain(self) -> None:
        self._awake = False
        inbox = self._inbox
        for _ in range(len(inbox)):
            function, args = inbox.popleft()
            try:
                function(*args)
            except Exception:  # one caller's bug must not cost the others their turn
                # by its name: what it is bound to may raise as well when it is shown
                name = getattr(function, "__qualname__", type(function).__name__)
                log.exception("mailbox.call_failed function=%s: going on with the next", name)
        if inbox and not self._awake:  # came in meanwhile: the sockets have their turn first
            self._awake = True
            self._loop.call_soon(self._drain)


class _Selector(selectors.DefaultSelector):
    """Lets go of the loop's turn while the loop has nothing to do but wait."""

    def __init__(self, turn: threading.Lock) -> None:
        super().__init__()
        self._turn = turn

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turn.release()
        try:
            return super().select(timeout)
        finally:
            self._turn.acquire()


class IOThread:
    """A daemon thread that runs an event loop, started on first use.

    Attributes:
        turn: Held by the loop but while it waits. Another thread that holds it may use what
            belongs to the loop as if it ran there, but may neither schedule anything nor wait.

    Threads: all methods may be called from any thread but its own.
    Fork: a forked child has no such thread; make a new one (`Transport` does).
    """

    def __init__(self, name: str = "amqtask-io") -> None:
        self.name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._mailbox: Mailbox | None = None
        self.turn = threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; the first access starts the thread."""
        loop = self._loop
        return loop if loop is not None else self._start()[0]

    @property
    def started(self) -> bool:
        """Whether the thread runs."""
        return self._loop is not None

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this very thread."""
        return threading.current_thread() is self._thread

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` on the loop, soon; calls keep their order."""
        mailbox = self._mailbox
        if mailbox is None:
            mailbox = self._start()[1]
        mailbox.post(function, *args)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop and return its future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and wait for its result, at most ``timeout`` seconds."""
        future = self.submit(coroutine)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and wait for the thread; what still waits is cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = self._mailbox = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()

    def _start(self) -> tuple[asyncio.AbstractEventLoop, Mailbox]:
        with self._lock:
            if self._loop is None or self._mailbox is None:
                loop = asyncio.SelectorEventLoop(_Selector(self.turn))
                self._mailbox = Mailbox(loop)
                self._thread = threading.Thread(
                    target=self._serve, args=(loop,), name=self.name, daemon=True
                )
                self._thread.start()
                self._loop = loop
            return self._loop, self._mailbox

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        with self.turn:
            try:
                loop.run_forever()
                pending = asyncio.all_tasks(loop)
                for task in pending:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            finally:
                loop.close()
