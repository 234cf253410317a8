"""Messages that die more than once, and the rule that ends circles."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    deaths,
    declare_dead_lettering,
    depth,
    fetch,
    publish,
    reject,
)
from tests.contract.broker.differences import LAST_DEATH
from tests.helpers import eventually
from tests.servers import Names

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])


def chain(
    channel: BlockingChannel,
    names: Names,
    kind: str,
    *times: int,
    circle: bool = False,
    word: str = "step",
) -> list[str]:
    """Declare queues that expire into the next one, and return their names.

    The last one keeps what it gets, unless they are a circle.
    """
    queues = [names.queue(f"{word}{number}") for number in range(len(times) + (not circle))]
    for at, name in enumerate(queues):
        if at < len(times):
            following = queues[(at + 1) % len(queues)]
            declare_dead_lettering(channel, name, following, kind, message_ttl=times[at])
        else:
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
    return queues


@KINDS
def test_latest_death_comes_first(channel, names, kind, contract_broker):
    one, two, end = chain(channel, names, kind, 1, 1)
    publish(channel, one, "well travelled")
    delivery = fetch(channel, end)
    assert [(death["queue"], death["count"]) for death in deaths(delivery)] == [(two, 1), (one, 1)]
    assert delivery.headers["x-first-death-queue"] == one
    if contract_broker.expects(LAST_DEATH):
        assert delivery.headers["x-last-death-queue"] == two


@KINDS
def test_circle_of_expiry_ends(channel, names, kind):
    """What comes round to a queue it expired in, by itself all the way, is dropped.

    Otherwise a wrong declaration would keep a broker busy for ever.
    """
    one, two = chain(channel, names, kind, 30, 30, circle=True)
    publish(channel, one, "round")
    # one look may come just when it is on its way between the two
    eventually(lambda: not any(depth(channel, one) + depth(channel, two) for _ in range(50)))


@KINDS
def test_circle_onto_itself_ends(channel, names, kind):
    name = names.queue()
    declare_dead_lettering(channel, name, name, kind, message_ttl=1)
    publish(channel, name, "round")
    eventually(lambda: depth(channel, name) == 0)


@KINDS
def test_circle_with_a_rejection_goes_on(channel, names, kind):
    """A consumer decided so, as in a retry with delay; the deaths of a queue are counted."""
    source, wait = names.queue("source"), names.queue("wait")
    declare_dead_lettering(channel, source, wait, kind)
    declare_dead_lettering(channel, wait, source, kind, message_ttl=1)
    publish(channel, source, "retried")
    for _ in range(3):
        reject(channel, source)
    delivery = fetch(channel, source)
    assert [(death["queue"], death["reason"], death["count"]) for death in deaths(delivery)] == [
        (wait, "expired", 3),
        (source, "rejected", 3),
    ]
    assert delivery.headers["x-first-death-reason"] == "rejected"


@KINDS
def test_deaths_differ_by_reason(channel, names, kind):
    """A queue's deaths are counted apart for each reason."""
    source, dead = names.queue("source"), names.queue("target")
    declare_dead_lettering(channel, source, dead, kind)
    declare_dead_lettering(channel, dead, source, kind)
    publish(channel, source, "twice", expiration="1")
    reject(channel, dead)
    reject(channel, source)
    past = deaths(fetch(channel, dead))
    found = [(death["queue"], death["reason"], death["count"]) for death in past]
    assert found[0] == (source, "rejected", 1)
    assert set(found[1:]) == {(dead, "rejected", 1), (source, "expired", 1)}
