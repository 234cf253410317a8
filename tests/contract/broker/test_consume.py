"""Consumers: who gets what, under which name, and how it ends."""

from __future__ import annotations

import pytest
from pamqp import commands

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
from tests.contract.broker.wire import CAPABILITIES
from tests.helpers import eventually

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])
Basic, Queue = commands.Basic, commands.Queue


@KINDS
def test_what_was_there_and_what_comes(channel, queue, kind):
    name = queue(kind)
    publish(channel, name, "before")
    inbox = Inbox(channel, name)
    publish(channel, name, "after")
    before, after = inbox.take(2)
    assert (before.body, after.body) == (b"before", b"after")
    assert (before.tag, after.tag) == (1, 2)
    assert before.method.consumer_tag == inbox.tag
    assert (before.method.exchange, before.method.routing_key) == ("", name)
    assert not before.method.redelivered


def test_tag_from_the_broker(channel, queue):
    name = queue()
    # pika makes tags of its own, so the wire is asked in the next test too
    first, second = Inbox(channel, name), Inbox(channel, name)
    assert first.tag != second.tag


def test_tag_from_the_broker_on_the_wire(wire, queue):
    name = queue()
    tags = {wire.call(Basic.Consume(queue=name), Basic.ConsumeOk).consumer_tag for _ in range(2)}
    assert len(tags) == 2
    assert all(tag.startswith("amq.ctag-") for tag in tags)


def test_tag_of_ones_own(channel, queue):
    inbox = Inbox(channel, queue(), consumer_tag="mine")
    assert inbox.tag == "mine"


def test_tags_belong_to_a_channel(wire, queue):
    """Another channel may use the same tag; the same one may not."""
    name = queue()
    wire.open_channel(2)
    for channel in (1, 2):
        wire.call(Basic.Consume(queue=name, consumer_tag="mine"), Basic.ConsumeOk, channel)
    wire.send(Basic.Consume(queue=name, consumer_tag="mine"))
    refused = wire.refusal()
    assert refused == connection_closed(530, "NOT_ALLOWED - attempt to reuse consumer tag 'mine'")


def test_without_an_answer(wire, queue):
    """With nowait a client goes on at once; deliveries are the answer."""
    name = queue()
    wire.send(Basic.Consume(queue=name, consumer_tag="mine", nowait=True))
    wire.publish(b"x", key=name)
    assert wire.content(Basic.Deliver).method.consumer_tag == "mine"


def test_unknown_arguments_are_ignored(channel, queue):
    name = queue()
    inbox = Inbox(channel, name, arguments={"x-unknown": 1})
    publish(channel, name, "x")
    assert inbox.bodies(1) == ["x"]


@KINDS
def test_no_ack_is_gone_once_sent(channel, connection, queue, kind):
    name = queue(kind)
    consuming = connection.channel()
    inbox = Inbox(consuming, name, auto_ack=True)
    for body in "abc":
        publish(channel, name, body)
    assert inbox.bodies(3) == ["a", "b", "c"]
    consuming.close()
    assert drain(channel, name) == []


def test_no_ack_has_nothing_to_ack(channel, queue):
    name = queue()
    inbox = Inbox(channel, name, auto_ack=True)
    publish(channel, name, "a")
    tag = inbox.take()[0].tag
    channel.basic_ack(tag)
    assert refusal(depth, channel, name) == channel_closed(
        406, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
    )


@KINDS
def test_consumers_take_turns(channel, queue, kind):
    name = queue(kind)
    channel.basic_qos(prefetch_count=10)
    inboxes = [Inbox(channel, name) for _ in range(3)]
    for number in range(9):
        publish(channel, name, str(number))
    assert [sorted(inbox.bodies(3)) for inbox in inboxes] == [
        ["0", "3", "6"],
        ["1", "4", "7"],
        ["2", "5", "8"],
    ]


def test_no_local_is_ignored(wire, queue):
    """RabbitMQ never did it: a connection gets its own messages too."""
    name = queue()
    wire.call(Basic.Consume(queue=name, no_local=True), Basic.ConsumeOk)
    wire.publish(b"own", key=name)
    assert wire.content(Basic.Deliver).body == b"own"


# -- exclusive ----------------------------------------------------------------


@pytest.mark.parametrize("second", [True, False], ids=["exclusive", "shared"])
def test_exclusive_consumer_is_the_only_one(channel, queue, here, second):
    name = queue()
    Inbox(channel, name, exclusive=True)
    other = channel.connection.channel()
    assert refusal(Inbox, other, name, exclusive=second) == channel_closed(
        403, f"ACCESS_REFUSED - queue '{name}' {here} in exclusive use"
    )


def test_exclusive_consumer_comes_too_late(channel, queue, here):
    name = queue()
    Inbox(channel, name)
    assert refusal(Inbox, channel, name, exclusive=True) == channel_closed(
        403, f"ACCESS_REFUSED - queue '{name}' {here} in exclusive use"
    )


def test_exclusive_consumer_gone_makes_room(channel, queue):
    name = queue()
    inbox = Inbox(channel, name, exclusive=True)
    channel.basic_cancel(inbox.tag)
    Inbox(channel, name, exclusive=True)


# -- cancel -------------------------------------------------------------------


@KINDS
def test_cancelled_gets_no_more(channel, queue, kind):
    name = queue(kind)
    inbox = Inbox(channel, name)
    channel.basic_cancel(inbox.tag)
    publish(channel, name, "stays")
    assert inbox.silent()
    assert drain(channel, name) == ["stays"]


def test_cancelled_may_still_ack(wire, queue):
    """What a cancelled consumer holds is its own until it settles it."""
    name = queue()
    wire.call(Basic.Consume(queue=name, consumer_tag="mine"), Basic.ConsumeOk)
    wire.publish(b"a", key=name)
    wire.publish(b"b", key=name)
    tags = [wire.content(Basic.Deliver).method.delivery_tag for _ in range(2)]
    wire.call(Basic.Cancel("mine"), Basic.CancelOk)
    wire.send(Basic.Ack(tags[0]))
    wire.send(Basic.Nack(tags[1], requeue=True))
    assert wire.call(Basic.Get(queue=name, no_ack=True), Basic.GetOk).redelivered


def test_cancel_of_an_unknown_tag_is_fine(wire):
    assert wire.call(Basic.Cancel("nosuch"), Basic.CancelOk).consumer_tag == "nosuch"


def test_tag_is_free_again_after_cancel(channel, queue):
    name = queue()
    for _ in range(2):
        inbox = Inbox(channel, name, consumer_tag="mine")
        channel.basic_cancel(inbox.tag)


# -- cancelled by the broker --------------------------------------------------


@KINDS
def test_deleted_queue_cancels_its_consumers(wire, channel, queue, kind):
    """A client that can be told is told, or it would wait for ever."""
    name = queue(kind)
    wire.call(Basic.Consume(queue=name, consumer_tag="mine"), Basic.ConsumeOk)
    channel.queue_delete(name)
    cancel = wire.expect(Basic.Cancel)
    assert (cancel.consumer_tag, cancel.nowait) == ("mine", True)
    wire.call(Basic.Qos(), Basic.QosOk)


def test_client_that_cannot_be_told_is_not(dial, channel, queue):
    name = queue()
    capabilities = {**CAPABILITIES, "consumer_cancel_notify": False}
    wire = dial().login(capabilities=capabilities).open_channel()
    wire.call(Basic.Consume(queue=name, consumer_tag="mine"), Basic.ConsumeOk)
    channel.queue_delete(name)
    wire.call(Basic.Qos(), Basic.QosOk)


def test_own_deletion_cancels_too(wire, queue):
    name = queue()
    wire.call(Basic.Consume(queue=name, consumer_tag="mine"), Basic.ConsumeOk)
    wire.send(Queue.Delete(queue=name))
    wire.await_(Queue.DeleteOk)
    assert wire.await_(Basic.Cancel).consumer_tag == "mine"


def test_tag_of_a_cancelled_consumer_is_free(wire, channel, queue):
    name, other = queue(), f"{queue()}.dead"
    channel.queue_declare(other)
    wire.call(Basic.Consume(queue=name, consumer_tag="mine"), Basic.ConsumeOk)
    channel.queue_delete(name)
    wire.expect(Basic.Cancel)
    wire.call(Basic.Consume(queue=other, consumer_tag="mine"), Basic.ConsumeOk)


def test_unacked_of_a_deleted_queue_may_be_acked(channel, connection, queue):
    """The tag stays known to the channel though the message is gone."""
    name = queue()
    publish(channel, name, "a")
    held = fetch(channel, name, auto_ack=False)
    connection.channel().queue_delete(name)
    channel.basic_ack(held.tag)
    assert not exists(connection, name)
    channel.basic_qos(prefetch_count=1)


# -- the end of a channel or a connection -------------------------------------


@KINDS
def test_closed_channel_gives_back(channel, connection, queue, kind):
    name = queue(kind)
    for body in "abc":
        publish(channel, name, body)
    consuming = connection.channel()
    Inbox(consuming, name).wait(3)
    consuming.close()
    back = [fetch(channel, name) for _ in range(3)]
    assert [delivery.body for delivery in back] == [b"a", b"b", b"c"]
    assert all(delivery.method.redelivered for delivery in back)


@KINDS
def test_lost_connection_gives_back(channel, dial, queue, kind):
    """No goodbye, just the end of the socket."""
    name = queue(kind)
    for body in "abc":
        publish(channel, name, body)
    lost = dial().login().open_channel()
    lost.call(Basic.Consume(queue=name), Basic.ConsumeOk)
    for _ in range(3):
        lost.content(Basic.Deliver)
    lost.__exit__()
    back = [fetch(channel, name) for _ in range(3)]
    assert [delivery.body for delivery in back] == [b"a", b"b", b"c"]
    assert all(delivery.method.redelivered for delivery in back)
    eventually(lambda: consumers(channel, name) == 0)
