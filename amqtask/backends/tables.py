"""The tables of results as Celery 5.7 makes them, with SQLAlchemy Core.

    celery_taskmeta       a row for each call
    celery_tasksetmeta    a row for each group
    amqtask_counters      ours, made when the first counter is asked for
    amqtask_kept          ours, made along with it: the parts of chords
    amqtask_open_chords   ours, as well: chords that wait for members

On PostgreSQL a trigger tells whoever listens of every row that is written, by
us or by Celery.

Source: celery 5.7 ``celery/backends/database/models.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError

from amqtask.errors import BackendError

log = logging.getLogger(__name__)

#: Characters of the longest id that the tables hold.
LONGEST_ID = 155
#: The channel that the trigger notifies.
CHANNEL = "amqtask_results"
_TRIGGER = "amqtask_results_written"
#: Any number, the same in every process: they make the tables one after the other.
_LOCK = 7_205_159_403

#: Tries to make the tables where somebody else makes them too, and seconds between two of them.
_TRIES, _PAUSE = 4, 0.2

metadata = sa.MetaData()

# MySQL's BLOB and TEXT end at 64 KiB
_bytes = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _tasks(metadata: sa.MetaData, *more: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        "celery_taskmeta",
        metadata,
        sa.Column("id", sa.Integer, sa.Sequence("task_id_sequence"), primary_key=True),
        sa.Column("task_id", sa.String(LONGEST_ID), unique=True),
        sa.Column("status", sa.String(50)),
        sa.Column("result", _bytes),
        sa.Column("date_done", sa.DateTime, index=True),
        sa.Column("traceback", _text),
        sa.Column("children", _bytes),
        *more,
        sqlite_autoincrement=True,
    )


tasks = _tasks(metadata)

#: What an extended record adds to a row.
EXTENDED = (
    ("name", sa.String(155)),
    ("args", _bytes),
    ("kwargs", _bytes),
    ("worker", sa.String(155)),
    ("retries", sa.Integer()),
    ("queue", sa.String(155)),
    ("stamps", _bytes),
)

#: The same table as extended records see it, in a `MetaData` of its own.
extended_tasks = _tasks(sa.MetaData(), *(sa.Column(name, kind) for name, kind in EXTENDED))

groups = sa.Table(
    "celery_tasksetmeta",
    metadata,
    sa.Column("id", sa.Integer, sa.Sequence("taskset_id_sequence"), primary_key=True),
    sa.Column("taskset_id", sa.String(LONGEST_ID), unique=True),
    sa.Column("result", _bytes),
    sa.Column("date_done", sa.DateTime, index=True),
    sqlite_autoincrement=True,
)

counters = sa.Table(
    "amqtask_counters",
    sa.MetaData(),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    sa.Column("date_done", sa.DateTime, index=True),
)

kept = sa.Table(
    "amqtask_kept",
    counters.metadata,
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("value", _bytes, nullable=False),
    sa.Column("expires_at", sa.DateTime, index=True),
)

open_chords = sa.Table(
    "amqtask_open_chords",
    counters.metadata,
    sa.Column("group_id", sa.String(255), primary_key=True),
    sa.Column("record", _bytes, nullable=False),
    sa.Column("home", sa.String(255), nullable=False),
    # milliseconds of Unix time: whoever takes a chord compares them
    sa.Column("due", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.DateTime, index=True),
    sa.Index("ix_amqtask_open_chords_due", "home", "due"),
)


def make(engine: Engine, *, extended: bool) -> None:
    """Make the tables, the columns and the trigger that are missing."""

    def make(connection: Connection) -> None:
        metadata.create_all(connection)
        _add_columns(connection, "celery_taskmeta", [("children", _bytes)])
        if extended:
            _add_columns(connection, "celery_taskmeta", EXTENDED)
        if connection.dialect.name == "postgresql" and not has_trigger(connection):
            _make_trigger(connection)

    _one_at_a_time(engine, make)


def make_counters(engine: Engine) -> None:
    """Make the tables of counters, and of what is kept beside them, unless they are there."""
    _one_at_a_time(engine, counters.metadata.create_all)


def _one_at_a_time(engine: Engine, make: Callable[[Connection], None]) -> None:
    """Make tables while no other process does: looking and making are two steps.

    Where the database has no lock for that, it is tried again, and then all is there.
    """
    for left in reversed(range(_TRIES)):
        try:
            with engine.begin() as connection, _locked(connection):
                make(connection)
            return
        except DatabaseError:
            if not left:
                raise
            time.sleep(_PAUSE)


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    if connection.dialect.name not in ("mysql", "mariadb"):
        yield
        return
    # DDL ends transactions there, so the lock is the connection's
    connection.execute(sa.select(sa.func.get_lock(CHANNEL, 30)))
    try:
        yield
    finally:
        connection.execute(sa.select(sa.func.release_lock(CHANNEL)))


def check(engine: Engine, *, extended: bool) -> None:
    """Look whether the tables have what is needed.

    Raises:
        BackendError: A table or a column is missing; the text names it.
    """
    inspector = sa.inspect(engine)
    for table in (extended_tasks if extended else tasks, groups):
        if not inspector.has_table(table.name):
            raise BackendError(
                f"table {table.name!r} is not there",
                hint="let amqtask make it: leave `tables=` out of the URL of the backend",
            )
        there = {column["name"] for column in inspector.get_columns(table.name)}
        if missing := [column.name for column in table.columns if column.name not in there]:
            raise BackendError(
                f"table {table.name!r} has no column {', '.join(map(repr, missing))}",
                hint="add it, or let amqtask do so: leave `tables=` out of the URL of the backend",
            )


def has_trigger(connection: Connection) -> bool:
    """Whether PostgreSQL tells of rows that are written."""
    found = connection.execute(
        sa.text(
            "SELECT 1 FROM pg_trigger WHERE tgname = :name AND NOT tgisinternal "
            "AND tgrelid = to_regclass('celery_taskmeta')"
        ),
        {"name": _TRIGGER},
    )
    return found.first() is not None


def _make_trigger(connection: Connection) -> None:
    function = (
        f"CREATE OR REPLACE FUNCTION {_TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_notify('{CHANNEL}', NEW.task_id); RETURN NULL; END $$"
    )
    trigger = (
        f"CREATE TRIGGER {_TRIGGER} AFTER INSERT OR UPDATE ON celery_taskmeta "
        f"FOR EACH ROW EXECUTE FUNCTION {_TRIGGER}()"
    )
    for statement in (function, trigger):
        connection.execute(sa.text(statement))


def _add_columns(
    connection: Connection, table: str, columns: Iterable[tuple[str, sa.types.TypeEngine[Any]]]
) -> None:
    """Add what tables of older versions of Celery lack, as Celery 5.7 does itself."""
    there = {column["name"] for column in sa.inspect(connection).get_columns(table)}
    quoted = connection.dialect.identifier_preparer.quote
    for name, kind in columns:
        if name not in there:
            compiled = kind.compile(connection.dialect)
            connection.execute(
                sa.text(f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(name)} {compiled}")
            )
            log.info("results.column_added table=%s column=%s", table, name)
