"""``mongodb://``: results in MongoDB, in the collection and the form that Celery uses.

On a replica set a change stream tells of every document that is written; on
a server that has none, one thread of a process looks. A TTL index drops what
is past its time.

    mongodb://user:password@host/database?taskmeta_collection=celery_taskmeta

Source: celery 5.7 ``celery/backends/mongodb.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pymongo
from pymongo import ReturnDocument, UpdateOne
from pymongo import errors as mongo_errors

from amqtask.backends.base import Can, Found, Listener, Record, Store, home
from amqtask.backends.chords import OpenChord
from amqtask.backends.codec import Codec
from amqtask.errors import BackendError, BackendUnavailable, ConfigurationError, MessageError
from amqtask.message.results import EXTENDED, ResultMeta
from amqtask.settings import Settings

#: Bytes of the largest document, less what its other fields need.
_LARGEST = 16 * 1024 * 1024 - 64 * 1024
#: MongoDB's code for a document whose ``_id`` exists.
_ID_IS_THERE = 11000
#: Milliseconds for a connection, and for a server that can be written to.
_ANSWER_MS = 5000


class MongoStore(Store):
    """Keeps results as documents whose ``_id`` is the call's.

    Raises:
        ConfigurationError: The URL cannot be understood.
    """

    can = Can(notifies=True, expires=True, guards=True, counts=True, keeps=True, largest=_LARGEST)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        parts = urlsplit(url)
        said = dict(parse_qsl(parts.query))
        prefix = settings.result_prefix or ""
        self._names = [
            prefix + said.pop(f"{name}_collection", f"celery_{name}")
            for name in ("taskmeta", "groupmeta")
        ]
        self._counters_name = f"{prefix}amqtask_counters"
        self._chords_name = f"{prefix}amqtask_open_chords"
        self._database = parts.path.strip("/") or "celery"
        self._url = urlunsplit(parts._replace(query=urlencode(said)))
        try:
            pymongo.uri_parser.parse_uri(self._url)
        except (mongo_errors.PyMongoError, ValueError) as error:
            raise ConfigurationError(
                f"backend URL cannot be understood: {type(error).__name__}",
                hint="write mongodb://user:password@host/database",
            ) from None  # the cause would show the password
        self._lock = threading.Lock()
        self._made: Any = None

    def _collection(self, name: str) -> Any:
        with self._lock:
            if self._made is None:
                self._made = pymongo.MongoClient(
                    self._url,
                    serverSelectionTimeoutMS=_ANSWER_MS,
                    connectTimeoutMS=_ANSWER_MS,
                    socketTimeoutMS=4 * _ANSWER_MS,
                    tz_aware=True,
                    w="majority",
                )
                database = self._made[self._database]
                for each in (*self._names, self._counters_name, self._chords_name):
                    database[each].create_index("expires_at", expireAfterSeconds=0)
                database[self._chords_name].create_index([("home", 1), ("due", 1)])
            return self._made[self._database][name]

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`: one bulk write, in which a SUCCESS matches nothing."""
        with self._wrapped():
            writes = [
                UpdateOne(
                    {"_id": record.id, "status": {"$ne": "SUCCESS"}},
                    {"$set": self._document(record)},
                    upsert=True,
                )
                for record in records
            ]
            # the upsert of what is a SUCCESS meets its id, and that one stays; so does the upsert
            # of what another worker inserts at this moment, which the second try replaces
            met = self._write(writes)
            if met:
                self._write(met)

    def _write(self, writes: Sequence[UpdateOne]) -> list[UpdateOne]:
        """Write all, and return those whose id was there."""
        try:
            self._collection(self._names[0]).bulk_write(writes, ordered=False)
        except mongo_errors.BulkWriteError as error:
            wrong = error.details["writeErrors"]
            if others := [each for each in wrong if each["code"] != _ID_IS_THERE]:
                raise BackendError(f"backend {self} refused: {others[0]['errmsg']}") from error
            return [writes[each["index"]] for each in wrong]
        return []

    def load(self, ids: Sequence[str]) -> Mapping[str, Found]:
        """See `Store.load`."""
        with self._wrapped():
            found = self._collection(self._names[0]).find({"_id": {"$in": list(ids)}})
            now = datetime.now(UTC)
            # the TTL index is looked at once a minute
            return {
                each["_id"]: self._meta(each)
                for each in found
                if each.get("expires_at") is None or each["expires_at"] > now
            }

    def forget(self, ids: Sequence[str]) -> None:
        """See `Store.forget`."""
        with self._wrapped():
            self._collection(self._names[0]).delete_many({"_id": {"$in": list(ids)}})

    def save_group(self, group_id: str, body: bytes, expires: float | None) -> None:
        """See `Store.save_group`: the members' ids, as Celery stores them."""
        members = self.codec.decode_value(body)["result"]
        document = {
            "_id": group_id,
            "result": self.codec.encode_value([node[0][0] for node in members[1]]).decode(),
            "date_done": datetime.now(UTC),
            "expires_at": _ends(expires),
        }
        with self._wrapped():
            self._collection(self._names[1]).replace_one({"_id": group_id}, document, upsert=True)

    def load_group(self, group_id: str) -> bytes | None:
        """See `Store.load_group`."""
        with self._wrapped():
            found = self._collection(self._names[1]).find_one({"_id": group_id})
        if found is None:
            return None
        ids = self.codec.decode_value(_bytes(found["result"]))
        nodes = [[[task_id, None], None] for task_id in ids]
        return self.codec.encode_value({"result": [[group_id, None], nodes]})

    def forget_group(self, group_id: str) -> None:
        """See `Store.forget_group`."""
        with self._wrapped():
            self._collection(self._names[1]).delete_one({"_id": group_id})

    def count(self, key: str, by: int, expires: float | None) -> int:
        """See `Store.count`."""
        with self._wrapped():
            found = self._collection(self._counters_name).find_one_and_update(
                {"_id": key},
                {"$inc": {"value": by}, "$set": {"expires_at": _ends(expires)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            return int(found["value"])

    def keep(self, key: str, value: bytes, expires: float) -> bytes:
        """See `Store.keep`."""
        with self._wrapped():
            found = self._collection(self._counters_name).find_one_and_update(
                {"_id": key},
                {"$setOnInsert": {"value": value, "expires_at": _ends(expires)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            return bytes(found["value"])

    def kept(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `Store.kept`."""
        with self._wrapped():
            found = self._collection(self._counters_name).find({"_id": {"$in": list(keys)}})
            return {each["_id"]: bytes(each["value"]) for each in found}

    def unkeep(self, keys: Sequence[str]) -> None:
        """See `Store.unkeep`."""
        with self._wrapped():
            self._collection(self._counters_name).delete_many({"_id": {"$in": list(keys)}})

    def register(self) -> MongoRegister:
        """See `Store.register`."""
        where = home(self.settings)
        return MongoRegister(lambda: self._collection(self._chords_name), self._wrapped, where)

    def listen(self) -> Listener:
        """See `Store.listen`; a server that is no replica set has no change streams."""
        with self._wrapped():
            try:
                return _Stream(self, self._collection(self._names[0]))
            except mongo_errors.OperationFailure as error:
                self.can = replace(self.can, notifies=False)
                raise BackendError(
                    f"backend {self} has no change streams, so it is looked at: {error}",
                    hint="run it as a replica set, be it of one",
                ) from error

    def close(self) -> None:
        """See `Store.close`."""
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def forked(self) -> None:
        """See `Store.forked`: pymongo sees a fork by itself, and this makes a client anew."""
        self._made = None

    def _document(self, record: Record) -> dict[str, Any]:
        meta = record.meta
        document: dict[str, Any] = {
            "status": meta.status,
            "result": self.codec.encode_value(meta.result),
            "date_done": meta.date_done,
            "traceback": meta.traceback,
            "children": list(meta.children),
            "expires_at": _ends(record.expires),
            **meta.extended,
        }
        for name in ("group_id", "parent_id"):
            if (value := getattr(meta, name)) is not None:
                document[name] = value
        if document["result"][:1] != b"\0":  # Celery reads text; what is compressed is none
            document["result"] = document["result"].decode()
        return document

    def _meta(self, document: Mapping[str, Any]) -> Found:
        try:
            done = document.get("date_done")
            return ResultMeta(
                task_id=document["_id"],
                status=document["status"],
                result=self.codec.decode_value(_bytes(document["result"])),
                traceback=document.get("traceback"),
                children=document.get("children") or (),
                date_done=done if isinstance(done, datetime) else None,
                group_id=document.get("group_id"),
                parent_id=document.get("parent_id"),
                extended={name: document[name] for name in EXTENDED if name in document},
            )
        except MessageError as error:
            return error

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Turn pymongo's errors into ours."""
        try:
            yield
        except (mongo_errors.ConnectionFailure, mongo_errors.ExecutionTimeout) as error:
            raise BackendUnavailable(f"backend {self} does not answer: {error}") from error
        except mongo_errors.PyMongoError as error:
            raise BackendError(f"backend {self} refused: {error}") from error


class MongoRegister:
    """See `Register`: a document for each chord.

    Args:
        collection: Returns where they are.
        wrapped: Turns pymongo's errors into ours.
        home: Tells the chords of one broker's apps from others in the same store.
    """

    def __init__(
        self,
        collection: Callable[[], Any],
        wrapped: Callable[[], AbstractContextManager[None]],
        home: str,
    ) -> None:
        self._collection = collection
        self._wrapped = wrapped
        self._home = home

    def note(self, chord: OpenChord, keep: float) -> None:
        """See `Register.note`."""
        document = {
            "_id": chord.group_id,
            "record": chord.record,
            "home": self._home,
            "due": chord.due,
            "expires_at": _ends(keep),
        }
        with self._wrapped():
            self._collection().replace_one({"_id": chord.group_id}, document, upsert=True)

    def drop(self, group_id: str) -> None:
        """See `Register.drop`."""
        with self._wrapped():
            self._collection().delete_one({"_id": group_id})

    def take(self, now: float, until: float, most: int) -> Sequence[OpenChord]:
        """See `Register.take`."""
        taken: list[OpenChord] = []
        with self._wrapped():
            while len(taken) < most:
                found = self._collection().find_one_and_update(
                    {"home": self._home, "due": {"$lte": now}},
                    {"$set": {"due": until}},
                    sort=[("due", 1)],
                )
                if found is None:
                    break
                taken.append(_open_chord(found))
        return taken

    def put_off(self, group_ids: Sequence[str], until: float) -> None:
        """See `Register.put_off`."""
        with self._wrapped():
            self._collection().update_many(
                {"_id": {"$in": list(group_ids)}}, {"$set": {"due": until}}
            )

    def list(self, most: int) -> Sequence[OpenChord]:
        """See `Register.list`."""
        with self._wrapped():
            found = self._collection().find({"home": self._home}).sort("due").limit(most)
            return [_open_chord(each) for each in found]

    def find(self, group_id: str) -> OpenChord | None:
        """See `Register.find`."""
        with self._wrapped():
            found = self._collection().find_one({"_id": group_id})
        return None if found is None else _open_chord(found)


def _open_chord(document: Mapping[str, Any]) -> OpenChord:
    return OpenChord(document["_id"], bytes(document["record"]), document["due"])


class _Stream:
    """A change stream of all documents that are written.

    It cannot be interrupted, so each read is short; it is a wait on the server,
    not a question.
    """

    #: Milliseconds that the server holds a read; a new wait is seen after that at the latest.
    _HOLD_MS = 100

    def __init__(self, store: MongoStore, collection: Any) -> None:
        self._store = store
        self._woken = threading.Event()
        self._stream = collection.watch(
            [{"$match": {"operationType": {"$in": ["insert", "update", "replace"]}}}],
            max_await_time_ms=self._HOLD_MS,
        )

    def follow(self, ids: Sequence[str]) -> None:
        """All are followed already."""

    def unfollow(self, ids: Sequence[str]) -> None:
        """What nobody waits for is passed over by the reader."""

    def take(self, timeout: float) -> Sequence[tuple[str, Found | None]]:
        ends = datetime.now(UTC) + timedelta(seconds=timeout)
        with self._store._wrapped():
            while not self._woken.is_set() and datetime.now(UTC) < ends:
                change = self._stream.try_next()
                if change is not None:
                    return [(change["documentKey"]["_id"], None)]
        self._woken.clear()
        return []

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self._stream.close()


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _ends(expires: float | None) -> datetime | None:
    return None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
