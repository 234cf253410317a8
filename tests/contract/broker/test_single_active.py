"""Single active consumer: one gets everything, the others wait for its place."""

from __future__ import annotations

import pytest

from tests.contract.broker.clients import (
    Inbox,
    channel_closed,
    consumers,
    fetch,
    publish,
    refusal,
)
from tests.contract.broker.differences import SINGLE_ACTIVE_PRIORITY

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


@pytest.fixture
def queue(channel, names):
    def make(kind):
        name = names.queue()
        channel.queue_declare(
            name,
            durable=True,
            arguments={"x-queue-type": kind, "x-single-active-consumer": True},
        )
        return name

    return make


@KINDS
def test_first_consumer_gets_all(channel, queue, kind):
    name = queue(kind)
    active, waiting = Inbox(channel, name), Inbox(channel, name)
    for body in "abc":
        publish(channel, name, body)
    assert active.bodies(3) == ["a", "b", "c"]
    assert waiting.silent()
    # a quorum queue counts only the consumers that get something
    assert consumers(channel, name) == (2 if kind == "classic" else 1)


@KINDS
def test_next_one_follows_a_cancelled_one(channel, queue, kind):
    name = queue(kind)
    active, second, third = (Inbox(channel, name, auto_ack=True) for _ in range(3))
    publish(channel, name, "a")
    assert active.bodies(1) == ["a"]
    channel.basic_cancel(active.tag)
    publish(channel, name, "b")
    assert second.bodies(1) == ["b"]
    assert third.silent()


@KINDS
def test_next_one_follows_a_lost_connection_and_gets_what_it_left(channel, connect, queue, kind):
    name = queue(kind)
    first = connect()
    active = Inbox(first.channel(), name)
    waiting = Inbox(channel, name)
    for body in "abc":
        publish(channel, name, body)
    assert active.bodies(3) == ["a", "b", "c"]
    first.close()
    taken = waiting.take(3)
    assert [delivery.body for delivery in taken] == [b"a", b"b", b"c"]
    assert all(delivery.method.redelivered for delivery in taken)


@KINDS
def test_full_prefetch_does_not_pass_it_on(channel, connection, queue, kind):
    """The others do not help out: order is the point."""
    name = queue(kind)
    channel.basic_qos(prefetch_count=1)
    active, waiting = Inbox(channel, name), Inbox(channel, name)
    publish(channel, name, "a")
    publish(channel, name, "b")
    first = active.take()[0]
    assert waiting.silent()
    channel.basic_ack(first.tag)
    assert active.bodies(1) == ["b"]


def test_higher_priority_waits_for_the_unacked(channel, queue, contract_broker):
    """The place passes on when its holder has settled what it has, so nothing is overtaken."""
    name = queue("quorum")
    channel.basic_qos(prefetch_count=1)
    normal = Inbox(channel, name)
    publish(channel, name, "a")
    publish(channel, name, "b")
    first = normal.take()[0]
    high = Inbox(channel, name, arguments={"x-priority": 5})
    assert high.silent()
    channel.basic_ack(first.tag)
    heeded = contract_broker.expects(SINGLE_ACTIVE_PRIORITY)
    assert (high if heeded else normal).bodies(1) == ["b"]


def test_higher_priority_takes_an_idle_place(channel, queue, contract_broker):
    name = queue("quorum")
    normal = Inbox(channel, name)
    high = Inbox(channel, name, arguments={"x-priority": 5})
    publish(channel, name, "a")
    heeded = contract_broker.expects(SINGLE_ACTIVE_PRIORITY)
    assert (high if heeded else normal).bodies(1) == ["a"]


def test_classic_queues_heed_no_priority_there(channel, queue):
    name = queue("classic")
    normal = Inbox(channel, name)
    Inbox(channel, name, arguments={"x-priority": 5})
    publish(channel, name, "a")
    assert normal.bodies(1) == ["a"]


def test_exclusive_consumers_are_refused(channel, queue, here):
    name = queue("classic")
    assert refusal(Inbox, channel, name, exclusive=True) == channel_closed(
        403, f"ACCESS_REFUSED - queue '{name}' {here} in exclusive use"
    )


def test_get_is_no_consumer(channel, queue):
    name = queue("classic")
    publish(channel, name, "a")
    assert fetch(channel, name).body == b"a"


def test_get_is_refused_by_a_quorum_queue(channel, queue, here):
    name = queue("quorum")
    assert refusal(channel.basic_get, name) == channel_closed(
        405,
        f"RESOURCE_LOCKED - cannot obtain access to locked queue '{name}' {here}. basic.get "
        "operations are not supported by quorum queues with single active consumer",
    )
