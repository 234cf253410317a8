"""Taskiq with taskiq-aio-pika. aio-pika always confirms. Best: acked when received; safe: after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.exchange import Exchange
from taskiq_aio_pika.queue import Queue

from tests.bench import work
from tests.bench.peers import said
from tests.bench.work import APART, clock, clocked

WARM_UP = 200
#: Calls awaited together; more at once are no faster.
GATHERED = 1000
_said = said()

broker = AioPikaBroker(
    _said.url,
    qos=500,
    exchange=Exchange(name=f"{_said.queue}.exchange"),
    task_queues=[Queue(name=_said.queue)],
    dead_letter_queue=Queue(name=f"{_said.queue}.dead"),
)


@broker.task
async def noop() -> None:
    """Do nothing."""


@broker.task
async def take(text: str) -> None:
    """Do nothing with an argument."""


@broker.task
async def mix() -> None:
    """Wait and compute."""
    await work.amix()


@broker.task
async def note(sent: float, path: str) -> None:
    """Note how long ago it was sent."""
    work.note_start(sent, path)


@broker.task
async def mark(path: str) -> None:
    """Write down when the stream of tasks came to here."""
    work.write_mark(path)


def bulk(count: int) -> dict[str, Any]:
    """Publish, many at a time."""

    async def main() -> dict[str, Any]:
        await broker.startup()
        await _gathered(WARM_UP)
        began = clock()
        await _gathered(count)
        found = clocked(began, count)
        await broker.shutdown()
        return found

    return asyncio.run(main())


def awaited(count: int) -> dict[str, Any]:
    """Publish, each awaited before the next."""

    async def main() -> dict[str, Any]:
        await broker.startup()
        await _gathered(WARM_UP)
        began = clock()
        for _ in range(count):
            await noop.kiq()
        found = clocked(began, count)
        await broker.shutdown()
        return found

    return asyncio.run(main())


def fill(count: int, marks: list[str], kind: str, size: int) -> dict[str, Any]:
    """Fill the queue with tasks, with marks spread evenly among them."""
    task, arguments = globals()[kind], ("x" * size,) if size else ()
    gaps = max(1, len(marks) - 1)

    async def main() -> dict[str, Any]:
        await broker.startup()
        began = clock()
        await mark.kiq(marks[0])
        for path in marks[1:]:
            await _gathered(count // gaps, lambda: task.kiq(*arguments))
            await mark.kiq(path)
        found = clocked(began, count)
        await broker.shutdown()
        return found

    return asyncio.run(main())


def paced(count: int, path: str) -> dict[str, Any]:
    """Call now and then, so that the worker has nothing else to do."""

    async def main() -> dict[str, Any]:
        await broker.startup()
        began = clock()
        for left in reversed(range(count)):
            await asyncio.sleep(APART)
            await note.kiq(time.monotonic(), "" if left else path)
        found = clocked(began, count)
        await broker.shutdown()
        return found

    return asyncio.run(main())


async def _gathered(count: int, call: Callable[[], Awaitable[Any]] = noop.kiq) -> None:
    for start in range(0, count, GATHERED):
        await asyncio.gather(*(call() for _ in range(min(GATHERED, count - start))))


def finish() -> None:
    """Nothing is left open."""
