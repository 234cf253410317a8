"""Read confirms straight off the wire, as `deliveries` reads messages.

Each ``basic.ack`` ends a call that somebody waits for, and is 21 bytes in all.
Whatever else comes (``basic.nack``, an ack that is not whole yet or makes no
sense) is left where it is, for pika to read or to refuse.

Source: AMQP 0-9-1 specification, 1.8.3.15 (``basic.ack``), with RabbitMQ's
confirms; checked against pika's encoder in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct

#: Called with delivery tag, multiple, and whether the broker refused what it covers.
OnConfirm = Callable[[int, bool, bool], None]

_ack = Struct(">BHIIQBB")
_METHOD = 1
_PAYLOAD = 13  # class and method, tag, flags
_BASIC_ACK = 60 << 16 | 80
_END = 0xCE


def read_acks(buffer: bytes, start: int, takers: Mapping[int, OnConfirm]) -> int:
    """Hand over the acks that ``buffer`` goes on with, and stop at anything else.

    Args:
        buffer: Bytes as they came from the broker.
        start: Where in it a frame begins.
        takers: For each channel that is read here, who takes its confirms.

    Returns:
        Where the first frame begins that was not read.
    """
    last = len(buffer) - _ack.size
    while start <= last:
        kind, channel, length, method, tag, flags, end = _ack.unpack_from(buffer, start)
        take = takers.get(channel)
        if (
            kind != _METHOD
            or length != _PAYLOAD
            or method != _BASIC_ACK
            or end != _END
            or take is None
        ):
            return start
        start += _ack.size
        take(tag, flags & 1 == 1, False)
    return start


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """Return the frame of a ``basic.ack``."""
    return _ack.pack(_METHOD, channel, _PAYLOAD, _BASIC_ACK, tag, multiple, _END)
