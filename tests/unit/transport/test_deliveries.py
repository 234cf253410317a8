"""Deliveries read off the wire: what pika would have read, however the bytes come in."""

from __future__ import annotations

import struct
from typing import Any, cast

import pika.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.channel import ContentFrameAssembler
from pika.spec import Basic, BasicProperties

from amqtask.message.model import Message
from amqtask.transport.connection import Connection
from amqtask.transport.deliveries import read
from amqtask.transport.frames import publish_frames
from tests.unit.transport.strategies import BODY_MAX, messages, short

CHANNEL = 7
Got = tuple[int, bool, str, str, Message]


def _delivery(message: Message, tag: int = 1, *, redelivered: bool = False, exchange: str = "x",
              routing_key: str = "k", channel: int = CHANNEL) -> bytes:  # fmt: skip
    """Return the frames of a delivery: those of a publish, under another method."""
    method = Basic.Deliver("ctag", tag, redelivered, exchange, routing_key)
    content = publish_frames(channel, exchange, routing_key, message, BODY_MAX)[1:]
    return bytes(pika.frame.Method(channel, method).marshal()) + b"".join(content)


class _Line(Connection):
    """The reading half of a connection, with nothing behind it."""

    def __init__(self, *channels: int) -> None:
        self.read: list[Got] = []
        self.left_to_pika: list[Any] = []
        self.sinks = dict.fromkeys(channels, lambda *got: self.read.append(cast(Got, got)))
        self.confirmed: list[tuple[int, bool, bool]] = []
        self.takers = dict.fromkeys(channels, lambda *said: self.confirmed.append(said))
        self.bytes_received = 0
        self._frame_buffer = b""

    def _process_frame(self, frame_value: Any) -> None:
        self.left_to_pika.append(frame_value)

    def come(self, data: bytes) -> None:
        self._on_data_available(data)


def _by_pika(data: bytes) -> list[Got]:
    """Return what pika makes of the same bytes."""
    assembler, found = ContentFrameAssembler(), []
    while data:
        size, frame = pika.frame.decode_frame(data)
        data = data[size:]
        if content := assembler.process(cast(Any, frame)):
            method, header, body = cast(Any, content)
            said = {name: getattr(header.properties, name) for name in Message.__slots__[2:]}
            message = Message(body, header.properties.headers or {}, **said)
            m = method.method
            found.append((m.delivery_tag, m.redelivered, m.exchange, m.routing_key, message))
    return found


@settings(max_examples=150)
@given(st.lists(st.tuples(messages, st.booleans(), short, short), max_size=4), st.data())
def test_reads_what_pika_reads(
    sent: list[tuple[Message, bool, str, str]], data: st.DataObject
) -> None:
    """However the bytes are cut, each delivery is read once, in order, and as pika reads it."""
    stream = b"".join(
        _delivery(message, tag, redelivered=redelivered, exchange=exchange, routing_key=key)
        for tag, (message, redelivered, exchange, key) in enumerate(sent, 1)
    )
    line, whole = _Line(CHANNEL), _Line(CHANNEL)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        line.come(stream[begin:end])
    whole.come(stream)
    expected = _by_pika(stream)
    for each in (line, whole):
        mended = [*each.read, *_by_pika(b"".join(f.marshal() for f in each.left_to_pika))]
        assert sorted(mended, key=lambda got: got[0]) == expected
        assert each.bytes_received == len(stream)
        assert each._frame_buffer == b""
    small = [got for got in expected if len(got[4].body) <= BODY_MAX]
    assert whole.read == small


def test_only_channels_with_a_sink_are_read() -> None:
    """Another channel's deliveries, and other methods, are pika's; ours around them are read."""
    line = _Line(CHANNEL)
    ours = _delivery(Message(b"ours", message_id="m"))
    ack = pika.frame.Method(1, Basic.Ack(3, True)).marshal()
    line.come(ours + _delivery(Message(b"theirs"), channel=1) + ack + ours)
    assert [got[4].body for got in line.read] == [b"ours", b"ours"]
    assert [type(frame).__name__ for frame in line.left_to_pika] == [
        "Method", "Header", "Body", "Method"
    ]  # fmt: skip


def test_text_that_is_no_utf_8_is_left_to_pika() -> None:
    """pika hands out bytes then, and a dead letter passes on what came."""
    line = _Line(CHANNEL)
    line.come(_delivery(Message(b"", {"x": "text"})).replace(b"text", b"te\xfft"))
    assert line.read == []
    assert line.left_to_pika[1].properties.headers == {"x": b"te\xfft"}


@given(st.binary(max_size=60))
def test_rubbish_is_not_read(rubbish: bytes) -> None:
    """Whatever comes, nothing is raised here, and nothing but a whole delivery moves on."""
    assert read(rubbish, 0, {0: _never, CHANNEL: _never}) == 0


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_delivery_is_not_read(data: st.DataObject) -> None:
    """A length that lies, an end that is missing: left for pika, or read as pika reads it."""
    whole = bytearray(_delivery(Message(b"body", {"a": "b", "n": 1, "none": None}, message_id="m")))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    got: list[Got] = []
    end = read(bytes(whole), 0, {CHANNEL: lambda *each: got.append(cast(Got, each))})
    assert bool(got) == bool(end)
    if got:
        # where the header says now that no body follows, the body's frame is left over
        assert end == len(whole) or got[0][4].body == b""
        assert got == _by_pika(bytes(whole[:end]))


def test_the_protocol_header_is_pikas() -> None:
    """A broker that speaks another version answers with it instead of a frame."""
    line = _Line()
    line.come(b"AMQP\x00\x00\x09\x01")
    (header,) = line.left_to_pika
    assert isinstance(header, pika.frame.ProtocolHeader)


def test_a_broken_end_is_pikas_to_refuse() -> None:
    """A frame without its end octet ends the connection, as ever."""
    line = _Line(CHANNEL)
    broken = _delivery(Message(b""))[:-1] + b"\x00"
    with pytest.raises(pika.exceptions.InvalidFrameError):
        line.come(broken)


def test_flags_beyond_the_properties_are_pikas() -> None:
    """No client sets them; what they mean is not ours to say."""
    line = _Line(CHANNEL)
    data = _delivery(Message(b"", delivery_mode=None))
    flags = struct.pack(">HHQH", 60, 0, 0, 0)
    assert flags in data
    line.come(data.replace(flags, struct.pack(">HHQH", 60, 0, 0, 1 << 1)))
    assert line.read == []
    assert isinstance(line.left_to_pika[1].properties, BasicProperties)


def _never(*_: object) -> None:
    raise AssertionError("nothing was delivered")
