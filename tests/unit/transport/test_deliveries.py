"""Deliveries read off the wire: what pika would have read, however the bytes come in."""

from __future__ import annotations

import struct
from typing import Any, cast

import pika.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.channel import ContentFrameAssembler
from pika.spec import Basic, BasicProperties, Channel

from amqtask.message.model import Message
from amqtask.transport.connection import Connection
from amqtask.transport.deliveries import Reader
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
        self._deliveries = Reader(self.sinks, self._leave_to_pika)
        self.bytes_received = 0
        self._frame_buffer = b""

    def _process_frame(self, frame_value: Any) -> None:
        self.left_to_pika.append(frame_value)

    def come(self, data: bytes) -> None:
        self._on_data_available(data)


def _frames(data: bytes) -> list[bytes]:
    """Return frame by frame what is in one piece."""
    frames = []
    while data:
        end = 8 + int.from_bytes(data[3:7])
        frames.append(data[:end])
        data = data[end:]
    return frames


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
        assert each.read == expected
        assert each.left_to_pika == []
        assert each.bytes_received == len(stream)
        assert each._frame_buffer == b""


_LARGE = bytes(range(256)) * 300  # two whole frames and some


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000, BODY_MAX + 8, 64 * 1024])
def test_bodies_come_in_any_pieces(size: int) -> None:
    """Large and small ones, one after the other and in one read, are as they were sent."""
    bodies = [b"", b"x", b"small", _LARGE[:BODY_MAX], _LARGE[: 2 * BODY_MAX], _LARGE, b"last"]
    stream = b"".join(_delivery(Message(body), tag) for tag, body in enumerate(bodies))
    line = _Line(CHANNEL)
    for begin in range(0, len(stream), size):
        line.come(stream[begin : begin + size])
    assert [got[4].body for got in line.read] == bodies
    assert [got[0] for got in line.read] == list(range(len(bodies)))
    assert all(type(got[4].body) is bytes for got in line.read)
    assert line.left_to_pika == []
    assert line.bytes_received == len(stream)


@pytest.mark.parametrize("cut", ["in a frame", "between two"])
def test_two_channels_take_turns(cut: str) -> None:
    """The frames of one channel may stand among those of another, and heartbeats anywhere."""
    first, second = _frames(_delivery(Message(_LARGE), 1)), _frames(
        _delivery(Message(_LARGE[::-1]), 2, channel=9)
    )  # fmt: skip
    beat = bytes(pika.frame.Heartbeat().marshal())
    order = [beat, *first[:3], beat, *second[:4], beat, *first[3:], beat, *second[4:]]
    line = _Line(CHANNEL, 9)
    if cut == "in a frame":
        stream = b"".join(order)
        order = [stream[begin : begin + 1000] for begin in range(0, len(stream), 1000)]
    for part in order:
        line.come(part)
    assert [(got[0], got[4].body) for got in line.read] == [(1, _LARGE), (2, _LARGE[::-1])]
    assert [type(frame).__name__ for frame in line.left_to_pika] == ["Heartbeat"] * 4


def test_a_closed_channel_takes_its_unfinished_body_along() -> None:
    """Its number is given to another soon, which has nothing to do with what was under way."""
    frames = _frames(_delivery(Message(_LARGE), 1))
    for here in (b"".join(frames[:3]), b"".join(frames[:3])[:-20]):
        line = _Line(CHANNEL)
        line.come(here)
        line.forget(CHANNEL)
        line.sinks[CHANNEL] = lambda *got: line.read.append(cast(Got, got))  # noqa: B023
        line.come(b"".join(frames[:3])[len(here) :] + _delivery(Message(b"new"), 1))
        assert [got[4].body for got in line.read] == [b"new"]
        assert line.left_to_pika == []


@pytest.mark.parametrize("after", [2, 3, 4])
def test_a_body_that_another_frame_interrupts_is_pikas(after: int) -> None:
    """It is given all that was held, in order, and what follows."""
    frames = _frames(_delivery(Message(_LARGE), 1))
    close = bytes(pika.frame.Method(CHANNEL, Channel.Close(0, "", 0, 0)).marshal())
    line = _Line(CHANNEL)
    line.come(b"".join([*frames[:after], close, *frames[after:], _delivery(Message(b"next"), 2)]))
    left = b"".join(frame.marshal() for frame in line.left_to_pika)
    assert [got[4].body for got in _by_pika(left.replace(close, b""))] == [_LARGE]
    assert close in left
    assert [got[4].body for got in line.read] == [b"next"]


def test_a_body_longer_than_its_header_says_is_pikas_to_refuse() -> None:
    """It has an error for it, which ends the connection."""
    frames = _frames(_delivery(Message(_LARGE), 1))
    line = _Line(CHANNEL)
    line.come(b"".join([*frames[:4], frames[3]]))
    assert line.read == []
    with pytest.raises(pika.exceptions.BodyTooLongError):
        _by_pika(b"".join(frame.marshal() for frame in line.left_to_pika))


def test_a_held_delivery_with_odd_properties_is_pikas() -> None:
    """What only pika can read, it reads: once the body is whole, as it would be in one piece."""
    data = _delivery(Message(_LARGE, {"x": "text"})).replace(b"text", b"te\xfft")
    line = _Line(CHANNEL)
    for begin in range(0, len(data), 1000):
        line.come(data[begin : begin + 1000])
    assert line.read == []
    assert line.left_to_pika[1].properties.headers == {"x": b"te\xfft"}
    assert line.left_to_pika[2].fragment == _LARGE


def test_a_header_that_lies_about_its_body_takes_no_memory() -> None:
    """A size that no broker allows is left to pika, which waits for the bytes."""
    data = _delivery(Message(b"", delivery_mode=None))
    size = struct.pack(">HHQH", 60, 0, 0, 0)
    line = _Line(CHANNEL)
    line.come(data.replace(size, struct.pack(">HHQH", 60, 0, 1 << 62, 0)))
    assert [type(frame).__name__ for frame in line.left_to_pika] == ["Method", "Header"]


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
    reader = Reader({0: _never, CHANNEL: _never}, _never)
    assert reader.read(rubbish, 0)[0] == 0


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_delivery_is_not_read(data: st.DataObject) -> None:
    """A length that lies, an end that is missing: left for pika, or read as pika reads it."""
    whole = bytearray(_delivery(Message(b"body", {"a": "b", "n": 1, "none": None}, message_id="m")))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    line = _Line(CHANNEL)
    try:
        line.come(bytes(whole))
    except Exception as refused:  # pika has many for it, and so it has when it reads alone
        with pytest.raises(type(refused)):
            _by_pika(bytes(whole))
    if line.read:
        # where the header says now that no body follows, the body's frame is left over
        assert line.read[0][4].body == b"" or line.read == _by_pika(bytes(whole))


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
