"""The contract once more through aio-pika, second half: consuming, dead letters, answers."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import QueueEmpty
from aio_pika.patterns import RPC
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelPreconditionFailed,
)

from tests.contract.broker.aclients import Inbox, drain, fetch, publish
from tests.helpers import TIMEOUT

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])
REPLY_TO = "amq.rabbitmq.reply-to"


# -- consuming ----------------------------------------------------------------


@KINDS
async def test_consume_and_ack(achannel, adeclare, kind):
    queue = await adeclare(kind)
    inbox = await Inbox.of(queue)
    for body in "abc":
        await publish(achannel, queue, body)
    for message in await inbox.take(3):
        assert not message.redelivered
        await message.ack()
    await queue.cancel(inbox.tag)
    assert await drain(queue) == []


@KINDS
async def test_iterate(achannel, adeclare, kind):
    queue = await adeclare(kind)
    for number in range(20):
        await publish(achannel, queue, str(number))
    bodies = []
    await achannel.set_qos(prefetch_count=5)
    async with asyncio.timeout(TIMEOUT), queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                bodies.append(message.body.decode())
            if len(bodies) == 20:
                break
    assert bodies == [str(number) for number in range(20)]


@KINDS
async def test_prefetch(achannel, adeclare, kind):
    queue = await adeclare(kind)
    for body in "abcde":
        await publish(achannel, queue, body)
    await achannel.set_qos(prefetch_count=2)
    inbox = await Inbox.of(queue)
    first, _ = await inbox.take(2)
    assert inbox.messages.empty()
    await first.ack()
    assert await inbox.bodies(1) == ["c"]


@KINDS
async def test_given_back_comes_again(achannel, adeclare, kind):
    queue = await adeclare(kind)
    inbox = await Inbox.of(queue)
    await publish(achannel, queue, "again")
    (message,) = await inbox.take()
    await message.nack(requeue=True)
    (message,) = await inbox.take()
    assert message.redelivered
    await message.reject(requeue=True)
    (message,) = await inbox.take()
    await message.ack()


async def test_ack_multiple(aconnection, achannel, adeclare):
    queue = await adeclare()
    for body in "abc":
        await publish(achannel, queue, body)
    messages = [await fetch(queue) for _ in range(3)]
    await messages[1].ack(multiple=True)
    await achannel.close()
    channel = await aconnection.channel()
    again = await channel.get_queue(queue.name)
    assert (await fetch(again, no_ack=True)).body == b"c"
    assert await drain(again) == []


async def test_get_of_nothing(adeclare):
    with pytest.raises(QueueEmpty):
        await (await adeclare()).get()


async def test_exclusive_consumer(aconnection, adeclare):
    queue = await adeclare()
    await Inbox.of(queue, exclusive=True)
    other = await (await aconnection.channel()).get_queue(queue.name)
    with pytest.raises(ChannelAccessRefused, match="in exclusive use"):
        await Inbox.of(other)


async def test_consumer_priority(achannel, adeclare):
    queue = await adeclare()
    await Inbox.of(queue)
    high = await Inbox.of(queue, arguments={"x-priority": 5})
    for body in "abc":
        await publish(achannel, queue, body)
    assert await high.bodies(3) == ["a", "b", "c"]


async def test_single_active_consumer(achannel, adeclare):
    queue = await adeclare(single_active_consumer=True)
    active, waiting = await Inbox.of(queue), await Inbox.of(queue)
    await publish(achannel, queue, "a")
    (message,) = await active.take()
    await message.ack()
    await queue.cancel(active.tag)
    await publish(achannel, queue, "b")
    assert await waiting.bodies(1) == ["b"]


async def test_deleted_queue_leaves_the_channel(aconnection, achannel, adeclare):
    """The broker cancels the consumer; the channel may go on with another queue."""
    queue, other = await adeclare(), await adeclare(word="other")
    await Inbox.of(queue)
    await (await aconnection.channel()).queue_delete(queue.name)
    inbox = await Inbox.of(other)
    await publish(achannel, other, "goes on")
    assert await inbox.bodies(1) == ["goes on"]


# -- dead letters, times, priorities ------------------------------------------


@KINDS
async def test_dead_letter(achannel, adeclare, kind):
    dead = await adeclare(word="target")
    queue = await adeclare(kind, dead_letter_exchange="", dead_letter_routing_key=dead.name)
    await publish(achannel, queue, "dead")
    await (await fetch(queue)).reject(requeue=False)
    message = await fetch(dead, no_ack=True)
    headers: dict[str, Any] = message.headers
    (death,) = headers["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("rejected", queue.name, 1)
    assert isinstance(death["time"], dt.datetime)


@KINDS
async def test_expiry(achannel, adeclare, kind):
    dead = await adeclare(word="target")
    queue = await adeclare(kind, dead_letter_exchange="", dead_letter_routing_key=dead.name)
    await publish(achannel, queue, "late", expiration=0.03)
    message = await fetch(dead, no_ack=True)
    assert message.headers["x-first-death-reason"] == "expired"
    assert message.expiration is None


async def test_delivery_limit(achannel, adeclare):
    dead = await adeclare(word="target")
    queue = await adeclare(
        "quorum", delivery_limit=1, dead_letter_exchange="", dead_letter_routing_key=dead.name
    )
    await publish(achannel, queue, "poison")
    await (await fetch(queue)).reject(requeue=True)
    message = await fetch(queue)
    assert message.headers["x-delivery-count"] == 1
    await message.reject(requeue=True)
    assert (await fetch(dead, no_ack=True)).headers["x-first-death-reason"] == "delivery_limit"


async def test_priorities(achannel, adeclare):
    queue = await adeclare(max_priority=3)
    for body, priority in (("low", 1), ("high", 3), ("none", None)):
        await publish(achannel, queue, body, priority=priority)
    assert await drain(queue) == ["high", "low", "none"]


async def test_max_length(achannel, adeclare):
    queue = await adeclare(max_length=2)
    for body in "abc":
        await publish(achannel, queue, body)
    assert await drain(queue) == ["b", "c"]


async def test_purge_and_delete(achannel, adeclare):
    queue = await adeclare()
    await publish(achannel, queue, "a")
    assert (await queue.purge()).message_count == 1
    await publish(achannel, queue, "b")
    with pytest.raises(ChannelPreconditionFailed, match="not empty"):
        await queue.delete(if_empty=True)


# -- answers ------------------------------------------------------------------


async def test_direct_reply_to(aconnection, achannel, adeclare):
    questions = await adeclare()
    asking = await aconnection.channel()
    answers = await Inbox.of(await asking.get_queue(REPLY_TO, ensure=False), no_ack=True)
    await publish(asking, questions, "question", reply_to=REPLY_TO, correlation_id="c")
    question = await fetch(questions, no_ack=True)
    assert question.reply_to is not None
    assert question.reply_to.startswith(f"{REPLY_TO}.")
    await publish(achannel, question.reply_to, "answer", correlation_id=question.correlation_id)
    (answer,) = await answers.take()
    assert (answer.body, answer.correlation_id) == (b"answer", "c")


@pytest.fixture
async def rpc(aconnection) -> AsyncIterator[RPC]:
    """The client's own pattern: an exclusive reply queue, a dead-letter exchange, expirations."""
    made = await RPC.create(await aconnection.channel())
    yield made
    await made.close()


async def test_rpc_pattern(rpc, names):
    async def double(*, number: int) -> int:
        return 2 * number

    name = names.queue()
    await rpc.register(name, double, auto_delete=True)
    async with asyncio.timeout(TIMEOUT):
        answers = await asyncio.gather(
            *(rpc.call(name, kwargs={"number": number}) for number in range(20))
        )
    assert answers == [2 * number for number in range(20)]


async def test_robust_connection(url, names):
    """The kind that restores itself works the same while nothing breaks."""
    async with await aio_pika.connect_robust(url, timeout=TIMEOUT) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(names.queue(), exclusive=True)
        inbox = await Inbox.of(queue, no_ack=True)
        await publish(channel, queue, "a")
        assert await inbox.bodies(1) == ["a"]


async def test_unknown_delivery_tag_ends_the_channel(aconnection):
    channel = await aconnection.channel()
    under = await channel.get_underlay_channel()
    await under.basic_ack(7)
    with pytest.raises(ChannelPreconditionFailed, match="unknown delivery tag 7"):
        await under.basic_qos(prefetch_count=1)
