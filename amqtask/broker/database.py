"""The file of a `Store`: its tables, its version, and what is wrong with one that cannot be used."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

from amqtask.broker.fields import Malformed
from amqtask.errors import ConfigurationError

FILE = "broker.sqlite3"
#: Of the tables below; grows when a broker could no longer read those of an older one.
_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS vhosts (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS exchanges (
  vhost TEXT, name TEXT, type TEXT, auto_delete INT, internal INT, arguments BLOB,
  PRIMARY KEY (vhost, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queues (
  id INTEGER PRIMARY KEY, vhost TEXT, name TEXT, auto_delete INT, arguments BLOB,
  delivered INT DEFAULT 0, UNIQUE (vhost, name));
CREATE TABLE IF NOT EXISTS bindings (
  vhost TEXT, source TEXT, kind TEXT, destination TEXT, key TEXT, arguments BLOB,
  PRIMARY KEY (vhost, source, kind, destination, key, arguments)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
  id INTEGER PRIMARY KEY, queue INT, exchange TEXT, keys TEXT, properties BLOB, body BLOB,
  persistent INT, priority INT, ttl INT, dies REAL, returns INT, deaths TEXT);
CREATE INDEX IF NOT EXISTS of_queue ON messages (queue);
PRAGMA user_version = {_VERSION};
"""
#: What reading a file raises whose content is no longer what was written.
DAMAGED = (
    sqlite3.Error, OSError, Malformed, ValueError, TypeError, LookupError, AttributeError,
    struct.error,
)  # fmt: skip
#: What to do, by the beginning of SQLite's name for what is wrong.
_HINTS = {
    "SQLITE_BUSY": "one broker at a time may use a folder; give another one its own",
    "SQLITE_CANTOPEN": "it has to be a folder, and this user allowed to write there",
    "SQLITE_READONLY": "it has to be a folder, and this user allowed to write there",
    "SQLITE_PERM": "it has to be a folder, and this user allowed to write there",
    "SQLITE_FULL": "make room on its disk",
    "SQLITE_IOERR": "make room on its disk, or look after the disk",
}
_DAMAGED_HINT = (
    f"its {FILE} is damaged, or not a broker's: put a copy back, or move it away to begin with "
    "nothing"
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, and make what is missing.

    Raises:
        sqlite3.Error: It cannot be used.
        ConfigurationError: It is of a newer version.
    """
    database = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
    try:
        # held until the process ends, so that two brokers never share a folder
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        _check_version(database, path.parent)
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def _check_version(database: sqlite3.Connection, folder: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise ConfigurationError(
            f"the broker's data in {str(folder)!r} cannot be used: it is of version {version}, and "
            f"this broker knows {_VERSION}",
            hint="use the amqtask that wrote it, or a newer one",
        )


def unusable(folder: Path, error: BaseException) -> ConfigurationError:
    """Say what is wrong with a folder, and what to do about it."""
    said = str(error)
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "")
        hint = next((say for word, say in _HINTS.items() if name.startswith(word)), _DAMAGED_HINT)
    elif isinstance(error, OSError):
        hint = _HINTS["SQLITE_CANTOPEN"]
    else:
        said = f"what it holds makes no sense ({type(error).__name__}: {error})"
        hint = _DAMAGED_HINT
    return ConfigurationError(
        f"the broker's data in {str(folder)!r} cannot be used: {said}", hint=hint
    )
