"""The servers that results are stored in: what counts as an answer, and what an error says."""

from __future__ import annotations

import io
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

import pytest

from amqtask.testing import stores

PG = urlsplit("postgresql://ada@127.0.0.1:5432/shop")


def wire(said: bytes) -> tuple[io.BufferedRWPair, io.BytesIO]:
    sent = io.BytesIO()
    return io.BufferedRWPair(io.BytesIO(said), sent), sent


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


def test_memcached_tells_its_version() -> None:
    """The version is what it answers."""
    stream, sent = wire(b"VERSION 1.6.18\r\n")
    assert stores.probe_memcached(stream, urlsplit("memcached://x")) == "1.6.18"
    assert sent.getvalue() == b"version\r\n"


def test_postgresql_lets_us_in() -> None:
    """User and database are the URL's; the version comes before it is ready."""
    stream, sent = wire(
        message(b"R", b"\0\0\0\0")
        + message(b"S", b"server_version\x0015.9 (Debian 15.9-0)\0")
        + message(b"Z", b"I")
    )
    assert stores.probe_postgresql(stream, PG) == "15.9"
    assert b"user\0ada\0database\0shop\0\0" in sent.getvalue()


def test_postgresql_asks_for_a_password() -> None:
    """It is one, whether or not the password is right."""
    stream, _ = wire(message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
    assert stores.probe_postgresql(stream, PG) == ""


def test_mysql_greets() -> None:
    """MariaDB's greeting names a version of old first, which is left out."""
    body = b"\x0a5.5.5-10.11.6-MariaDB\0rest"
    stream, _ = wire(len(body).to_bytes(3, "little") + b"\0" + body)
    assert stores.probe_mysql(stream, urlsplit("mysql://x")) == "10.11.6-MariaDB"


def test_cassandra_says_what_it_supports() -> None:
    """It is asked before a login."""
    stream, sent = wire(b"\x84\0\0\0\x06\0\0\0\x02\0\0")
    assert stores.probe_cassandra(stream, urlsplit("cassandra://x")) == ""
    assert sent.getvalue() == b"\x04\0\0\0\x05\0\0\0\0"


def test_couchbase_says_how_to_log_in() -> None:
    """It is asked before a login."""
    stream, sent = wire(b"\x81\x20" + b"\0" * 22)
    assert stores.probe_couchbase(stream, urlsplit("couchbase://x")) == ""
    assert sent.getvalue() == b"\x80\x20" + b"\0" * 22


@pytest.mark.parametrize(
    ("probe", "said", "error"),
    [
        (stores.probe_cassandra, b"HTTP/1.1 400", "it does not speak Cassandra's protocol"),
        (
            stores.probe_couchbase,
            b"\x81\x20" + b"\0" * 4 + b"\0\x81" + b"\0" * 16,
            "it does not speak Couchbase's key-value protocol",
        ),
        (stores.probe_memcached, b"ERROR\r\n", "it does not speak memcached's protocol"),
        (stores.probe_postgresql, b"HTTP/1.1", "it does not speak PostgreSQL's protocol"),
        (stores.probe_postgresql, b"", "it does not speak PostgreSQL's protocol"),
        (
            stores.probe_postgresql,
            message(b"E", b'SFATAL\0Mrole "ada" does not exist\0\0'),
            "it answers 'role \"ada\" does not exist'",
        ),
        (stores.probe_mysql, b"", "it closed the connection"),
        (stores.probe_mysql, b"HTTP/1.1 400", "it does not speak MySQL's protocol"),
        (stores.probe_mysql, b"\x07\0\0\0\xff\x6a\x04Host", "it answers 'Host'"),
    ],
)
def test_what_answers_otherwise_is_none(
    probe: Callable[[io.BufferedRWPair, SplitResult], str], said: bytes, error: str
) -> None:
    """Whatever else has the port is refused, with the reason."""
    with pytest.raises(ConnectionError) as caught:
        probe(wire(said)[0], PG)
    assert str(caught.value) == error
