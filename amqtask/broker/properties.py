"""A message's properties, kept as the octets they came in.

A broker needs four of the fourteen properties, and hands all of them on. So
they are walked over rather than decoded, and changed by cutting: what the
broker does not touch leaves it octet for octet.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from amqtask.broker.fields import PREFIXED, SIZES, Field, Malformed, short, text, write_field

#: The flag of each property, in the order their values follow.
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
PRIORITY, CORRELATION_ID, REPLY_TO, EXPIRATION = 0x0800, 0x0400, 0x0200, 0x0100
MESSAGE_ID, TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID = 0x80, 0x40, 0x20, 0x10, 8, 4
_ORDER = (
    CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO,
    EXPIRATION, MESSAGE_ID, TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID,
)  # fmt: skip
#: A last flag bit that says more flags follow; the specification has no use for it.
_MORE = 0x0001
_LONG = struct.Struct(">I")
_LAST = TYPE | USER_ID | APP_ID | CLUSTER_ID
#: Octets of a value by its type, the type's included: 0 where they begin with their length,
#: more than any table has where there is no such type.
_SIZES = [0 if tag in PREFIXED else SIZES.get(tag, 1 << 40) + 1 for tag in range(256)]


class Facts(NamedTuple):
    """What the broker has to know of a message's properties.

    Attributes:
        persistent: Whether delivery mode is 2.
        priority: None when it has none.
        headers: Where its header table is, length included; None without.
        reply_to: ``reply-to``.
        expiration: ``expiration``.
        user_id: ``user-id``.
    """

    persistent: bool
    priority: int | None
    headers: tuple[int, int] | None
    reply_to: str | None = None
    expiration: str | None = None
    user_id: str | None = None


def facts(data: bytes) -> Facts:
    """Walk over properties, flags first.

    Raises:
        Malformed: They are not what their flags say.
    """
    try:
        return _walk(data)
    except IndexError as error:
        raise Malformed("properties are cut off") from error


def _walk(data: bytes) -> Facts:
    flags = data[0] << 8 | data[1]
    if flags & _MORE:
        raise Malformed("flags of unknown properties")
    place = 2
    if flags & CONTENT_TYPE:
        place += 1 + data[place]
    if flags & CONTENT_ENCODING:
        place += 1 + data[place]
    headers = None
    if flags & HEADERS:
        end = check_table(data, place)
        headers = (place, end)
        place = end
    persistent = False
    if flags & DELIVERY_MODE:
        persistent = data[place] == 2
        place += 1
    priority = None
    if flags & PRIORITY:
        priority = data[place]
        place += 1
    if flags & CORRELATION_ID:
        place += 1 + data[place]
    reply_to = expiration = user_id = None
    if flags & REPLY_TO:
        end = place + 1 + data[place]
        # an empty one is common, and nothing to look at
        reply_to = text(data[place + 1 : end]) if end > place + 1 else None
        place = end
    if flags & EXPIRATION:
        end = place + 1 + data[place]
        expiration = text(data[place + 1 : end])
        place = end
    if flags & MESSAGE_ID:
        place += 1 + data[place]
    if flags & TIMESTAMP:
        place += 8
    if flags & _LAST:
        place, user_id = _walk_last(data, flags, place)
    if place != len(data):
        raise Malformed("properties do not end where they should")
    return Facts(persistent, priority, headers, reply_to, expiration, user_id)


def _walk_last(data: bytes, flags: int, place: int) -> tuple[int, str | None]:
    user_id = None
    for flag in (TYPE, USER_ID, APP_ID, CLUSTER_ID):
        if flags & flag:
            end = place + 1 + data[place]
            if flag == USER_ID:
                user_id = text(data[place + 1 : end])
            place = end
    return place, user_id


def check_table(data: bytes, start: int) -> int:
    """Walk over a table; returns the place behind it.

    Raises:
        Malformed: It does not end where it says.
        IndexError: It is cut off.
    """
    place = start + 4
    end = place + int.from_bytes(data[start:place], "big")
    if end > len(data):
        raise Malformed("a table exceeds what is there")
    sizes = _SIZES
    length = _LONG.unpack_from
    try:
        while place < end:
            place += 1 + data[place]
            size = sizes[data[place]]
            place += size or 5 + length(data, place + 1)[0]
    except struct.error as error:
        raise Malformed("a field is cut off") from error
    if place != end:
        raise Malformed("a field exceeds its table, or has no known type")
    return end


# -- changing -----------------------------------------------------------------


def split(data: bytes) -> dict[int, bytes]:
    """Cut well-formed properties into their values as on the wire, by flag."""
    flags = int.from_bytes(data[:2], "big")
    place = 2
    values: dict[int, bytes] = {}
    for flag in _ORDER:
        if not flags & flag:
            continue
        if flag == HEADERS:
            size = 4 + int.from_bytes(data[place : place + 4], "big")
        elif flag in (DELIVERY_MODE, PRIORITY):
            size = 1
        elif flag == TIMESTAMP:
            size = 8
        else:
            size = 1 + data[place]
        values[flag] = data[place : place + size]
        place += size
    return values


def join(values: dict[int, bytes]) -> bytes:
    """Put together what `split` cut."""
    flags = sum(values)
    return flags.to_bytes(2, "big") + b"".join([values[f] for f in _ORDER if f in values])


def with_reply_to(data: bytes, reply_to: str) -> bytes:
    """Return properties with another ``reply-to``."""
    values = split(data)
    values[REPLY_TO] = short(reply_to)
    return join(values)


def split_table(data: bytes) -> dict[bytes, bytes]:
    """Cut a well-formed table into its fields as on the wire, by name."""
    place = 4
    fields: dict[bytes, bytes] = {}
    while place < len(data):
        name_end = place + 1 + data[place]
        name = data[place + 1 : name_end]
        size = SIZES.get(data[name_end])
        if size is None:
            size = 4 + int.from_bytes(data[name_end + 1 : name_end + 5], "big")
        place = name_end + 1 + size
        fields[name] = data[name_end:place]
    return fields


def with_headers(
    data: bytes, new: dict[str, Field], *, without: tuple[str, ...] = (), expires: bool = True
) -> bytes:
    """Return properties with headers set, sorted by name as RabbitMQ 4 leaves them.

    Args:
        data: The properties.
        new: Headers to set.
        without: Headers to take out.
        expires: False takes out ``expiration``.
    """
    values = split(data)
    fields = split_table(values[HEADERS]) if HEADERS in values else {}
    for name in without:
        fields.pop(name.encode(), None)
    for name, field in new.items():
        fields[name.encode()] = write_field(field)
    parts = [bytes((len(name),)) + name + fields[name] for name in sorted(fields)]
    body = b"".join(parts)
    if parts:
        values[HEADERS] = _LONG.pack(len(body)) + body
    else:
        values.pop(HEADERS, None)
    if not expires:
        values.pop(EXPIRATION, None)
    return join(values)
