"""Direct reply-to: answers that go straight to the channel that asked, through no queue."""

from __future__ import annotations

import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    Delivery,
    Inbox,
    channel_closed,
    exists,
    fetch,
    publish,
    refusal,
)
from tests.helpers import eventually

REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.fixture
def queue(channel, names):
    name = names.queue()
    channel.queue_declare(name)
    return name


@pytest.fixture
def asking(connection):
    """A channel that has a consumer for answers, and that consumer."""
    channel = connection.channel()
    return channel, Inbox(channel, REPLY_TO, auto_ack=True)


def ask(
    asking: tuple[BlockingChannel, Inbox],
    channel: BlockingChannel,
    queue: str,
    body: str = "question",
) -> Delivery:
    """Publish a request and return it as the answering side gets it."""
    publish(asking[0], queue, body, reply_to=REPLY_TO, correlation_id="c")
    return fetch(channel, queue)


def test_answer_comes(asking, channel, queue):
    request = ask(asking, channel, queue)
    address = request.properties.reply_to
    assert address.startswith(f"{REPLY_TO}.")
    publish(channel, address, "answer", correlation_id=request.properties.correlation_id)
    answer = asking[1].take()[0]
    assert (answer.body, answer.properties.correlation_id) == (b"answer", "c")
    assert (answer.method.exchange, answer.method.routing_key) == ("", address)
    assert answer.method.consumer_tag == asking[1].tag
    assert not answer.method.redelivered


def test_many_answers_in_order(asking, channel, queue):
    address = ask(asking, channel, queue).properties.reply_to
    for number in range(50):
        publish(channel, address, str(number))
    assert asking[1].bodies(50) == [str(number) for number in range(50)]


def test_large_answer(asking, channel, queue):
    address = ask(asking, channel, queue).properties.reply_to
    publish(channel, address, b"x" * 300_000)
    assert len(asking[1].take()[0].body) == 300_000


def test_addresses_differ_by_channel(connect, channel, queue):
    addresses = set()
    for _ in range(2):
        other = connect().channel()
        Inbox(other, REPLY_TO, auto_ack=True)
        publish(other, queue, reply_to=REPLY_TO)
        addresses.add(fetch(channel, queue).properties.reply_to)
    assert len(addresses) == 2


def test_answer_goes_to_who_asked(connect, channel, queue):
    inboxes = []
    for number in range(2):
        other = connect().channel()
        inboxes.append(Inbox(other, REPLY_TO, auto_ack=True))
        publish(other, queue, str(number), reply_to=REPLY_TO)
    requests = {request.body: request for request in (fetch(channel, queue) for _ in range(2))}
    for number in (1, 0):
        publish(channel, requests[b"%d" % number].properties.reply_to, f"to {number}")
    assert [inbox.bodies(1) for inbox in inboxes] == [["to 0"], ["to 1"]]


def test_any_other_reply_to_is_left_alone(channel, queue):
    publish(channel, queue, reply_to="a.queue.of.mine")
    assert fetch(channel, queue).properties.reply_to == "a.queue.of.mine"


def test_address_can_be_asked_for(asking, channel, queue, connection):
    """A passive declare of the address tells whether the asking side is still there."""
    address = ask(asking, channel, queue).properties.reply_to
    answer = channel.queue_declare(address, passive=True).method
    assert (answer.queue, answer.message_count, answer.consumer_count) == (address, 0, 1)
    asking[0].close()
    eventually(lambda: not exists(connection, address))


def test_answer_to_nobody_is_dropped(asking, channel, queue):
    address = ask(asking, channel, queue).properties.reply_to
    asking[0].close()
    publish(channel, address, "too late")


def test_cancelled_consumer_gets_no_answers(asking, channel, queue):
    address = ask(asking, channel, queue).properties.reply_to
    asking[0].basic_cancel(asking[1].tag)
    publish(channel, address, "too late")
    assert asking[1].silent()


def test_request_without_a_consumer(channel, queue):
    assert refusal(publish, channel, queue, reply_to=REPLY_TO) == channel_closed(
        406, "PRECONDITION_FAILED - fast reply consumer does not exist"
    )


def test_consumer_of_another_channel_does_not_count(asking, channel, queue):
    assert refusal(publish, channel, queue, reply_to=REPLY_TO).code == 406


def test_answers_cannot_be_acked(channel):
    assert refusal(Inbox, channel, REPLY_TO) == channel_closed(
        406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"
    )


def test_one_consumer_a_channel(asking):
    assert refusal(Inbox, asking[0], REPLY_TO, auto_ack=True) == channel_closed(
        406, "PRECONDITION_FAILED - reply consumer already set"
    )


def test_declare_answers_as_if_it_were_a_queue(channel):
    answer = channel.queue_declare(REPLY_TO, passive=True).method
    assert (answer.message_count, answer.consumer_count) == (0, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda channel, name: channel.queue_declare(name, passive=True),
        lambda channel, name: channel.queue_purge(name),
        lambda channel, name: channel.basic_get(name),
        lambda channel, name: channel.queue_bind(name, "amq.direct", "key"),
    ],
    ids=["declare", "purge", "get", "bind"],
)
def test_made_up_address(channel, here, call):
    name = f"{REPLY_TO}.nosuch"
    assert refusal(call, channel, name) == channel_closed(
        404, f"NOT_FOUND - no queue '{name}' {here}"
    )


def test_made_up_address_is_unroutable(channel):
    with pytest.raises(pika.exceptions.UnroutableError):
        publish(channel, f"{REPLY_TO}.nosuch", mandatory=True)
