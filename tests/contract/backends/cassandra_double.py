"""A stand-in for Cassandra: its native protocol, version 4, over a few tables in memory.

Cassandra's own driver connects to it, prepares its statements and sends them, so what is tested
is all of the backend but the server. It knows the few statements that the backend and Celery
send, refuses every other one as a syntax error, and every name that it does not know.

Source: Apache Cassandra, ``doc/native_protocol_v4.spec``.
"""

from __future__ import annotations

import re
import struct
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.contract.backends.double import Connection, Double

VERSION = 4
#: Codes of a type on the wire.
TYPES = {"blob": 3, "int": 9, "timestamp": 11, "uuid": 12, "text": 13, "inet": 16}
SYNTAX, INVALID, EXISTS, PROTOCOL = 0x2000, 0x2200, 0x2400, 0x000A

_LITERAL = r"'(?:[^']|'')*'|0x[0-9a-fA-F]*|-?\d+|NULL|\?"
_CREATE = re.compile(
    r"CREATE TABLE (IF NOT EXISTS )?(\w+\.)?(\w+) \((.*?),? ?(?:PRIMARY KEY \(\((\w+)\), (\w+)\) ?)?\)"
    r"( WITH CLUSTERING ORDER BY \(\w+ DESC\))?"
)
_ALTER = re.compile(r"ALTER TABLE (\w+\.)?(\w+) ADD (\w+) (\w+)")
_SELECT = re.compile(
    rf"SELECT ([\w, ]+) FROM (\w+\.)?(\w+) WHERE (\w+) ?= ?({_LITERAL})(?: LIMIT (\d+))?"
)
_INSERT = re.compile(
    rf"INSERT INTO (\w+\.)?(\w+) \(([\w, ]+)\) VALUES \(((?:{_LITERAL}|[, ])+)\)"
    rf"(?: USING TTL ({_LITERAL}))?"
)
_DELETE = re.compile(rf"DELETE FROM (\w+\.)?(\w+) WHERE (\w+) ?= ?({_LITERAL})")
_SCHEMA = re.compile(
    r"SELECT (\w+) FROM system_schema\.(keyspaces|columns) WHERE keyspace_name='(\w+)'"
    r"(?: AND table_name='(\w+)')?"
)


class Refused(Exception):
    """What the server answers as an error."""

    def __init__(self, code: int, text: str, more: bytes = b"") -> None:
        super().__init__(text)
        self.code = code
        self.more = more


@dataclass
class Table:
    """A table: its columns, and rows by partition and clustering key."""

    columns: dict[str, str]
    partition: str
    clustering: str | None
    rows: dict[bytes, dict[bytes, tuple[dict[str, bytes | None], float | None]]] = field(
        default_factory=dict
    )

    def alive(self, key: bytes) -> list[dict[str, bytes | None]]:
        """Return a partition's rows that are not past their time, the last one first."""
        rows = self.rows.get(key, {})
        now = time.time()
        return [
            rows[order][0]
            for order in sorted(rows, reverse=True)
            if (ends := rows[order][1]) is None or ends > now
        ]


@dataclass(frozen=True)
class Statement:
    """A statement that was read: what it does with the values that are bound to it."""

    text: str
    bound: Sequence[tuple[str, str]]
    columns: Sequence[tuple[str, str]]


class Cassandra(Double):
    """The server.

    Attributes:
        tables: By name.
        overloaded: It answers that it cannot do it now.
    """

    def __init__(self, keyspace: str = "celery") -> None:
        self.keyspace = keyspace
        self.tables: dict[str, Table] = {}
        self.overloaded = False
        self._lock = threading.Lock()
        self._prepared: dict[bytes, str] = {}
        super().__init__(_Connection)

    # -- statements -------------------------------------------------------------------

    def prepare(self, text: str) -> bytes:
        """Return the answer to a PREPARE."""
        key = uuid.uuid5(uuid.NAMESPACE_OID, text).bytes
        self._prepared[key] = text
        with self._lock:
            bound, columns = self._shape(_plain(text))
        marks = struct.pack(">iii", 1, len(bound), 0) + self._spec(bound)
        found = struct.pack(">ii", 1 if columns else 4, len(columns))
        found += self._spec(columns) if columns else b""
        return struct.pack(">iH", 4, len(key)) + key + marks + found

    def execute(self, key: bytes, values: Sequence[bytes | None]) -> bytes:
        """Return the answer to an EXECUTE."""
        if key not in self._prepared:
            raise Refused(0x2500, "unprepared", struct.pack(">H", len(key)) + key)
        return self.query(self._prepared[key], values)

    def query(self, text: str, values: Sequence[bytes | None] = ()) -> bytes:
        """Return the answer to a QUERY."""
        if self.overloaded:
            raise Refused(0x1001, "overloaded")
        with self._lock:
            return self._run(_plain(text), list(values))

    def _shape(self, text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        if found := _SELECT.fullmatch(text):
            table = self._table(found[3])
            return [(found[4], table.columns[found[4]])], self._picked(table, found[1])
        if found := _INSERT.fullmatch(text):
            table = self._table(found[2])
            names = self._picked(table, found[3])
            return [*names, ("[ttl]", "int")] if found[5] else names, []
        if found := _DELETE.fullmatch(text):
            return [(found[3], self._table(found[2]).columns[found[3]])], []
        raise Refused(SYNTAX, f"no viable alternative at input {text!r}")

    def _run(self, text: str, values: list[bytes | None]) -> bytes:
        if found := _SCHEMA.fullmatch(text):
            return self._schema(*found.groups())
        if text.startswith("SELECT") and " FROM system." in text:
            return self._system(text)
        if found := _SELECT.fullmatch(text):
            table = self._table(found[3])
            key = self._value(table, found[4], found[5], values)
            rows = table.alive(key or b"")[: int(found[6] or 100)]
            picked = self._picked(table, found[1])
            return self._rows(picked, [[row.get(name) for name, _ in picked] for row in rows])
        if found := _INSERT.fullmatch(text):
            return self._insert(found, values)
        if found := _DELETE.fullmatch(text):
            table = self._table(found[2])
            table.rows.pop(self._value(table, found[3], found[4], values) or b"", None)
            return struct.pack(">i", 1)
        if found := _CREATE.fullmatch(text):
            return self._create(found)
        if found := _ALTER.fullmatch(text):
            table = self._table(found[2])
            if found[3] in table.columns:
                raise Refused(INVALID, f"column {found[3]} exists")
            table.columns[found[3]] = found[4]
            return struct.pack(">i", 1)
        if text == f'USE "{self.keyspace}"':
            return struct.pack(">iH", 3, len(self.keyspace)) + self.keyspace.encode()
        raise Refused(SYNTAX, f"no viable alternative at input {text!r}")

    def _insert(self, found: re.Match[str], values: list[bytes | None]) -> bytes:
        table = self._table(found[2])
        names = [name for name, _ in self._picked(table, found[3])]
        literals = re.findall(_LITERAL, found[4])
        if len(literals) != len(names):
            raise Refused(INVALID, "as many values as columns are needed")
        row = {
            name: self._value(table, name, literal, values)
            for name, literal in zip(names, literals, strict=True)
        }
        ttl = 0
        if found[5]:
            bound = values.pop(0) if found[5] == "?" else struct.pack(">i", int(found[5]))
            ttl = struct.unpack(">i", bound or b"\0\0\0\0")[0]
        key, order = row[table.partition], row[table.clustering] if table.clustering else b""
        if not key or order is None:
            raise Refused(INVALID, "a key is null")
        table.rows.setdefault(key, {})[order] = (row, time.time() + ttl if ttl else None)
        return struct.pack(">i", 1)

    def _create(self, found: re.Match[str]) -> bytes:
        if found[2] and found[2][:-1] != self.keyspace:
            raise Refused(INVALID, f"keyspace {found[2][:-1]} does not exist")
        name = found[3].lower()
        if name in self.tables:
            if found[1]:
                return struct.pack(">i", 1)
            ks, table = self.keyspace.encode(), name.encode()
            more = struct.pack(">H", len(ks)) + ks + struct.pack(">H", len(table)) + table
            raise Refused(EXISTS, f"table {name} exists", more)
        columns, partition = {}, found[5]
        for each in found[4].split(","):
            words = each.split()
            columns[words[0]] = words[1]
            if words[2:] == ["PRIMARY", "KEY"]:
                partition = words[0]
        if any(kind not in TYPES for kind in columns.values()) or partition not in columns:
            raise Refused(INVALID, "unknown type, or no primary key")
        self.tables[name] = Table(columns, partition, found[6])
        return struct.pack(">i", 1)

    def _schema(self, column: str, of: str, keyspace: str, table: str | None) -> bytes:
        names: list[str] = []
        if keyspace == self.keyspace:
            known = self.tables.get(table or "")
            names = [keyspace] if of == "keyspaces" else list(known.columns) if known else []
        return self._rows([(column, "text")], [[name.encode()] for name in names])

    def _system(self, text: str) -> bytes:
        if "system.local" not in text:
            return self._rows([("peer", "inet"), ("host_id", "uuid")], [])
        said = {
            "key": "local",
            "cluster_name": "double",
            "data_center": "dc1",
            "rack": "rack1",
            "release_version": "4.1.0",
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        }
        ids = {"host_id": uuid.UUID(int=1), "schema_version": uuid.UUID(int=2)}
        columns = [*((name, "text") for name in said), *((name, "uuid") for name in ids)]
        columns.append(("rpc_address", "inet"))
        row = [*(value.encode() for value in said.values()), *(each.bytes for each in ids.values())]
        return self._rows(columns, [[*row, bytes((127, 0, 0, 1))]])

    def _table(self, name: str) -> Table:
        try:
            return self.tables[name.lower()]
        except KeyError:
            raise Refused(INVALID, f"unconfigured table {name}") from None

    def _picked(self, table: Table, names: str) -> list[tuple[str, str]]:
        picked = [name.strip() for name in names.split(",")]
        for name in picked:
            if name not in table.columns:
                raise Refused(INVALID, f"undefined column name {name}")
        return [(name, table.columns[name]) for name in picked]

    def _value(
        self, table: Table, name: str, literal: str, values: list[bytes | None]
    ) -> bytes | None:
        """Return the bytes of a literal, or of the next value that is bound."""
        kind = dict(self._picked(table, name))[name]
        if literal == "?":
            if not values:
                raise Refused(INVALID, "fewer values than marks")
            return values.pop(0)
        if literal == "NULL":
            return None
        if literal.startswith("'") and kind == "text":
            return literal[1:-1].replace("''", "'").encode()
        if literal.startswith("0x") and kind == "blob":
            return bytes.fromhex(literal[2:])
        if kind == "timestamp" and literal.lstrip("-").isdecimal():
            return struct.pack(">q", int(literal))
        raise Refused(INVALID, f"{literal} is no {kind}")

    # -- answers ----------------------------------------------------------------------

    def _spec(self, columns: Sequence[tuple[str, str]]) -> bytes:
        words = [self.keyspace, "t"]
        found = b"".join(struct.pack(">H", len(word)) + word.encode() for word in words)
        for name, kind in columns:
            found += struct.pack(">H", len(name)) + name.encode() + struct.pack(">H", TYPES[kind])
        return found

    def _rows(
        self, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[bytes | None]]
    ) -> bytes:
        found = struct.pack(">iii", 2, 1, len(columns)) + self._spec(columns)
        found += struct.pack(">i", len(rows))
        for row in rows:
            for value in row:
                found += struct.pack(">i", -1) if value is None else _bytes(value)
        return found


class _Connection(Connection):
    """One connection: requests are answered in the order they come in."""

    server_: Cassandra

    def serve(self) -> None:
        while head := self.read(9):
            version, _, stream, opcode, size = struct.unpack(">BBhBi", head)
            body = self.read(size)
            try:
                code, answer = self._answer(version, opcode, body)
            except Refused as error:
                text = str(error).encode()
                code = 0
                answer = struct.pack(">iH", error.code, len(text)) + text + error.more
            frame = struct.pack(">BBhBi", 0x80 | VERSION, 0, stream, code, len(answer))
            self.request.sendall(frame + answer)

    def _answer(self, version: int, opcode: int, body: bytes) -> tuple[int, bytes]:
        if version != VERSION:
            raise Refused(PROTOCOL, f"unsupported protocol version ({version})")
        if opcode == 5:  # OPTIONS
            return 6, struct.pack(">H", 2) + _words("CQL_VERSION", ["3.4.6"]) + _words(
                "COMPRESSION", []
            )
        if opcode in (1, 11):  # STARTUP, REGISTER
            return 2, b""
        if opcode == 7:  # QUERY
            size = struct.unpack_from(">i", body)[0]
            return 8, self.server_.query(body[4 : 4 + size].decode())
        if opcode == 9:  # PREPARE
            return 8, self.server_.prepare(body[4:].decode())
        if opcode == 10:  # EXECUTE
            size = struct.unpack_from(">H", body)[0]
            return 8, self.server_.execute(body[2 : 2 + size], _values(body[2 + size :]))
        raise Refused(PROTOCOL, f"unknown opcode {opcode}")


def _plain(text: str) -> str:
    """Return a statement without its line breaks and its end."""
    return re.sub(r"\s+(?=(?:[^']*'[^']*')*[^']*$)", " ", text).strip(" ;").replace("( ", "(")


def _values(params: bytes) -> list[bytes | None]:
    flags = params[2]
    if not flags & 1:
        return []
    count = struct.unpack_from(">H", params, 3)[0]
    place, found = 5, list[bytes | None]()
    for _ in range(count):
        size = struct.unpack_from(">i", params, place)[0]
        found.append(None if size < 0 else params[place + 4 : place + 4 + size])
        place += 4 + max(size, 0)
    return found


def _bytes(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def _words(name: str, values: Sequence[str]) -> bytes:
    found = struct.pack(">H", len(name)) + name.encode() + struct.pack(">H", len(values))
    return found + b"".join(struct.pack(">H", len(each)) + each.encode() for each in values)
