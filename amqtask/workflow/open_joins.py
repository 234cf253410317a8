"""The chords that are open: listed, looked at, and given up by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol, TypeVar

from amqtask.errors import NoAnswer
from amqtask.message import encode
from amqtask.transport import Publication
from amqtask.workflow.alarm import OpenJoin, Waiting, target_of
from amqtask.workflow.join_queue import QueueJoins
from amqtask.workflow.join_store import StoreJoins

if TYPE_CHECKING:
    from amqtask.app import App

T = TypeVar("T")


class _Keeps(Protocol):
    async def listing(self, most: int) -> list[OpenJoin]: ...

    async def find(self, group_id: str) -> OpenJoin | None: ...


class OpenJoins:
    """The open chords of an app, wherever they are kept.

    Args:
        app: Its connections and settings.
        timeout: Seconds for the broker and the store to answer.

    Threads: every method blocks, and none may be called from the I/O loop.
    """

    def __init__(self, app: App, timeout: float = 30.0) -> None:
        self._app = app
        self._timeout = timeout
        joins = app.joins
        self._kept: list[_Keeps] = [joins] if isinstance(joins, StoreJoins) else []
        # a backend may have been set when the broker had chords already
        self._kept.append(joins if isinstance(joins, QueueJoins) else QueueJoins(app))

    def list(self, most: int = 1000) -> list[OpenJoin]:
        """Return chords that are open, the first to be given up first.

        Those that the broker joins are listed once they have waited for five minutes.

        Raises:
            BackendError: The store keeps no list, or does not answer.
            TransportError: The broker refuses it.
            NoAnswer: It took too long.
        """
        found = [row for kept in self._kept for row in self._run(kept.listing(most))]
        return sorted(found, key=lambda row: row.due)[:most]

    def find(self, group_id: str) -> OpenJoin | None:
        """Return one chord, by the id of its header; None where it is not open. Raises as `list`."""
        for kept in self._kept:
            if (found := self._run(kept.find(group_id))) is not None:
                return found
        return None

    def give_up(self, waiting: Waiting) -> None:
        """Have a worker of the body's queue give a chord up, as if its time were over.

        Delivery: the request is a confirmed message; a chord that is joined first stays so.

        Raises:
            PublishError: The broker did not take it.
        """
        queue = self._app.queue(target_of(self._app, waiting.body))
        timeout = self._app.settings.publish_timeout
        publication = Publication(
            encode(waiting.alarm(by_hand=True)),
            "",
            queue.name,
            requires=(self._app.sender.queue_requirement(queue),),
            deadline=time.monotonic() + timeout,
        )
        self._app.transport.publish_and_wait(publication, timeout)

    def _run(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            async with asyncio.timeout(self._timeout):
                return await work

        try:
            return self._app.transport.io.run(run(), self._timeout + 5.0)
        except TimeoutError:
            raise NoAnswer(
                f"open chords could not be read within {self._timeout:g} s",
                hint="see whether the broker and the result backend answer",
            ) from None
