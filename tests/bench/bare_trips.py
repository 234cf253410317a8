"""The baseline of calls that are answered, and of the way to an idle consumer, on bare pika."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from tests.bench.bare import BODY, close, confirm, open_channel, properties
from tests.bench.work import APART, clock, clocked, note_start, tail

_DIRECT = "amq.rabbitmq.reply-to"


def round_trips(url: str, exchange: str, queue: str, count: int, direct: bool) -> dict[str, Any]:
    """Send a call, confirmed, and wait for its answer: one after the other.

    Args:
        direct: Whether it comes by RabbitMQ's direct reply-to, or through a durable queue.
    """
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    reply_to = _DIRECT if direct else f"{queue}.reply"
    if not direct:
        channel.queue_declare(reply_to, durable=True, arguments={"x-expires": 60_000})
    answers: list[str | None] = []

    def on_answer(
        channel: BlockingChannel, method: Basic.Deliver, props: BasicProperties, _: bytes
    ) -> None:
        answers.append(props.correlation_id)
        if not direct:
            channel.basic_ack(method.delivery_tag)

    channel.basic_consume(reply_to, on_answer, auto_ack=direct)

    def ask() -> None:
        asked = properties(reply_to)
        channel.basic_publish(exchange, queue, BODY, asked, mandatory=True)
        while not answers:
            connection.process_data_events(time_limit=30)
        if answers.pop() != asked.correlation_id:
            raise AssertionError("the answer belongs to another call")

    for _ in range(20):
        ask()
    seconds = []
    began = clock()
    for _ in range(count):
        sent = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - sent)
    found = {**clocked(began, count), "tail": tail(seconds)}
    if not direct:
        channel.queue_delete(reply_to)
    connection.close()
    return found


def paced(url: str, exchange: str, queue: str, count: int) -> dict[str, Any]:
    """Send a message now and then that says when it was sent; see `listen`."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    began = clock()
    for _ in range(count):
        time.sleep(APART)
        sent = str(time.monotonic()).encode()
        channel.basic_publish(exchange, queue, sent, properties(), mandatory=True)
    found = clocked(began, count)
    connection.close()
    return found


def listen(url: str, queue: str, count: int, path: str) -> dict[str, Any]:
    """Note how long ago so many messages were sent, and write it down."""

    async def main() -> None:
        connection, channel = await open_channel(url)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = count

        def on_message(_: Channel, method: Basic.Deliver, __: BasicProperties, body: bytes) -> None:
            nonlocal left
            left -= 1
            note_start(float(body), "" if left else path)
            channel.basic_ack(method.delivery_tag)
            if not left:
                done.set_result(None)

        channel.basic_qos(prefetch_count=16)
        consuming = asyncio.get_running_loop().create_future()
        channel.basic_consume(queue, on_message, callback=consuming.set_result)
        await consuming
        print("ready", flush=True)
        await done
        await close(connection)

    asyncio.run(main())
    return {}


def serve(url: str, queue: str) -> dict[str, Any]:
    """Answer calls until standard input ends: each answer is confirmed before the call is acked."""

    async def main() -> None:
        _, channel = await open_channel(url)
        open_calls: dict[int, int] = {}
        answered = 0

        def on_confirm(frame: Any) -> None:
            tag = frame.method.delivery_tag
            for one in [t for t in open_calls if t == tag or (frame.method.multiple and t < tag)]:
                channel.basic_ack(open_calls.pop(one))

        def on_call(
            channel: Channel, method: Basic.Deliver, props: BasicProperties, body: bytes
        ) -> None:
            nonlocal answered
            answered += 1
            open_calls[answered] = method.delivery_tag
            answer = BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                correlation_id=props.correlation_id,
                delivery_mode=2,
            )
            channel.basic_publish("", props.reply_to, body, answer, mandatory=True)

        await confirm(channel, on_confirm)
        channel.basic_qos(prefetch_count=16)
        consuming = asyncio.get_running_loop().create_future()
        channel.basic_consume(queue, on_call, callback=consuming.set_result)
        await consuming
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
    return {}


def finish() -> None:
    """Nothing is left open."""
