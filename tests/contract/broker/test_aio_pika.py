"""The contract once more through aio-pika: another codec, another way to wait.

Not every rule again, but every room of the broker: what this client hides or does otherwise than
pika shows here. This half declares, routes and publishes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import aio_pika
import pytest
from aio_pika import ExchangeType, Message
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import FieldTable

from tests.contract.broker.aclients import drain, fetch, publish
from tests.helpers import TIMEOUT

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


# -- exchanges and routing ----------------------------------------------------


async def test_topic_routes(achannel, adeclare, names):
    exchange = await achannel.declare_exchange(names.exchange(), ExchangeType.TOPIC)
    one, two = await adeclare(word="one"), await adeclare(word="two")
    await one.bind(exchange, "a.*")
    await two.bind(exchange, "#")
    await exchange.publish(Message(b"1"), "a.b")
    await exchange.publish(Message(b"2"), "a.b.c")
    assert (await drain(one), await drain(two)) == (["1"], ["1", "2"])
    await two.unbind(exchange, "#")
    await exchange.publish(Message(b"3"), "a.b", mandatory=False)
    assert (await drain(one), await drain(two)) == (["3"], [])


async def test_headers_route(achannel, adeclare, names):
    exchange = await achannel.declare_exchange(names.exchange(), ExchangeType.HEADERS)
    queue = await adeclare()
    await queue.bind(exchange, arguments={"x-match": "any", "a": 1, "b": "two"})
    offered: list[FieldTable] = [{"a": 1}, {"a": 2}, {"b": "two", "c": None}]
    for headers in offered:
        message = Message(b"", headers=headers)
        await exchange.publish(message, "", mandatory=False)
    assert len(await drain(queue)) == 2


async def test_exchange_to_exchange(achannel, adeclare, names):
    outer = await achannel.declare_exchange(names.exchange("outer"), ExchangeType.FANOUT)
    inner = await achannel.declare_exchange(names.exchange("inner"), internal=True)
    queue = await adeclare()
    await inner.bind(outer, "key")
    await queue.bind(inner, "key")
    await outer.publish(Message(b"through"), "key")
    assert await drain(queue) == ["through"]
    await inner.unbind(outer, "key")
    await outer.publish(Message(b"lost"), "key", mandatory=False)
    assert await drain(queue) == []


async def test_alternate_exchange(achannel, adeclare, names):
    other = await achannel.declare_exchange(names.exchange("other"), ExchangeType.FANOUT)
    main = await achannel.declare_exchange(
        names.exchange("main"), arguments={"alternate-exchange": other.name}
    )
    queue = await adeclare()
    await queue.bind(other)
    await main.publish(Message(b"caught"), "unknown")
    assert await drain(queue) == ["caught"]


async def test_auto_delete_exchange(aconnection, achannel, adeclare, names):
    exchange = await achannel.declare_exchange(names.exchange(), auto_delete=True)
    queue = await adeclare()
    await queue.bind(exchange, "key")
    await queue.unbind(exchange, "key")
    with pytest.raises(ChannelNotFoundEntity):
        await achannel.get_exchange(exchange.name)


# -- errors -------------------------------------------------------------------


async def test_missing_queue(achannel, names, here):
    name = names.queue()
    with pytest.raises(ChannelNotFoundEntity, match=f"NOT_FOUND - no queue '{name}' {here}"):
        await achannel.get_queue(name)


async def test_missing_exchange(achannel, names, here):
    name = names.exchange()
    with pytest.raises(ChannelNotFoundEntity, match=f"NOT_FOUND - no exchange '{name}' {here}"):
        await achannel.get_exchange(name)


async def test_declared_otherwise(achannel, adeclare):
    queue = await adeclare()
    with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'x-message-ttl'"):
        await achannel.declare_queue(queue.name, durable=True, arguments={"x-message-ttl": 1})


async def test_reserved_name(achannel):
    with pytest.raises(ChannelAccessRefused, match=r"contains reserved prefix 'amq\.\*'"):
        await achannel.declare_queue("amq.test")


async def test_exclusive_queue_of_another(url, achannel, names):
    name = names.queue()
    await achannel.declare_queue(name, exclusive=True)
    async with await aio_pika.connect(url, timeout=TIMEOUT) as other:
        channel = await other.channel()
        with pytest.raises(ChannelLockedResource, match="RESOURCE_LOCKED"):
            await channel.declare_queue(name, exclusive=True)


async def test_closed_channel_leaves_the_others(aconnection, achannel, names):
    broken = await aconnection.channel()
    with pytest.raises(ChannelNotFoundEntity):
        await broken.get_queue(names.queue("missing"))
    queue = await achannel.declare_queue(names.queue(), exclusive=True)
    assert queue.declaration_result.message_count == 0


async def test_closed_channel_opens_again(achannel, names):
    with pytest.raises(ChannelNotFoundEntity):
        await achannel.get_queue(names.queue("missing"))
    await achannel.reopen()
    await achannel.declare_queue(names.queue(), exclusive=True)


# -- publishing ---------------------------------------------------------------


async def test_confirms_of_many_at_once(achannel, adeclare):
    queue = await adeclare()
    await asyncio.gather(*(publish(achannel, queue, str(number)) for number in range(300)))
    assert sorted(map(int, await drain(queue))) == list(range(300))


async def test_mandatory_comes_back(achannel, aconnection):
    back = await publish(achannel, "nosuch", "back", message_id="m")
    assert (back.body, back.header.properties.message_id) == (b"back", "m")
    assert (back.delivery.reply_code, back.delivery.reply_text) == (312, "NO_ROUTE")
    raising = await aconnection.channel(on_return_raises=True)
    with pytest.raises(PublishError):
        await publish(raising, "nosuch", "back")


async def test_full_queue_nacks(achannel, adeclare):
    queue = await adeclare(max_length=1, overflow="reject-publish")
    await publish(achannel, queue, "a")
    with pytest.raises(DeliveryError):
        await publish(achannel, queue, "b")
    assert await drain(queue) == ["a"]


async def test_missing_exchange_ends_the_channel(aconnection, names):
    channel = await aconnection.channel()
    exchange = await channel.get_exchange(names.exchange(), ensure=False)
    with pytest.raises(ChannelNotFoundEntity):
        await exchange.publish(Message(b"lost"), "key")


async def test_without_confirms(aconnection, names):
    channel = await aconnection.channel(publisher_confirms=False)
    queue = await channel.declare_queue(names.queue())
    for body in "abc":
        await publish(channel, queue, body)
    assert [(await fetch(queue, no_ack=True)).body for _ in range(3)] == [b"a", b"b", b"c"]


async def test_transaction(aconnection, names):
    channel = await aconnection.channel(publisher_confirms=False)
    queue = await channel.declare_queue(names.queue())
    async with channel.transaction():
        await publish(channel, queue, "committed")
        assert await drain(queue) == []
    transaction = channel.transaction()
    await transaction.select()
    await publish(channel, queue, "rolled back")
    await transaction.rollback()
    assert await drain(queue) == ["committed"]


# -- messages -----------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
async def test_body_of_any_size(achannel, adeclare, kind, size):
    queue = await adeclare(kind)
    octets = (bytes(range(251)) * (size // 251 + 1))[:size]
    await publish(achannel, queue, octets)
    assert (await fetch(queue, no_ack=True)).body == octets


async def test_properties_come_as_they_went(achannel, adeclare):
    queue = await adeclare()
    properties: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "priority": 7,
        "correlation_id": "correlation",
        "reply_to": "reply",
        "message_id": "message",
        "type": "type",
        "user_id": "guest",
        "app_id": "app",
    }
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    headers = {
        "text": "grüße",
        "number": -5,
        "large": 1 << 40,
        "truth": True,
        "half": 0.5,
        "nothing": None,
        "list": [1, "two", [3]],
        "table": {"inner": {"deep": 1}},
        "moment": moment,
    }
    await publish(
        achannel,
        queue,
        timestamp=moment,
        expiration=600,
        delivery_mode=2,
        headers=headers,
        **properties,
    )
    message = await fetch(queue, no_ack=True)
    assert {key: getattr(message, key) for key in properties} == properties
    assert message.headers == headers
    assert message.timestamp == moment
    assert message.expiration == 600
    assert message.delivery_mode == 2
