"""Open chords in a table: a row for each, with when it is given up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection

from amqtask.backends.chords import OpenChord
from amqtask.backends.tables import open_chords as table


class SqlRegister:
    """See `Register`.

    Args:
        writing: Begins a transaction, with the table made if it is not there.
        looking: The same, but gives None where there is no table: a worker that has only come
            to look makes none.
        home: Tells the chords of one broker's apps from others in the same store.
    """

    def __init__(
        self,
        writing: Callable[[], AbstractContextManager[Connection]],
        looking: Callable[[], AbstractContextManager[Connection | None]],
        home: str,
    ) -> None:
        self._writing = writing
        self._looking = looking
        self._home = home

    def note(self, chord: OpenChord, keep: float) -> None:
        """See `Register.note`."""
        ends = (datetime.now(UTC) + timedelta(seconds=keep)).replace(tzinfo=None)
        row = {
            "record": chord.record,
            "home": self._home,
            "due": _ms(chord.due),
            "expires_at": ends,
        }
        with self._writing() as connection:
            _put(connection, chord.group_id, row)

    def drop(self, group_id: str) -> None:
        """See `Register.drop`."""
        with self._writing() as connection:
            connection.execute(sa.delete(table).where(table.c.group_id == group_id))

    def take(self, now: float, until: float, most: int) -> Sequence[OpenChord]:
        """See `Register.take`."""
        due = self._ours().where(table.c.due <= _ms(now)).limit(most)
        return [chord for chord in self._chords(due) if self._take(chord, until)]

    def _take(self, chord: OpenChord, until: float) -> bool:
        same = (table.c.group_id == chord.group_id) & (table.c.due == _ms(chord.due))
        with self._writing() as connection:
            changed = connection.execute(sa.update(table).where(same).values(due=_ms(until)))
            return changed.rowcount == 1

    def put_off(self, group_ids: Sequence[str], until: float) -> None:
        """See `Register.put_off`."""
        these = table.c.group_id.in_(group_ids)
        with self._writing() as connection:
            connection.execute(sa.update(table).where(these).values(due=_ms(until)))

    def list(self, most: int) -> Sequence[OpenChord]:
        """See `Register.list`."""
        return self._chords(self._ours().limit(most))

    def find(self, group_id: str) -> OpenChord | None:
        """See `Register.find`."""
        mine = sa.select(table).where(table.c.group_id == group_id)
        return next(iter(self._chords(mine)), None)

    def _ours(self) -> sa.Select[Any]:
        return sa.select(table).where(table.c.home == self._home).order_by(table.c.due)

    def _chords(self, query: sa.Select[Any]) -> Sequence[OpenChord]:
        with self._looking() as connection:
            if connection is None:
                return []
            rows = connection.execute(query).mappings().all()
        return [OpenChord(row["group_id"], bytes(row["record"]), row["due"] / 1000) for row in rows]


def _put(connection: Connection, group_id: str, row: Mapping[str, Any]) -> None:
    dialect = connection.dialect.name
    if dialect in ("postgresql", "sqlite"):
        make: Callable[..., Any] = postgresql.insert if dialect == "postgresql" else sqlite.insert
        insert = make(table).values(group_id=group_id, **row)
        connection.execute(insert.on_conflict_do_update(index_elements=["group_id"], set_=row))
    elif dialect in ("mysql", "mariadb"):
        written = mysql.insert(table).values(group_id=group_id, **row)
        connection.execute(written.on_duplicate_key_update(**row))
    else:
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(table).values(group_id=group_id, **row))
        except sql_errors.IntegrityError:  # it is opened once more
            connection.execute(sa.update(table).where(table.c.group_id == group_id).values(**row))


def expire(connection: Connection, now: datetime) -> int:
    """Drop what is past its time and return how much that was."""
    return connection.execute(sa.delete(table).where(table.c.expires_at < now)).rowcount


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
