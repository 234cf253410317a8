"""``db+postgresql://``, ``db+mysql://``, ``db+sqlite://``: results in Celery's tables.

Whatever SQLAlchemy reaches will do; on these three a batch is one upsert that
leaves every SUCCESS alone. PostgreSQL notifies through a trigger, so that
results of Celery's workers wake waiters too; of the others one thread of a
process looks.

    db+postgresql://user:password@host/database     db+mysql://...    db+mariadb://...
    db+sqlite:////var/lib/results.db
    ...?tables=check looks whether the tables are there, ?tables=never trusts that they are

Source: celery 5.7 ``celery/backends/database/``.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url

from amqtask.backends import sqlkept, sqlregister, tables
from amqtask.backends.base import Can, Found, Listener, Record, Store, home
from amqtask.backends.codec import Codec
from amqtask.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    MessageError,
)
from amqtask.message.results import EXTENDED, ResultMeta
from amqtask.settings import Settings

log = logging.getLogger(__name__)

#: The driver of a URL that names none, and the extra that brings it.
_DRIVERS = {
    "postgresql": ("postgresql+psycopg", "psycopg", "postgresql"),
    "postgres": ("postgresql+psycopg", "psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "PyMySQL", "mysql"),
    "mariadb": ("mariadb+pymysql", "PyMySQL", "mysql"),
}
#: Seconds for a connection.
_CONNECT = 5
#: What asks for trying again.
_AWAY = (
    sql_errors.OperationalError,
    sql_errors.InterfaceError,
    sql_errors.InternalError,
    sql_errors.TimeoutError,
)


class SqlStore(Store):
    """Keeps results in tables.

    Raises:
        ConfigurationError: The URL is wrong, or its driver is not installed.
    """

    can = Can(guards=True, counts=True, keeps=True)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        self._engine, self._said = _engine(url)
        self._name = self._engine.dialect.name
        self._table = tables.extended_tasks if settings.result_extended else tables.tasks
        self._upsert = _upsert(self._name, self._table)
        if self._name == "postgresql" and self._engine.dialect.driver == "psycopg":
            self.can = replace(self.can, notifies=True)
        self._lock = threading.Lock()
        self._ready = self._counting = False

    # -- rows -------------------------------------------------------------------------

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`."""
        for record in records:
            if len(record.id) > tables.LONGEST_ID:
                raise BackendError(
                    f"id {record.id[:40]!r}... has {len(record.id)} characters, the table holds "
                    f"{tables.LONGEST_ID}",
                    hint="use a shorter task_id",
                )
        # in one order in every process, or two batches could each hold what the other one needs
        rows = [self._row(record) for record in sorted(records, key=lambda each: each.id)]
        with self._begun() as connection:
            if self._upsert is not None:
                connection.execute(self._upsert, rows)
            else:
                for row in rows:
                    _write_one(connection, self._table, row)

    def load(self, ids: Sequence[str]) -> Mapping[str, Found]:
        """See `Store.load`."""
        with self._begun() as connection:
            found = connection.execute(
                sa.select(self._table).where(self._table.c.task_id.in_(ids))
            ).mappings()
            return {row["task_id"]: self._meta(row) for row in found}

    def forget(self, ids: Sequence[str]) -> None:
        """See `Store.forget`."""
        with self._begun() as connection:
            connection.execute(sa.delete(self._table).where(self._table.c.task_id.in_(ids)))

    def expire(self, now: datetime) -> int:
        """See `Store.expire`."""
        kept = self.settings.result_expires
        failures = self.settings.result_failure_expires or kept
        gone = 0
        with self._begun() as connection:
            failed = self._table.c.status == "FAILURE"
            for seconds, these in ((kept, ~failed), (failures, failed)):
                if seconds is not None:
                    old = self._table.c.date_done < _naive(now) - timedelta(seconds=seconds)
                    gone += connection.execute(sa.delete(self._table).where(these & old)).rowcount
            if kept is not None:
                old = tables.groups.c.date_done < _naive(now) - timedelta(seconds=kept)
                gone += connection.execute(sa.delete(tables.groups).where(old)).rowcount
            if self._counting:
                counted = max(kept or 0, self.settings.join_expires)
                old = tables.counters.c.date_done < _naive(now) - timedelta(seconds=counted)
                gone += connection.execute(sa.delete(tables.counters).where(old)).rowcount
                gone += sqlkept.expire(connection, _naive(now))
                gone += sqlregister.expire(connection, _naive(now))
        return gone

    def _row(self, record: Record) -> dict[str, Any]:
        meta, encode = record.meta, self.codec.encode_value
        row: dict[str, Any] = {
            "task_id": record.id,
            "status": meta.status,
            "result": encode(meta.result),
            "date_done": None if meta.date_done is None else _naive(meta.date_done),
            "traceback": meta.traceback,
            "children": encode(list(meta.children)) if meta.children else None,
        }
        if self._table is tables.extended_tasks:
            said = meta.extended
            row |= {name: said.get(name) for name in ("name", "worker", "retries", "queue")}
            row |= {name: encode(said.get(name)) for name in ("args", "kwargs")}
        return row

    def _meta(self, row: Mapping[Any, Any]) -> Found:
        def decoded(name: str) -> Any:
            value = row.get(name)
            return None if value is None else self.codec.decode_value(bytes(value))

        try:
            extended = {name: row.get(name) for name in EXTENDED if row.get(name) is not None}
            extended |= {name: decoded(name) for name in ("args", "kwargs") if name in extended}
            done = row["date_done"]
            return ResultMeta(
                task_id=row["task_id"],
                status=row["status"],
                result=decoded("result"),
                traceback=row["traceback"],
                children=decoded("children") or (),
                date_done=None if done is None else done.replace(tzinfo=UTC),
                extended=extended,
            )
        except MessageError as error:
            return error

    # -- groups and counters ------------------------------------------------------------

    def save_group(self, group_id: str, body: bytes, expires: float | None) -> None:
        """See `Store.save_group`: the members alone, as Celery's tables have them."""
        members = self.codec.decode_value(body)["result"]
        with self._begun() as connection:
            connection.execute(
                sa.delete(tables.groups).where(tables.groups.c.taskset_id == group_id)
            )
            connection.execute(
                sa.insert(tables.groups).values(
                    taskset_id=group_id,
                    result=self.codec.encode_value(members),
                    date_done=_naive(datetime.now(UTC)),
                )
            )

    def load_group(self, group_id: str) -> bytes | None:
        """See `Store.load_group`."""
        with self._begun() as connection:
            found: bytes | None = connection.execute(
                sa.select(tables.groups.c.result).where(tables.groups.c.taskset_id == group_id)
            ).scalar()
        return None if found is None else bytes(found)

    def forget_group(self, group_id: str) -> None:
        """See `Store.forget_group`."""
        with self._begun() as connection:
            connection.execute(
                sa.delete(tables.groups).where(tables.groups.c.taskset_id == group_id)
            )

    def count(self, key: str, by: int, expires: float | None) -> int:
        """See `Store.count`."""
        table = tables.counters
        with self._begun_counting() as connection:
            # the row is locked from here to the end, so what is read is what was written
            add = _add(self._name, key, by)
            if add is not None:
                connection.execute(add)
            else:
                _add_slowly(connection, key, by)
            mine = sa.select(table.c.value).where(table.c.key == key)
            return int(connection.execute(mine).scalar_one())

    def keep(self, key: str, value: bytes, expires: float) -> bytes:
        """See `Store.keep`."""
        ends = _naive(datetime.now(UTC) + timedelta(seconds=expires))
        with self._begun_counting() as connection:
            return sqlkept.keep(connection, key, value, ends)

    def kept(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `Store.kept`."""
        with self._begun_counting() as connection:
            return sqlkept.read(connection, keys)

    def unkeep(self, keys: Sequence[str]) -> None:
        """See `Store.unkeep`."""
        with self._begun_counting() as connection:
            sqlkept.drop(connection, keys)

    def register(self) -> sqlregister.SqlRegister:
        """See `Store.register`."""
        where = home(self.settings)
        return sqlregister.SqlRegister(self._begun_counting, self._begun_looking, where)

    @contextmanager
    def _begun_looking(self) -> Iterator[Connection | None]:
        with self._begun() as connection:
            there = self._counting or sa.inspect(connection).has_table(tables.open_chords.name)
            yield connection if there else None

    @contextmanager
    def _begun_counting(self) -> Iterator[Connection]:
        if not self._counting:
            with self._lock, self._wrapped():
                tables.make_counters(self._engine)
            self._counting = True
        with self._begun() as connection:
            yield connection

    # -- connections ----------------------------------------------------------------------

    def listen(self) -> Listener:
        """See `Store.listen`; on PostgreSQL only."""
        with self._begun() as connection:
            if not tables.has_trigger(connection):
                self.can = replace(self.can, notifies=False)
                raise BackendError(
                    f"backend {self} has no trigger that notifies, so it is looked at",
                    hint="let a user who may create triggers connect once",
                )
        return _PostgresListener(self)

    def close(self) -> None:
        """See `Store.close`."""
        self._engine.dispose()

    def forked(self) -> None:
        """See `Store.forked`."""
        self._engine.dispose(close=False)

    def raw_connection(self) -> Any:
        """Return a driver's connection of its own, in autocommit, that no pool knows."""
        dialect: Any = self._engine.dialect
        args, options = dialect.create_connect_args(self._engine.url)
        try:
            return dialect.loaded_dbapi.connect(
                *args, **options, autocommit=True, connect_timeout=_CONNECT
            )
        except dialect.loaded_dbapi.Error as error:
            raise BackendUnavailable(f"backend {self} does not answer: {error}") from error

    def notify(self, channel: str) -> None:
        """Notify a channel of PostgreSQL."""
        with self._begun() as connection:
            connection.execute(sa.select(sa.func.pg_notify(channel, "")))

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        if not self._ready:
            self._prepare()
        with self._wrapped(), self._engine.begin() as connection:
            yield connection

    def _prepare(self) -> None:
        with self._lock, self._wrapped():
            if self._ready:
                return
            said = self._said.get("tables", "make")
            extended = self.settings.result_extended
            if said == "make":
                try:
                    tables.make(self._engine, extended=extended)
                except sql_errors.DatabaseError as error:
                    # this user may not make any; they may be there
                    log.debug("results.tables_not_made error=%r: looking for them", str(error))
                    tables.check(self._engine, extended=extended)
            elif said == "check":
                tables.check(self._engine, extended=extended)
            self._ready = True

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Turn SQLAlchemy's errors into ours."""
        try:
            yield
        except _AWAY as error:
            raise BackendUnavailable(f"backend {self} does not answer: {_cause(error)}") from error
        except sql_errors.DBAPIError as error:
            if error.connection_invalidated:
                text = f"backend {self} was lost: {_cause(error)}"
                raise BackendUnavailable(text) from error
            raise BackendError(f"backend {self} refused: {_cause(error)}") from error
        except sql_errors.SQLAlchemyError as error:
            raise BackendError(f"backend {self} refused: {error}") from error


class _PostgresListener:
    """One connection that listens to all rows that are written."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._own = f"amqtask_wake_{uuid.uuid4().hex}"
        self._connection = store.raw_connection()
        with self._wrapped():
            for channel in (tables.CHANNEL, self._own):
                self._connection.execute(f"LISTEN {channel}")

    def follow(self, ids: Sequence[str]) -> None:
        """All are followed already."""

    def unfollow(self, ids: Sequence[str]) -> None:
        """What nobody waits for is passed over by the reader."""

    def take(self, timeout: float) -> Sequence[tuple[str, Found | None]]:
        with self._wrapped():
            # it yields all that comes along with the first one
            notices = self._connection.notifies(timeout=timeout, stop_after=1)
            return [(each.payload, None) for each in notices if each.channel != self._own]

    def wake(self) -> None:
        self._store.notify(self._own)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        import psycopg  # the driver, else there were no such listener

        try:
            yield
        except psycopg.Error as error:
            raise BackendUnavailable(f"backend {self._store} was lost: {error}") from error


# -- statements -------------------------------------------------------------------------


def _upsert(dialect: str, table: sa.Table) -> Any | None:
    """Return the statement that writes rows and leaves every SUCCESS alone; None for the long way."""
    names = [
        column.name for column in table.columns if column.name not in ("id", "task_id", "stamps")
    ]
    values: dict[str, Any] = {name: sa.bindparam(name) for name in ("task_id", *names)}
    if dialect in ("postgresql", "sqlite"):
        make: Callable[..., Any] = postgresql.insert if dialect == "postgresql" else sqlite.insert
        statement = make(table).values(values)
        return statement.on_conflict_do_update(
            index_elements=["task_id"],
            set_={name: statement.excluded[name] for name in names},
            where=table.c.status != "SUCCESS",
        )
    if dialect in ("mysql", "mariadb"):
        statement = mysql.insert(table).values(values)
        kept = table.c.status == "SUCCESS"
        # assigned from left to right, so the status that decides comes last
        names.sort(key=lambda name: name == "status")
        return statement.on_duplicate_key_update(
            [(name, sa.func.if_(kept, table.c[name], statement.inserted[name])) for name in names]
        )
    return None


def _add(dialect: str, key: str, by: int) -> Any | None:
    """Return the statement that adds to a counter; None for the long way."""
    table = tables.counters
    row: dict[str, Any] = {"key": key, "value": by, "date_done": _naive(datetime.now(UTC))}
    if dialect in ("postgresql", "sqlite"):
        make: Callable[..., Any] = postgresql.insert if dialect == "postgresql" else sqlite.insert
        statement = make(table).values(row)
        return statement.on_conflict_do_update(
            index_elements=["key"], set_={"value": table.c.value + by}
        )
    if dialect in ("mysql", "mariadb"):
        return mysql.insert(table).values(row).on_duplicate_key_update(value=table.c.value + by)
    return None


def _add_slowly(connection: Connection, key: str, by: int) -> None:
    """Add to a counter on a database whose upsert is not known here."""
    table = tables.counters
    changed = sa.update(table).where(table.c.key == key).values(value=table.c.value + by)
    if connection.execute(changed).rowcount:
        return
    row = {"key": key, "value": by, "date_done": _naive(datetime.now(UTC))}
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(table).values(row))
    except sql_errors.IntegrityError:  # somebody else was first
        connection.execute(changed)


def _write_one(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Write a row on a database whose upsert is not known here."""
    mine = table.c.task_id == row["task_id"]
    changed = sa.update(table).where(mine & (table.c.status != "SUCCESS")).values(**row)
    if connection.execute(changed).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(table).values(**row))
    except sql_errors.IntegrityError:
        log.debug("result.kept id=%s: there is a success already", row["task_id"])


# -- URLs ---------------------------------------------------------------------------------


def _engine(url: str) -> tuple[Engine, Mapping[str, str]]:
    """Return an engine, which connects later, and our own words of the URL."""
    try:
        parsed = make_url(url.partition("+")[2])
        said = {key: str(value) for key, value in parsed.query.items() if key == "tables"}
        parsed = parsed.difference_update_query(["tables"])
    except (sql_errors.ArgumentError, ValueError) as error:
        raise ConfigurationError(
            f"backend URL cannot be understood: {type(error).__name__}",
            hint="write db+postgresql://user:password@host/database",
        ) from None  # the cause would show the password
    if said.get("tables", "make") not in ("make", "check", "never"):
        raise ConfigurationError(
            f"tables={said['tables']} in the backend URL is not one of make, check, never"
        )
    driver, package, extra = _DRIVERS.get(parsed.drivername, (parsed.drivername, "", "sql"))
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 3600}
    if driver.startswith("sqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError(
                "a SQLite backend in memory is seen by one connection only",
                hint="name a file: db+sqlite:////var/lib/results.db, or use memory://",
            )
        options["connect_args"] = {"timeout": 30}
    elif driver.startswith(("mysql", "mariadb")):
        options["connect_args"] = {"charset": "utf8mb4", "connect_timeout": _CONNECT}
    elif driver.startswith("postgresql"):
        options["connect_args"] = {"connect_timeout": _CONNECT}
    try:
        engine = sa.create_engine(parsed.set(drivername=driver), **options)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"backend db+{parsed.drivername}:// needs the package {package or error.name!r}, which "
            "is not installed",
            hint=f'pip install "amqtask[{extra}]"',
        ) from error
    except sql_errors.ArgumentError as error:
        raise ConfigurationError(
            f"backend db+{parsed.drivername}:// cannot be had: {error}"
        ) from None
    if driver.startswith("sqlite"):
        sa.event.listen(engine, "connect", _write_ahead)
    return engine, said


def _write_ahead(connection: Any, _: object) -> None:
    """Let readers go on while somebody writes, in a SQLite file."""
    connection.execute("PRAGMA journal_mode=WAL")


def _naive(moment: datetime) -> datetime:
    """Return the UTC time without its zone, as the tables have it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _cause(error: sql_errors.SQLAlchemyError) -> str:
    origin = getattr(error, "orig", None)
    return str(origin or error).strip().partition("\n")[0]
