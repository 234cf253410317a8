"""Where the contract's backends keep what they keep: a place of each test session's own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest
import redis
import sqlalchemy as sa
from cassandra.cluster import Cluster

from tests.contract.backends.cassandra_double import Cassandra
from tests.contract.backends.couchbase_double import Couchbase

#: Starts the keys of these tests in servers that others use, too.
PREFIX = f"test-{uuid.uuid4().hex[:8]}"

Place = Callable[[pytest.FixtureRequest], Any]


@contextmanager
def memory(request: pytest.FixtureRequest) -> Iterator[str]:
    yield f"memory://{uuid.uuid4().hex}"


@contextmanager
def file(request: pytest.FixtureRequest) -> Iterator[str]:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    yield f"file://{factory.mktemp('results')}"


@contextmanager
def sqlite(request: pytest.FixtureRequest) -> Iterator[str]:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    path: Path = factory.mktemp("results") / "results.db"
    yield f"db+sqlite:///{path}"


@contextmanager
def redis_server(request: pytest.FixtureRequest) -> Iterator[str]:
    url = request.getfixturevalue("redis").url
    yield url
    client: Any = redis.Redis.from_url(url)
    for key in client.scan_iter(f"{PREFIX}*", count=1000):
        client.delete(key)
    client.close()


@contextmanager
def valkey(request: pytest.FixtureRequest) -> Iterator[str]:
    url = request.getfixturevalue("valkey").url
    yield url
    client: Any = redis.Redis.from_url(url.replace("valkey", "redis", 1))
    for key in client.scan_iter(f"{PREFIX}*", count=1000):
        client.delete(key)
    client.close()


@contextmanager
def cassandra(request: pytest.FixtureRequest) -> Iterator[str]:
    url = urlsplit(request.getfixturevalue("cassandra").url)
    name = f"amqtask_test_{uuid.uuid4().hex[:8]}"
    cluster = Cluster([(url.hostname, url.port or 9042)])
    session = cluster.connect()
    session.execute(
        f"CREATE KEYSPACE {name} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    try:
        yield urlunsplit(url._replace(path=f"/{name}"))
    finally:
        session.execute(f"DROP KEYSPACE {name}")
        cluster.shutdown()


@contextmanager
def cassandra_double(request: pytest.FixtureRequest) -> Iterator[str]:
    with Cassandra().running() as server:
        yield f"cassandra://127.0.0.1:{server.port}/celery"


@contextmanager
def couchbase(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.getfixturevalue("couchbase").url


@contextmanager
def couchbase_double(request: pytest.FixtureRequest) -> Iterator[str]:
    with Couchbase("results", "ada", "love").running() as server:
        yield f"couchbase://ada:love@127.0.0.1:{server.port}/results"


@contextmanager
def memcached(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.getfixturevalue("memcached").url


@contextmanager
def mongodb(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"amqtask_test_{uuid.uuid4().hex[:8]}"
    url = f"{request.getfixturevalue('mongodb').url}{name}?directConnection=true"
    yield url
    client: Any = pymongo.MongoClient(url)
    client.drop_database(name)
    client.close()


@contextmanager
def keyvalue(request: pytest.FixtureRequest) -> Iterator[str]:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    yield f"kv+disk://{factory.mktemp('results')}"


@contextmanager
def postgresql(request: pytest.FixtureRequest) -> Iterator[str]:
    with database(request.getfixturevalue("postgresql").url, "postgresql+psycopg") as url:
        yield url


@contextmanager
def mysql(request: pytest.FixtureRequest) -> Iterator[str]:
    with database(request.getfixturevalue("mysql").url, "mysql+pymysql") as url:
        yield url


@contextmanager
def database(url: str, driver: str) -> Iterator[str]:
    """Make a database for these tests on a server that others use, too."""
    name = f"amqtask_test_{uuid.uuid4().hex[:8]}"
    server = sa.make_url(url).set(drivername=driver)
    if driver.startswith("mysql"):
        server = server.set(database=None)
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield "db+" + sa.make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if driver.startswith("postgresql") else ""
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name}{force}"))


#: Backends that store, by name.
STORED: dict[str, Place] = {
    "memory": memory,
    "file": file,
    "sqlite": sqlite,
    "redis": redis_server,
    "postgresql": postgresql,
    "mysql": mysql,
    "memcached": memcached,
    "mongodb": mongodb,
    "valkey": valkey,
    "cassandra": cassandra,
    "cassandra double": cassandra_double,
    "couchbase": couchbase,
    "couchbase double": couchbase_double,
    "kv+disk": keyvalue,
}
#: Backends whose outcomes are messages, by scheme.
MESSAGES = ("rpc", "rpc+direct")


@contextmanager
def places(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Give where a backend that stores keeps things, made at the first question."""
    with ExitStack() as stack:
        made: dict[str, str] = {}

        def place(name: str) -> str:
            if name not in made:
                made[name] = stack.enter_context(STORED[name](request))
            return made[name]

        yield place
