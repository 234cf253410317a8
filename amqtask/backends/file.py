"""``file:///path``: a file for each result, named and filled as Celery's filesystem backend does.

For one machine, or machines that share a folder. A file is written beside and
moved into its place, so nobody reads half of one. A result counts as stored once
the disk has it, and the folder has its name: a loss of power takes nothing that
was acknowledged. Files of one batch are flushed side by side, which lets the file
system write them out together.

Source: celery 5.7 ``celery/backends/filesystem.py``.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from amqtask.backends.base import Can, Found, Record
from amqtask.backends.codec import Codec
from amqtask.backends.keys import KeyStore
from amqtask.errors import BackendError, BackendUnavailable, ConfigurationError, MessageError
from amqtask.settings import Settings

#: Seconds within which a file that makes no sense may be one that Celery is writing.
_WRITING = 2.0
#: Bytes of the longest file name that common file systems take.
_LONGEST = 255
#: Files flushed at once.
_AT_ONCE = 16


class FileStore(KeyStore):
    """Keeps results in the files of one folder.

    A file's time of change is the time at which it expires, ours by being set
    ahead, so that failures can have a time of their own; Celery's files, whose
    times are of their writing, are kept ``result_expires`` from then on.

    Raises:
        ConfigurationError: The URL names no folder.
    """

    can: Can = Can()

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        parts = urlsplit(url)
        if not parts.path.startswith("/") or parts.netloc not in ("", "localhost"):
            raise ConfigurationError(
                f"backend {url!r} names no folder", hint="write file:///var/lib/results"
            )
        self._folder = Path(unquote(parts.path))
        self._lock = threading.Lock()
        self._flushers: ThreadPoolExecutor | None = None

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`."""
        if len(records) == 1:
            super().save(records)
            return
        with self._lock:
            if self._flushers is None:
                self._flushers = ThreadPoolExecutor(_AT_ONCE, "amqtask-results-file")
            flushers = self._flushers
        written = [
            flushers.submit(self._put, self.key(record.id), record.body, record.expires)
            for record in records
        ]
        errors = [error for each in written if (error := each.exception()) is not None]
        if errors:
            raise errors[0]
        self._flush_names()

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            flushers, self._flushers = self._flushers, None
        if flushers is not None:
            flushers.shutdown()

    def load(self, ids: Sequence[str]) -> Mapping[str, Found]:
        """See `Store.load`; what Celery is writing at this moment is not there yet."""
        found: dict[str, Found] = {}
        for key, value in self.read([self.key(task_id) for task_id in ids]).items():
            task_id = key.removeprefix(self._task)
            try:
                found[task_id] = self.codec.decode(value)
            except MessageError as error:
                if not self._young(task_id):
                    found[task_id] = error
        return found

    def _young(self, task_id: str) -> bool:
        with suppress(FileNotFoundError), _wrapped("read", task_id):
            return abs(time.time() - self._path(self.key(task_id)).stat().st_mtime) < _WRITING
        return True

    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `KeyStore.read`."""
        found: dict[str, bytes] = {}
        ended = time.time() - self._grace()
        for key in keys:
            try:
                with _wrapped("read", key), self._path(key).open("rb", buffering=0) as file:
                    if os.fstat(file.fileno()).st_mtime > ended:
                        found[key] = file.readall()
            except FileNotFoundError:
                continue
        return found

    def write(self, key: str, value: bytes, expires: float | None) -> None:
        """See `KeyStore.write`."""
        self._put(key, value, expires)
        self._flush_names()

    def _flush_names(self) -> None:
        """Have the folder's names on the disk, too."""
        with _wrapped("write", str(self._folder)):
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _put(self, key: str, value: bytes, expires: float | None) -> None:
        path = self._path(key)
        with _wrapped("write", key):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".new-", dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(value)
                    file.flush()
                    os.fsync(file.fileno())
                usual = self._grace()
                if expires is not None and expires != usual:
                    ends = time.time() + expires - usual
                    os.utime(name, (ends, ends))
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def delete(self, keys: Sequence[str]) -> None:
        """See `KeyStore.delete`."""
        for key in keys:
            with _wrapped("delete", key):
                self._path(key).unlink(missing_ok=True)

    def expire(self, now: datetime) -> int:
        """See `Store.expire`."""
        if self.settings.result_expires is None:
            return 0
        ended = now.timestamp() - self._grace()
        count = 0
        ours = (self._task, self._group, ".new-")
        with suppress(FileNotFoundError), _wrapped("list", str(self._folder)):
            for entry in os.scandir(self._folder):
                with suppress(FileNotFoundError):
                    if entry.name.startswith(ours) and entry.stat().st_mtime <= ended:
                        Path(entry.path).unlink()
                        count += 1
        return count

    def _grace(self) -> float:
        """Seconds from a file's time to its end."""
        expires = self.settings.result_expires
        return float(2**40) if expires is None else expires

    def _path(self, key: str) -> Path:
        # an id is the caller's: it must not lead out of the folder
        name = quote(key, safe=" !#$&'()*+,:;=@[]{}~") if "/" in key or key[:1] == "." else key
        if len(name.encode()) > _LONGEST or "\0" in name:
            raise BackendError(f"key {key[:60]!r}... makes no file name")
        return self._folder / name


class _wrapped:  # noqa: N801 - reads as a clause
    """Turn an operating system's errors into ours, but for a file that is not there."""

    def __init__(self, verb: str, what: str) -> None:
        self._what = f"cannot {verb} {what!r}"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise BackendUnavailable(f"{self._what}: {error.strerror or error}") from error
