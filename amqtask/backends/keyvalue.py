"""``kv+...://``: results in whatever py-key-value reaches, for the long tail of stores.

    kv+dynamodb://TABLE?region_name=eu-west-1
    kv+s3://BUCKET?region_name=eu-west-1
    kv+elasticsearch://host:9200/INDEX_PREFIX
    kv+disk:///var/lib/results      kv+memory://

What is in the query goes to py-key-value's store as it is. It is asynchronous
only, so a loop of its own runs beside. It counts times to live in whole
seconds, and cannot notify: one thread of a process looks.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from key_value.aio.errors import BaseKeyValueError, KeyValueOperationError

from amqtask.backends.base import Can, whole_seconds
from amqtask.backends.codec import Codec
from amqtask.backends.keys import KeyStore
from amqtask.errors import BackendError, BackendUnavailable, ConfigurationError, near
from amqtask.settings import Settings
from amqtask.transport import IOThread

T = TypeVar("T")

#: Seconds for one operation.
_ANSWER = 30.0
_COLLECTION = "amqtask-results"

#: By scheme: py-key-value's module and class, and what of its arguments the URL itself gives.
_STORES: Mapping[str, tuple[str, str, Callable[[str, str], dict[str, Any]]]] = {
    "memory": ("memory", "MemoryStore", lambda host, path: {}),
    "disk": ("disk", "DiskStore", lambda host, path: {"directory": path}),
    "dynamodb": ("dynamodb", "DynamoDBStore", lambda host, path: {"table_name": host}),
    "s3": ("s3", "S3Store", lambda host, path: {"bucket_name": host}),
    "elasticsearch": (
        "elasticsearch",
        "ElasticsearchStore",
        lambda host, path: {"url": f"http://{host}", "index_prefix": path.strip("/") or "amqtask"},
    ),
}


class KeyValueStore(KeyStore):
    """Keeps results in a store of py-key-value.

    Raises:
        ConfigurationError: No such store, or what it needs is not installed.
    """

    can = Can(expires=True)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        parts = urlsplit(url.partition("+")[2])
        if parts.scheme not in _STORES:
            raise ConfigurationError(
                f"no backend kv+{parts.scheme}://{near(parts.scheme, list(_STORES))}",
                hint=f"there are {', '.join(f'kv+{each}://' for each in _STORES)}",
            )
        module, name, arguments = _STORES[parts.scheme]
        try:
            kind: Any = getattr(importlib.import_module(f"key_value.aio.stores.{module}"), name)
        except ImportError as error:
            raise ConfigurationError(
                f"backend kv+{parts.scheme}:// needs what is not installed: {error}",
                hint=f'pip install "py-key-value-aio[{module}]"',
            ) from error
        said = {**arguments(parts.netloc, unquote(parts.path)), **dict(parse_qsl(parts.query))}
        self._make: Callable[[], Any] = lambda: kind(**said)
        self._open()

    def _open(self) -> None:
        self._io = IOThread("amqtask-results-kv")
        self._made: Any = None

    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `KeyStore.read`."""
        found = self._run(lambda store: store.get_many(keys=list(keys), collection=_COLLECTION))
        return {
            key: base64.b64decode(value["data"])
            for key, value in zip(keys, found, strict=True)
            if value is not None
        }

    def write(self, key: str, value: bytes, expires: float | None) -> None:
        """See `KeyStore.write`."""
        # a record is JSON there, so bytes travel as text
        data = {"data": base64.b64encode(value).decode()}
        ttl = whole_seconds(expires)
        self._run(lambda store: store.put(key=key, value=data, collection=_COLLECTION, ttl=ttl))

    def delete(self, keys: Sequence[str]) -> None:
        """See `KeyStore.delete`."""
        self._run(lambda store: store.delete_many(keys=list(keys), collection=_COLLECTION))

    def close(self) -> None:
        """See `Store.close`; what is kept in memory stays."""
        if self._io.started and self._made is not None and not self.url.startswith("kv+memory"):
            self._run(lambda store: store.close())
            self._made = None
        self._io.stop()

    def forked(self) -> None:
        """See `Store.forked`."""
        self._open()

    def _run(self, call: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        async def run() -> T:
            if self._made is None:
                self._made = self._make()  # on its loop, which its client keeps
            return await call(self._made)

        try:
            return self._io.run(run(), _ANSWER)
        except KeyValueOperationError as error:
            raise BackendError(f"backend {self} refused: {error}") from error
        except (BaseKeyValueError, TimeoutError, OSError) as error:
            raise BackendUnavailable(f"backend {self} does not answer: {error}") from error
