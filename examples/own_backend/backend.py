"""A result backend of one's own: a folder of DBM files, for one machine.

Its package names it in pyproject.toml, and then backend="dbm:///var/lib/results" finds it:

    [project.entry-points."amqtask.backends"]
    dbm = "backend:DbmStore"
"""

from __future__ import annotations

import dbm
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from amqtask.backends import Can, KeyStore
from amqtask.errors import BackendUnavailable


class DbmStore(KeyStore):
    can = Can()  # it neither notifies nor expires by itself: the library looks, and cleans up

    _lock = threading.Lock()  # methods are called from several threads, and may block

    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        with self._lock, self._open() as file:
            found = {key: file[key] for key in keys if key in file}
        now = time.time()
        return {key: value[8:] for key, value in found.items() if _ends(value) > now}

    def write(self, key: str, value: bytes, expires: float | None) -> None:
        ends = float("inf") if expires is None else time.time() + expires
        with self._lock, self._open() as file:
            file[key] = struct.pack(">d", ends) + value

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock, self._open() as file:
            for key in keys:
                if key in file:
                    del file[key]

    def expire(self, now: datetime) -> int:
        with self._lock, self._open() as file:
            keys = file.keys()
            old = [key for key in keys if _ends(file[key]) <= now.timestamp()]
            for key in old:
                del file[key]
        return len(old)

    def _open(self) -> dbm._Database:
        path = Path(urlsplit(self.url).path)
        try:  # a driver's errors leave a store as the library's: this one has it tried again
            path.mkdir(parents=True, exist_ok=True)
            return dbm.open(str(path / "results"), "c")
        except (OSError, dbm.error[0]) as error:
            raise BackendUnavailable(f"backend {self} cannot be opened: {error}") from error


def _ends(value: bytes) -> float:
    ends: float = struct.unpack(">d", value[:8])[0]
    return ends
