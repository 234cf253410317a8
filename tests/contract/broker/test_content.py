"""Messages of every shape: large, empty, with all properties, with every type of field."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pamqp import commands, header

from tests.contract.broker.clients import fetch, publish
from tests.contract.broker.differences import MAX_MESSAGE_SIZE
from tests.contract.broker.wire import Refused

KINDS = pytest.mark.parametrize("kind", ["classic", "quorum"])
Basic, Queue = commands.Basic, commands.Queue


# -- bodies -------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 1_000_000])
def test_body_of_any_size(channel, queue, kind, size):
    """The sizes about a frame's limit are where splitting goes wrong."""
    name = queue(kind)
    octets = (bytes(range(251)) * (size // 251 + 1))[:size]
    publish(channel, name, octets)
    assert fetch(channel, name).body == octets


@pytest.mark.parametrize("frame_max", [4096, 8192, 131_072])
def test_deliveries_keep_to_the_frame_size_of_the_consumer(dial, channel, queue, frame_max):
    """However the publisher cut it, a consumer gets frames of its own size."""
    name = queue()
    octets = bytes(range(256)) * 1200
    publish(channel, name, octets)
    wire = dial().login(frame_max=frame_max).open_channel()
    wire.call(Basic.Consume(queue=name, no_ack=True), Basic.ConsumeOk)
    delivered = wire.content(Basic.Deliver)
    assert delivered.body == octets
    assert max(map(len, delivered.frames)) <= frame_max - 8


def test_body_in_pieces_of_any_size(wire, channel, queue):
    name = queue()
    pieces = [b"a", b"bc" * 500, b"d" * 100_000, b"e"]
    wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    wire.publish(key=name, pieces=pieces)
    wire.expect(Basic.Ack)
    assert fetch(channel, name).body == b"".join(pieces)


def test_empty_body_has_no_body_frame(wire, queue):
    name = queue()
    wire.call(Basic.Consume(queue=name, no_ack=True), Basic.ConsumeOk)
    wire.publish(b"", key=name)
    delivered = wire.content(Basic.Deliver)
    assert (delivered.header.body_size, delivered.frames) == (0, ())
    wire.call(Basic.Qos(), Basic.QosOk)


def test_body_of_all_octets(channel, queue):
    """The octet that ends a frame is nothing special within one."""
    name = queue()
    octets = bytes(range(256)) + b"\xce" * 100
    publish(channel, name, octets)
    assert fetch(channel, name).body == octets


def test_message_larger_than_allowed(wire, channel, queue, contract_broker):
    """Sixteen MiB and an octet: what RabbitMQ 4 refuses and earlier versions take."""
    name = queue()
    wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    size = 16_777_217
    wire.publish(bytes(size), key=name)
    most = contract_broker.expects(MAX_MESSAGE_SIZE)
    if size > most:
        assert wire.refusal() == Refused(
            "channel",
            406,
            f"PRECONDITION_FAILED - message size {size} is larger than configured max size {most}",
        )
    else:
        wire.expect(Basic.Ack)


# -- properties ---------------------------------------------------------------

ALL_PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"a": 1},
    "delivery_mode": 2,
    "priority": 7,
    "correlation_id": "correlation",
    "reply_to": "reply",
    "expiration": "600000",
    "message_id": "message",
    "timestamp": 1_700_000_000,
    "type": "type",
    "user_id": "guest",
    "app_id": "app",
    "cluster_id": "cluster",
}


@KINDS
def test_properties_come_as_they_went(channel, queue, kind):
    name = queue(kind)
    publish(channel, name, "x", **ALL_PROPERTIES)
    properties = fetch(channel, name).properties
    found = {key: getattr(properties, key) for key in ALL_PROPERTIES}
    # that quorum queues count deliveries is tested with them
    found["headers"].pop("x-delivery-count", None)
    assert found == ALL_PROPERTIES


@KINDS
def test_no_properties_stay_none(channel, queue, kind):
    name = queue(kind)
    publish(channel, name, "x")
    properties = fetch(channel, name).properties
    headers = dict(properties.headers or {})
    headers.pop("x-delivery-count", None)
    assert headers == {}
    assert all(getattr(properties, key) is None for key in ALL_PROPERTIES if key != "headers")


def test_header_fields_are_passed_on_octet_by_octet(wire, queue):
    """A broker has no business in a message's headers but to keep them; their order is free."""
    name = queue()
    fields = [
        _short(key) + kind + value
        for key, kind, value in [
            ("bool", b"t", b"\x01"),
            ("int8", b"b", b"\xff"),
            ("uint8", b"B", b"\xff"),
            ("int16", b"s", struct.pack(">h", -300)),
            ("uint16", b"u", struct.pack(">H", 60_000)),
            ("int32", b"I", struct.pack(">i", -70_000)),
            ("uint32", b"i", struct.pack(">I", 4_000_000_000)),
            ("int64", b"l", struct.pack(">q", -(1 << 40))),
            ("float", b"f", struct.pack(">f", 1.5)),
            ("double", b"d", struct.pack(">d", 0.1)),
            ("decimal", b"D", struct.pack(">Bi", 2, 314)),
            ("text", b"S", _long("grüße".encode())),
            ("octets", b"x", _long(b"\x00\xff\xce")),
            ("time", b"T", struct.pack(">Q", 1_700_000_000)),
            ("void", b"V", b""),
            ("array", b"A", _long(b"t\x00" + b"S" + _long(b"in") + b"A" + _long(b""))),
            ("table", b"F", _long(_short("inner") + b"I" + struct.pack(">i", 5))),
            ("empty", b"F", _long(b"")),
        ]
    ]
    payload = struct.pack(">HHQH", 60, 0, 0, 0x2000) + _long(b"".join(fields))
    frame = b"\x02\x00\x01" + _long(payload) + b"\xce"
    wire.call(Basic.Consume(queue=name, no_ack=True), Basic.ConsumeOk)
    wire.send(Basic.Publish(exchange="", routing_key=name))
    wire.write(frame)
    wire.expect(Basic.Deliver)
    wire.expect(header.ContentHeader)
    assert len(wire.last) == len(frame)
    assert [field for field in fields if field not in wire.last] == []


def _short(text: str) -> bytes:
    octets = text.encode()
    return bytes([len(octets)]) + octets


def _long(octets: bytes) -> bytes:
    return len(octets).to_bytes(4) + octets


# -- channels -----------------------------------------------------------------


def test_a_thousand_channels(wire, channel, queue):
    """Each of them consumes, and each of them gets its message."""
    name = queue()
    numbers = range(2, 1002)
    for number in numbers:
        wire.send(commands.Channel.Open(), number)
    for number in numbers:
        wire.await_(commands.Channel.OpenOk, number)
    for number in numbers:
        wire.send(Basic.Qos(prefetch_count=1), number)
        wire.send(Basic.Consume(queue=name, consumer_tag=f"c{number}"), number)
    for number in numbers:
        wire.await_(Basic.ConsumeOk, number)
    for _ in numbers:
        wire.publish(b"x", key=name)
    delivered = {wire.await_(Basic.Deliver, number).consumer_tag for number in numbers}
    assert delivered == {f"c{number}" for number in numbers}
