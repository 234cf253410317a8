"""Many calls at once: published without waiting for each confirm, all confirmed at the end.

    open --with block ends--> waiting for confirms --> closed (or PipelineError)

A confirm per call is bound by the broker's disk; a pipeline keeps thousands
under way and is as safe, because leaving the block is what waits.

Calls that something has to be ready for, the members of a chord, are held until it is. Meanwhile
the block goes on, so they may go out behind what is called after them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from amqtask import process
from amqtask.errors import PipelineError
from amqtask.transport import Publication

if TYPE_CHECKING:
    from amqtask.transport import Transport

#: Calls under way in one pipeline at which it is full: the next one waits for room.
LIMIT = 8192
#: Bytes of their bodies at which it is full as well.
LIMIT_BYTES = 64 * 1024 * 1024
#: A full pipeline has room again when it is down to this part.
_ROOM = 0.5
#: Seconds after a deadline at which it is looked whether what was held is late.
_GRACE = 0.05

#: Called on any thread, with None when what calls wait for is there, or with why it is not.
Met = Callable[[Exception | None], object]

_active: ContextVar[Pipeline | None] = ContextVar("amqtask_pipeline", default=None)


@dataclass(frozen=True, slots=True)
class Condition:
    """What calls wait for.

    Attributes:
        begin: Called with what it has to call once it is met, or cannot be.
        deadline: `time.monotonic` instant after which the calls fail, all of them.
        late: Makes the error for that.
    """

    begin: Callable[[Met], object]
    deadline: float
    late: Callable[[], Exception]


class _Held:
    """Calls that wait."""

    __slots__ = ("condition", "over", "publications")

    def __init__(self, condition: Condition, publications: Sequence[Publication]) -> None:
        self.condition = condition
        self.publications = publications
        self.over = False


class Pipeline:
    """Collects the calls made inside a ``with`` or ``async with`` block.

    Attributes:
        sent: Calls handed over so far.
        confirmed: Calls the broker has confirmed so far.

    Delivery: calls go out as they are made, also when the block later raises.
    Threads: the block belongs to its thread or coroutine and those it starts
    with its context.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._pid = process.pid()
        self.sent = 0
        self.confirmed = 0
        self._failures: list[tuple[str, Exception]] = []
        self._lock = threading.Lock()
        self._under_way = 0
        self._bytes = 0
        self._held: deque[_Held] = deque()  # the first deadline first
        self._room = threading.Event()
        self._drained = threading.Event()
        self._wakeups: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, float]] = []
        self._tokens: list[Token[Pipeline | None]] = []

    def belongs_to(self, transport: Transport) -> bool:
        """Whether it is open here and sends over ``transport``; a pipeline is one app's.

        A task started inside the block keeps its context, and so does a forked child: after
        the block's end, and in the child, calls wait for their own confirms, as nobody else
        does.
        """
        return transport is self._transport and bool(self._tokens) and self._pid == process.pid()

    def add(self, publications: Sequence[Publication]) -> None:
        """Send the messages of a call; blocks only while the pipeline is full."""
        self._hand_over(publications)
        if self._fill() >= 1:
            self._wait(_ROOM)

    async def aadd(self, publications: Sequence[Publication]) -> None:
        """Send the messages of a call; awaits room only while the pipeline is full."""
        self._hand_over(publications)
        if self._fill() >= 1:
            await self._await(_ROOM)

    def add_after(self, condition: Condition, calls: Sequence[Sequence[Publication]]) -> None:
        """Send the messages of calls once a condition is met; blocks only while it is full."""
        self._hold(condition, calls)
        if self._fill() >= 1:
            self._wait(_ROOM)

    async def aadd_after(
        self, condition: Condition, calls: Sequence[Sequence[Publication]]
    ) -> None:
        """As `add_after`; awaits room only while the pipeline is full."""
        self._hold(condition, calls)
        if self._fill() >= 1:
            await self._await(_ROOM)

    def __enter__(self) -> Pipeline:
        self._tokens.append(_active.set(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _active.reset(self._tokens.pop())
        if self._pid == process.pid():  # a forked child has no part in its parent's calls
            self._wait(0)
            self._finish(error)

    async def __aenter__(self) -> Pipeline:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _active.reset(self._tokens.pop())
        if self._pid == process.pid():
            await self._await(0)
            self._finish(error)

    def _hand_over(self, publications: Sequence[Publication]) -> None:
        self._count([publications])
        for publication in publications:
            publication.on_done = self._done
            self._transport.publish(publication)

    def _count(self, calls: Sequence[Sequence[Publication]]) -> None:
        with self._lock:
            self.sent += len(calls)
            for publications in calls:
                self._under_way += len(publications)
                self._bytes += sum(len(each.message.body) for each in publications)

    def _hold(self, condition: Condition, calls: Sequence[Sequence[Publication]]) -> None:
        self._count(calls)
        held = _Held(condition, [one for each in calls for one in each])
        with self._lock:
            self._held.append(held)
        try:
            condition.begin(partial(self._release, held))
        except Exception as error:  # they are counted: whoever waits for them is told
            self._release(held, error)

    def _release(self, held: _Held, error: Exception | None) -> None:
        """Send what was held, or have all of it fail; from any thread."""
        with self._lock:
            if held.over:
                return
            held.over = True
            while self._held and self._held[0].over:
                self._held.popleft()
        if error is None and time.monotonic() > held.condition.deadline:
            error = held.condition.late()
        for publication in held.publications:
            if error is None:
                publication.on_done = self._done
                self._transport.publish(publication)
            else:
                self._end(publication, error)

    def _give_up_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [held for held in self._held if not held.over and held.condition.deadline < now]
        for held in late:
            self._release(held, held.condition.late())

    def _patience(self) -> float | None:
        """Return the seconds until something that is held is late; the lock is held."""
        if not self._held:
            return None
        return max(0.0, self._held[0].condition.deadline - time.monotonic()) + _GRACE

    def _done(self, publication: Publication) -> None:
        """Count an outcome; runs on the I/O loop."""
        self._end(publication, publication.error)

    def _end(self, publication: Publication, error: Exception | None) -> None:
        with self._lock:
            self._under_way -= 1
            self._bytes -= len(publication.message.body)
            fill = self._fill()
            if error is None:
                self.confirmed += 1
            else:
                self._failures.append((publication.message.message_id or "", error))
        if fill <= _ROOM and not self._room.is_set():
            self._room.set()
        if fill == 0:
            self._drained.set()
        for loop, event, most in self._wakeups:
            if fill <= most:
                loop.call_soon_threadsafe(event.set)

    def _fill(self) -> float:
        """How full it is: 0 with nothing under way, 1 at one of the limits."""
        return max(self._under_way / LIMIT, self._bytes / LIMIT_BYTES)

    def _wait(self, most: float) -> None:
        """Block until it is at most ``most`` full; each call has a deadline."""
        event = self._drained if most == 0 else self._room
        while True:
            with self._lock:
                if self._fill() <= most:
                    return
                event.clear()
                patience = self._patience()
            if not event.wait(patience):
                self._give_up_late()

    async def _await(self, most: float) -> None:
        wakeup = (asyncio.get_running_loop(), asyncio.Event(), most)
        with self._lock:
            if self._fill() <= most:
                return
            self._wakeups.append(wakeup)
        try:
            while not wakeup[1].is_set():
                with self._lock:
                    patience = self._patience()
                try:
                    async with asyncio.timeout(patience):
                        await wakeup[1].wait()
                except TimeoutError:
                    self._give_up_late()
        finally:
            with self._lock:
                self._wakeups = [other for other in self._wakeups if other is not wakeup]

    def _finish(self, error: BaseException | None) -> None:
        if not self._failures:
            return
        first = self._failures[0][1]
        message = (
            f"{len(self._failures)} of {self.sent} calls of the pipeline failed, "
            f"{self.confirmed} were confirmed; the first: {first}"
        )
        failed = PipelineError(message, failures=self._failures, confirmed=self.confirmed)
        if error is None:
            raise failed from first
        error.add_note(message)  # the block's own exception stays the one that is raised


def active_pipeline() -> Pipeline | None:
    """Return the pipeline this code runs inside, if any."""
    return _active.get()
