"""Published frames, read back by pika's own decoder."""

from __future__ import annotations

from typing import Any

import pika.frame
import pika.spec
import pytest
from hypothesis import given, settings

from amqtask.message.model import Message
from amqtask.transport.frames import OVERHEAD, publish_frames
from tests.unit.transport.strategies import BODY_MAX, messages, short


def _read(data: bytes) -> list[Any]:
    frames = []
    while data:
        size, frame = pika.frame.decode_frame(data)
        assert frame is not None
        frames.append(frame)
        data = data[size:]
    return frames


@settings(max_examples=60)
@given(messages, short, short)
def test_pika_reads_what_was_written(message: Message, exchange: str, routing_key: str) -> None:
    """Route, properties, headers and body come out of pika's decoder as they went in."""
    frames = _read(b"".join(publish_frames(7, exchange, routing_key, message, BODY_MAX)))
    assert {frame.channel_number for frame in frames} == {7}
    method, header, *bodies = frames
    assert (method.method.exchange, method.method.routing_key) == (exchange, routing_key)
    assert method.method.mandatory is True
    assert method.method.immediate is False
    assert header.body_size == len(message.body)
    assert b"".join(body.fragment for body in bodies) == message.body
    assert all(len(body.fragment) <= BODY_MAX for body in bodies)
    read = header.properties
    for name in Message.__slots__:
        if name not in ("body", "headers"):
            assert getattr(read, name) == getattr(message, name), name
    assert (read.headers or {}) == message.headers


@pytest.mark.parametrize("size", [100, 100_000, 10 * BODY_MAX + 1])
def test_a_large_body_is_not_copied(size: int) -> None:
    """Its parts are views of it; what is small is bytes, to be joined."""
    body = bytes(size)
    pieces = publish_frames(1, "", "q", Message(body), BODY_MAX)
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert all(view.obj is body for view in views)
    assert sum(map(len, views)) == (size if size > 100 else 0)


def test_size_of_each_frame_is_its_payload() -> None:
    """The pieces add up to whole frames: payload plus eight bytes each."""
    pieces = publish_frames(1, "", "q", Message(b"x" * (2 * BODY_MAX + 2)), BODY_MAX)
    sizes = [pika.frame.decode_frame(b"".join(pieces))[0]]
    assert sizes[0] > OVERHEAD
    assert len(_read(b"".join(pieces))) == 2 + 3


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message(b"", message_id="x" * 256), "has 256 bytes, a short string holds 255"),
        (Message(b"", {"x": object()}), "a header holds a value of type 'object'"),
        (Message(b"", {"x": 2**63}), "int too large to convert"),
        (Message(b"", {"x": "\ud800"}), "surrogates not allowed"),
        (Message(b"", priority=256), "bytes must be in range"),
        (Message(b"", timestamp=-1), "int too large to convert"),
        (
            Message(b"", {"x": "y" * BODY_MAX}),
            f"its headers take {BODY_MAX + 26} bytes, a frame of this connection holds {BODY_MAX}",
        ),
    ],
)
def test_what_cannot_be_written_is_a_value_error(message: Message, text: str) -> None:
    """A property or header that AMQP cannot hold is refused before a byte is sent."""
    with pytest.raises(ValueError, match=text):
        publish_frames(1, "", "q", message, BODY_MAX)


def test_a_routing_key_over_255_bytes_is_a_value_error() -> None:
    """Exchange and routing key are short strings too."""
    with pytest.raises(ValueError, match="has 300 bytes"):
        publish_frames(1, "", "k" * 300, Message(b""), BODY_MAX)
