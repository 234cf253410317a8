"""Let header tables hold floats: pika 1.4 cannot write them, and cuts them off when it reads.

A Celery message may carry a fractional time limit or a user's float, and a
retry or a dead letter has to pass on what came. Read by pika, 0.5 is 0, and a
timestamp past the year 9999 raises, which ends the connection of every worker
that the message comes to. pika's table codec calls itself through its module,
so these cases are replaced there; all others stay pika's.

Source: AMQP 0-9-1 field table, types ``f``, ``d`` and ``T``, 4, 8 and 8 bytes,
big-endian, as RabbitMQ and py-amqp read and write them.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import data

_encode_value = data.encode_value
_decode_value = data.decode_value


def _encode_with_floats(pieces: list[bytes], value: Any) -> int:
    if isinstance(value, float):
        pieces.append(struct.pack(">cd", b"d", value))
        return 9
    return _encode_value(pieces, value)


def _decode_with_floats(encoded: bytes, offset: int) -> tuple[Any, int]:
    kind = encoded[offset]
    if kind == 0x64:  # d
        return struct.unpack_from(">d", encoded, offset + 1)[0], offset + 9
    if kind == 0x66:  # f
        return struct.unpack_from(">f", encoded, offset + 1)[0], offset + 5
    if kind == 0x54:  # T
        try:
            return _decode_value(encoded, offset)
        except (OverflowError, ValueError, OSError):  # no datetime is that late: its number then
            return struct.unpack_from(">Q", encoded, offset + 1)[0], offset + 9
    if kind in (0x41, 0x46):  # A, F
        try:
            return _decode_value(encoded, offset)
        except RecursionError:  # nobody nests that deep in earnest: its bytes then
            end = offset + 5 + struct.unpack_from(">I", encoded, offset + 1)[0]
            return encoded[offset + 5 : end], end
    return _decode_value(encoded, offset)


def install() -> None:
    """Teach pika's table codec floats; a second call changes nothing."""
    data.encode_value = _encode_with_floats
    data.decode_value = _decode_with_floats
