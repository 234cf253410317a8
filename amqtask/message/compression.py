"""Compression of bodies, as kombu names it, with a bound on what comes out.

A few kilobytes can unpack to gigabytes, so a body is unpacked as a stream
that stops at the limit instead of being measured afterwards.

Source:
    kombu 5.7 ``kombu/compression.py``; ``application/x-gzip`` is zlib's own
    format there, not gzip's.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from amqtask.errors import (
    ConfigurationError,
    ContentDisallowed,
    DecodedTooLarge,
    MalformedMessage,
    near,
)
from amqtask.message.text import show

#: ``xz -9`` needs 65 MiB; a header may ask for 4 GiB.
_LZMA_MEMORY = 128 * 1024 * 1024


class _Unpacker(Protocol):
    """What bz2, lzma and zstd share; zlib is fitted to it below."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Zlib:
    """zlib's decompressor with the manners of the others: it keeps the input it did not use."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj()
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        rest = self._inner.unconsumed_tail
        out = self._inner.decompress(rest + data if rest else data, max_length)
        self.needs_input = not self._inner.unconsumed_tail
        return out


@dataclass(frozen=True, slots=True)
class _Method:
    mime: str
    pack: Callable[[bytes], bytes]
    unpacker: Callable[[], _Unpacker]
    broken: tuple[type[Exception], ...]


_ALIASES = {
    "zlib": "application/x-gzip",
    "gzip": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "bz2": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
}


def _make_zlib() -> _Method:
    return _Method("application/x-gzip", zlib.compress, _Zlib, (zlib.error,))


def _make_zstd() -> _Method:
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    zstd: Any = importlib.import_module(module)
    return _Method("application/zstd", zstd.compress, zstd.ZstdDecompressor, (zstd.ZstdError,))


def _make_bz2() -> _Method:
    import bz2

    return _Method("application/x-bz2", bz2.compress, bz2.BZ2Decompressor, (OSError, ValueError))


def _make_lzma() -> _Method:
    import lzma

    return _Method(
        "application/x-lzma",
        lzma.compress,
        lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY),
        (lzma.LZMAError,),
    )


_MAKERS: dict[str, Callable[[], _Method]] = {
    "application/x-gzip": _make_zlib,
    "application/x-bz2": _make_bz2,
    "application/x-lzma": _make_lzma,
    "application/zstd": _make_zstd,
}


@cache
def _method(mime: str) -> _Method:
    return _MAKERS[mime]()


def compress(name: str, data: bytes) -> tuple[str, bytes]:
    """Compress a body.

    Args:
        name: ``zlib`` (also ``gzip``, which is the same), ``zstd``, ``bz2``
            or ``lzma``, kombu's other names for them, or the mime type.

    Returns:
        The mime type for the ``compression`` header, and the bytes.

    Raises:
        ConfigurationError: No such method, or its package is not installed.
    """
    mime = _ALIASES.get(name, name)
    if mime not in _MAKERS:
        raise ConfigurationError(
            f"no compression {name!r}{near(name, list(_ALIASES))}",
            hint="there are zlib, zstd, bz2 and lzma",
        )
    try:
        method = _method(mime)
    except ImportError as error:
        raise ConfigurationError(
            f"compression {name!r} is not installed", hint='pip install "amqtask[zstd]"'
        ) from error
    return method.mime, method.pack(data)


def decompress(mime: str, data: bytes, limit: int) -> bytes:
    """Unpack a body.

    Args:
        mime: The ``compression`` header.
        limit: Bytes it may unpack to.

    Raises:
        ContentDisallowed: No such method here.
        DecodedTooLarge: It unpacks to more than ``limit`` bytes.
        MalformedMessage: The bytes are broken or end too early.
    """
    mime = _ALIASES.get(mime, mime)
    if mime not in _MAKERS:
        raise ContentDisallowed(
            f"body is compressed as {show(mime)}, which is not known here",
            hint="send it with zlib, zstd, bz2 or lzma",
        )
    try:
        method = _method(mime)
    except ImportError as error:
        raise ContentDisallowed(
            f"body is compressed as {mime!r}, which is not installed here",
            hint='pip install "amqtask[zstd]"',
        ) from error
    try:
        return _unpack(method, data, limit)
    except method.broken as error:
        raise MalformedMessage(f"body is not valid {mime}: {error}") from error


def _unpack(method: _Method, data: bytes, limit: int) -> bytes:
    """Unpack one stream after the other, as kombu's peers may have joined several."""
    parts: list[bytes] = []
    room = limit
    while True:
        stream = method.unpacker()
        while True:
            # one byte more than there is room for, to tell full from too large
            part = stream.decompress(data, room + 1)
            data = b""
            room -= len(part)
            if room < 0:
                raise DecodedTooLarge(f"body unpacks to more than {limit} bytes")
            parts.append(part)
            if stream.eof:
                break
            if not part and stream.needs_input:
                raise MalformedMessage(f"body ends before its {method.mime} data does")
        data = stream.unused_data
        if not data:
            return parts[0] if len(parts) == 1 else b"".join(parts)
