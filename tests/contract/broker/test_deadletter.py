"""What becomes of a message that a queue gives up, and what it then says of its past."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    deaths,
    declare_dead_lettering,
    depth,
    drain,
    fetch,
    publish,
    reject,
)
from tests.contract.broker.differences import CLIENT_DEATHS_COUNT, LAST_DEATH
from tests.helpers import eventually

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


class Queues(NamedTuple):
    """A queue that gives up, and the one that gets it."""

    source: str
    dead: str


@pytest.fixture
def queues(channel, names):
    """Declares a queue and the one its dead letters go to."""

    def make(kind="classic", *, limit=None, **arguments) -> Queues:
        made = Queues(names.queue(), names.queue("target"))
        declare_dead_lettering(channel, made.source, made.dead, kind, **arguments)
        channel.queue_declare(made.dead, durable=True)
        return made

    return make


def nack(channel: BlockingChannel, queue: str) -> None:
    channel.basic_nack(fetch(channel, queue, auto_ack=False).tag, requeue=False)


@KINDS
@pytest.mark.parametrize("verb", [reject, nack])
def test_rejected(channel, queues, kind, verb):
    source, dead = queues(kind)
    publish(channel, source, "body", content_type="text/plain", headers={"own": 1}, priority=3)
    verb(channel, source)
    delivery = fetch(channel, dead)
    assert delivery.body == b"body"
    assert (delivery.method.exchange, delivery.method.routing_key) == ("", dead)
    assert not delivery.method.redelivered
    assert delivery.properties.content_type == "text/plain"
    assert delivery.properties.priority == 3
    assert delivery.headers["own"] == 1
    assert deaths(delivery) == [
        {
            "count": 1,
            "reason": "rejected",
            "queue": source,
            "exchange": "",
            "routing-keys": [source],
        }
    ]


@KINDS
def test_first_and_last_death_are_headers_too(channel, queues, kind, contract_broker):
    source, dead = queues(kind)
    publish(channel, source)
    reject(channel, source)
    headers = fetch(channel, dead).headers
    del headers["x-death"]
    expected = {
        "x-first-death-exchange": "",
        "x-first-death-queue": source,
        "x-first-death-reason": "rejected",
    }
    if contract_broker.expects(LAST_DEATH):
        expected |= {
            "x-last-death-exchange": "",
            "x-last-death-queue": source,
            "x-last-death-reason": "rejected",
        }
    assert headers == expected


@KINDS
def test_expired(channel, queues, names, kind):
    """The time that killed it goes, or it would die on; the history keeps it."""
    source, dead = queues(kind)
    exchange = names.exchange()
    channel.exchange_declare(exchange)
    channel.queue_bind(source, exchange, "key")
    publish(channel, "key", exchange=exchange, expiration="1")
    delivery = fetch(channel, dead)
    assert delivery.properties.expiration is None
    assert deaths(delivery) == [
        {
            "count": 1,
            "reason": "expired",
            "queue": source,
            "exchange": exchange,
            "routing-keys": ["key"],
            "original-expiration": "1",
        }
    ]


@KINDS
def test_expired_by_the_queues_time(channel, queues, kind):
    source, dead = queues(kind, message_ttl=1)
    publish(channel, source)
    (death,) = deaths(fetch(channel, dead))
    assert death["reason"] == "expired"
    assert "original-expiration" not in death


@KINDS
def test_rejected_loses_its_expiration_too(channel, queues, kind):
    source, dead = queues(kind)
    publish(channel, source, expiration="600000")
    reject(channel, source)
    delivery = fetch(channel, dead)
    assert delivery.properties.expiration is None
    assert deaths(delivery)[0]["original-expiration"] == "600000"


@KINDS
def test_maxlen(channel, queues, kind):
    source, dead = queues(kind, max_length=1)
    publish(channel, source, "old")
    publish(channel, source, "new")
    delivery = fetch(channel, dead)
    assert delivery.body == b"old"
    assert deaths(delivery)[0]["reason"] == "maxlen"


def test_delivery_limit(channel, queues):
    source, dead = queues("quorum", delivery_limit=1)
    publish(channel, source)
    for _ in range(2):
        channel.basic_reject(fetch(channel, source, auto_ack=False).tag, requeue=True)
    delivery = fetch(channel, dead)
    assert deaths(delivery)[0]["reason"] == "delivery_limit"
    assert delivery.headers["x-first-death-reason"] == "delivery_limit"


@KINDS
def test_without_a_key_the_messages_own_is_kept(channel, names, kind):
    source, dead, exchange = names.queue("source"), names.queue("target"), names.exchange()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(dead)
    channel.queue_bind(dead, exchange, source)
    channel.queue_declare(
        source,
        durable=True,
        arguments={"x-queue-type": kind, "x-dead-letter-exchange": exchange},
    )
    publish(channel, source)
    reject(channel, source)
    delivery = fetch(channel, dead)
    assert (delivery.method.exchange, delivery.method.routing_key) == (exchange, source)


@KINDS
def test_into_all_queues_that_are_bound(channel, names, kind):
    source, exchange = names.queue("source"), names.exchange()
    channel.exchange_declare(exchange, "fanout")
    targets = [names.queue(word) for word in ("one", "two")]
    for target in targets:
        channel.queue_declare(target)
        channel.queue_bind(target, exchange)
    channel.queue_declare(
        source,
        durable=True,
        arguments={"x-queue-type": kind, "x-dead-letter-exchange": exchange},
    )
    publish(channel, source, "to both")
    reject(channel, source)
    assert [fetch(channel, target).body for target in targets] == [b"to both"] * 2


@KINDS
def test_missing_exchange_drops(channel, names, kind):
    """The exchange may be declared later; until then there is nowhere to go."""
    source = names.queue()
    channel.queue_declare(
        source,
        durable=True,
        arguments={"x-queue-type": kind, "x-dead-letter-exchange": names.exchange("missing")},
    )
    publish(channel, source)
    reject(channel, source)
    publish(channel, source, "next")
    assert drain(channel, source) == ["next"]


def test_without_an_exchange_it_is_dropped(channel, names):
    source = names.queue()
    channel.queue_declare(source)
    publish(channel, source)
    reject(channel, source)
    assert depth(channel, source) == 0


@KINDS
def test_purge_and_delete_make_no_dead_letters(channel, queues, kind):
    source, dead = queues(kind)
    publish(channel, source, "purged")
    channel.queue_purge(source)
    publish(channel, source, "deleted")
    channel.queue_delete(source)
    assert depth(channel, dead) == 0


@KINDS
def test_acked_makes_no_dead_letter(channel, queues, kind):
    source, dead = queues(kind)
    publish(channel, source)
    channel.basic_ack(fetch(channel, source, auto_ack=False).tag)
    assert depth(channel, source) == 0
    assert depth(channel, dead) == 0


@KINDS
def test_deaths_that_a_client_claims(channel, queues, kind, contract_broker):
    source, dead = queues(kind)
    claimed = {
        "queue": source,
        "reason": "rejected",
        "count": 5,
        "exchange": "",
        "routing-keys": [],
    }
    publish(channel, source, headers={"x-death": [claimed]})
    reject(channel, source)
    counted = contract_broker.expects(CLIENT_DEATHS_COUNT)
    assert fetch(channel, dead).headers["x-death"][0]["count"] == (6 if counted else 1)


# -- quorum: at least once ----------------------------------------------------


def test_at_least_once_waits_for_the_target(channel, names):
    """With this strategy a dead letter stays where it is until another queue has it."""
    source, dead, exchange = names.queue("source"), names.queue("target"), names.exchange()
    channel.exchange_declare(exchange, "fanout")
    channel.queue_declare(
        source,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": exchange,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-message-ttl": 1,
        },
    )
    channel.queue_declare(dead, durable=True)
    channel.queue_bind(dead, exchange)
    for body in "abc":
        publish(channel, source, body)
    assert sorted(fetch(channel, dead).body for _ in range(3)) == [b"a", b"b", b"c"]
    eventually(lambda: depth(channel, source) == 0)
