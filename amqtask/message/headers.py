"""The header table: which names belong to whom, and which values can be sent.

The protocol, the broker, amqtask and the user share one flat table. A name
has one owner, and a value that another client would read differently is
refused before it is sent rather than found out about later.

Source:
    RabbitMQ's field table as pika 1.4 (``pika/data.py``) and py-amqp write it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from amqtask.errors import EncodeError, MalformedMessage
from amqtask.message.text import show

#: Headers of Celery's protocol 2, the two legacy ones included.
PROTOCOL_HEADERS = frozenset(
    {
        "lang",
        "task",
        "id",
        "root_id",
        "parent_id",
        "group",
        "group_index",
        "retries",
        "eta",
        "expires",
        "timelimit",
        "shadow",
        "argsrepr",
        "kwargsrepr",
        "origin",
        "ignore_result",
        "replaced_task_nesting",
        "stamped_headers",
        "stamps",
        "compression",
        "meth",
        "groups",
    }
)

#: Headers with this start are amqtask's own.
OWN_PREFIX = "amqtask-"
#: How often a call's process has died under it.
CRASHES_HEADER = "amqtask-crashes"

# x-death and its kin make RabbitMQ up to 3.13 drop a message sent again as a
# cycle; CC and BCC make any version route it to more queues
_BROKER_NAMES = frozenset({"x-delivery-count", "x-acquired-count", "CC", "BCC"})
_BROKER_PREFIXES = ("x-death", "x-first-death-", "x-last-death-", OWN_PREFIX)

# what the specification allows, and aio-pika's codec cuts off after; RabbitMQ itself takes 255
_NAME_BYTES = 128
_RECEIVED_NAME_BYTES = 255
_DEPTH = 16
_INT64 = 1 << 63
_DECIMAL_INT32 = 1 << 31


def is_broker_header(name: str) -> bool:
    """Tell whether a header is the broker's or amqtask's own, so never sent again."""
    return name.startswith(_BROKER_PREFIXES) or name in _BROKER_NAMES


def user_headers(headers: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the headers that neither the protocol nor the broker nor amqtask put there.

    Raises:
        MalformedMessage: One holds bytes that are no UTF-8.
    """
    if PROTOCOL_HEADERS.issuperset(headers):
        return {}
    return {
        name: as_text(name, value) if isinstance(value, bytes | bytearray) else value
        for name, value in headers.items()
        if isinstance(name, str) and name not in PROTOCOL_HEADERS and not is_broker_header(name)
    }


def as_text(name: str, value: bytes | bytearray) -> str:
    """Return a header that came as a byte array as the text it is."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedMessage(f"header {name!r} holds bytes that are no utf-8 text") from None


def check_headers(headers: Mapping[str, Any], *, stamps: bool = False) -> dict[str, Any]:
    """Return user headers as they are sent.

    Args:
        stamps: True for the ``stamps`` table, where every name is free.

    Raises:
        EncodeError: A name is taken, or a value is not one that every client reads alike.
    """
    checked = {}
    for name, value in headers.items():
        try:
            checked[_name(name, strict=True)] = _value(value, _DEPTH, strict=True)
        except _Unsendable as reason:
            error = EncodeError(
                f"header {show(name)} cannot be sent: {reason}",
                hint="a header is str, int (64 bit), float, bool, None, a list or dict of these, "
                "or an aware datetime of whole seconds",
            )
            error.path = (str(name),)
            raise error from None
        if not stamps and (name in PROTOCOL_HEADERS or is_broker_header(name)):
            owner = "the task protocol" if name in PROTOCOL_HEADERS else "the broker or amqtask"
            raise EncodeError(f"header {name!r} belongs to {owner}", hint="give it another name")
    return checked


def clean_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return received headers as they can be sent again: without the broker's and the unsendable."""
    clean = {}
    for name, value in headers.items():
        if name in PROTOCOL_HEADERS and (
            value is None or type(value) is bool or (type(value) is str and value.isascii())
        ):
            clean[name] = value  # most of them, at no cost
            continue
        try:
            if not is_broker_header(_name(name, strict=False)):
                clean[name] = _value(value, _DEPTH, strict=False)
        except _Unsendable:
            continue  # what no client can write was not put there by one either
    return clean


class _Unsendable(Exception):
    """Why a name or value cannot be put into a field table."""


def _name(name: Any, *, strict: bool) -> str:
    if not isinstance(name, str):
        raise _Unsendable(f"its name is of type {type(name).__qualname__!r}")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise _Unsendable("its name has a lone surrogate") from None
    most = _NAME_BYTES if strict else _RECEIVED_NAME_BYTES
    if size > most:
        raise _Unsendable(f"its name has {size} bytes, over {most}")
    return str.__str__(name)


def _value(value: Any, depth: int, *, strict: bool) -> Any:
    """Return a value as it is sent; not strict also passes what only some clients write."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        # pika reads integers as a subclass of int, which it would write as 64 bit always
        if not -_INT64 <= value < _INT64:
            raise _Unsendable("the integer does not fit 64 bit")
        return int.__int__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Unsendable(f"{value} breaks readers that make a number of it")
        return float.__float__(value)
    if isinstance(value, datetime):
        return _moment(value, strict=strict)
    if depth == 0:
        raise _Unsendable(f"it nests over {_DEPTH} levels")
    if isinstance(value, list | tuple):
        return [_value(item, depth - 1, strict=strict) for item in value]
    if isinstance(value, dict):
        return {
            _name(key, strict=strict): _value(item, depth - 1, strict=strict)
            for key, item in value.items()
        }
    if not strict and isinstance(value, bytes | bytearray):
        return bytes(value)
    if not strict and isinstance(value, Decimal) and _fits(value):
        return value
    raise _Unsendable(f"it holds a value of type {type(value).__qualname__!r}")


def _string(value: str) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _Unsendable("the text has a lone surrogate") from None
    return str.__str__(value)


def _moment(value: datetime, *, strict: bool) -> datetime:
    if value.utcoffset() is None:
        if strict:
            raise _Unsendable("the datetime is naive")
        value = value.replace(tzinfo=UTC)
    if strict and value.microsecond:
        raise _Unsendable("the datetime has fractions of a second")
    if value < datetime(1970, 1, 1, tzinfo=UTC):
        raise _Unsendable("the datetime lies before 1970")
    return value


def _fits(value: Decimal) -> bool:
    """Tell whether a decimal fits AMQP's: a scale of 8 bit over an integer of 32."""
    if not value.is_finite():
        return False
    value = value.normalize()
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 9 or len(digits) > 10:
        return False
    return abs(int(value.scaleb(max(0, -exponent)))) < _DECIMAL_INT32
