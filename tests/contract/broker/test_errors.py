"""What a broker says to a client that breaks the rules, and what goes on after it."""

from __future__ import annotations

import contextlib

import pytest
from pamqp import body, commands, frame, header, heartbeat

from tests.contract.broker.clients import fetch, publish
from tests.contract.broker.wire import Gone

Properties = commands.Basic.Properties
EXPECTED_OPEN = (504, "CHANNEL_ERROR - expected 'channel.open'")
OUT_OF_PLACE = (504, "CHANNEL_ERROR - unexpected method in connection state running")
UNIMPLEMENTED = (503, "COMMAND_INVALID - unimplemented method")
NO_METHOD = (505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead")
NO_HEADER = (
    505,
    "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
)
WRONG_HEADER = (
    505,
    "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
)
NO_BODY = (
    505,
    "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
)


def octets(kind: int, channel: int, payload: bytes, end: int = 0xCE) -> bytes:
    """Return a frame, right or wrong."""
    head = bytes([kind]) + channel.to_bytes(2) + len(payload).to_bytes(4)
    return head + payload + bytes([end])


def method(class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return octets(1, 1, class_id.to_bytes(2) + method_id.to_bytes(2) + arguments)


def marshal(value: frame.FrameTypes, channel: int = 1) -> bytes:
    return frame.marshal(value, channel)


PUBLISH = marshal(commands.Basic.Publish(exchange="", routing_key="nosuch"))
HEADER = marshal(header.ContentHeader(0, 5, Properties()))
BODY = marshal(body.ContentBody(b"12345"))
DECLARE = commands.Queue.Declare(queue="nosuch", passive=True)

#: What is sent, and how it is answered: code, text, and the class and method that are blamed.
ENDS_THE_CONNECTION = {
    "method-on-a-channel-not-open": (marshal(DECLARE, 9), EXPECTED_OPEN, (50, 10)),
    "close-of-a-channel-not-open": (
        marshal(commands.Channel.Close(0, "", 0, 0), 9),
        EXPECTED_OPEN,
        (20, 40),
    ),
    "channel-opened-twice": (
        marshal(commands.Channel.Open()),
        (504, "CHANNEL_ERROR - second 'channel.open' seen"),
        (20, 10),
    ),
    "channel-method-on-channel-0": (marshal(DECLARE, 0), OUT_OF_PLACE, (50, 10)),
    "connection-opened-twice": (marshal(commands.Connection.Open("/"), 0), OUT_OF_PLACE, (10, 40)),
    "connection-method-on-a-channel": (
        marshal(commands.Connection.Open("/")),
        UNIMPLEMENTED,
        (10, 40),
    ),
    "answer-of-a-server": (
        marshal(commands.Queue.DeclareOk("nosuch", 0, 0)),
        UNIMPLEMENTED,
        (50, 11),
    ),
    "flow-stopped": (
        marshal(commands.Channel.Flow(False)),
        (540, "NOT_IMPLEMENTED - active=false"),
        (20, 20),
    ),
    "header-first": (HEADER, NO_METHOD, (0, 0)),
    "body-first": (BODY, NO_METHOD, (0, 0)),
    "method-for-a-header": (PUBLISH + marshal(DECLARE), NO_HEADER, (60, 40)),
    "body-for-a-header": (PUBLISH + BODY, NO_HEADER, (60, 40)),
    "method-for-a-body": (PUBLISH + HEADER + marshal(DECLARE), NO_BODY, (60, 40)),
    "header-for-a-body": (PUBLISH + HEADER + HEADER, NO_BODY, (60, 40)),
    "header-of-another-class": (
        PUBLISH + HEADER[:7] + b"\x00\x32" + HEADER[9:],
        WRONG_HEADER,
        (60, 40),
    ),
    "arguments-cut-off": (
        method(50, 10, b"\x00"),
        (501, "FRAME_ERROR - cannot decode <<0>>"),
        (50, 10),
    ),
    "wrong-end-octet": (
        octets(1, 1, bytes([0, 60, 0, 10, 0, 0, 0, 0, 0, 0, 0]), end=0),
        (
            501,
            (
                "FRAME_ERROR - type 1, all octets = <<0,60,0,10,0,0,0,0,0,0,0>>: "
                "{invalid_frame_end_marker,0}"
            ),
        ),
        (0, 0),
    ),
    "unknown-frame-type": (
        octets(9, 1, b"a"),
        (501, 'FRAME_ERROR - type 9, all octets = <<"a">>: unknown_frame'),
        (0, 0),
    ),
    "empty-method": (
        octets(1, 1, b""),
        (501, "FRAME_ERROR - type 1, all octets = <<>>: unknown_frame"),
        (0, 0),
    ),
    "heartbeat-on-a-channel": (
        octets(8, 1, b""),
        (505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
        (0, 0),
    ),
    "frame-too-large": (
        octets(3, 1, b"x" * 131073),
        (501, "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,131073,131064}"),
        (0, 0),
    ),
}


@pytest.mark.parametrize("case", ENDS_THE_CONNECTION)
def test_ends_the_connection(wire, case):
    sent, (code, text), blamed = ENDS_THE_CONNECTION[case]
    wire.write(sent)
    close = wire.expect(commands.Connection.Close, channel=0)
    assert (close.reply_code, close.reply_text) == (code, text)
    assert (close.class_id, close.method_id) == blamed


def test_ended_connection_closes_its_socket(wire):
    wire.write(HEADER)
    wire.expect(commands.Connection.Close, channel=0)
    wire.send(commands.Connection.CloseOk(), channel=0)
    assert wire.ended()


@pytest.mark.parametrize(
    "sent", [method(99, 1), method(60, 199)], ids=["unknown-class", "unknown-method"]
)
def test_unknown_methods_end_the_connection(wire, sent):
    """RabbitMQ cuts it without a word; a word does no harm."""
    wire.write(sent)
    with contextlib.suppress(Gone):
        assert wire.refusal().scope == "connection"
    assert wire.ended()


def test_frame_of_the_greatest_size_is_taken(wire):
    """The agreed size is one of frames; RabbitMQ lets a payload be as large."""
    wire.write(PUBLISH + marshal(header.ContentHeader(0, 131064, Properties())))
    wire.write(octets(3, 1, b"x" * 131064))
    wire.call(commands.Basic.Qos(), commands.Basic.QosOk)


def test_closed_channel_leaves_the_others(wire, names, here):
    """A channel's error is its own."""
    wire.open_channel(2)
    name = names.queue()
    wire.send(commands.Queue.Declare(queue=name, passive=True))
    close = wire.expect(commands.Channel.Close)
    assert (close.reply_code, close.reply_text) == (
        404,
        f"NOT_FOUND - no queue '{name}' {here}",
    )
    assert (close.class_id, close.method_id) == (50, 10)
    wire.call(commands.Basic.Qos(), commands.Basic.QosOk, channel=2)


def test_closed_channel_hears_nothing_until_it_is_agreed_to(wire, names):
    """What was on its way when the channel closed is dropped, answers included."""
    name = names.queue()
    wire.send(commands.Queue.Declare(queue=name, passive=True))
    wire.send(commands.Queue.Declare(queue=name))
    wire.send(commands.Basic.Qos())
    wire.expect(commands.Channel.Close)
    wire.send(commands.Queue.Declare(queue=name))
    wire.send(commands.Channel.CloseOk())
    wire.open_channel()
    wire.send(commands.Queue.Declare(queue=name, passive=True))
    assert wire.refusal().code == 404


def test_closed_channel_may_be_opened_again(wire, names):
    for _ in range(3):
        wire.send(commands.Queue.Declare(queue=names.queue("missing"), passive=True))
        assert wire.refusal().code == 404
        wire.open_channel()
    wire.call(commands.Basic.Qos(), commands.Basic.QosOk)


def test_client_closes_a_channel(wire):
    wire.call(commands.Channel.Close(200, "bye", 0, 0), commands.Channel.CloseOk)
    wire.open_channel()
    wire.call(commands.Basic.Qos(), commands.Basic.QosOk)


def test_flow_that_goes_on_is_answered(wire):
    assert wire.call(commands.Channel.Flow(True), commands.Channel.FlowOk).active


def test_heartbeats_between_frames_of_a_message(wire, channel, names):
    """They belong to channel 0, and may come at any time."""
    name = names.queue()
    channel.queue_declare(name)
    wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    wire.send(commands.Basic.Publish(exchange="", routing_key=name))
    wire.send(heartbeat.Heartbeat(), 0)
    wire.send(header.ContentHeader(0, 2, Properties()))
    wire.send(heartbeat.Heartbeat(), 0)
    wire.send(body.ContentBody(b"a"))
    wire.send(heartbeat.Heartbeat(), 0)
    wire.send(body.ContentBody(b"b"))
    wire.expect(commands.Basic.Ack)
    assert channel.basic_get(name, auto_ack=True)[2] == b"ab"


def test_frames_of_two_channels_mix(wire, channel, names):
    """Frames of a message come in order, but not in one go."""
    name = names.queue()
    channel.queue_declare(name)
    wire.open_channel(2)
    for number in (1, 2):
        wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk, number)
    for part in (
        commands.Basic.Publish(exchange="", routing_key=name),
        header.ContentHeader(0, 2, Properties()),
        body.ContentBody(b"a"),
        body.ContentBody(b"b"),
    ):
        for number in (1, 2):
            wire.send(part, number)
    for number in (1, 2):
        wire.await_(commands.Basic.Ack, number)
    assert [channel.basic_get(name, auto_ack=True)[2] for _ in range(2)] == [b"ab"] * 2


def test_frames_one_octet_at_a_time(wire, channel, names):
    name = names.queue()
    channel.queue_declare(name)
    for octet in marshal(commands.Queue.Declare(queue=name, passive=True)):
        wire.write(bytes([octet]))
    assert wire.expect(commands.Queue.DeclareOk).queue == name


def test_many_frames_in_one_go(wire, channel, names):
    name = names.queue()
    channel.queue_declare(name)
    wire.write(marshal(commands.Queue.Declare(queue=name, passive=True)) * 200)
    for _ in range(200):
        wire.expect(commands.Queue.DeclareOk)


def test_connection_error_gives_back_what_was_unacked(wire, channel, names):
    name = names.queue()
    channel.queue_declare(name)
    publish(channel, name, "a")
    wire.call(commands.Basic.Consume(queue=name), commands.Basic.ConsumeOk)
    wire.content(commands.Basic.Deliver)
    wire.write(octets(9, 1, b"a"))
    wire.refusal()
    with pytest.raises(Gone):
        wire.receive()
    assert fetch(channel, name).method.redelivered


def test_methods_without_an_answer(wire, names):
    """With nowait a client trusts that it will do; only a refusal is answered."""
    queue, exchange = names.queue(), names.exchange()
    wire.send(commands.Exchange.Declare(exchange=exchange, exchange_type="fanout", nowait=True))
    wire.send(commands.Queue.Declare(queue=queue, nowait=True))
    wire.send(commands.Queue.Bind(queue=queue, exchange=exchange, routing_key="", nowait=True))
    wire.send(commands.Exchange.Bind(destination="amq.fanout", source=exchange, nowait=True))
    wire.send(commands.Exchange.Unbind(destination="amq.fanout", source=exchange, nowait=True))
    wire.send(commands.Confirm.Select(nowait=True))
    wire.publish(b"a", exchange=exchange)
    wire.expect(commands.Basic.Ack)
    wire.send(commands.Queue.Purge(queue=queue, nowait=True))
    wire.send(commands.Basic.Consume(queue=queue, consumer_tag="mine", nowait=True))
    wire.send(commands.Basic.Cancel("mine", nowait=True))
    wire.send(commands.Exchange.Delete(exchange=exchange, nowait=True))
    wire.send(commands.Queue.Delete(queue=queue, nowait=True))
    wire.send(commands.Queue.Declare(queue=queue, passive=True, nowait=True))
    assert wire.refusal().code == 404


def test_broken_properties_end_the_connection(wire):
    """A header table that claims more octets than there are."""
    flags, length = b"\x20\x00", (100).to_bytes(4)
    payload = b"\x00\x3c\x00\x00" + bytes(8) + flags + length + b"\x01a"
    wire.write(PUBLISH + octets(2, 1, payload))
    refused = wire.refusal()
    assert (refused.scope, refused.code) == ("connection", 541)
    assert refused.text.startswith("INTERNAL_ERROR")
