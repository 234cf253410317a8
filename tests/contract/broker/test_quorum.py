"""What quorum queues do in their own way: they count returns, and put what comes back first."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    Delivery,
    Inbox,
    connection_closed,
    declare_dead_lettering,
    depth,
    drain,
    fetch,
    get,
    publish,
    refusal,
)
from tests.contract.broker.differences import (
    DEFAULT_DELIVERY_LIMIT,
    FIRST_DELIVERY_COUNT,
    QUORUM_RETURNS_TO_FRONT,
)
from tests.helpers import eventually


@pytest.fixture
def queue(channel, names):
    """Declares a quorum queue, with a target for dead letters, and returns its name."""

    def make(**arguments):
        name = names.queue()
        channel.queue_declare(f"{name}.dead", durable=True)
        declare_dead_lettering(channel, name, f"{name}.dead", "quorum", **arguments)
        return name

    return make


def give_back(channel: BlockingChannel, delivery: Delivery, verb: str) -> None:
    if verb == "reject":
        channel.basic_reject(delivery.tag, requeue=True)
    else:
        channel.basic_nack(delivery.tag, requeue=True)


@pytest.mark.parametrize("verb", ["reject", "nack"])
def test_returns_are_counted(channel, queue, contract_broker, verb):
    name = queue()
    publish(channel, name, "counted")
    counts: list[int | None] = []
    for _ in range(3):
        delivery = fetch(channel, name, auto_ack=False)
        assert delivery.method.redelivered == (len(counts) > 0)
        counts.append(delivery.headers.get("x-delivery-count"))
        give_back(channel, delivery, verb)
    assert counts == [contract_broker.expects(FIRST_DELIVERY_COUNT), 1, 2]


def test_lost_channel_counts(channel, connection, queue):
    name = queue()
    publish(channel, name, "counted")
    consuming = connection.channel()
    fetch(consuming, name, auto_ack=False)
    consuming.close()
    assert fetch(channel, name).headers["x-delivery-count"] == 1


def test_lost_connection_counts(channel, connect, queue):
    name = queue()
    publish(channel, name, "counted")
    consuming = connect()
    fetch(consuming.channel(), name, auto_ack=False)
    consuming.close()
    assert fetch(channel, name).headers["x-delivery-count"] == 1


@pytest.mark.parametrize("verb", ["reject", "nack"])
@pytest.mark.parametrize("limit", [0, 2])
def test_delivery_limit(channel, queue, verb, limit):
    """The limit is on returns: one delivery more than that, then it is a dead letter."""
    name = queue(delivery_limit=limit)
    publish(channel, name, "poison")
    for _ in range(limit + 1):
        give_back(channel, fetch(channel, name, auto_ack=False), verb)
    assert fetch(channel, f"{name}.dead").body == b"poison"
    assert get(channel, name) is None


def test_delivery_limit_without_a_dead_letter_exchange_drops(channel, names):
    name = names.queue()
    channel.queue_declare(
        name, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 0}
    )
    publish(channel, name, "poison")
    give_back(channel, fetch(channel, name, auto_ack=False), "reject")
    eventually(lambda: depth(channel, name) == 0)
    publish(channel, name, "next")
    assert fetch(channel, name).body == b"next"


def test_default_delivery_limit(channel, queue, contract_broker):
    limit = contract_broker.expects(DEFAULT_DELIVERY_LIMIT)
    name = queue()
    publish(channel, name, "poison")
    for _ in range((limit or 25) + 1):
        give_back(channel, fetch(channel, name, auto_ack=False), "reject")
    where = name if limit is None else f"{name}.dead"
    assert fetch(channel, where).body == b"poison"


def test_delivery_limit_of_minus_one_is_none(channel, queue, contract_broker):
    """The way to do without the default."""
    if contract_broker.expects(DEFAULT_DELIVERY_LIMIT) is None:
        pytest.skip("this version has no default to do without")
    name = queue(delivery_limit=-1)
    publish(channel, name, "poison")
    for _ in range(25):
        give_back(channel, fetch(channel, name, auto_ack=False), "reject")
    assert fetch(channel, name).headers["x-delivery-count"] == 25


def test_given_back_is_next_again(channel, queue, contract_broker):
    name = queue(delivery_limit=10)
    for body in "abc":
        publish(channel, name, body)
    give_back(channel, fetch(channel, name, auto_ack=False), "nack")
    assert [fetch(channel, name).body for _ in range(3)] == [b"a", b"b", b"c"]


def test_given_back_without_a_limit(channel, queue, contract_broker):
    name = queue()
    for body in "abc":
        publish(channel, name, body)
    give_back(channel, fetch(channel, name, auto_ack=False), "nack")
    eventually(lambda: depth(channel, name) == 3)
    front = contract_broker.expects(QUORUM_RETURNS_TO_FRONT)
    assert drain(channel, name) == (["a", "b", "c"] if front else ["b", "c", "a"])


def test_given_back_come_in_the_order_they_were_given_back(channel, queue):
    name = queue(delivery_limit=10)
    for body in "abcd":
        publish(channel, name, body)
    a, b, c = (fetch(channel, name, auto_ack=False) for _ in range(3))
    for delivery in (c, a, b):
        give_back(channel, delivery, "nack")
    assert [fetch(channel, name).body for _ in range(4)] == [b"c", b"a", b"b", b"d"]


def test_lost_channel_gives_back_in_the_order_of_delivery(channel, connection, queue):
    """The order is that of the tags, so what was delivered again comes last."""
    name = queue(delivery_limit=10)
    for body in "abc":
        publish(channel, name, body)
    holding = connection.channel()
    first, *_ = [fetch(holding, name, auto_ack=False) for _ in range(3)]
    give_back(holding, first, "nack")
    assert fetch(holding, name, auto_ack=False).body == b"a"
    holding.close()
    assert [fetch(channel, name).body for _ in range(3)] == [b"b", b"c", b"a"]


def test_global_prefetch_is_not_for_quorum_queues(channel, queue, here):
    name = queue()
    channel.basic_qos(prefetch_count=5, global_qos=True)
    assert refusal(Inbox, channel, name) == connection_closed(
        540, f"NOT_IMPLEMENTED - queue '{name}' {here} does not support global qos"
    )


def test_exclusive_consumer_is_not_exclusive(channel, queue):
    """A quorum queue takes the flag and ignores it."""
    name = queue()
    Inbox(channel, name, exclusive=True)
    Inbox(channel, name)


def test_purge_and_delete_count(channel, queue):
    name = queue()
    for body in "abc":
        publish(channel, name, body)
    assert channel.queue_purge(name).method.message_count == 3
    publish(channel, name, "d")
    assert channel.queue_delete(name).method.message_count == 1
