"""Compression by kombu's names, and the bound on what comes out."""

from __future__ import annotations

import importlib
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import (
    ConfigurationError,
    ContentDisallowed,
    DecodedTooLarge,
    MalformedMessage,
)
from amqtask.message import compression
from amqtask.message.compression import compress, decompress
from tests.unit.message.strategies import outcome, some

MIMES = {
    "zlib": "application/x-gzip",
    "gzip": "application/x-gzip",
    "bz2": "application/x-bz2",
    "lzma": "application/x-lzma",
    "zstd": "application/zstd",
}
METHODS = ["zlib", "bz2", "lzma", "zstd"]


@pytest.mark.parametrize("name", METHODS)
@some
@given(data=st.binary(max_size=2000))
def test_round_trip(name, data):
    """What was compressed unpacks to itself, with a limit of exactly its size."""
    mime, packed = compress(name, data)
    assert mime == MIMES[name]
    assert decompress(mime, packed, len(data)) == data


@pytest.mark.parametrize(
    ("name", "kombu_name"), [("zlib", "gzip"), ("bz2", "bzip2"), ("lzma", "lzma"), ("zstd", "zstd")]
)
def test_kombu_interoperates(name, kombu_name):
    """kombu reads what we write under the same mime type, and the other way round."""
    kombu = pytest.importorskip("kombu.compression")
    data = b"amqtask " * 100
    mime, packed = compress(name, data)
    assert kombu.decompress(packed, mime) == data
    theirs, their_mime = kombu.compress(data, kombu_name)
    assert their_mime == mime
    assert decompress(their_mime, theirs, 1 << 20) == data


def test_gzip_is_zlib():
    """The name gzip means zlib's format, as in kombu."""
    assert compress("gzip", b"x") == ("application/x-gzip", zlib.compress(b"x"))


@pytest.mark.parametrize("name", METHODS)
def test_bomb_stops_at_the_limit(name):
    """A small body that unpacks to far more is refused at the limit."""
    mime, packed = compress(name, bytes(1_000_000))
    with pytest.raises(DecodedTooLarge) as caught:
        decompress(mime, packed, 1000)
    assert str(caught.value) == "body unpacks to more than 1000 bytes"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("over", [0, 1])
def test_limit_is_exact(name, over):
    """The limit is the last size that passes."""
    mime, packed = compress(name, bytes(5000))
    if over:
        with pytest.raises(DecodedTooLarge):
            decompress(mime, packed, 4999)
    else:
        assert decompress(mime, packed, 5000) == bytes(5000)


class Counting:
    """A decompressor that says how much it was asked for."""

    asked: list[int] = []  # noqa: RUF012 - shared with the test on purpose

    def __init__(self) -> None:
        self.inner = compression._Zlib()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        self.asked.append(max_length)
        return self.inner.decompress(data, max_length)


def test_never_asks_for_more_than_there_is_room_for(monkeypatch):
    """The decompressor itself is bounded, so memory is too."""
    real = compression._method("application/x-gzip")
    counting = compression._Method(real.mime, real.pack, Counting, real.broken)
    monkeypatch.setattr(compression, "_method", lambda mime: counting)
    with pytest.raises(DecodedTooLarge):
        decompress("gzip", zlib.compress(bytes(1 << 20)), 300)
    assert Counting.asked == [301]


@pytest.mark.parametrize("name", METHODS)
def test_truncated(name):
    """A body that ends early is malformed."""
    mime, packed = compress(name, b"amqtask " * 1000)
    with pytest.raises(MalformedMessage):
        decompress(mime, packed[:-6], 1 << 20)


def test_truncated_text():
    """The error names the format."""
    with pytest.raises(MalformedMessage) as caught:
        decompress("application/x-gzip", b"", 10)
    assert str(caught.value) == "body ends before its application/x-gzip data does"


@pytest.mark.parametrize("name", METHODS)
def test_junk_after_the_end(name):
    """Bytes after the stream that are no stream are malformed."""
    mime, packed = compress(name, b"x")
    with pytest.raises(MalformedMessage):
        decompress(mime, packed + b"junk!", 1 << 20)


@pytest.mark.parametrize("name", METHODS)
def test_joined_streams(name):
    """Several streams in one body unpack one after the other, under one limit."""
    mime, packed = compress(name, b"abc")
    assert decompress(mime, packed * 3, 9) == b"abcabcabc"
    with pytest.raises(DecodedTooLarge):
        decompress(mime, packed * 3, 8)


@pytest.mark.parametrize("mime", sorted(set(MIMES.values())))
@some
@given(data=st.binary())
def test_any_bytes(mime, data):
    """Any bytes unpack or are refused with a message error."""
    found = outcome(lambda: decompress(mime, data, 100))
    if isinstance(found, bytes):
        assert len(found) <= 100
    else:
        assert str(found).startswith("body ")


def test_unknown_method_on_reading():
    """A compression nobody here knows is not accepted content."""
    with pytest.raises(ContentDisallowed) as caught:
        decompress("application/x-brotli", b"", 10)
    assert (
        str(caught.value) == "body is compressed as 'application/x-brotli', which is not known here"
    )


def test_unknown_method_on_writing():
    """An unknown name is a configuration error with a near name."""
    with pytest.raises(ConfigurationError) as caught:
        compress("zslib", b"")
    assert str(caught.value) == "no compression 'zslib', did you mean 'zlib'?"
    assert caught.value.hint == "there are zlib, zstd, bz2 and lzma"


def test_missing_zstd_names_the_extra(monkeypatch):
    """Without the package both directions say what to install."""

    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    compression._method.cache_clear()
    with pytest.raises(ConfigurationError) as writing:
        compress("zstd", b"")
    with pytest.raises(ContentDisallowed) as reading:
        decompress("application/zstd", b"", 10)
    assert str(writing.value) == "compression 'zstd' is not installed"
    assert writing.value.hint == reading.value.hint == 'pip install "amqtask[zstd]"'
