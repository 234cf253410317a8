"""What both kinds of join do the same way: work on the I/O loop, and the end of a chord."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from amqtask.errors import CallError, ChordError, MessageTooLarge, ResultTooLarge
from amqtask.transport import IOThread
from amqtask.workflow.join_parts import Gathered, abandoned, failure
from amqtask.workflow.ports import Done, Follow, Part

log = logging.getLogger("amqtask.chord")

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class LoopWork:
    """Runs coroutines on an I/O thread, for callers that must not block.

    Threads: `run` from any thread.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, io: IOThread, work: Work, done: Done) -> None:
        """Run ``work`` there, and tell ``done`` how it ended."""

        async def run() -> None:
            error: Exception | None = None
            try:
                await work()
            except Exception as caught:  # what follows from it is the caller's to decide
                error = caught
            done(error)

        def start() -> None:
            task = asyncio.ensure_future(run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        io.post(start)


async def called(call: Callable[[Done], object]) -> None:
    """Call what takes a `Done`, and return once that is called.

    Raises:
        Exception: What it is called with.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    call(lambda error: loop.call_soon_threadsafe(settle, error))
    await future


async def conclude(part: Part, gathered: Gathered, follow: Follow) -> bool:
    """Send the body of a complete chord, or fail it; returns whether it was sent.

    A body that can never be sent fails: its arguments are too large, say.
    """
    if gathered.failed is not None:
        await fail(part, follow, failure(part.group_id, gathered.failed))
        return False
    try:
        await called(partial(follow.send_body, part, gathered.values))
    except (CallError, MessageTooLarge, ResultTooLarge) as error:
        await fail(part, follow, ChordError(f"chord {part.group_id} has no body: {error}"))
        return False
    log.info("chord.joined group=%s parts=%d", part.group_id, len(gathered.parts))
    return True


async def fail(part: Part, follow: Follow, error: ChordError) -> None:
    """End the body as failed."""
    await called(partial(follow.fail_body, part, error))
    log.warning("chord.failed group=%s error=%r: its body does not run", part.group_id, str(error))


async def give_up(part: Part, gathered: Gathered, why: str, follow: Follow) -> None:
    """End the body of a chord that nobody completes.

    Args:
        why: See `abandoned`.
    """
    error = abandoned(part.group_id, gathered, why)
    await called(partial(follow.fail_body, part, error))
    log.warning(
        "chord.given_up group=%s error=%r: its body does not run", part.group_id, str(error)
    )
