"""Celery's table in Cassandra: where it is, how it is made, and the statements that use it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import cassandra as driver
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import DCAwareRoundRobinPolicy
from cassandra.query import tuple_factory

from amqtask.errors import BackendError, ConfigurationError, near

#: Seconds for a connection, and for an answer.
_ANSWER = 5.0
#: Statements under way at once.
_AT_ONCE = 64
#: Rows of a call that are looked at for a SUCCESS. Two workers that store at the same time leave
#: two rows, and the newer one need not be it.
_ROWS = 8
#: The column of ours.
_MORE = "amqtask"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")
_HINT = "write cassandra://user:password@host/keyspace?table=tasks"
_TABLES = ("make", "check", "never")


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL says.

    Attributes:
        hosts: Names or addresses, each with its port.
        table: The results' table, with its keyspace.
        tables: Whether tables are made, checked or trusted.
        levels: Names of the consistency of reads and of writes.
    """

    hosts: Sequence[tuple[str, int]]
    user: str | None
    password: str | None
    keyspace: str
    table: str
    tables: str
    levels: tuple[str, str]

    @classmethod
    def of(cls, url: str) -> Place:
        """Read a URL.

        Raises:
            ConfigurationError: It cannot be understood.
        """
        parts = urlsplit(url)
        said = dict(parse_qsl(parts.query))
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = (unquote(word) for word in login.partition(":"))
        read, write = (said.pop(f"{way}_consistency", "LOCAL_QUORUM") for way in ("read", "write"))
        place = cls(
            _hosts(hosts),
            user or None,
            password or None,
            parts.path.strip("/") or "celery",
            said.pop("table", "tasks"),
            said.pop("tables", "make"),
            (read.upper(), write.upper()),
        )
        place._check(said)
        return place

    def _check(self, rest: Mapping[str, str]) -> None:
        if rest:
            known = ["table", "tables", "read_consistency", "write_consistency"]
            name = next(iter(rest))
            raise _wrong(f"no option {name!r}{near(name, known)}")
        for what, name in (("keyspace", self.keyspace), ("table", self.table)):
            if not _NAME.fullmatch(name):
                raise _wrong(f"{what} {name!r} is no name that Cassandra takes")
        if self.tables not in _TABLES:
            raise _wrong(f"tables={self.tables!r} is none of {', '.join(_TABLES)}")
        for level in self.levels:
            if not isinstance(getattr(driver.ConsistencyLevel, level, None), int):
                raise _wrong(f"there is no consistency {level!r}")


class Session:
    """A connected session, and its statements once the tables are there.

    Attributes:
        made: Whether the tables were made, or found whole.
        ready: Whether the tables are there and the statements prepared.
        more: Whether the results' table has the column of ours.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._name = name
        self.made = self.ready = self.more = self._groups = False
        auth = PlainTextAuthProvider(place.user, place.password) if place.user else None
        default: Any = EXEC_PROFILE_DEFAULT  # type: ignore[has-type] # the driver's word for it
        profile = ExecutionProfile(
            load_balancing_policy=DCAwareRoundRobinPolicy(),
            row_factory=tuple_factory,
            request_timeout=_ANSWER,
        )
        self._cluster = Cluster(
            list(place.hosts),
            auth_provider=auth,
            execution_profiles={default: profile},
            # all that is from 2.2 on; the driver's own is newer, and found wrong by trial
            protocol_version=4,
            connect_timeout=_ANSWER,
            control_connection_timeout=_ANSWER,
            # a keyspace of thousands of tables is none of our business
            schema_metadata_enabled=False,
            token_metadata_enabled=False,
        )
        try:
            self._session = self._cluster.connect()
        except BaseException:
            self._cluster.shutdown()
            raise

    def prepare(self, *, make: bool) -> None:
        """Make the tables if that is asked for, and prepare the statements if they are there."""
        if make:
            self._make()
            self.made = True
        columns = self._columns(self._place.table)
        if self._place.tables == "never":
            columns = columns or {_MORE}
        if not columns:
            if self._place.tables == "check":
                raise BackendError(
                    f"backend {self._name} has no table {self._place.table!r}",
                    hint="let it be made, without tables=check",
                )
            return
        self.more = _MORE in columns
        self._prepare()
        self.ready = True

    def knows_groups(self) -> bool:
        """Tell whether the groups' table is there, which Celery does not make."""
        if not self._groups:
            place = self._place
            if place.tables != "never" and not self._columns(_group_table(place)):
                return False
            self._prepare_groups()
            self._groups = True
        return True

    def _make(self) -> None:
        place = self._place
        if not self._one(
            "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name=%s"
        ):
            raise BackendError(
                f"backend {self._name} has no keyspace {place.keyspace!r}",
                hint=f"make it: CREATE KEYSPACE {place.keyspace} WITH replication = "
                "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}",
            )
        for table, columns in ((place.table, _COLUMNS), (_group_table(place), _GROUP_COLUMNS)):
            if not self._columns(table):
                self._session.execute(
                    f"CREATE TABLE IF NOT EXISTS {place.keyspace}.{table} ({columns}"
                )
        if _MORE not in self._columns(place.table):
            self._session.execute(f"ALTER TABLE {place.keyspace}.{place.table} ADD {_MORE} blob")

    def _one(self, statement: str, *more: str) -> list[tuple[Any, ...]]:
        # names that are not quoted are lower case to Cassandra
        return list(self._session.execute(statement, (self._place.keyspace.lower(), *more)))

    def _columns(self, table: str) -> set[str]:
        rows = self._one(
            "SELECT column_name FROM system_schema.columns "
            "WHERE keyspace_name=%s AND table_name=%s",
            table.lower(),
        )
        return {row[0] for row in rows}

    def _prepare(self) -> None:
        place = self._place
        table = f"{place.keyspace}.{place.table}"
        ours = f", {_MORE}" if self.more else ""
        columns = f"status, result, date_done, traceback, children{ours}"
        marks = ", ".join("?" * (6 + self.more))
        read, write = place.levels
        self.newest = self._statement(
            read, f"SELECT date_done FROM {table} WHERE task_id=? LIMIT 1"
        )
        self.select = self._statement(
            read, f"SELECT {columns} FROM {table} WHERE task_id=? LIMIT {_ROWS}"
        )
        self.insert = self._statement(
            write, f"INSERT INTO {table} (task_id, {columns}) VALUES ({marks}) USING TTL ?"
        )
        self.delete = self._statement(write, f"DELETE FROM {table} WHERE task_id=?")

    def _prepare_groups(self) -> None:
        groups = f"{self._place.keyspace}.{_group_table(self._place)}"
        read, write = self._place.levels
        self.select_group = self._statement(read, f"SELECT result FROM {groups} WHERE taskset_id=?")
        self.insert_group = self._statement(
            write,
            f"INSERT INTO {groups} (taskset_id, result, date_done) VALUES (?, ?, ?) USING TTL ?",
        )
        self.delete_group = self._statement(write, f"DELETE FROM {groups} WHERE taskset_id=?")

    def _statement(self, level: str, text: str) -> Any:
        made = self._session.prepare(text)
        made.consistency_level = getattr(driver.ConsistencyLevel, level)
        return made

    def each(self, statement: Any, rows: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
        """Run a statement for each of these rows, many at once; all of them, or raise."""
        done = execute_concurrent_with_args(self._session, statement, rows, concurrency=_AT_ONCE)
        return [list(result) for _, result in done]

    def close(self) -> None:
        """Let go of every connection."""
        self._cluster.shutdown()


#: Celery's table, and the column of ours.
_COLUMNS = f"""
    task_id text, status text, result blob, date_done timestamp, traceback blob, children blob,
    {_MORE} blob, PRIMARY KEY ((task_id), date_done)
) WITH CLUSTERING ORDER BY (date_done DESC)"""
_GROUP_COLUMNS = "taskset_id text PRIMARY KEY, result blob, date_done timestamp)"


def _group_table(place: Place) -> str:
    return f"{place.table[:41]}_groups"


def _hosts(text: str) -> list[tuple[str, int]]:
    found = []
    for each in text.split(","):
        host, mark, port = each.rpartition(":")
        if mark and not port.isdecimal():
            raise _wrong(f"port {port!r} is no number")
        found.append((host, int(port)) if mark else (each, 0))
    usual = next((port for _, port in found if port), 9042)
    if not all(host for host, _ in found):
        raise _wrong("it names no server")
    return [(host, port or usual) for host, port in found]


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"backend URL cannot be understood: {why}", hint=_HINT)
