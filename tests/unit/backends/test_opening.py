"""Which backend a URL names, and what is said of one that names none."""

from __future__ import annotations

import sys

import pytest

from amqtask import App, ConfigurationError
from amqtask.backends import DirectBackend, RpcBackend, StoredBackend


def opened(url: str) -> object:
    return App("t", environ={}, backend=url).backend


@pytest.mark.parametrize(
    ("url", "store"),
    [
        ("memory://", "MemoryStore"),
        ("file:///tmp/results", "FileStore"),
        ("redis://localhost:6379/0", "RedisStore"),
        ("rediss://localhost", "RedisStore"),
        ("redis+sentinel://one:26379,two/0?service=shop", "RedisStore"),
        ("sentinel://one:26379;sentinel://two:26379/0", "RedisStore"),
        ("redis+cluster://localhost", "RedisStore"),
        ("valkey://localhost", "RedisStore"),
        ("db+sqlite:////tmp/results.db", "SqlStore"),
        ("db+postgresql://ada:s3cret@localhost/shop", "SqlStore"),
        ("db+mysql://localhost/shop", "SqlStore"),
        ("memcached://one:11211,two:11211", "MemcachedStore"),
        ("cache+memcached://localhost:11211/", "MemcachedStore"),
        ("mongodb://localhost/shop", "MongoStore"),
        ("cassandra://one,two:9042/shop?table=results", "CassandraStore"),
        ("couchbases://ada:love@one,two/shop?durability=majority", "CouchbaseStore"),
        ("kv+memory://", "KeyValueStore"),
    ],
)
def test_a_store_by_its_scheme(url: str, store: str) -> None:
    """The scheme picks the store; nothing connects yet."""
    backend = opened(url)
    assert isinstance(backend, StoredBackend)
    assert type(backend.store).__name__ == store
    assert "s3cret" not in str(backend.store)
    backend.close(0.1)


def test_messages_by_their_scheme() -> None:
    """Both ways over the broker have a scheme."""
    assert type(opened("rpc://")) is RpcBackend
    assert type(opened("rpc+direct://")) is DirectBackend


@pytest.mark.parametrize(
    ("url", "text", "hint"),
    [
        ("reddis://x", "no result backend for scheme 'reddis', did you mean", "redis://"),
        ("file://host/x", "names no folder", "file:///var"),
        ("memcached://", "names no server", "memcached://127"),
        ("memcached://host:x", "names no server", "memcached://127"),
        ("db+sqlite://", "a SQLite backend in memory", "db+sqlite:////"),
        ("cassandra://:9042/shop", "it names no server", "cassandra://user"),
        ("cassandra://host:x/shop", "port 'x' is no number", "cassandra://user"),
        ("cassandra://host/a-b", "keyspace 'a-b' is no name", "cassandra://user"),
        ("cassandra://host/shop?table=x;", "table 'x;' is no name", "cassandra://user"),
        ("cassandra://host/shop?tabel=x", "no option 'tabel', did you mean 'table'", "?table="),
        ("cassandra://host/shop?tables=maybe", "tables='maybe' is none of", "?table="),
        ("cassandra://host/shop?read_consistency=ALOT", "no consistency 'ALOT'", "?table="),
        ("couchbase://host/shop", "it names no user", "couchbase://user"),
        ("couchbase:///shop", "it names no server", "couchbase://user"),
        ("couchbase://a:b@host/shop?durability=most", "no durability 'most'", "MAJORITY"),
        ("db+postgresql://x/y?tables=maybe", "tables=maybe in the backend URL", ""),
        ("db+nosuchdb://x/y", "nosuchdb", ""),
        ("kv+dynamo://x", "no backend kv+dynamo://, did you mean 'dynamodb'?", "kv+s3://"),
    ],
)
def test_a_url_that_is_wrong(url: str, text: str, hint: str) -> None:
    """The error says what is wrong, and how to write it."""
    with pytest.raises(ConfigurationError) as caught:
        opened(url)
    assert text in str(caught.value)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("redis://x", "redis", "redis"),
        ("db+sqlite:////tmp/x", "sqlalchemy", "sql"),
        ("memcached://x", "pymemcache", "memcached"),
        ("mongodb://x", "pymongo", "mongodb"),
        ("cassandra://x", "cassandra", "cassandra"),
        ("couchbase://x", "couchbase", "couchbase"),
        ("kv+memory://", "key_value", "kv"),
    ],
)
def test_a_driver_that_is_not_installed(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra that brings it."""
    ours = ("redis", "sql", "tables", "memcached", "mongodb", "cassandra", "couchbase", "keyvalue")
    gone = [f"amqtask.backends.{name}" for name in ours]
    for name in list(sys.modules):
        if name in gone or name.partition(".")[0] == module:
            monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(ConfigurationError, match="needs the package") as caught:
        opened(url)
    assert caught.value.hint == f'pip install "amqtask[{extra}]"'
