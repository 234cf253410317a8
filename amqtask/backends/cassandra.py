"""``cassandra://``: results in Apache Cassandra, in the table that Celery makes.

Every state of a call is a row of its own, the newest first, and a time to live drops
it. Nothing tells of a new row, so one thread of a process looks.

    cassandra://user:password@one,two:9042/keyspace?table=tasks
    ...?tables=check looks whether the tables are there, ?tables=never trusts that they are
    ...?read_consistency=ONE&write_consistency=QUORUM; both are LOCAL_QUORUM, as Celery's

What is more than Celery's table holds, the extended record, is in a column of ours.

Source: celery 5.7 ``celery/backends/cassandra.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import cassandra as driver
from cassandra import protocol as cassandra_protocol
from cassandra.cluster import NoHostAvailable

from amqtask.backends.base import Can, Found, Record, Store, whole_seconds
from amqtask.backends.codec import Codec
from amqtask.backends.cql import Place, Session
from amqtask.errors import BackendError, BackendUnavailable, MessageError
from amqtask.message.results import EXTENDED, ResultMeta
from amqtask.settings import Settings

#: Bytes of the largest mutation of a server that was not told otherwise, less its other columns.
_LARGEST = 16 * 1024 * 1024 - 64 * 1024
#: The longest time to live that Cassandra takes: twenty years, in seconds.
_LONGEST = 20 * 365 * 24 * 3600
#: What is in the column of ours beside the extended record.
_RELATED = ("group_id", "parent_id")
#: Answers of a server that is there and cannot do it now.
_BUSY = (
    cassandra_protocol.ServerError,
    cassandra_protocol.OverloadedErrorMessage,
    cassandra_protocol.IsBootstrappingErrorMessage,
    cassandra_protocol.TruncateError,
)
_WRONG = (
    driver.RequestValidationException,
    driver.AuthenticationFailed,
    driver.UnsupportedOperation,
)


class CassandraStore(Store):
    """Keeps results as rows, one for each state of a call.

    Raises:
        ConfigurationError: The URL cannot be understood.
    """

    can = Can(expires=True, largest=_LARGEST)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        self._place = Place.of(url)
        self._lock = threading.Lock()
        self._made: Session | None = None

    # -- rows -------------------------------------------------------------------------

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`.

        A row's date orders it among those of its call, whichever worker wrote them: it is
        put behind the newest there is, or a worker whose clock is late would write states
        that nobody sees.
        """
        with self._wrapped():
            session = self._session(write=True)
            newest = session.each(session.newest, [(record.id,) for record in records])
            rows = [
                self._row(record, rows[0][0] if rows else None, session.more)
                for record, rows in zip(records, newest, strict=True)
            ]
            session.each(session.insert, rows)

    def load(self, ids: Sequence[str]) -> Mapping[str, Found]:
        """See `Store.load`."""
        with self._wrapped():
            session = self._session(write=False)
            if not session.ready:
                return {}  # nobody has stored anything yet
            found = session.each(session.select, [(task_id,) for task_id in ids])
        return {
            task_id: self._meta(task_id, rows)
            for task_id, rows in zip(ids, found, strict=True)
            if rows
        }

    def forget(self, ids: Sequence[str]) -> None:
        """See `Store.forget`."""
        with self._wrapped():
            session = self._session(write=True)
            session.each(session.delete, [(task_id,) for task_id in ids])

    # -- groups -----------------------------------------------------------------------

    def save_group(self, group_id: str, body: bytes, expires: float | None) -> None:
        """See `Store.save_group`; Celery keeps none in Cassandra."""
        with self._wrapped():
            session = self._session(write=True)
            if not session.knows_groups():
                raise BackendError(f"backend {self} has no table for groups")
            session.each(session.insert_group, [(group_id, body, datetime.now(UTC), _ttl(expires))])

    def load_group(self, group_id: str) -> bytes | None:
        """See `Store.load_group`."""
        with self._wrapped():
            session = self._session(write=False)
            known = session.knows_groups()
            rows = session.each(session.select_group, [(group_id,)])[0] if known else []
        return bytes(rows[0][0]) if rows else None

    def forget_group(self, group_id: str) -> None:
        """See `Store.forget_group`."""
        with self._wrapped():
            session = self._session(write=True)
            if session.knows_groups():
                session.each(session.delete_group, [(group_id,)])

    # -- the connection ---------------------------------------------------------------

    def _session(self, *, write: bool) -> Session:
        """Return the session; one who writes finds the tables there, as far as that is ours."""
        with self._lock:
            if self._made is None:
                self._made = Session(self._place, str(self))
            make = write and self._place.tables == "make" and not self._made.made
            if make or not self._made.ready:
                try:
                    self._made.prepare(make=make)
                except BaseException:
                    self._made.close()
                    self._made = None
                    raise
            return self._made

    def close(self) -> None:
        """See `Store.close`."""
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def forked(self) -> None:
        """See `Store.forked`: the parent's sockets are left alone, and closed by nobody."""

    # -- both ways --------------------------------------------------------------------

    def _row(self, record: Record, newest: datetime | None, more: bool) -> tuple[Any, ...]:
        meta, encode = record.meta, self.codec.encode_value
        date = meta.date_done or datetime.now(UTC)
        if newest is not None and date <= (behind := newest.replace(tzinfo=UTC)):
            date = behind + timedelta(milliseconds=1)
        said = {name: getattr(meta, name) for name in _RELATED if getattr(meta, name) is not None}
        said |= meta.extended
        row = (
            *(record.id, meta.status, encode(meta.result), date),
            *(encode(meta.traceback), encode(list(meta.children))),
        )
        ours = (encode(said) if said else None,) if more else ()
        return (*row, *ours, _ttl(record.expires))

    def _meta(self, task_id: str, rows: Sequence[tuple[Any, ...]]) -> Found:
        best = next((row for row in rows if row[0] == "SUCCESS"), rows[0])
        status, result, date, traceback, children, *more = best
        decode = self.codec.decode_value
        try:
            said = decode(bytes(more[0])) if more and more[0] is not None else {}
            return ResultMeta(
                task_id=task_id,
                status=status,
                result=decode(bytes(result)),
                traceback=decode(bytes(traceback)),
                children=decode(bytes(children)) or (),
                date_done=date.replace(tzinfo=UTC),
                extended={name: said[name] for name in EXTENDED if name in said},
                **{name: said.get(name) for name in _RELATED},
            )
        except MessageError as error:
            return error

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except NoHostAvailable as error:
            causes: Any = error.errors  # type: ignore[has-type] # each host's, by its address
            refusals = [each for each in causes.values() if isinstance(each, _WRONG)]
            if refusals:
                raise BackendError(f"backend {self} refused: {refusals[0]}") from error
            raise BackendUnavailable(f"backend {self} does not answer: {error}") from error
        except (*_WRONG, cassandra_protocol.SyntaxException) as error:
            raise BackendError(f"backend {self} refused: {error}") from error
        except (driver.DriverException, *_BUSY, OSError) as error:
            raise BackendUnavailable(f"backend {self} does not answer: {error}") from error


def _ttl(expires: float | None) -> int:
    """Return a time to live, 0 for none."""
    seconds = whole_seconds(expires)
    return 0 if seconds is None else min(seconds, _LONGEST)
