"""Clients that are not ours: one on aio-pika, and one that reads the bytes of a header table.

aio-pika decodes with pamqp, the library encodes with pika, so that neither hides a fault of the
other. Decoded values no longer show how they were written, hence the second client.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pamqp import commands, header
from pamqp.constants import FRAME_HEADER

from amqtask.topology.delay import delay_plan
from amqtask.topology.plan import DeclareQueue
from tests.helpers import TIMEOUT
from tests.raw import call, raw_channel, read_frame


class Peer:
    """Reads and writes messages by aio-pika, as any other program would.

    Args:
        channel: With publisher confirms.
    """

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel

    async def take(self, queue: str, *, timeout: float = TIMEOUT) -> Any:
        """Wait for the next message of a queue, and take it out.

        Returns:
            aio-pika's ``IncomingMessage``, as Any: its headers are a union of all that a
            header may be.
        """
        source = await self.channel.get_queue(queue, ensure=False)
        deadline = time.monotonic() + timeout
        while (message := await source.get(no_ack=True, fail=False)) is None:
            if time.monotonic() > deadline:
                pytest.fail(f"no message came to queue {queue!r} within {timeout:g} s")
            await asyncio.sleep(0.01)
        return message

    async def size(self, queue: str) -> int:
        """Return how many messages are ready in a queue."""
        source = await self.channel.declare_queue(queue, passive=True)
        return source.declaration_result.message_count or 0

    async def send(
        self,
        queue: str,
        body: Any,
        headers: Mapping[str, Any] | None = None,
        *,
        routing_key: str | None = None,
        exchange: str = "",
        **properties: Any,
    ) -> None:
        """Publish to a queue; a body that is no bytes is sent as JSON."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        said = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
        message = aio_pika.Message(body, headers=dict(headers or {}), **said)
        target = (
            await self.channel.get_exchange(exchange, ensure=False)
            if exchange
            else self.channel.default_exchange
        )
        await target.publish(message, routing_key=queue if routing_key is None else routing_key)

    async def reply_queue(self) -> str:
        """Make a queue for replies; it goes with the connection."""
        return (await self.channel.declare_queue(exclusive=True)).name


def exact(value: Any) -> Any:
    """Return a value with its types, as ``0 == False`` and ``5 == 5.0`` on their own."""
    if isinstance(value, Mapping):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return type(value).__name__, value


# -- how values are written -----------------------------------------------------

_WIDTHS = {b"I": 4, b"l": 8, b"d": 8, b"T": 8, b"t": 1, b"V": 0, b"D": 5}


def read_raw(url: str, queue: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take a message out of a queue and return how it is written.

    Returns:
        The basic properties that are there, and the type letter of each header: a list of
        them for an array, a dict for a table.

    Source:
        AMQP 0-9-1 specification, sections 2.3.5 and 4.2.5.
    """
    with raw_channel(url) as stream:
        call(stream, commands.Basic.Get(queue=queue, no_ack=True))
        kind, payload = read_frame(stream)
    assert kind == FRAME_HEADER
    content = header.ContentHeader()
    content.unmarshal(payload)
    table = memoryview(payload)[14:]  # after class, weight, size and flags
    for _ in ("content_type", "content_encoding"):
        table = table[1 + table[0] :]
    properties = {name: value for name, value in content.properties if value is not None}
    del properties["headers"]
    return properties, _table(table)[0]


def _table(data: memoryview) -> tuple[dict[str, Any], memoryview]:
    size = int.from_bytes(data[:4])
    inside, rest = data[4 : 4 + size], data[4 + size :]
    kinds = {}
    while inside:
        name = bytes(inside[1 : 1 + inside[0]]).decode()
        kinds[name], inside = _value(inside[1 + inside[0] :])
    return kinds, rest


def _value(data: memoryview) -> tuple[Any, memoryview]:
    kind, data = bytes(data[:1]), data[1:]
    if kind == b"F":
        return _table(data)
    if kind in (b"S", b"x", b"A"):
        size = int.from_bytes(data[:4])
        inside, rest = data[4 : 4 + size], data[4 + size :]
        if kind != b"A":
            return kind.decode(), rest
        kinds = []
        while inside:
            found, inside = _value(inside)
            kinds.append(found)
        return kinds, rest
    return kind.decode(), data[_WIDTHS[kind] :]


def waited_ms(headers: Mapping[str, Any], prefix: str) -> int:
    """Return the milliseconds that a message was kept by the delay levels it came through."""
    waits = {
        step.name: step.arguments["x-message-ttl"]
        for step in delay_plan(prefix).steps
        if isinstance(step, DeclareQueue) and "x-message-ttl" in step.arguments
    }
    return sum(waits[death["queue"]] for death in headers.get("x-death", []))
