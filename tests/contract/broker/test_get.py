"""Fetching one message at a time."""

from __future__ import annotations

import pytest
from pamqp import commands

from tests.contract.broker.clients import depth, fetch, get, publish

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


@KINDS
def test_empty(channel, queue, kind):
    assert get(channel, queue(kind)) is None


def test_empty_on_the_wire(wire, names):
    name = names.queue()
    wire.call(commands.Queue.Declare(queue=name), commands.Queue.DeclareOk)
    wire.call(commands.Basic.Get(queue=name), commands.Basic.GetEmpty)


@KINDS
def test_says_where_it_came_from_and_what_is_left(channel, queue, kind):
    name = queue(kind)
    channel.queue_bind(name, "amq.topic", f"{name}.#")
    for body in "abc":
        publish(channel, f"{name}.key", body, exchange="amq.topic")
    delivery = fetch(channel, name, auto_ack=False)
    assert delivery.body == b"a"
    assert (delivery.method.exchange, delivery.method.routing_key) == ("amq.topic", f"{name}.key")
    assert delivery.method.message_count == 2
    assert not delivery.method.redelivered


def test_tags_count_from_one(channel, queue):
    name = queue()
    for body in "abc":
        publish(channel, name, body)
    assert [fetch(channel, name, auto_ack=False).tag for _ in range(3)] == [1, 2, 3]


@KINDS
def test_acked_at_once_is_gone(channel, connection, queue, kind):
    name = queue(kind)
    publish(channel, name, "a")
    other = connection.channel()
    assert fetch(other, name, auto_ack=True).body == b"a"
    other.close()
    assert get(channel, name) is None


@KINDS
def test_not_acked_comes_back(channel, connection, queue, kind):
    name = queue(kind)
    publish(channel, name, "a")
    other = connection.channel()
    fetch(other, name, auto_ack=False)
    assert get(channel, name) is None
    other.close()
    assert fetch(channel, name).method.redelivered


def test_prefetch_does_not_count_for_it(channel, queue):
    name = queue()
    channel.basic_qos(prefetch_count=1)
    for body in "abc":
        publish(channel, name, body)
    assert [fetch(channel, name, auto_ack=False).body for _ in range(3)] == [b"a", b"b", b"c"]
    assert depth(channel, name) == 0
