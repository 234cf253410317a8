"""Where the contract's backends keep what they keep: a place of each test session's own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
import redis
import sqlalchemy as sa

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
    with _database(request.getfixturevalue("postgresql").url, "postgresql+psycopg") as url:
        yield url


@contextmanager
def mysql(request: pytest.FixtureRequest) -> Iterator[str]:
    with _database(request.getfixturevalue("mysql").url, "mysql+pymysql") as url:
        yield url


@contextmanager
def _database(url: str, driver: str) -> Iterator[str]:
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
    "kv+disk": keyvalue,
}
#: Backends whose outcomes are messages, by scheme.
MESSAGES = ("rpc", "rpc+direct")
