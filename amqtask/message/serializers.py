"""Serializers: how the arguments of a call become bytes, and bytes become arguments.

One table by name for what is sent, one by content type for what is accepted,
so that a message never picks a reader the application did not allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from amqtask.errors import ConfigurationError, MalformedMessage, near
from amqtask.message import jsoncodec
from amqtask.message.jsoncodec import Refused

#: Readers of every Python that amqtask and Celery 5 run on know this one.
_PICKLE_PROTOCOL = 4

# how deep an error looks for the value that did not serialise
_BLAME_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Serializer:
    """One way to write and read a body.

    Attributes:
        name: What settings and options call it.
        content_type: The AMQP property that names it on the wire.
        content_encoding: ``utf-8`` for text, ``binary`` for bytes.
        dumps: Raises `EncodeError` with a ``path`` for what it cannot write.
        loads: Raises `MalformedMessage` for bytes it cannot read.
    """

    name: str
    content_type: str
    content_encoding: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


#: The default, and the one every Celery client reads.
JSON = Serializer("json", "application/json", "utf-8", jsoncodec.dumps, jsoncodec.loads)


def _msgpack() -> Serializer:
    try:
        import msgpack
    except ImportError as error:
        raise ConfigurationError(
            "serializer 'msgpack' is not installed", hint='pip install "amqtask[msgpack]"'
        ) from error

    def pack(value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
        return packed

    def dumps(value: Any) -> bytes:
        return _blaming("msgpack", pack, value)

    def loads(data: bytes) -> Any:
        try:
            return msgpack.unpackb(data, raw=False, strict_map_key=False)
        except Exception as error:  # msgpack raises ValueError, TypeError and classes of its own
            raise MalformedMessage(f"not valid msgpack: {_reason(error)}") from error

    return Serializer("msgpack", "application/x-msgpack", "binary", dumps, loads)


def _pickle() -> Serializer:
    import pickle

    def pack(value: Any) -> bytes:
        return pickle.dumps(value, protocol=_PICKLE_PROTOCOL)

    def dumps(value: Any) -> bytes:
        return _blaming("pickle", pack, value)

    def loads(data: bytes) -> Any:
        try:
            return pickle.loads(data)  # noqa: S301 - the application listed pickle itself
        except Exception as error:  # unpickling runs code of the classes in it
            raise MalformedMessage(f"not valid pickle: {_reason(error)}") from error

    return Serializer("pickle", "application/x-python-serialize", "binary", dumps, loads)


_MAKERS: dict[str, Callable[[], Serializer]] = {
    "json": lambda: JSON,
    "msgpack": _msgpack,
    "pickle": _pickle,
}


@cache
def serializer(name: str) -> Serializer:
    """Return a serializer by name.

    Raises:
        ConfigurationError: No such serializer, or its package is not installed.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise ConfigurationError(
            f"no serializer {name!r}{near(name, list(_MAKERS))}",
            hint=f"there are {', '.join(_MAKERS)}",
        )
    return maker()


def accepted(names: Sequence[str]) -> Mapping[str, Serializer]:
    """Return what may be read, by content type.

    Args:
        names: As in the ``accept_content`` setting. Pickle runs what the
            sender likes, so list it only where every sender is trusted.

    Raises:
        ConfigurationError: One of them is unknown or not installed.
    """
    chosen = [serializer(name) for name in names]
    return {one.content_type: one for one in chosen}


# -- errors ---------------------------------------------------------------------


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _blaming(codec: str, pack: Callable[[Any], bytes], value: Any) -> bytes:
    """Pack a value; on failure name the innermost value that does not pack."""
    try:
        return pack(value)
    except Exception as error:  # __reduce__ and friends are user code
        refused = _blame(pack, value, error)
    raise refused.error(codec) from refused.__cause__


def _blame(pack: Callable[[Any], bytes], value: Any, error: Exception) -> Refused:
    trail: list[str | int] = []
    for _ in range(_BLAME_DEPTH):
        found = _failing_child(pack, value)
        if found is None:
            break
        key, value, error = found
        trail.append(key)
    refused = Refused(f"value of type {type(value).__qualname__!r}", _reason(error))
    refused.trail = trail[::-1]
    refused.__cause__ = error
    return refused


def _failing_child(
    pack: Callable[[Any], bytes], value: Any
) -> tuple[str | int, Any, Exception] | None:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    for key, item in items:
        try:
            pack(item)
        except Exception as error:  # as in _blaming
            return key if isinstance(key, str | int) else str(key), item, error
    return None
