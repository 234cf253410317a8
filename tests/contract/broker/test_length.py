"""Queues that hold so much and no more."""

from __future__ import annotations

import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import depth, drain, fetch, publish
from tests.helpers import eventually

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


@pytest.fixture
def queue(dead_lettered):
    return dead_lettered


def offer(channel: BlockingChannel, name: str, body: str) -> bool:
    """Publish, and tell whether the broker took it."""
    try:
        publish(channel, name, body)
    except pika.exceptions.NackError:
        return False
    return True


@KINDS
@pytest.mark.parametrize("overflow", [{}, {"overflow": "drop-head"}], ids=["default", "drop-head"])
def test_the_oldest_make_room(channel, queue, kind, overflow):
    name, dead = queue(kind, max_length=2, **overflow)
    for body in "abcde":
        publish(channel, name, body)
    assert [fetch(channel, dead).body for _ in range(3)] == [b"a", b"b", b"c"]
    assert drain(channel, name) == ["d", "e"]


@KINDS
def test_without_a_dead_letter_exchange_they_are_dropped(channel, names, kind):
    name = names.queue()
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind, "x-max-length": 1})
    for body in "abc":
        publish(channel, name, body)
    eventually(lambda: depth(channel, name) == 1)
    assert drain(channel, name) == ["c"]


@KINDS
def test_octets_of_bodies_count(channel, queue, kind):
    name, dead = queue(kind, max_length_bytes=10)
    for body in ("aaaa", "bbbb", "cccc"):
        publish(channel, name, body)
    assert fetch(channel, dead).body == b"aaaa"
    publish(channel, name, "d" * 11)
    # what one message pushes out has no order of its own
    assert {fetch(channel, dead).body for _ in range(3)} == {b"bbbb", b"cccc", b"d" * 11}
    assert drain(channel, name) == []


def test_the_tighter_of_two_limits_counts(channel, queue):
    name, _ = queue(max_length=2, max_length_bytes=100)
    for body in ("a", "b", "c"):
        publish(channel, name, body)
    assert depth(channel, name) == 2
    publish(channel, name, "d" * 100)
    assert drain(channel, name) == ["d" * 100]


def test_unacked_messages_take_no_room(channel, queue):
    """The limit is on what is ready."""
    name, dead = queue(max_length=1)
    publish(channel, name, "a")
    fetch(channel, name, auto_ack=False)
    publish(channel, name, "b")
    assert (depth(channel, name), depth(channel, dead)) == (1, 0)


def test_length_of_zero_holds_nothing(channel, queue):
    name, dead = queue(max_length=0)
    publish(channel, name, "a")
    assert fetch(channel, dead).body == b"a"
    assert depth(channel, name) == 0


@KINDS
def test_reject_publish_nacks(channel, queue, kind):
    """A full queue tells the publisher, and keeps what it has.

    A quorum queue counts late, so it may take one or two more than its length.
    """
    name, dead = queue(kind, max_length=2, overflow="reject-publish")
    answers = [offer(channel, name, body) for body in "abcdef"]
    taken = sum(answers)
    assert answers == [True] * taken + [False] * (6 - taken)
    assert taken == 2 or (kind == "quorum" and taken < 6)
    assert drain(channel, name) == list("abcdef")[:taken]
    assert drain(channel, dead) == []


@KINDS
def test_reject_publish_takes_again_once_there_is_room(channel, queue, kind):
    name, _ = queue(kind, max_length=1, overflow="reject-publish")
    eventually(lambda: not offer(channel, name, "fill"))
    drain(channel, name)
    eventually(lambda: offer(channel, name, "again"))


def test_reject_publish_nacks_though_another_queue_took_it(channel, queue, names):
    """One refusal is enough for a nack; the other queue has the message all the same."""
    name, _ = queue(max_length=1, overflow="reject-publish")
    other, exchange = names.queue("other"), names.exchange()
    channel.queue_declare(other)
    channel.exchange_declare(exchange, "fanout")
    for each in (name, other):
        channel.queue_bind(each, exchange)
    publish(channel, "", "a", exchange=exchange)
    with pytest.raises(pika.exceptions.NackError):
        publish(channel, "", "b", exchange=exchange)
    assert drain(channel, name) == ["a"]
    assert drain(channel, other) == ["a", "b"]


def test_reject_publish_without_confirms_is_silent(connection, channel, queue):
    name, _ = queue(max_length=1, overflow="reject-publish")
    plain = connection.channel()
    for body in "abc":
        publish(plain, name, body)
    # the queue comes to this one, which is told of, when it has dealt with those
    plain.confirm_delivery()
    assert not offer(plain, name, "d")
    assert drain(channel, name) == ["a"]


def test_reject_publish_dlx_also_dead_letters(channel, queue):
    name, dead = queue(max_length=2, overflow="reject-publish-dlx")
    assert [offer(channel, name, body) for body in "abc"] == [True, True, False]
    rejected = fetch(channel, dead)
    assert rejected.body == b"c"
    assert rejected.headers["x-first-death-reason"] == "maxlen"
    assert drain(channel, name) == ["a", "b"]
