"""The baseline: the same work on bare pika, written as fast as pika's public calls allow.

Messages have the body, properties and headers of amqtask's, and an id of their own each: those
are what a Celery-compatible message is, whoever sends it. `cases` compares one of each.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

#: Unconfirmed messages at once, as amqtask's publisher has.
WINDOW = 4096
#: Messages published between two looks at the socket.
BURST = 64
WARM_UP = 500
#: Seconds without a message after which a queue counts as empty.
QUIET = 1.0

BODY = b'[[],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
HEADERS: dict[str, Any] = {
    "lang": "py",
    "task": "tests.bench.tasks.noop",
    "id": "",
    "root_id": "",
    "parent_id": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "eta": None,
    "expires": None,
    "timelimit": [None, None],
    "shadow": None,
    "argsrepr": "()",
    "kwargsrepr": "{}",
    "origin": f"amqtask{os.getpid()}@{socket.gethostname()}",
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}


def properties(reply_to: str = "") -> BasicProperties:
    """Return the properties of a new call."""
    id_ = str(uuid.uuid4())
    return BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={**HEADERS, "id": id_, "root_id": id_},
        delivery_mode=2,
        priority=0,
        correlation_id=id_,
        reply_to=reply_to,
        message_id=id_,
        timestamp=int(time.time()),
    )


def pipelined(url: str, exchange: str, queue: str, count: int) -> dict[str, Any]:
    """Publish over the asyncio adapter, up to `WINDOW` unconfirmed at once."""

    async def main() -> dict[str, Any]:
        connection, channel = await open_channel(url)
        loop = asyncio.get_running_loop()
        unconfirmed: set[int] = set()
        sent, goal = 0, 0
        done: asyncio.Future[None] = loop.create_future()

        def pump() -> None:
            nonlocal sent
            for _ in range(BURST):
                if sent == goal or len(unconfirmed) >= WINDOW:
                    return
                sent += 1
                unconfirmed.add(sent)
                channel.basic_publish(exchange, queue, BODY, properties(), mandatory=True)
            loop.call_soon(pump)

        def on_confirm(frame: Any) -> None:
            method = frame.method
            assert isinstance(method, Basic.Ack), "the broker refused a message"
            full = len(unconfirmed) >= WINDOW
            if method.multiple:
                unconfirmed.difference_update([t for t in unconfirmed if t <= method.delivery_tag])
            else:
                unconfirmed.discard(method.delivery_tag)
            if full:
                loop.call_soon(pump)
            if sent == goal and not unconfirmed and not done.done():
                done.set_result(None)

        await confirm(channel, on_confirm)
        goal = WARM_UP
        pump()
        await done
        done, goal = loop.create_future(), WARM_UP + count
        began, used = time.perf_counter(), time.process_time()
        pump()
        await done
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        connection.close()
        return {"count": count, "seconds": seconds, "cpu": cpu}

    return asyncio.run(main())


def one_by_one(url: str, exchange: str, queue: str, count: int, threads: int) -> dict[str, Any]:
    """Publish from some threads, each on a blocking connection of its own, as pika asks for."""
    each = count // threads
    start = threading.Barrier(threads + 1)
    failed: list[BaseException] = []

    def publish() -> None:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        channel.confirm_delivery()

        def send(times: int) -> None:
            for _ in range(times):
                channel.basic_publish(exchange, queue, BODY, properties(), mandatory=True)

        try:
            send(WARM_UP // threads)
            start.wait()
            send(each)
        except Exception as error:
            failed.append(error)
            start.abort()
        connection.close()

    workers = [threading.Thread(target=publish) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began, used = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.join()
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    if failed:
        raise failed[0]
    return {"count": each * threads, "seconds": seconds, "cpu": cpu}


def drain(url: str, queue: str, count: int, prefetch: int, coalesced: bool) -> dict[str, Any]:
    """Take messages and ack them, one by one or all of a turn of the loop at once."""
    taken = asyncio.run(_take(url, queue, prefetch, coalesced, count))
    return {"count": count, "seconds": taken.last - taken.first, "cpu": taken.cpu}


def drain_by(url: str, queue: str, count: int, prefetch: int, processes: int) -> dict[str, Any]:
    """Take messages in several processes, and ack all of a turn of the loop at once."""
    with ProcessPoolExecutor(processes) as pool:
        shares = [pool.submit(_share, url, queue, prefetch) for _ in range(processes)]
        taken = [each for share in shares if (each := share.result()).count]
    assert sum(each.count for each in taken) == count, "messages were left, or came twice"
    seconds = max(each.last for each in taken) - min(each.first for each in taken)
    return {"count": count, "seconds": seconds, "cpu": sum(each.cpu for each in taken)}


def _share(url: str, queue: str, prefetch: int) -> _Taken:
    return asyncio.run(_take(url, queue, prefetch, coalesced=True))


@dataclass
class _Taken:
    """What one consumer took, from its first message to its last.

    Attributes:
        first: When that came, on the clock of all processes of this machine.
        cpu: Seconds of the processor's time between the two.
    """

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    cpu: float = 0.0


async def _take(
    url: str, queue: str, prefetch: int, coalesced: bool, count: int | None = None
) -> _Taken:
    """Take and ack ``count`` messages, or all until no more come."""
    connection, channel = await open_channel(url)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    taken, unacked, used = _Taken(), 0, 0.0

    def note_end() -> None:
        taken.last, taken.cpu = time.perf_counter(), time.process_time() - used

    def flush() -> None:
        nonlocal unacked
        channel.basic_ack(taken.count, multiple=True)
        unacked = 0
        if count is None:  # any message may be the last one
            note_end()

    def on_message(_: Channel, method: Basic.Deliver, __: BasicProperties, ___: bytes) -> None:
        nonlocal unacked, used
        if not taken.count:
            taken.first, used = time.perf_counter(), time.process_time()
        taken.count += 1
        if not coalesced:
            channel.basic_ack(method.delivery_tag)
        else:
            unacked += 1
            if unacked == 1:
                loop.call_soon(flush)
        if taken.count == count:
            note_end()
            done.set_result(None)

    channel.basic_qos(prefetch_count=prefetch)
    channel.basic_consume(queue, on_message)
    if count is not None:
        await done
    else:
        before = -1
        while taken.count != before:
            before = taken.count
            await asyncio.sleep(QUIET)
    await close(connection)
    return taken


def finish() -> None:
    """Nothing is left open."""


async def open_channel(url: str) -> tuple[AsyncioConnection, Channel]:
    """Connect, and open a channel."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()
    connection = AsyncioConnection(
        pika.URLParameters(url),
        on_open_callback=opened.set_result,
        on_open_error_callback=lambda _, error: opened.set_exception(error),
        custom_ioloop=loop,
    )
    await opened
    channel: asyncio.Future[Channel] = loop.create_future()
    connection.channel(on_open_callback=channel.set_result)
    return connection, await channel


async def confirm(channel: Channel, on_confirm: Callable[[Any], None]) -> None:
    """Ask for confirms."""
    agreed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    channel.confirm_delivery(on_confirm, callback=agreed.set_result)
    await agreed


async def close(connection: AsyncioConnection) -> None:
    """Write what is buffered, and disconnect."""
    # the loop has to run on until what is buffered, the last acks, is written
    closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    connection.add_on_close_callback(lambda *_: closed.set_result(None))
    connection.close()
    await closed
