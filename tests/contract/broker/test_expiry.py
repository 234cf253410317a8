"""Messages and queues that end by the clock.

Times are short, and tests wait for what follows from them, not for the time itself.
"""

from __future__ import annotations

from collections.abc import Callable

import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    Inbox,
    channel_closed,
    depth,
    drain,
    exists,
    fetch,
    get,
    publish,
    refusal,
)
from tests.helpers import eventually

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])
#: Milliseconds that pass while a test looks on.
SOON = 60
#: Milliseconds that no test lives through.
NEVER = 600_000


@pytest.fixture
def queue(dead_lettered):
    return dead_lettered


@KINDS
def test_queue_sets_the_time(channel, queue, kind):
    name, dead = queue(kind, message_ttl=SOON)
    publish(channel, name, "late")
    assert fetch(channel, dead).body == b"late"
    assert drain(channel, name) == []


@KINDS
def test_message_sets_its_own(channel, queue, kind):
    name, dead = queue(kind)
    publish(channel, name, "late", expiration=str(SOON))
    publish(channel, name, "stays")
    assert fetch(channel, dead).body == b"late"
    assert drain(channel, name) == ["stays"]


@KINDS
@pytest.mark.parametrize(("of_queue", "of_message"), [(SOON, NEVER), (NEVER, SOON)])
def test_the_shorter_time_counts(channel, queue, kind, of_queue, of_message):
    name, dead = queue(kind, message_ttl=of_queue)
    publish(channel, name, "late", expiration=str(of_message))
    assert fetch(channel, dead).body == b"late"


@KINDS
def test_expired_leave_in_order(channel, queue, kind):
    name, dead = queue(kind, message_ttl=SOON)
    for body in "abc":
        publish(channel, name, body)
    assert [fetch(channel, dead).body for _ in range(3)] == [b"a", b"b", b"c"]


@KINDS
def test_expired_behind_another_waits(channel, queue, kind):
    """Only the head is looked at: what expired behind it leaves when its turn comes."""
    name, dead = queue(kind)
    publish(channel, name, "long")
    publish(channel, name, "short", expiration="1")
    publish(channel, dead, "mark", expiration="1")
    eventually(lambda: depth(channel, dead) == 0)
    assert depth(channel, name) == 2
    assert fetch(channel, name).body == b"long"
    assert fetch(channel, dead).body == b"short"
    assert drain(channel, name) == []


def test_no_time_at_all_is_for_a_waiting_consumer(channel, queue):
    """A time of zero delivers at once or not at all."""
    name, dead = queue(message_ttl=0)
    publish(channel, name, "nobody there")
    assert fetch(channel, dead).body == b"nobody there"
    inbox = Inbox(channel, name, auto_ack=True)
    publish(channel, name, "somebody there")
    assert inbox.bodies(1) == ["somebody there"]


@KINDS
def test_unacked_does_not_expire_until_it_is_back(channel, queue, kind):
    name, dead = queue(kind, message_ttl=1000)  # it has to be taken before
    publish(channel, name, "held")
    held = fetch(channel, name, auto_ack=False)
    publish(channel, name, "mark")
    assert fetch(channel, dead).body == b"mark"
    channel.basic_nack(held.tag, requeue=True)
    assert fetch(channel, dead).body == b"held"


@KINDS
def test_expiration_is_shown_to_consumers(channel, queue, kind):
    name, _ = queue(kind)
    publish(channel, name, "in time", expiration=str(NEVER))
    assert fetch(channel, name).properties.expiration == str(NEVER)


@pytest.mark.parametrize(
    ("expiration", "said"),
    [
        ("soon", "'soon': no_integer"),
        ("", "'': no_integer"),
        ("-1", "'-1': {value_negative,-1}"),
        ("1.5", "'1.5': {leftover_string,\".5\"}"),
        ("315360000001", "'315360000001': {value_too_large,315360000001}"),
    ],
    ids=["word", "empty", "negative", "fraction", "too-long"],
)
def test_expiration_is_a_number_in_text(channel, queue, expiration, said):
    name, _ = queue()
    assert refusal(publish, channel, name, expiration=expiration) == channel_closed(
        406, f"PRECONDITION_FAILED - invalid expiration {said}"
    )


# -- queues -------------------------------------------------------------------

#: Milliseconds a queue of these tests lives unused: no busy machine is as long between two uses.
LEASE = 1500


def gone(channel: BlockingChannel, name: str) -> bool:
    """Tell whether a queue is missing, without using it: a declare would renew its lease."""
    try:
        publish(channel, name, mandatory=True)
    except pika.exceptions.UnroutableError:
        return True
    return False


def lives_while(channel: BlockingChannel, name: str, use: Callable[[], object]) -> bool:
    """Use a queue for longer than its lease, as another one with the same lease proves."""
    mark = f"{name}.dead"
    channel.queue_declare(mark, arguments={"x-expires": 2 * LEASE})

    def step() -> bool:
        use()
        return gone(channel, mark)

    eventually(step)
    return not gone(channel, name)


@pytest.fixture
def leased(channel, names):
    name = names.queue()
    channel.queue_declare(name, arguments={"x-expires": LEASE})
    return name


def test_unused_queue_goes(channel, leased):
    publish(channel, leased, "not a use")
    eventually(lambda: gone(channel, leased))


def test_queue_that_goes_drops_its_messages(channel, names):
    """They end with the queue, and are no dead letters."""
    name = names.queue()
    dead = f"{name}.dead"
    channel.queue_declare(dead)
    channel.queue_declare(
        name,
        arguments={
            "x-expires": LEASE,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        },
    )
    publish(channel, name, "dropped")
    eventually(lambda: gone(channel, name))
    assert depth(channel, dead) == 0


def test_declaring_renews(channel, leased):
    def use():
        channel.queue_declare(leased, arguments={"x-expires": LEASE})

    assert lives_while(channel, leased, use)


def test_getting_renews(channel, leased):
    assert lives_while(channel, leased, lambda: get(channel, leased))


def test_consumer_keeps_it(channel, leased):
    inbox = Inbox(channel, leased)
    assert lives_while(channel, leased, lambda: None)
    channel.basic_cancel(inbox.tag)
    eventually(lambda: gone(channel, leased))


def test_unused_quorum_queue_goes(channel, connection, names):
    """It looks at its lease every few seconds only, and being asked for is no use of it."""
    name = names.queue()
    arguments = {"x-queue-type": "quorum", "x-expires": LEASE}
    channel.queue_declare(name, durable=True, arguments=arguments)
    eventually(lambda: not exists(connection, name))
