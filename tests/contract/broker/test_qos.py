"""How many messages a consumer may hold unacked."""

from __future__ import annotations

import pytest
from pamqp import commands

from tests.contract.broker.clients import Inbox, arrived, depth, publish
from tests.contract.broker.wire import Refused

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


@pytest.fixture
def queue(channel, names):
    """Declares a queue with ten messages, ``"0"`` to ``"9"``, and returns its name."""

    def make(kind="classic", word="queue"):
        name = names.queue(word)
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        for number in range(10):
            publish(channel, name, str(number))
        return name

    return make


@KINDS
def test_no_more_than_the_prefetch(channel, queue, kind):
    name = queue(kind)
    channel.basic_qos(prefetch_count=3)
    inbox = Inbox(channel, name)
    assert inbox.bodies(3) == ["0", "1", "2"]
    assert inbox.silent()
    assert depth(channel, name) == 7


@KINDS
def test_each_ack_makes_room_for_one(channel, queue, kind):
    channel.basic_qos(prefetch_count=3)
    inbox = Inbox(channel, queue(kind))
    held = inbox.take(3)
    channel.basic_ack(held[1].tag)
    assert inbox.bodies(1) == ["3"]
    assert inbox.silent()


@KINDS
def test_ack_of_several_makes_room_for_as_many(channel, queue, kind):
    channel.basic_qos(prefetch_count=3)
    inbox = Inbox(channel, queue(kind))
    held = inbox.take(3)
    channel.basic_ack(held[1].tag, multiple=True)
    assert inbox.bodies(2) == ["3", "4"]
    assert inbox.silent()


@KINDS
def test_dropping_makes_room_too(channel, queue, kind):
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue(kind))
    channel.basic_reject(inbox.take()[0].tag, requeue=False)
    assert inbox.bodies(1) == ["1"]


@KINDS
def test_each_consumer_has_its_own(channel, queue, kind):
    name = queue(kind)
    channel.basic_qos(prefetch_count=2)
    inboxes = [Inbox(channel, name) for _ in range(3)]
    assert arrived(6, *inboxes) == [2, 2, 2]
    assert depth(channel, name) == 4


@KINDS
def test_it_counts_for_consumers_that_come(channel, queue, kind):
    """A consumer keeps what it began with."""
    one, two = queue(kind, "one"), queue(kind, "two")
    channel.basic_qos(prefetch_count=1)
    first = Inbox(channel, one)
    channel.basic_qos(prefetch_count=4)
    second = Inbox(channel, two)
    assert len(second.wait(4)) == 4
    assert len(first.wait(1)) == 1
    channel.basic_ack(first.take()[0].tag)
    first.take()
    assert first.silent()


@KINDS
def test_without_it_all_come(channel, queue, kind):
    inbox = Inbox(channel, queue(kind))
    assert len(inbox.wait(10)) == 10


@KINDS
def test_zero_lifts_it(channel, queue, kind):
    channel.basic_qos(prefetch_count=1)
    channel.basic_qos(prefetch_count=0)
    assert len(Inbox(channel, queue(kind)).wait(10)) == 10


def test_it_does_not_hold_consumers_that_never_ack(channel, queue):
    channel.basic_qos(prefetch_count=1)
    assert len(Inbox(channel, queue(), auto_ack=True).wait(10)) == 10


def test_global_is_for_the_channel(channel, queue):
    one, two = queue(word="one"), queue(word="two")
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first, second = Inbox(channel, one), Inbox(channel, two)
    held = first.take(3)
    assert second.silent()
    channel.basic_ack(held[-1].tag, multiple=True)
    assert sum(arrived(3, first, second)) == 3


def test_global_and_per_consumer_both_hold(channel, queue):
    name = queue()
    channel.basic_qos(prefetch_count=2)
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first, second = Inbox(channel, name), Inbox(channel, name)
    assert sorted(arrived(3, first, second)) == [1, 2]
    assert depth(channel, name) == 7


def test_global_may_be_raised_and_lifted(channel, queue):
    channel.basic_qos(prefetch_count=1, global_qos=True)
    inbox = Inbox(channel, queue())
    inbox.wait(1)
    channel.basic_qos(prefetch_count=4, global_qos=True)
    assert len(inbox.wait(4)) == 4
    channel.basic_qos(prefetch_count=0, global_qos=True)
    assert len(inbox.wait(10)) == 10


def test_size_is_not_implemented(wire):
    wire.send(commands.Basic.Qos(10, 1))
    assert wire.refusal() == Refused("connection", 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)")
