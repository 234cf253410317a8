"""JSON as kombu 5.7 writes and reads it, at the speed of orjson.

orjson alone changes data without a word: a UUID becomes text, NaN becomes
null, an enum its value, a dataclass a dict, an integer over 64 bit a float on
reading. Each of these is either kept, marked the way kombu marks it, or
refused with the path that leads to it.

Writing proves a value plain with two passes in C, and walks it in Python only
when they do not prove it. Reading hands over to the standard library what
orjson refuses or would round. Either way the bytes are searched for what needs
a closer look; where they are many for few values, as in a large text, it is
the values that are looked at.

Source:
    kombu 5.7 ``kombu/utils/json.py``: ``{"__type__": ..., "__value__": ...}``,
    recognised by exactly these two keys.
"""

from __future__ import annotations

import base64
import json
import marshal
import math
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from amqtask.errors import EncodeError, MalformedMessage
from amqtask.message.text import at, show

_TYPE = "__type__"
_VALUE = "__value__"
_TYPE_TOKEN = b'"__type__"'

_PLAIN_HINT = (
    "pass plain data: str, int, float, bool, None, list, dict, datetime, date, time, Decimal, "
    "UUID or bytes"
)

# every digit as "0", a minus as itself, all else as a blank: finds long integers by two searches
_DIGITS = bytes(
    ord("0") if chr(code).isdigit() and code < 128 else code if code == ord("-") else ord(" ")
    for code in range(256)
)
_MAYBE_LONG = b"0" * 19
_LONG = b"0" * 20
_LONG_NEGATIVE = b"-" + b"0" * 19
#: Bytes of a body above which it may be worth more to look at the values than to search the bytes,
#: and bytes for each value above which looking at the values takes less than searching the bytes.
_LARGE, _FEW = 2048, 256
#: What orjson reads as an integer is below this.
_INTEGERS = 2.0**63


class Refused(Exception):
    """A value that cannot be written; each container on the way out adds its key."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.trail: list[str | int] = []

    def error(self, codec: str) -> EncodeError:
        """Return the error for the caller."""
        path = tuple(reversed(self.trail))
        error = EncodeError(f"{self.what}{at(path)} does not serialise as {codec}", hint=self.hint)
        error.path = path
        return error


# -- writing --------------------------------------------------------------------


def dumps(value: Any) -> bytes:
    """Write a value as JSON; raises `EncodeError` with the path of what it cannot write."""
    try:
        # marshal takes exact built-in types only, so what passes it and orjson
        # is no enum, UUID, dataclass or subclass; version 2 skips the reference table
        marshal.dumps(value, 2)
        data = orjson.dumps(value)
        if len(data) > _LARGE and _is_simple(value, len(data) // _FEW):
            return data
        if (b"null" not in data or _finite(value)) and _TYPE_TOKEN not in data:
            return data
    except (ValueError, TypeError, RecursionError):
        return _dumps_carefully(value)
    return _dumps_carefully(value)


def _is_simple(value: Any, most: int) -> bool:
    """Tell whether a plain value holds so many others at most, none of which needs a closer look.

    Those are a float that may be an integer which orjson has rounded, or that it writes as null,
    and a dict that may be a marked value.
    """
    left = [value]
    while left:
        value = left.pop()
        kind = type(value)
        if kind is dict:
            if _TYPE in value:
                return False
            value = value.values()
        elif kind is float and not -_INTEGERS < value < _INTEGERS:
            return False
        elif kind is not list and kind is not tuple:
            continue
        most -= len(value)
        if most < 0:
            return False
        left += value
    return True


def _finite(value: Any) -> bool:
    """Tell whether no float in a plain value is NaN or infinite (orjson writes those as null)."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return True
    for item in value:
        kind = type(item)
        if (kind is float or kind is dict or kind is list or kind is tuple) and not _finite(item):
            return False
    return True


def _dumps_carefully(value: Any) -> bytes:
    try:
        plain = _plain(value, set())
    except Refused as refused:
        raise refused.error("json") from None
    except RecursionError:
        raise EncodeError("value nests too deeply to serialise as json") from None
    try:
        return orjson.dumps(plain)
    except TypeError:
        pass  # an integer over 64 bit, a lone surrogate or 255 levels: the standard library writes it
    try:
        return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise EncodeError(f"value does not serialise as json: {error}") from error


def _plain(value: Any, parents: set[int]) -> Any:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Refused(
                f"value {float.__repr__(value)}", "JSON has no NaN or Infinity: pass None or text"
            )
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, dict):
        return _inside(value, parents, _plain_dict)
    if isinstance(value, list | tuple):
        return _inside(value, parents, _plain_list)
    return _marked(value)


def _inside(value: Any, parents: set[int], walk: Callable[[Any, set[int]], Any]) -> Any:
    """Walk a container unless it contains itself."""
    if id(value) in parents:
        raise Refused(f"{type(value).__name__} that contains itself")
    parents.add(id(value))
    plain = walk(value, parents)
    parents.discard(id(value))
    return plain


def _plain_list(value: Iterable[Any], parents: set[int]) -> list[Any]:
    plain: list[Any] = []
    try:
        for item in value:
            plain.append(_plain(item, parents))  # noqa: PERF401 - its length is the index below
    except Refused as refused:
        refused.trail.append(len(plain))
        raise
    return plain


def _plain_dict(value: dict[Any, Any], parents: set[int]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        name = key if type(key) is str else _key(key)
        if name in plain:
            raise Refused(f"dict with two keys that both become {name!r}")
        try:
            plain[name] = _plain(item, parents)
        except Refused as refused:
            refused.trail.append(name)
            raise
    if len(plain) == 2 and _TYPE in plain and _VALUE in plain:
        raise Refused(
            f"dict with exactly the keys {_TYPE!r} and {_VALUE!r}",
            "readers take it for a marked value: add a third key or rename one",
        )
    return plain


def _key(key: Any) -> str:
    """Return a dict key as the standard library writes it."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bool):
        return "true" if key else "false"
    if key is None:
        return "null"
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float) and math.isfinite(key):
        return float.__repr__(key)
    raise Refused(f"dict with the key {show(key)}", "keys are str, int, float, bool or None")


def _marked(value: Any) -> dict[str, Any]:
    """Return the marked form of a value that JSON has no type for."""
    if isinstance(value, Enum):
        raise Refused(f"value of type {type(value).__qualname__!r}", "pass its value, plain data")
    if isinstance(value, datetime):
        return {_TYPE: "datetime", _VALUE: datetime.isoformat(value)}
    if isinstance(value, date):
        return {_TYPE: "date", _VALUE: value.isoformat()}
    if isinstance(value, time):
        return {_TYPE: "time", _VALUE: value.isoformat()}
    if isinstance(value, Decimal):
        return {_TYPE: "decimal", _VALUE: str(value)}
    if isinstance(value, UUID):
        return {_TYPE: "uuid", _VALUE: {"hex": value.hex}}
    if isinstance(value, bytes):
        try:
            return {_TYPE: "bytes", _VALUE: value.decode("utf-8")}
        except UnicodeDecodeError:
            return {_TYPE: "base64", _VALUE: base64.b64encode(value).decode("ascii")}
    hint = "pass a list" if isinstance(value, set | frozenset) else _PLAIN_HINT
    raise Refused(f"value of type {type(value).__qualname__!r}", hint)


# -- reading --------------------------------------------------------------------


def loads(data: bytes) -> Any:
    """Read JSON, the marked values restored; raises `MalformedMessage` only."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _loads_exactly(data)
    else:
        if len(data) > _LARGE and _is_simple(value, len(data) // _FEW):
            return value
        digits = data.translate(_DIGITS)
        if _MAYBE_LONG in digits and (_LONG in digits or _LONG_NEGATIVE in digits):
            value = _loads_exactly(data)  # orjson reads an integer over 64 bit as a float
    if _TYPE_TOKEN not in data:
        return value
    try:
        return _revive(value)
    except RecursionError:
        raise MalformedMessage("json nests too deeply") from None


def _loads_exactly(data: bytes) -> Any:
    """Read what orjson does not: long integers, NaN, Infinity, lone surrogates."""
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"not valid json: {error}") from error


def _revive(value: Any) -> Any:
    """Replace marked values, innermost first, in place."""
    if type(value) is list:
        for index, item in enumerate(value):
            if type(item) is dict or type(item) is list:
                value[index] = _revive(item)
    elif type(value) is dict:
        for key, item in value.items():
            if type(item) is dict or type(item) is list:
                value[key] = _revive(item)
        if len(value) == 2 and _TYPE in value and _VALUE in value:
            return _restored(value[_TYPE], value[_VALUE])
    return value


def _restored(kind: Any, raw: Any) -> Any:
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise MalformedMessage(f"json value is marked as {show(kind)}, a type nothing here reads")
    try:
        return reader(raw)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise MalformedMessage(
            f"json value {show(raw)} is marked as {kind!r} and is none"
        ) from error


def _read_decimal(raw: Any) -> Decimal:
    if not isinstance(raw, str):
        raise TypeError("text expected")
    return Decimal(raw)


def _read_uuid(raw: Any) -> UUID:
    if raw.keys() != {"hex"}:
        raise ValueError("'hex' expected")
    return UUID(hex=raw["hex"])


_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda raw: datetime.fromisoformat(raw).date(),
    "time": time.fromisoformat,
    "decimal": _read_decimal,
    "uuid": _read_uuid,
    "bytes": lambda raw: raw.encode("utf-8"),
    "base64": lambda raw: base64.b64decode(raw.encode("ascii")),
}
