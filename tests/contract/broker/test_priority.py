"""Who goes first: messages by priority, consumers by priority."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    Inbox,
    channel_closed,
    drain,
    fetch,
    publish,
    refusal,
)
from tests.contract.broker.differences import QUORUM_PRIORITIES

OFFERED: list[tuple[str, int | None]] = [
    ("none", None),
    ("0", 0),
    ("3", 3),
    ("5", 5),
    ("9", 9),
    ("5 too", 5),
    ("4", 4),
]


def offer(channel: BlockingChannel, queue: str) -> None:
    for body, priority in OFFERED:
        publish(channel, queue, body, priority=priority)


def test_classic_queue_with_levels(channel, names):
    """Above the queue's highest level is that level, none is the lowest; alike stay in order."""
    queue = names.queue()
    channel.queue_declare(queue, arguments={"x-max-priority": 5})
    offer(channel, queue)
    assert drain(channel, queue) == ["5", "9", "5 too", "4", "3", "none", "0"]


def test_classic_queue_without_levels(channel, names):
    queue = names.queue()
    channel.queue_declare(queue)
    offer(channel, queue)
    assert drain(channel, queue) == [body for body, _ in OFFERED]


def test_quorum_queue(channel, names, contract_broker):
    """Two of the upper class, then one of the lower, so that nothing starves."""
    queue = names.queue()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    offer(channel, queue)
    if contract_broker.expects(QUORUM_PRIORITIES):
        expected = ["5", "9", "none", "5 too", "0", "3", "4"]
    else:
        expected = [body for body, _ in OFFERED]
    assert drain(channel, queue) == expected


def by_get(channel: BlockingChannel, queue: str, priority: int) -> None:
    publish(channel, queue, "first", priority=priority)
    fetch(channel, queue)


def by_consumer(channel: BlockingChannel, queue: str, priority: int) -> None:
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, queue, "first", priority=priority)
    inbox.take()
    channel.basic_cancel(inbox.tag)


@pytest.mark.parametrize("take", [by_get, by_consumer])
@pytest.mark.parametrize("priority", [0, 9])
def test_quorum_queue_counts_all_it_gives(channel, names, contract_broker, take, priority):
    """Two to one is a count of three that goes on, whatever class a message had."""
    queue = names.queue()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    take(channel, queue, priority)
    for body in ("low 1", "high 1", "low 2", "high 2", "high 3"):
        publish(channel, queue, body, priority=9 if "high" in body else 0)
    if contract_broker.expects(QUORUM_PRIORITIES):
        expected = ["high 1", "low 1", "high 2", "high 3", "low 2"]
    else:
        expected = ["low 1", "high 1", "low 2", "high 2", "high 3"]
    assert drain(channel, queue) == expected


def test_priority_is_kept_when_given_back(channel, names):
    queue = names.queue()
    channel.queue_declare(queue, arguments={"x-max-priority": 5})
    publish(channel, queue, "high", priority=5)
    publish(channel, queue, "low", priority=1)
    channel.basic_nack(fetch(channel, queue, auto_ack=False).tag, requeue=True)
    assert drain(channel, queue) == ["high", "low"]


@pytest.mark.parametrize(
    ("length", "left"),
    [(1, ["low 2"]), (2, ["low 1", "low 2"]), (3, ["mid", "low 1", "low 2"])],
    ids=["1", "2", "3"],
)
def test_full_queue_drops_what_would_come_next(channel, names, length, left):
    """Room is made at the head, and there the highest are: a surprise, but RabbitMQ's way."""
    queue = names.queue()
    channel.queue_declare(queue, arguments={"x-max-priority": 5, "x-max-length": length})
    offered = [("high 1", 5), ("low 1", 1), ("mid", 3), ("low 2", 1), ("high 2", 5)]
    for body, priority in offered:
        publish(channel, queue, body, priority=priority)
    assert drain(channel, queue) == left


# -- consumers ----------------------------------------------------------------

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


@pytest.fixture
def queue(channel, names):
    def make(kind):
        name = names.queue()
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        return name

    return make


@KINDS
def test_consumer_of_high_priority_is_first(channel, queue, kind):
    name = queue(kind)
    channel.basic_qos(prefetch_count=2)
    low = Inbox(channel, name, arguments={"x-priority": -1})
    normal = Inbox(channel, name)
    high = Inbox(channel, name, arguments={"x-priority": 10})
    for body in "abcde":
        publish(channel, name, body)
    assert high.bodies(2) == ["a", "b"]
    assert normal.bodies(2) == ["c", "d"]
    assert low.bodies(1) == ["e"]


@KINDS
def test_consumer_of_high_priority_is_first_again_once_it_has_room(channel, queue, kind):
    name = queue(kind)
    channel.basic_qos(prefetch_count=1)
    Inbox(channel, name)
    high = Inbox(channel, name, arguments={"x-priority": 1})
    publish(channel, name, "a")
    first = high.take()[0]
    channel.basic_ack(first.tag)
    publish(channel, name, "b")
    assert high.bodies(1) == ["b"]


def test_consumer_priority_is_a_number(channel, queue, here):
    name = queue("classic")
    assert refusal(Inbox, channel, name, arguments={"x-priority": "high"}) == channel_closed(
        406,
        f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{name}' {here}: "
        '"expected integer, got longstr"',
    )
