"""Consuming without a socket: always consuming, or saying why not; settling only what is ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from amqtask.errors import AccessRefused, ConnectionLost, TopologyMismatch
from amqtask.transport import Consumer, Delivery, Session
from tests.helpers import aeventually
from tests.unit.transport.fakes import FakeChannel, FakeLink, as_fake, as_link


class Taker:
    """Keeps what a consumer delivers and how its state changed."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.states: list[bool] = []
        self.prepared: list[int] = []
        self.refusals: list[Exception] = []

    async def prepare(self, session: Session) -> None:
        self.prepared.append(as_fake(session).epoch)
        if self.refusals:
            raise self.refusals.pop(0)

    def changed(self, consumer: Consumer) -> None:
        self.states.append(consumer.consuming)


@pytest.fixture
async def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
async def consumer(link: FakeLink, taker: Taker) -> AsyncIterator[Consumer]:
    made = Consumer(
        as_link(link),
        "email",
        prefetch=10,
        on_delivery=taker.deliveries.append,
        prepare=taker.prepare,
        on_change=taker.changed,
    )
    made.start()
    yield made
    await made.close()


async def _channel(link: FakeLink, consumer: Consumer) -> FakeChannel:
    """Return the channel that is consumed on, of the current session or a new one."""
    session = link.session or link.connect()
    # the consumer of a session that was lost just now has not heard of it yet
    await aeventually(lambda: session.channels and session.channels[-1].consumers)
    await aeventually(lambda: consumer.consuming)
    return session.channels[-1]


async def test_states_tell_the_truth(link: FakeLink, consumer: Consumer, taker: Taker) -> None:
    """It is consuming from consume-ok on, and has an error whenever it is not."""
    assert not consumer.consuming
    assert str(consumer.error) == "not connected yet"
    channel = await _channel(link, consumer)
    assert (consumer.error, taker.states, channel.prefetch) == (None, [True], [10])
    link.lose()
    await aeventually(lambda: not consumer.consuming)
    assert str(consumer.error) == "connection to broker amqp://user@mq.example:5672 was lost"
    await _channel(link, consumer)
    assert (consumer.error, taker.states) == (None, [True, False, True])


async def test_a_delivery_is_all_that_came(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """Body, properties, route and the redelivered mark are passed on as they came."""
    channel = await _channel(link, consumer)
    channel.deliver(b"body", 1, redelivered=True)
    (delivery,) = taker.deliveries
    assert (delivery.message.body, delivery.message.message_id) == (b"body", "m")
    assert (delivery.queue, delivery.exchange, delivery.routing_key) == ("email", "x", "k")
    assert (delivery.redelivered, delivery.is_valid, delivery.tag) == (True, True, 1)
    delivery.ack()


async def test_acks_of_one_turn_go_together(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """What is acked in one turn of the loop is one frame at its end; the rest goes at once."""
    channel = await _channel(link, consumer)
    for tag in range(1, 6):
        channel.deliver(b"", tag)
    one, two, three, four, five = taker.deliveries
    two.ack()
    one.ack()
    four.give_back()
    five.reject(requeue=False)
    assert channel.raw.settled == [("nack", 4, True), ("reject", 5, False)]
    await aeventually(lambda: len(channel.raw.settled) == 3)
    assert channel.raw.settled[-1] == ("ack", 2, True)
    three.ack()
    await aeventually(lambda: len(channel.raw.settled) == 4)
    assert channel.raw.settled[-1] == ("ack", 3, False)


@pytest.mark.parametrize("verb", ["ack", "nack", "reject"])
async def test_settling_after_the_channel_is_a_logged_no_op(
    link: FakeLink, consumer: Consumer, taker: Taker, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The tag of an old epoch never reaches a new channel, where it would mean another message."""
    old = await _channel(link, consumer)
    old.deliver(b"old", 1)
    link.lose()
    new = await _channel(link, consumer)
    new.deliver(b"new", 1)
    delivery = taker.deliveries[0]
    assert not delivery.is_valid
    with caplog.at_level(logging.INFO):
        if verb == "ack":
            delivery.ack()
        elif verb == "nack":
            delivery.give_back()
        else:
            delivery.reject(requeue=True)
    assert f"delivery.stale verb={verb} tag=1 epoch=1" in caplog.text
    await asyncio.sleep(0)
    assert (old.raw.settled, new.raw.settled) == ([], [])
    assert taker.deliveries[1].is_valid


async def test_an_ack_that_waits_when_the_channel_ends_is_dropped(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """An ack between task and flush is lost with its channel: the message comes again."""
    channel = await _channel(link, consumer)
    channel.deliver(b"", 1)
    taker.deliveries[0].ack()
    link.lose()
    await _channel(link, consumer)
    assert channel.raw.settled == []


async def test_a_cancel_from_the_broker_ends_in_consuming_again(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """Queue deleted or moved: prepared and consumed anew, on the same channel, and said meanwhile."""
    channel = await _channel(link, consumer)
    channel.cancelled()
    assert not consumer.consuming
    assert str(consumer.error) == "the broker cancelled the consumer of 'email'"
    await aeventually(lambda: consumer.consuming)
    assert (taker.prepared, len(channel.consumers)) == ([1, 1], 1)
    assert link.session is not None
    assert len(link.session.channels) == 1


async def test_what_a_cancelled_consumer_took_can_still_be_settled(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """A cancel takes no delivery away: its channel is still there."""
    channel = await _channel(link, consumer)
    channel.deliver(b"", 1)
    channel.cancelled()
    await aeventually(lambda: consumer.consuming)
    taker.deliveries[0].ack()
    await aeventually(lambda: channel.raw.settled == [("ack", 1, False)])


async def test_a_closed_channel_ends_in_consuming_again(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """A channel that the broker closed is replaced; the connection stays."""
    channel = await _channel(link, consumer)
    channel.refuse(406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
    await aeventually(lambda: not consumer.consuming)
    assert "delivery acknowledgement timed out" in str(consumer.error)
    again = await _channel(link, consumer)
    assert again is not channel
    assert again.session is channel.session


async def test_a_refusal_is_shown_and_tried_again(link: FakeLink, taker: Taker) -> None:
    """A queue that cannot be had is an error to see, not the end of trying."""
    taker.refusals = [TopologyMismatch("queue 'email' has another x-queue-type")]
    consumer = Consumer(
        as_link(link), "email", prefetch=1, on_delivery=print, prepare=taker.prepare
    )
    consumer.start()
    link.connect()
    await aeventually(lambda: isinstance(consumer.error, TopologyMismatch))
    await aeventually(lambda: consumer.consuming)
    assert taker.prepared == [1, 1]
    await consumer.close()


async def test_a_new_prefetch_is_a_new_consume(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """The broker never changes a live consumer's prefetch; the same one again changes nothing."""
    channel = await _channel(link, consumer)
    consumer.set_prefetch(10)
    consumer.set_prefetch(50)
    await aeventually(lambda: channel.prefetch == [10, 50])
    assert consumer.prefetch == 50
    await aeventually(lambda: len(channel.consumers) == 1)
    assert (consumer.consuming, taker.states) == (True, [True])


async def test_stop_gives_back_what_still_comes(
    link: FakeLink, consumer: Consumer, taker: Taker
) -> None:
    """After stop nothing new is taken, and what is here can be acked."""
    channel = await _channel(link, consumer)
    channel.deliver(b"", 1)
    (on_message,) = channel.consumers.values()
    await consumer.stop()
    channel.consumers["late"] = on_message
    channel.deliver(b"", 2)
    assert len(taker.deliveries) == 1
    assert channel.raw.settled == [("nack", 2, True)]
    taker.deliveries[0].ack()
    await consumer.close()
    assert channel.raw.settled[-1] == ("ack", 1, False)
    assert not channel.is_open


async def test_stop_before_the_first_connection(link: FakeLink, consumer: Consumer) -> None:
    """A consumer that never came up stops too."""
    await consumer.stop()
    assert isinstance(consumer.error, ConnectionLost)
    await consumer.close()
    assert link.session is None


async def test_a_lost_connection_is_said_by_the_link_alone(
    link: FakeLink, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker with twenty queues must not say it twenty times; each knows the reason."""
    await _channel(link, consumer)
    link.lose()
    await aeventually(lambda: not consumer.consuming)
    link.fail(AccessRefused("wrong password"), refused=True)
    assert str(consumer.error) == "wrong password"
    await _channel(link, consumer)
    assert consumer.error is None
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (
            (
                "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value "
                "used: 1800000 ms. This timeout value can be configured, see consumers doc guide to "
                "learn more"
            ),
            "1800",
        ),
        ("PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out", "?"),
    ],
)
async def test_a_consumer_timeout_is_explained(
    link: FakeLink, consumer: Consumer, caplog: pytest.LogCaptureFixture, text: str, seconds: str
) -> None:
    """What happened, what the limit is, and what to do; and it consumes again."""
    channel = await _channel(link, consumer)
    channel.refuse(406, text)
    await aeventually(lambda: not consumer.consuming)
    await _channel(link, consumer)
    assert f"consumer.timeout queue='email' seconds={seconds}: a delivery was held" in caplog.text
    assert "Queue(consumer_timeout=...)" in caplog.text
    assert "consumer.lost" not in caplog.text


@pytest.mark.parametrize(("held", "told"), [(0, False), (1, True)])
async def test_a_cancel_that_may_be_a_consumer_timeout(
    link: FakeLink, consumer: Consumer, caplog: pytest.LogCaptureFixture, held: int, told: bool
) -> None:
    """RabbitMQ 4.3 ends the consumer instead of its channel, and does not say why."""
    link.connect().rabbitmq = (4, 3)
    channel = await _channel(link, consumer)
    for tag in range(1, held + 1):
        channel.deliver(b"", tag)
    channel.cancelled()
    assert ("longer than its consumer timeout" in caplog.text) is told
    await aeventually(lambda: consumer.consuming)


async def test_arguments_fit_the_broker(link: FakeLink) -> None:
    """They are asked for with each consume, as the next broker may be another version."""
    consumer = Consumer(
        as_link(link),
        "email",
        prefetch=1,
        on_delivery=print,
        arguments=lambda session: {"x-version": session.rabbitmq},
    )
    consumer.start()
    channel = await _channel(link, consumer)
    assert channel.arguments == {"x-version": (4, 0)}
    link.lose()
    link.connect().rabbitmq = (4, 3)
    channel = await _channel(link, consumer)
    assert channel.arguments == {"x-version": (4, 3)}
    await consumer.close()
