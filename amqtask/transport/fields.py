"""Let header tables hold floats: pika 1.4 reads them and cannot write them.

A Celery message may carry a fractional time limit or a user's float, and a
retry or a dead letter has to pass on what came. pika's table encoder calls
itself through its module, so the one missing case is added there; nothing
that pika encodes today is encoded differently.

Source: AMQP 0-9-1 field table, type ``d``, 8 bytes IEEE 754, big-endian, as
RabbitMQ and py-amqp read and write it.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import data

_encode_value = data.encode_value


def _encode_with_floats(pieces: list[bytes], value: Any) -> int:
    if isinstance(value, float):
        pieces.append(struct.pack(">cd", b"d", value))
        return 9
    return _encode_value(pieces, value)


def install() -> None:
    """Teach pika's encoder floats; a second call changes nothing."""
    data.encode_value = _encode_with_floats
