"""Publishing: what comes back, and when the broker says that it has it."""

from __future__ import annotations

from collections import Counter

import pika.exceptions
import pytest
from pamqp import commands, header
from pamqp.common import FieldTable

from tests.contract.broker.clients import channel_closed, drain, fetch, publish, refusal
from tests.contract.broker.differences import FIRST_FAULT
from tests.contract.broker.wire import Refused, Wire

Properties = commands.Basic.Properties


@pytest.fixture
def queue(wire, names):
    name = names.queue()
    wire.call(commands.Queue.Declare(queue=name, durable=True), commands.Queue.DeclareOk)
    return name


def confirming(wire: Wire) -> Wire:
    wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    return wire


def settled(wire: Wire, count: int) -> dict[int, str]:
    """Read confirms until these many messages have theirs, and return each one's answer."""
    answers: dict[int, str] = {}
    done = 0
    while len(answers) < count:
        _, frame = wire.receive()
        assert isinstance(frame, commands.Basic.Ack | commands.Basic.Nack), frame
        if frame.multiple:
            # zero stands for all that are open
            last = frame.delivery_tag or count
            tags = [tag for tag in range(1, last + 1) if tag not in answers]
        else:
            tags = [frame.delivery_tag]
        for tag in tags:
            assert tag not in answers, "confirmed twice"
            answers[tag] = type(frame).__name__
        done += 1
        assert done <= count
    return answers


# -- confirms -----------------------------------------------------------------


def test_confirms_count_from_one(wire, queue):
    """Tags are the publishes of the channel since it asked for confirms."""
    wire.publish(b"before", key=queue)
    confirming(wire)
    for tag in (1, 2, 3):
        wire.publish(b"x", key=queue)
        ack = wire.expect(commands.Basic.Ack)
        assert (ack.delivery_tag, ack.multiple) == (tag, False)


def test_confirms_of_each_channel_are_its_own(wire, queue):
    for channel in (2, 3):
        wire.open_channel(channel)
        wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk, channel)
        wire.publish(b"x", key=queue, channel=channel)
        assert wire.expect(commands.Basic.Ack, channel).delivery_tag == 1


def test_asking_for_confirms_twice_changes_nothing(wire, queue):
    confirming(wire).publish(b"x", key=queue)
    assert wire.expect(commands.Basic.Ack).delivery_tag == 1
    confirming(wire).publish(b"x", key=queue)
    assert wire.expect(commands.Basic.Ack).delivery_tag == 2


def test_every_message_of_a_burst_is_confirmed_once(wire, queue):
    """Confirms may come one by one or by `multiple`, in any order."""
    confirming(wire)
    count = 500
    for number in range(count):
        mode = Properties(delivery_mode=1 + number % 2)
        wire.publish(b"%d" % number, key=queue, properties=mode)
    assert settled(wire, count) == dict.fromkeys(range(1, count + 1), "Ack")


def test_bursts_to_quorum_queues_are_confirmed_once(wire, names):
    name = names.queue()
    wire.call(
        commands.Queue.Declare(queue=name, durable=True, arguments={"x-queue-type": "quorum"}),
        commands.Queue.DeclareOk,
    )
    confirming(wire)
    for number in range(200):
        wire.publish(b"%d" % number, key=name)
    assert settled(wire, 200) == dict.fromkeys(range(1, 201), "Ack")


def test_unroutable_is_confirmed_too(wire):
    """Nobody wanted it: that is handled, not failed."""
    confirming(wire).publish(b"x", key="nosuch")
    assert wire.expect(commands.Basic.Ack).delivery_tag == 1


def test_full_queue_nacks(wire, names):
    name = names.queue()
    arguments: FieldTable = {"x-max-length": 3, "x-overflow": "reject-publish"}
    wire.call(commands.Queue.Declare(queue=name, arguments=arguments), commands.Queue.DeclareOk)
    confirming(wire)
    for _ in range(10):
        wire.publish(b"x", key=name)
    answers = settled(wire, 10)
    assert Counter(answers.values()) == {"Ack": 3, "Nack": 7}
    assert [answers[tag] for tag in (1, 2, 3)] == ["Ack"] * 3


def test_one_confirm_for_many_queues(wire, names):
    exchange = names.exchange()
    wire.call(
        commands.Exchange.Declare(exchange=exchange, exchange_type="fanout"),
        commands.Exchange.DeclareOk,
    )
    for word in "abc":
        queue = names.queue(word)
        wire.call(commands.Queue.Declare(queue=queue), commands.Queue.DeclareOk)
        wire.call(
            commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=""),
            commands.Queue.BindOk,
        )
    confirming(wire)
    wire.publish(b"x", exchange=exchange)
    assert wire.expect(commands.Basic.Ack).delivery_tag == 1
    wire.publish(b"x", exchange=exchange)
    assert wire.expect(commands.Basic.Ack).delivery_tag == 2


def test_refused_publish_is_not_confirmed(wire, names, here):
    """The channel closes instead, which says that nothing open on it is known."""
    name = names.exchange()
    confirming(wire).publish(b"x", exchange=name)
    assert wire.refusal() == Refused("channel", 404, f"NOT_FOUND - no exchange '{name}' {here}")


def test_no_confirms_unless_asked_for(wire, queue):
    wire.publish(b"x", key=queue)
    wire.call(commands.Basic.Qos(), commands.Basic.QosOk)


# -- mandatory ----------------------------------------------------------------


def test_mandatory_comes_back_before_its_confirm(wire):
    """So a client knows, when it sees the confirm, whether the message found a queue."""
    confirming(wire)
    properties = Properties(message_id="m", headers={"a": 1}, delivery_mode=2)
    wire.publish(
        b"body", key="nosuch", exchange="amq.direct", mandatory=True, properties=properties
    )
    returned = wire.content(commands.Basic.Return)
    method = returned.method
    assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
    assert (method.exchange, method.routing_key) == ("amq.direct", "nosuch")
    assert returned.body == b"body"
    assert returned.properties.message_id == "m"
    assert returned.properties.headers == {"a": 1}
    assert wire.expect(commands.Basic.Ack).delivery_tag == 1


def test_mandatory_that_is_routed_does_not_come_back(wire, queue):
    confirming(wire).publish(b"body", key=queue, mandatory=True)
    wire.expect(commands.Basic.Ack)


def test_mandatory_without_confirms(wire):
    wire.publish(b"", key="nosuch", mandatory=True)
    assert wire.content(commands.Basic.Return).body == b""


def test_returns_keep_their_order(wire):
    for number in range(20):
        wire.publish(b"%d" % number, key="nosuch", mandatory=True)
    bodies = [wire.content(commands.Basic.Return).body for _ in range(20)]
    assert bodies == [b"%d" % number for number in range(20)]


def test_large_message_comes_back_in_frames(dial):
    wire = dial().login(frame_max=8192).open_channel()
    octets = bytes(range(256)) * 100
    wire.publish(octets, key="nosuch", mandatory=True)
    returned = wire.content(commands.Basic.Return)
    assert returned.body == octets
    assert max(map(len, returned.frames)) <= 8192 - 8


# -- what is refused ----------------------------------------------------------


def test_immediate_is_not_implemented(wire, queue):
    wire.publish(b"x", key=queue, immediate=True)
    assert wire.refusal() == Refused("connection", 540, "NOT_IMPLEMENTED - immediate=true")


def test_user_id_has_to_be_true(channel):
    assert refusal(publish, channel, "any", user_id="somebody") == channel_closed(
        406,
        "PRECONDITION_FAILED - user_id property set to 'somebody' "
        "but authenticated user was 'guest'",
    )


def test_true_user_id_is_kept(channel, names):
    queue = names.queue()
    channel.queue_declare(queue)
    publish(channel, queue, user_id="guest")
    assert fetch(channel, queue).properties.user_id == "guest"


def test_unknown_exchange(channel, names, here):
    name = names.exchange()
    assert refusal(publish, channel, "key", exchange=name) == channel_closed(
        404, f"NOT_FOUND - no exchange '{name}' {here}"
    )


def test_after_a_refusal_the_rest_is_dropped(wire, queue, names):
    """What a client had sent before it learned of the close must not take effect."""
    wire.publish(b"x", exchange=names.exchange())
    wire.publish(b"dropped", key=queue)
    assert wire.refusal().code == 404
    wire.open_channel()
    count = wire.call(
        commands.Queue.Declare(queue=queue, passive=True), commands.Queue.DeclareOk
    ).message_count
    assert count == 0


def test_pika_sees_a_return(channel):
    with pytest.raises(pika.exceptions.UnroutableError) as caught:
        publish(channel, "nosuch", "back", mandatory=True)
    (returned,) = caught.value.messages
    assert (returned.method.reply_code, returned.body) == (312, b"back")


# -- order and loss -----------------------------------------------------------


def test_messages_of_a_channel_keep_their_order(wire, queue, channel):
    confirming(wire)
    for number in range(300):
        wire.publish(b"%d" % number, key=queue)
    settled(wire, 300)
    assert drain(channel, queue) == [str(number) for number in range(300)]


def test_header_and_body_may_come_late(wire, queue, channel):
    """A message is one once its last frame is there; other channels go on meanwhile."""
    confirming(wire)
    wire.open_channel(2)
    wire.send(commands.Basic.Publish(exchange="", routing_key=queue))
    wire.call(commands.Basic.Qos(), commands.Basic.QosOk, channel=2)
    wire.send(header.ContentHeader(0, 0, Properties()))
    wire.expect(commands.Basic.Ack)
    assert drain(channel, queue) == [""]


def test_of_several_faults_one_is_told(channel, contract_broker):
    three, two = contract_broker.expects(FIRST_FAULT)
    said = {"expiration": "x", "headers": {"CC": "no list"}, "user_id": "somebody"}
    assert three in refusal(publish, channel, "key", **said).text
    channel = channel.connection.channel()
    channel.confirm_delivery()
    del said["expiration"]
    assert two in refusal(publish, channel, "key", **said).text


def test_nack_says_what_it_says_by_default(wire, names):
    """Requeue means nothing to a publisher; RabbitMQ leaves it set."""
    name = names.queue()
    arguments: FieldTable = {"x-max-length": 0, "x-overflow": "reject-publish"}
    wire.call(
        commands.Queue.Declare(queue=name, durable=True, arguments=arguments),
        commands.Queue.DeclareOk,
    )
    confirming(wire).publish(b"x", key=name)
    nack = wire.expect(commands.Basic.Nack)
    assert (nack.delivery_tag, nack.requeue) == (1, True)
