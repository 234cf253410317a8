"""``couchbase://``: results in a bucket of Couchbase, under Celery's keys.

A record is replaced by its CAS only, so a SUCCESS stays, and a time to live drops it.
Nothing tells of a new one, so one thread of a process looks.

    couchbase://user:password@one,two/bucket      couchbases://... speaks TLS
    ...?durability=MAJORITY answers once most of the nodes have it, which needs replicas

What else is in the query goes to Couchbase's SDK as it is.

Source: celery 5.7 ``celery/backends/couchbase.py``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from couchbase import exceptions as couchbase_errors
from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.collection import Collection
from couchbase.durability import DurabilityLevel, ServerDurability
from couchbase.options import (
    ClusterOptions,
    ClusterTimeoutOptions,
    DeltaValue,
    GetMultiOptions,
    IncrementOptions,
    InsertOptions,
    RemoveMultiOptions,
    ReplaceOptions,
    SignedInt64,
    UpsertOptions,
)
from couchbase.transcoder import Transcoder

from amqtask.backends.base import Can, Record, whole_seconds
from amqtask.backends.codec import Codec
from amqtask.backends.keys import KeyStore
from amqtask.errors import BackendError, BackendUnavailable, ConfigurationError, MessageError, near
from amqtask.settings import Settings

#: Bytes of the largest document, less what its being a JSON text may add.
_LARGEST = 10 * 1024 * 1024
#: Time for one operation, and for a connection.
_ANSWER = timedelta(seconds=5)
_CONNECT = timedelta(seconds=10)
#: Tries for a record that others write at the same time.
_TRIES = 10

#: The kind of a document, in the upper byte of its flags, as Couchbase's SDKs write it.
_KIND, _JSON, _BYTES = 0xFF000000, 0x02000000, 0x03000002

#: What may be different at the next try.
_AWAY = (
    couchbase_errors.TimeoutException,
    couchbase_errors.AmbiguousTimeoutException,
    couchbase_errors.UnAmbiguousTimeoutException,
    couchbase_errors.TemporaryFailException,
    couchbase_errors.RequestCanceledException,
    couchbase_errors.ServiceUnavailableException,
    couchbase_errors.MissingConnectionException,
    couchbase_errors.InternalServerFailureException,
    couchbase_errors.DocumentLockedException,
    couchbase_errors.DurabilitySyncWriteAmbiguousException,
    couchbase_errors.DurabilitySyncWriteInProgressException,
    couchbase_errors.RateLimitedException,
)
_MOVED = (
    couchbase_errors.CasMismatchException,
    couchbase_errors.DocumentExistsException,
    couchbase_errors.DocumentNotFoundException,
)


class _Records(Transcoder):
    """Records as Celery's: a JSON text that holds the document; what is compressed is bytes."""

    def encode_value(self, value: bytes) -> tuple[bytes, int]:
        if value[:1] == b"\0":
            return value, _BYTES
        return json.dumps(value.decode()).encode(), _JSON

    def decode_value(self, value: bytes, flags: int) -> bytes:
        if flags & _KIND != _JSON:
            return bytes(value)
        try:
            found = json.loads(value)
        except ValueError:
            return bytes(value)  # whoever reads it says what is wrong with it
        return found.encode() if isinstance(found, str) else bytes(value)


class CouchbaseStore(KeyStore):
    """Keeps results as documents of a bucket's default collection.

    Raises:
        ConfigurationError: The URL cannot be understood.

    Fork: a child connects anew; the SDK's threads are the parent's.
    """

    can = Can(expires=True, guards=True, counts=True, largest=_LARGEST)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        self._user, _, self._password = (unquote(word) for word in login.partition(":"))
        self._bucket = parts.path.strip("/") or "default"
        said = dict(parse_qsl(parts.query))
        self._durability = _durability(said.pop("durability", "NONE"))
        if not hosts or not self._user:
            raise ConfigurationError(
                f"backend URL cannot be understood: it names no {'user' if hosts else 'server'}",
                hint="write couchbase://user:password@host/bucket",
            )
        self._url = urlunsplit((parts.scheme, hosts, "", urlencode(said), ""))
        self._lock = threading.Lock()
        self._made: tuple[Cluster, Collection] | None = None

    def _collection(self) -> Collection:
        with self._lock:
            if self._made is None:
                options = ClusterOptions(
                    PasswordAuthenticator(self._user, self._password),
                    timeout_options=ClusterTimeoutOptions(
                        connect_timeout=_CONNECT, bootstrap_timeout=_CONNECT, kv_timeout=_ANSWER
                    ),
                    transcoder=_Records(),
                )
                cluster = Cluster.connect(self._url, options)
                try:
                    collection = cluster.bucket(self._bucket).default_collection()
                except BaseException:
                    cluster.close()
                    raise
                self._made = cluster, collection
            return self._made[1]

    # -- records ------------------------------------------------------------------------

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`: each record replaces what was looked at, and nothing newer."""
        with self._wrapped():
            found = self._get([self.key(record.id) for record in records])
            for record in records:
                self._replace(record, found.get(self.key(record.id)))

    def _replace(self, record: Record, old: tuple[bytes, int] | None) -> None:
        collection, key = self._collection(), self.key(record.id)
        said = self._options(record.expires)
        for _ in range(_TRIES):
            try:
                if old is None:
                    collection.insert(key, record.body, InsertOptions(**said))
                elif not self._is_success(old[0]):
                    collection.replace(key, record.body, ReplaceOptions(cas=old[1], **said))
                return
            except _MOVED:
                old = self._get([key]).get(key)
        raise BackendUnavailable(f"record {record.id} of {self} is written by others all the time")

    def _is_success(self, value: bytes) -> bool:
        try:
            return self.codec.decode(value).status == "SUCCESS"
        except MessageError:  # what cannot be read may be replaced
            return False

    def _get(self, keys: Sequence[str]) -> dict[str, tuple[bytes, int]]:
        """Return the values of these keys, each with its CAS."""
        # without the option the first missing key would raise, and hide the others
        found = self._collection().get_multi(list(keys), GetMultiOptions(return_exceptions=True))
        for error in found.exceptions.values():
            if not isinstance(error, couchbase_errors.DocumentNotFoundException):
                raise error
        return {key: (each.value or b"", each.cas or 0) for key, each in found.results.items()}

    # -- keys ---------------------------------------------------------------------------

    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `KeyStore.read`."""
        with self._wrapped():
            return {key: value for key, (value, _) in self._get(keys).items()}

    def write(self, key: str, value: bytes, expires: float | None) -> None:
        """See `KeyStore.write`."""
        with self._wrapped():
            self._collection().upsert(key, value, UpsertOptions(**self._options(expires)))

    def delete(self, keys: Sequence[str]) -> None:
        """See `KeyStore.delete`."""
        with self._wrapped():
            done = self._collection().remove_multi(
                list(keys), RemoveMultiOptions(return_exceptions=True)
            )
            for error in done.exceptions.values():
                if not isinstance(error, couchbase_errors.DocumentNotFoundException):
                    raise error

    def count(self, key: str, by: int, expires: float | None) -> int:
        """See `Store.count`."""
        said = self._options(expires)
        with self._wrapped():
            counted = (
                self._collection()
                .binary()
                .increment(
                    self._count + key,
                    IncrementOptions(delta=DeltaValue(by), initial=SignedInt64(by), **said),
                )
            )
            return int(counted.content or 0)

    def _options(self, expires: float | None) -> dict[str, Any]:
        said: dict[str, Any] = {}
        if self._durability is not None:
            said["durability"] = self._durability
        if (seconds := whole_seconds(expires)) is not None:
            said["expiry"] = timedelta(seconds=seconds)
        return said

    # -- the connection -----------------------------------------------------------------

    def close(self) -> None:
        """See `Store.close`."""
        made, self._made = self._made, None
        if made is not None:
            made[0].close()

    def forked(self) -> None:
        """See `Store.forked`: ending the parent's client here would wait for threads it lacks."""

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Turn the SDK's errors into ours."""
        try:
            yield
        except _AWAY as error:
            raise BackendUnavailable(f"backend {self} does not answer: {error}") from error
        except couchbase_errors.CouchbaseException as error:
            raise BackendError(f"backend {self} refused: {error}") from error


def _durability(name: str) -> ServerDurability | None:
    levels = {level.name: level for level in DurabilityLevel}
    try:
        level = levels[name.upper()]
    except KeyError:
        raise ConfigurationError(
            f"backend URL cannot be understood: no durability {name!r}{near(name, list(levels))}",
            hint=f"there are {', '.join(levels)}",
        ) from None
    return None if level is DurabilityLevel.NONE else ServerDurability(level)
