"""Ack, nack, reject and recover: what a message becomes after its delivery."""

from __future__ import annotations

import pytest
from pamqp import commands, frame
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    Inbox,
    channel_closed,
    depth,
    drain,
    fetch,
    get,
    publish,
    refusal,
)
from tests.contract.broker.wire import Refused
from tests.helpers import eventually

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])
Basic, Queue = commands.Basic, commands.Queue
#: With requeue and without; written out, as pamqp warns of a method that is deprecated.
RECOVER_ASYNC = {
    flag: b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x64" + bytes([flag]) + b"\xce"
    for flag in (True, False)
}


@pytest.fixture
def queue(channel, names):
    """Declares a queue with messages ``"a"`` to ``"e"``, and returns its name."""

    def make(kind="classic"):
        name = names.queue()
        # with a limit quorum queues of all versions put back to the front
        limit = {"x-delivery-limit": 10} if kind == "quorum" else {}
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind, **limit})
        for body in "abcde":
            publish(channel, name, body)
        return name

    return make


@pytest.fixture
def left(channel, connection):
    """Closes the channel, which gives back what is unacked, and returns what the queue has."""

    def look(name, count):
        channel.close()
        other = connection.channel()
        eventually(lambda: depth(other, name) == count)
        return drain(other, name)

    return look


def hold(channel: BlockingChannel, name: str, count: int) -> list[int]:
    return [fetch(channel, name, auto_ack=False).tag for _ in range(count)]


@KINDS
def test_ack_is_for_one(channel, queue, left, kind):
    name = queue(kind)
    tags = hold(channel, name, 3)
    channel.basic_ack(tags[1])
    assert left(name, 4) == ["a", "c", "d", "e"]


@KINDS
def test_ack_multiple_is_for_all_up_to_it(channel, queue, left, kind):
    name = queue(kind)
    tags = hold(channel, name, 4)
    channel.basic_ack(tags[1])
    channel.basic_ack(tags[2], multiple=True)
    assert left(name, 2) == ["d", "e"]


@KINDS
def test_ack_multiple_of_zero_is_for_all(channel, queue, left, kind):
    name = queue(kind)
    hold(channel, name, 4)
    channel.basic_ack(0, multiple=True)
    assert left(name, 1) == ["e"]


def test_ack_multiple_of_nothing_is_fine(channel):
    channel.basic_ack(0, multiple=True)
    channel.basic_qos(prefetch_count=1)


def test_ack_multiple_crosses_queues(channel, queue, names):
    """Tags are of the channel, not of the queue."""
    one, two = queue(), f"{names.queue('other')}"
    channel.queue_declare(two)
    publish(channel, two, "z")
    hold(channel, one, 5)
    last = hold(channel, two, 1)[0]
    channel.basic_ack(last, multiple=True)
    channel.basic_recover(requeue=True)
    assert (depth(channel, one), depth(channel, two)) == (0, 0)


@KINDS
@pytest.mark.parametrize("verb", ["nack", "reject"])
def test_given_back_takes_its_place_again(channel, queue, kind, verb):
    name = queue(kind)
    tag = hold(channel, name, 1)[0]
    getattr(channel, f"basic_{verb}")(tag, requeue=True)
    again = fetch(channel, name)
    assert (again.body, again.method.redelivered) == (b"a", True)
    following = fetch(channel, name)
    assert (following.body, following.method.redelivered) == (b"b", False)


@KINDS
@pytest.mark.parametrize("verb", ["nack", "reject"])
def test_not_given_back_is_dropped(channel, queue, left, kind, verb):
    name = queue(kind)
    tag = hold(channel, name, 1)[0]
    getattr(channel, f"basic_{verb}")(tag, requeue=False)
    assert left(name, 4) == ["b", "c", "d", "e"]


@KINDS
def test_nack_multiple_gives_all_back_in_order(channel, queue, kind):
    name = queue(kind)
    tags = hold(channel, name, 3)
    channel.basic_nack(tags[-1], multiple=True, requeue=True)
    eventually(lambda: depth(channel, name) == 5)
    assert drain(channel, name) == ["a", "b", "c", "d", "e"]


@KINDS
def test_nack_multiple_drops_all(channel, queue, left, kind):
    name = queue(kind)
    tags = hold(channel, name, 3)
    channel.basic_nack(tags[1], multiple=True, requeue=False)
    assert left(name, 3) == ["c", "d", "e"]


def test_classic_restores_the_order_whatever_the_order_of_return(channel, queue):
    """A message goes back to the place it came from."""
    name = queue()
    a, b, c = hold(channel, name, 3)
    for tag in (c, a, b):
        channel.basic_nack(tag, requeue=True)
    eventually(lambda: depth(channel, name) == 5)
    assert drain(channel, name) == ["a", "b", "c", "d", "e"]


@KINDS
def test_given_back_goes_to_who_waits(channel, connection, queue, kind):
    name = queue(kind)
    holding = connection.channel()
    tags = hold(holding, name, 5)
    inbox = Inbox(channel, name)
    holding.basic_nack(tags[-1], multiple=True, requeue=True)
    taken = inbox.take(5)
    assert [delivery.body for delivery in taken] == [b"a", b"b", b"c", b"d", b"e"]
    assert all(delivery.method.redelivered for delivery in taken)


@KINDS
def test_redelivered_has_a_new_tag(channel, queue, kind):
    name = queue(kind)
    tag = hold(channel, name, 1)[0]
    channel.basic_nack(tag, requeue=True)
    assert fetch(channel, name, auto_ack=False).tag == tag + 1


# -- recover ------------------------------------------------------------------


def test_recover_gives_all_back(channel, queue):
    name = queue()
    hold(channel, name, 3)
    channel.basic_recover(requeue=True)
    taken = [fetch(channel, name) for _ in range(5)]
    assert [delivery.body for delivery in taken] == [b"a", b"b", b"c", b"d", b"e"]
    assert [delivery.method.redelivered for delivery in taken] == [True] * 3 + [False] * 2


@KINDS
def test_recover_redelivers_to_the_same_consumer(channel, queue, kind):
    inbox = Inbox(channel, queue(kind))
    inbox.take(5)
    channel.basic_recover(requeue=True)
    again = inbox.take(5)
    assert sorted(delivery.body for delivery in again) == [b"a", b"b", b"c", b"d", b"e"]
    assert all(delivery.method.redelivered for delivery in again)


def test_recover_without_an_answer(wire, names):
    name = names.queue()
    wire.call(Queue.Declare(queue=name), Queue.DeclareOk)
    wire.publish(b"a", key=name)
    wire.send(Basic.Get(queue=name))
    wire.content(Basic.GetOk)
    wire.write(RECOVER_ASYNC[True])
    wire.send(Basic.Get(queue=name, no_ack=True))
    assert wire.content(Basic.GetOk).method.redelivered


@pytest.mark.parametrize(
    "octets",
    [frame.marshal(Basic.Recover(False), 1), RECOVER_ASYNC[False]],
    ids=["recover", "recover-async"],
)
def test_recover_without_requeue_is_not_implemented(wire, octets):
    wire.write(octets)
    assert wire.refusal() == Refused("connection", 540, "NOT_IMPLEMENTED - requeue=false")


# -- tags that are none -------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [Basic.Ack(7), Basic.Ack(7, True), Basic.Nack(7), Basic.Nack(7, True), Basic.Reject(7)],
    ids=["ack", "ack-multiple", "nack", "nack-multiple", "reject"],
)
def test_unknown_tag(wire, method):
    wire.send(method)
    close = wire.expect(commands.Channel.Close)
    assert (close.reply_code, close.reply_text) == (
        406,
        "PRECONDITION_FAILED - unknown delivery tag 7",
    )
    assert (close.class_id << 16) + close.method_id == method.index


@KINDS
@pytest.mark.parametrize("verb", ["basic_ack", "basic_nack", "basic_reject"])
def test_settled_twice(channel, queue, kind, verb):
    name = queue(kind)
    tag = hold(channel, name, 1)[0]
    channel.basic_ack(tag)
    getattr(channel, verb)(tag)
    assert refusal_of_next(channel) == channel_closed(
        406, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
    )


def test_tag_of_another_channel(channel, connection, queue):
    name = queue()
    tag = hold(channel, name, 1)[0]
    other = connection.channel()
    other.basic_ack(tag)
    assert refusal_of_next(other) == channel_closed(
        406, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
    )


def refusal_of_next(channel: BlockingChannel) -> Refused:
    """Return how the broker refuses what was sent before: the methods here have no answer."""
    return refusal(channel.basic_qos, prefetch_count=1)


@KINDS
def test_refused_ack_gives_back_what_is_open(channel, connection, queue, kind):
    name = queue(kind)
    hold(channel, name, 2)
    channel.basic_ack(99)
    refusal_of_next(channel)
    other = connection.channel()
    eventually(lambda: depth(other, name) == 5)
    delivery = get(other, name)
    assert delivery is not None
    assert delivery.method.redelivered
