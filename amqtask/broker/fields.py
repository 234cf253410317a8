"""Field tables that keep the type of every value.

RabbitMQ compares declared arguments by type and names the type in its texts,
and hands headers on as they came. pamqp's decoder turns values into Python's
own types and so forgets which it read; here a value is a `Field`: the type's
letter on the wire and the value.

Source:
    AMQP 0-9-1 errata of RabbitMQ, section 3: the letters it reads and writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias


class Field(NamedTuple):
    """A value and the letter of its type."""

    tag: str
    value: Any


Table: TypeAlias = dict[str, Field]

#: RabbitMQ's name of each type, as in "of type 'signedint'".
TYPE_NAMES = {
    "t": "bool",
    "b": "byte",
    "B": "unsignedbyte",
    "s": "short",
    "u": "unsignedshort",
    "I": "signedint",
    "i": "unsignedint",
    "l": "long",
    "L": "long",
    "f": "float",
    "d": "double",
    "D": "decimal",
    "S": "longstr",
    "x": "binary",
    "A": "array",
    "T": "timestamp",
    "F": "table",
    "V": "void",
}
INTEGERS = frozenset("bBsuIilL")
#: Values of these types are equal when their numbers are, whatever their width.
_CLASSES = {**dict.fromkeys("bBsuIilLD", "int"), **dict.fromkeys("fd", "float")}
_FIXED = {
    "t": struct.Struct(">?"),
    "b": struct.Struct(">b"),
    "B": struct.Struct(">B"),
    "s": struct.Struct(">h"),
    "u": struct.Struct(">H"),
    "I": struct.Struct(">i"),
    "i": struct.Struct(">I"),
    "l": struct.Struct(">q"),
    "L": struct.Struct(">q"),
    "f": struct.Struct(">f"),
    "d": struct.Struct(">d"),
    "T": struct.Struct(">Q"),
}
_DECIMAL = struct.Struct(">Bi")
_LONG = struct.Struct(">I")
#: Octets that a value of a type has; the others begin with their length.
SIZES = {**{ord(tag): each.size for tag, each in _FIXED.items()}, ord("D"): 5, ord("V"): 0}
PREFIXED = frozenset(b"SxAF")
#: Tables in tables; more is an attack on the stack, not a message.
_DEEPEST = 64


class Malformed(ValueError):
    """Octets that are not what they should be."""


def text(octets: bytes) -> str:
    """Decode a string; what is no UTF-8 comes back as it was when it is encoded again."""
    return octets.decode("utf-8", "surrogateescape")


def octets(string: str) -> bytes:
    """Encode a string that `text` decoded."""
    return string.encode("utf-8", "surrogateescape")


def read_table(data: bytes, start: int = 0, *, depth: int = 0) -> tuple[Table, int]:
    """Read a table at ``start``; returns it and the place behind it.

    Raises:
        Malformed: It is none, or ends too early.
    """
    if depth > _DEEPEST:
        raise Malformed("tables are nested too deep")
    end = _end(data, start)
    place = start + 4
    table: Table = {}
    while place < end:
        name_end = place + 1 + data[place]
        if name_end >= end:
            raise Malformed("a field's name exceeds its table")
        name = text(data[place + 1 : name_end])
        table[name], place = _read_field(data, name_end, end, depth)
    return table, end


def _end(data: bytes, start: int) -> int:
    if start + 4 > len(data):
        raise Malformed("a length is cut off")
    end: int = start + 4 + _LONG.unpack_from(data, start)[0]
    if end > len(data):
        raise Malformed("a length exceeds what is there")
    return end


def _read_field(data: bytes, place: int, end: int, depth: int) -> tuple[Field, int]:
    tag = chr(data[place])
    place += 1
    fixed = _FIXED.get(tag)
    value: Any
    if fixed is not None:
        after = place + fixed.size
        if after > end:
            raise Malformed("a value exceeds its table")
        return Field(tag, fixed.unpack_from(data, place)[0]), after
    if tag in "Sx":
        after = _end(data, place)
        octets_ = data[place + 4 : after]
        value = text(octets_) if tag == "S" else octets_
    elif tag == "F":
        value, after = read_table(data, place, depth=depth + 1)
    elif tag == "A":
        value, after = _read_array(data, place, depth + 1)
    elif tag == "D":
        after = place + 5
        value = _DECIMAL.unpack_from(data, place) if after <= end else None
    elif tag == "V":
        value, after = None, place
    else:
        raise Malformed(f"no type is called {tag!r}")
    if after > end:
        raise Malformed("a value exceeds its table")
    return Field(tag, value), after


def _read_array(data: bytes, start: int, depth: int) -> tuple[list[Field], int]:
    if depth > _DEEPEST:
        raise Malformed("arrays are nested too deep")
    end = _end(data, start)
    place = start + 4
    fields: list[Field] = []
    while place < end:
        field, place = _read_field(data, place, end, depth)
        fields.append(field)
    return fields, end


def write_table(table: Table) -> bytes:
    """Return a table as on the wire, its length first."""
    body = b"".join([short(name) + write_field(field) for name, field in table.items()])
    return _LONG.pack(len(body)) + body


def write_field(field: Field) -> bytes:
    """Return a value as on the wire, its type's letter first."""
    return field.tag.encode() + _WRITERS[field.tag](field.value)


def _prefixed(body: bytes) -> bytes:
    return _LONG.pack(len(body)) + body


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    **{tag: each.pack for tag, each in _FIXED.items()},
    "S": lambda value: _prefixed(octets(value)),
    "x": _prefixed,
    "F": write_table,
    "A": lambda value: _prefixed(b"".join([write_field(each) for each in value])),
    "D": lambda value: _DECIMAL.pack(*value),
    "V": lambda value: b"",
}


def short(string: str) -> bytes:
    """Return a string of at most 255 octets as on the wire, its length first."""
    body = octets(string)
    return bytes((len(body),)) + body


def equivalent(first: Field, second: Field) -> bool:
    """Tell whether two declared values count as the same: ``100`` of any integer type is."""
    kinds = (_CLASSES.get(each.tag, TYPE_NAMES[each.tag]) for each in (first, second))
    return next(kinds) == next(kinds) and bool(first.value == second.value)


def shown(value: object) -> str:
    """Show a bare value in quotes, as RabbitMQ's texts do."""
    return f"'{plain(value)}'"


def plain(value: object) -> str:
    """Show a bare value."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def described(field: Field | None) -> str:
    """Show a value with its type, as RabbitMQ's texts do."""
    if field is None:
        return "none"
    return f"the value {shown(field.value)} of type '{TYPE_NAMES[field.tag]}'"
