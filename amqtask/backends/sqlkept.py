"""Small values that are kept in a table: the parts of chords."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection

from amqtask.backends.tables import kept

#: Keys of one statement at most; SQLite took 999 for a long time.
_KEYS = 900


def keep(connection: Connection, key: str, value: bytes, expires_at: datetime) -> bytes:
    """Keep a value unless there is one; returns what is there then."""
    row = {"key": key, "value": value, "expires_at": expires_at}
    dialect = connection.dialect.name
    if dialect in ("postgresql", "sqlite"):
        make: Callable[..., Any] = postgresql.insert if dialect == "postgresql" else sqlite.insert
        connection.execute(make(kept).values(row).on_conflict_do_nothing())
    elif dialect in ("mysql", "mariadb"):
        connection.execute(mysql.insert(kept).values(row).on_duplicate_key_update(key=kept.c.key))
    else:
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(kept).values(row))
        except sql_errors.IntegrityError:
            pass  # somebody was first, and is read below
    mine = sa.select(kept.c.value).where(kept.c.key == key)
    return bytes(connection.execute(mine).scalar_one())


def read(connection: Connection, keys: Sequence[str]) -> Mapping[str, bytes]:
    """Return the values of these keys; those that have none are left out."""
    found: dict[str, bytes] = {}
    for some in _batches(keys):
        rows = connection.execute(sa.select(kept.c.key, kept.c.value).where(kept.c.key.in_(some)))
        found |= {key: bytes(value) for key, value in rows}
    return found


def drop(connection: Connection, keys: Sequence[str]) -> None:
    """Drop the values of these keys."""
    for some in _batches(keys):
        connection.execute(sa.delete(kept).where(kept.c.key.in_(some)))


def expire(connection: Connection, now: datetime) -> int:
    """Drop what is past its time and return how much that was."""
    return connection.execute(sa.delete(kept).where(kept.c.expires_at < now)).rowcount


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS):
        yield keys[start : start + _KEYS]
