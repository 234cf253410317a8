"""Stores that are a map of keys to bytes: Celery's keys over three verbs.

Most of the long tail is that: memcached, files, a table of a cloud. A new one
derives from `KeyStore` and says how to read, write and delete; see "Write
your own backend" in the guide.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from amqtask.backends.base import Found, Record, Store
from amqtask.backends.codec import Codec
from amqtask.settings import Settings

#: Characters that end a prefix; after any other one Celery puts ``_``.
_SEPARATORS = ":_-."


class KeyStore(Store):
    """A store whose records are values under keys, named as Celery names them.

    Source: celery 5.7 ``celery/backends/base.py``, ``BaseKeyValueStoreBackend``.
    """

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        prefix = settings.result_prefix or ""
        if prefix and prefix[-1] not in _SEPARATORS:
            prefix += "_"
        self._task = f"{prefix}celery-task-meta-"
        self._group = f"{prefix}celery-taskset-meta-"
        self._count = f"{prefix}chord-unlock-"

    @abstractmethod
    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of these keys; those that have none are left out."""

    @abstractmethod
    def write(self, key: str, value: bytes, expires: float | None) -> None:
        """Set a key, for ``expires`` seconds; None keeps it."""

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> None:
        """Delete keys; those that are not there do not matter."""

    def key(self, task_id: str) -> str:
        """Return the key of a call's outcome."""
        return self._task + task_id

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`."""
        for record in records:
            self.write(self.key(record.id), record.body, record.expires)

    def load(self, ids: Sequence[str]) -> Mapping[str, Found]:
        """See `Store.load`."""
        found = self.read([self.key(task_id) for task_id in ids])
        return {key.removeprefix(self._task): value for key, value in found.items()}

    def forget(self, ids: Sequence[str]) -> None:
        """See `Store.forget`."""
        self.delete([self.key(task_id) for task_id in ids])

    def save_group(self, group_id: str, body: bytes, expires: float | None) -> None:
        """See `Store.save_group`."""
        self.write(self._group + group_id, body, expires)

    def load_group(self, group_id: str) -> bytes | None:
        """See `Store.load_group`."""
        return self.read([self._group + group_id]).get(self._group + group_id)

    def kept(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `Store.kept`."""
        found = self.read([self._group + key for key in keys])
        return {key.removeprefix(self._group): value for key, value in found.items()}

    def unkeep(self, keys: Sequence[str]) -> None:
        """See `Store.unkeep`."""
        self.delete([self._group + key for key in keys])

    def forget_group(self, group_id: str) -> None:
        """See `Store.forget_group`."""
        self.delete([self._group + group_id])
