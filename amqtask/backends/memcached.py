"""``memcached://``: results in memcached, under Celery's keys.

It forgets when it is full, and when it restarts: for results whose loss does
not matter. It cannot notify, so one thread of a process looks.

    memcached://host:11211      memcached://one:11211,two:11211

Source: celery 5.7 ``celery/backends/cache.py``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pymemcache import exceptions as memcached_errors
from pymemcache.client.base import PooledClient
from pymemcache.client.hash import HashClient

from amqtask.backends.base import Can, Record, whole_seconds
from amqtask.backends.codec import Codec
from amqtask.backends.keys import KeyStore
from amqtask.errors import BackendError, BackendUnavailable, ConfigurationError
from amqtask.settings import Settings

#: Bytes of the largest item of a server that was not told otherwise, less what the item needs.
_LARGEST = 1024 * 1024 - 512
#: Seconds above which memcached reads a time to live as a Unix time.
_MONTH = 30 * 24 * 60 * 60
#: Connections to one server at most, however many threads look for results.
_CONNECTIONS = 8
#: Tries for a record that others write at the same time.
_TRIES = 10


class MemcachedStore(KeyStore):
    """Keeps results in one memcached, or in several by the hash of the key.

    Raises:
        ConfigurationError: The URL names no server.
    """

    can = Can(expires=True, guards=True, counts=True, keeps=True, largest=_LARGEST)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        hosts = url.partition("://")[2].partition("/")[0].replace(";", ",")
        try:
            self._servers = [_address(host) for host in hosts.split(",") if host]
        except ValueError:
            self._servers = []
        if not self._servers:
            raise ConfigurationError(
                f"backend {url!r} names no server", hint="write memcached://127.0.0.1:11211"
            )
        self._made: Any = None
        self._making = threading.Lock()
        #: pymemcache's pool raises when it is empty, instead of waiting
        self.room = threading.BoundedSemaphore(_CONNECTIONS)

    @property
    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def _connect(self) -> Any:
        options = {"connect_timeout": 5.0, "timeout": 5.0, "default_noreply": False}
        if len(self._servers) == 1:
            return PooledClient(self._servers[0], max_pool_size=_CONNECTIONS, **options)
        return HashClient(self._servers, use_pooling=True, max_pool_size=_CONNECTIONS, **options)

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`: each record replaces what was looked at, and nothing newer."""
        with _wrapped(self):
            found = self._client.gets_many([self.key(record.id) for record in records])
            for record in records:
                self._replace(record, *found.get(self.key(record.id), (None, None)))

    def _replace(self, record: Record, old: bytes | None, token: bytes | None) -> None:
        client, key, ends = self._client, self.key(record.id), _ends(record.expires)
        for _ in range(_TRIES):
            if old is None:
                if client.add(key, record.body, expire=ends, noreply=False):
                    return
            elif self._is_success(old) or client.cas(
                key, record.body, token, expire=ends, noreply=False
            ):
                return
            old, token = client.gets(key)
        raise BackendUnavailable(f"record {record.id} of {self} is written by others all the time")

    def _is_success(self, value: bytes) -> bool:
        try:
            return self.codec.decode(value).status == "SUCCESS"
        except Exception:  # what cannot be read may be replaced
            return False

    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `KeyStore.read`."""
        with _wrapped(self):
            found: Mapping[str, bytes] = self._client.get_many(list(keys))
            return found

    def write(self, key: str, value: bytes, expires: float | None) -> None:
        """See `KeyStore.write`."""
        with _wrapped(self):
            self._client.set(key, value, expire=_ends(expires))

    def delete(self, keys: Sequence[str]) -> None:
        """See `KeyStore.delete`."""
        with _wrapped(self):
            self._client.delete_many(list(keys))

    def count(self, key: str, by: int, expires: float | None) -> int:
        """See `Store.count`."""
        key = self._count + key
        with _wrapped(self):
            self._client.add(key, b"0", expire=_ends(expires))
            counted = self._client.incr(key, by)
        if counted is None:
            raise BackendUnavailable(f"backend {self} dropped a counter at once: it is full")
        return int(counted)

    def keep(self, key: str, value: bytes, expires: float) -> bytes:
        """See `Store.keep`."""
        key = self._group + key
        with _wrapped(self):
            if self._client.add(key, value, expire=_ends(expires), noreply=False):
                return value
            there: bytes | None = self._client.get(key)
        if there is None:
            raise BackendUnavailable(f"backend {self} dropped a value at once: it is full")
        return there

    def close(self) -> None:
        """See `Store.close`."""
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def forked(self) -> None:
        """See `Store.forked`: pymemcache closes a socket without a word."""
        self._made = None


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":") if ":" in host else (host, "", "11211")
    return name, int(port)


def _ends(expires: float | None) -> int:
    seconds = whole_seconds(expires)
    if seconds is None:
        return 0
    return seconds if seconds <= _MONTH else int(time.time()) + seconds


@contextmanager
def _wrapped(store: MemcachedStore) -> Iterator[None]:
    """Turn pymemcache's errors into ours."""
    try:
        with store.room:
            yield
    except (
        memcached_errors.MemcacheIllegalInputError,
        memcached_errors.MemcacheClientError,
    ) as error:
        raise BackendError(f"backend {store} refused: {error}") from error
    except memcached_errors.MemcacheServerError as error:
        too_large = (
            b"too large" in error.args[0]
            if error.args and isinstance(error.args[0], bytes)
            else "too large" in str(error)
        )
        kind = BackendError if too_large else BackendUnavailable
        raise kind(f"backend {store} refused: {error}") from error
    except (memcached_errors.MemcacheError, OSError) as error:
        raise BackendUnavailable(f"backend {store} does not answer: {error}") from error
