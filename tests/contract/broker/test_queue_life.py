"""Whose a queue is, and how it ends: exclusive, auto-delete, purged, deleted."""

from __future__ import annotations

import pytest

from tests.contract.broker.clients import (
    Inbox,
    channel_closed,
    connection_closed,
    consumers,
    depth,
    drain,
    exists,
    fetch,
    publish,
    refusal,
)
from tests.contract.broker.wire import Refused
from tests.helpers import eventually

QUORUM = {"x-queue-type": "quorum"}


def locked(name: str, here: str) -> Refused:
    return channel_closed(
        405,
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' {here}. "
        "It could be originally declared on another connection or the exclusive property value "
        "does not match that of the original declaration.",
    )


@pytest.fixture
def queue(channel, names):
    name = names.queue()
    channel.queue_declare(name, durable=True)
    return name


# -- exclusive ----------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda channel, name: channel.queue_declare(name, passive=True),
        lambda channel, name: channel.queue_declare(name, exclusive=True),
        lambda channel, name: channel.queue_declare(name),
        lambda channel, name: channel.queue_purge(name),
        lambda channel, name: channel.queue_delete(name),
        lambda channel, name: channel.basic_get(name),
        lambda channel, name: channel.basic_consume(name, print),
        lambda channel, name: channel.queue_bind(name, "amq.direct", "key"),
    ],
    ids=["passive", "exclusive", "shared", "purge", "delete", "get", "consume", "bind"],
)
def test_exclusive_is_for_one_connection(connect, names, here, call):
    name = names.queue()
    owner = connect().channel()
    owner.queue_declare(name, exclusive=True)
    assert refusal(call, connect().channel(), name) == locked(name, here)


def test_exclusive_takes_messages_of_all(connect, channel, names):
    """Only reading is the owner's; publishing needs no right to the queue."""
    name = names.queue()
    owner = connect().channel()
    owner.queue_declare(name, exclusive=True)
    publish(channel, name, "from outside")
    assert drain(owner, name) == ["from outside"]


def test_exclusive_is_for_all_channels_of_its_connection(connection, names):
    name = names.queue()
    connection.channel().queue_declare(name, exclusive=True)
    connection.channel().queue_declare(name, exclusive=True)


def test_exclusive_is_a_property_to_agree_about(channel, names, here):
    name = names.queue()
    channel.queue_declare(name, exclusive=True)
    assert refusal(channel.queue_declare, name) == locked(name, here)


def test_exclusive_goes_with_its_connection(connect, connection, names):
    name = names.queue()
    owner = connect()
    owner.channel().queue_declare(name, exclusive=True)
    owner.close()
    eventually(lambda: not exists(connection, name))


# -- auto-delete --------------------------------------------------------------


def test_auto_delete_goes_with_its_last_consumer(channel, connection, names):
    name = names.queue()
    channel.queue_declare(name, auto_delete=True)
    one, two = Inbox(channel, name), Inbox(channel, name)
    channel.basic_cancel(one.tag)
    assert exists(connection, name)
    channel.basic_cancel(two.tag)
    eventually(lambda: not exists(connection, name))


def test_auto_delete_goes_with_its_consumers_channel(connection, names):
    name = names.queue()
    consuming = connection.channel()
    consuming.queue_declare(name, auto_delete=True)
    Inbox(consuming, name)
    consuming.close()
    eventually(lambda: not exists(connection, name))


def test_auto_delete_without_a_consumer_stays(channel, connection, names):
    name = names.queue()
    channel.queue_declare(name, auto_delete=True)
    publish(channel, name, "got")
    assert drain(channel, name) == ["got"]
    assert exists(connection, name)


# -- purge and delete ---------------------------------------------------------


def test_purge_counts_what_it_drops(channel, queue):
    for body in "abc":
        publish(channel, queue, body)
    assert channel.queue_purge(queue).method.message_count == 3
    assert depth(channel, queue) == 0


def test_purge_spares_what_is_unacked(channel, queue):
    for body in "abc":
        publish(channel, queue, body)
    first = fetch(channel, queue, auto_ack=False)
    assert channel.queue_purge(queue).method.message_count == 2
    channel.basic_nack(first.tag, requeue=True)
    assert fetch(channel, queue).body == b"a"


def test_delete_counts_what_it_drops(channel, connection, queue):
    for body in "abc":
        publish(channel, queue, body)
    assert channel.queue_delete(queue).method.message_count == 3
    assert not exists(connection, queue)


def test_delete_if_unused(channel, here, queue):
    Inbox(channel, queue)
    assert refusal(channel.queue_delete, queue, if_unused=True) == channel_closed(
        406, f"PRECONDITION_FAILED - queue '{queue}' {here} in use"
    )


def test_delete_if_unused_when_it_is(channel, connection, queue):
    publish(channel, queue, "dropped")
    channel.queue_delete(queue, if_unused=True)
    assert not exists(connection, queue)


def test_delete_if_empty(channel, here, queue):
    publish(channel, queue, "kept")
    assert refusal(channel.queue_delete, queue, if_empty=True) == channel_closed(
        406, f"PRECONDITION_FAILED - queue '{queue}' {here} not empty"
    )


def test_delete_if_empty_when_it_is(channel, connection, queue):
    channel.queue_delete(queue, if_empty=True)
    assert not exists(connection, queue)


@pytest.mark.parametrize("condition", ["if_unused", "if_empty"])
def test_quorum_queues_know_no_conditions(channel, names, here, condition):
    name = names.queue()
    channel.queue_declare(name, durable=True, arguments=QUORUM)
    flag = condition.replace("_", "-")
    assert refusal(channel.queue_delete, name, **{condition: True}) == connection_closed(
        540,
        f"NOT_IMPLEMENTED - cannot delete queue '{name}' {here}. queue.delete operations with "
        f"{flag} flag set are not supported by quorum queues",
    )


def test_deleted_is_gone_with_its_bindings(channel, queue):
    channel.queue_bind(queue, "amq.fanout")
    channel.queue_delete(queue)
    channel.queue_declare(queue, durable=True)
    publish(channel, "", "lost", exchange="amq.fanout")
    assert drain(channel, queue) == []


def test_consumers_are_counted(channel, connection, queue):
    inboxes = [Inbox(channel, queue) for _ in range(3)]
    assert consumers(channel, queue) == 3
    channel.basic_cancel(inboxes[0].tag)
    assert consumers(channel, queue) == 2
    channel.close()
    eventually(lambda: consumers(connection.channel(), queue) == 0)
