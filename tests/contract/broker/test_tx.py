"""Transactions: publishes and acks that take effect together, at the commit."""

from __future__ import annotations

import pytest
from pamqp import commands

from tests.contract.broker.clients import (
    Inbox,
    channel_closed,
    depth,
    drain,
    fetch,
    publish,
    refusal,
)
from tests.helpers import eventually

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


@pytest.fixture
def tx(connection):
    """A channel with transactions."""
    channel = connection.channel()
    channel.tx_select()
    return channel


@KINDS
def test_publishes_show_at_the_commit(tx, channel, queue, kind):
    name = queue(kind)
    for body in "abc":
        publish(tx, name, body)
    tx.basic_qos(prefetch_count=1)
    assert depth(channel, name) == 0
    tx.tx_commit()
    assert [fetch(channel, name).body for _ in range(3)] == [b"a", b"b", b"c"]


def test_rollback_drops_publishes(tx, channel, queue):
    name = queue()
    publish(tx, name, "dropped")
    tx.tx_rollback()
    publish(tx, name, "kept")
    tx.tx_commit()
    assert drain(channel, name) == ["kept"]


@KINDS
def test_acks_count_at_the_commit(tx, channel, queue, kind):
    name = queue(kind)
    for body in "ab":
        publish(channel, name, body)
    tx.basic_ack(fetch(tx, name, auto_ack=False).tag)
    tx.tx_commit()
    tx.basic_ack(fetch(tx, name, auto_ack=False).tag)
    tx.close()
    eventually(lambda: depth(channel, name) == 1)
    assert drain(channel, name) == ["b"]


def test_rollback_takes_acks_back(tx, channel, queue):
    """The message is unacked again, not given back."""
    name = queue()
    publish(channel, name, "a")
    tag = fetch(tx, name, auto_ack=False).tag
    tx.basic_ack(tag)
    tx.tx_rollback()
    assert depth(channel, name) == 0
    tx.basic_ack(tag)
    tx.tx_commit()
    tx.close()
    assert drain(channel, name) == []


def test_returns_to_the_queue_count_at_the_commit(tx, channel, queue):
    name = queue()
    publish(channel, name, "a")
    tx.basic_nack(fetch(tx, name, auto_ack=False).tag, requeue=True)
    tx.basic_qos(prefetch_count=1)
    assert depth(channel, name) == 0
    tx.tx_commit()
    assert fetch(channel, name).method.redelivered


def test_closed_channel_drops_what_is_open(tx, channel, queue):
    name = queue()
    publish(tx, name, "dropped")
    tx.close()
    assert drain(channel, name) == []


def test_ack_and_successor_go_together(tx, channel, queue, names):
    """What transactions are for: the old message goes as the new one comes."""
    name, other = queue(), names.queue("other")
    channel.queue_declare(other)
    publish(channel, name, "old")
    inbox = Inbox(tx, name)
    tx.basic_ack(inbox.take()[0].tag)
    publish(tx, other, "new")
    tx.tx_commit()
    assert drain(channel, other) == ["new"]
    tx.close()
    assert drain(channel, name) == []


def test_empty_commit_and_rollback(tx):
    tx.tx_commit()
    tx.tx_rollback()
    tx.tx_select()


def test_mandatory_comes_back_at_the_commit(wire):
    wire.call(commands.Tx.Select(), commands.Tx.SelectOk)
    wire.publish(b"back", key="nosuch", mandatory=True)
    wire.call(commands.Basic.Qos(), commands.Basic.QosOk)
    wire.send(commands.Tx.Commit())
    assert wire.content(commands.Basic.Return).body == b"back"
    wire.expect(commands.Tx.CommitOk)


def test_unknown_exchange_is_refused_at_once(tx, names, here):
    name = names.exchange()
    publish(tx, "key", exchange=name)
    assert refusal(tx.tx_commit) == channel_closed(404, f"NOT_FOUND - no exchange '{name}' {here}")


@pytest.mark.parametrize("verb", ["tx_commit", "tx_rollback"])
def test_without_select(channel, verb):
    assert refusal(getattr(channel, verb)) == channel_closed(
        406, "PRECONDITION_FAILED - channel is not transactional"
    )


def test_not_with_confirms(channel):
    assert refusal(channel.tx_select) == channel_closed(
        406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
    )


def test_confirms_not_with_it(tx):
    assert refusal(tx.confirm_delivery) == channel_closed(
        406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode"
    )
