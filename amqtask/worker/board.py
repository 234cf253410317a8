"""The run board: what runs in a process, readable when that process is dead or hangs.

A memory-mapped file that the supervisor shares with one child. The child
notes what runs in each of its slots; that takes no system call, and what was
written survives a kill -9. So the supervisor knows which tasks were running
when the child died, and which of them ran past their limit while nothing in
the child could say so.

    free --begin--> noted --end--> free
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections import deque
from dataclasses import dataclass

#: One slot: noted or free, started, deadline (Unix seconds, 0 for none), id, task. Text is
#: written as ``p``, which keeps its length and cuts what is longer.
_ENTRY = struct.Struct("<Bdd256p200p")
#: A slot begins at a cache line of its own.
_SIZE = 512


@dataclass(frozen=True, slots=True)
class BoardEntry:
    """What runs in one slot.

    Attributes:
        id: The call's id.
        task: The task's name, at most 199 bytes of it.
        started: Unix seconds.
        deadline: Unix seconds of its hard time limit, or None.
    """

    id: str
    task: str
    started: float
    deadline: float | None


class Board:
    """Slots in shared memory.

    Threads: `begin` and `end` from any thread of the child; `entries` anywhere.
    """

    def __init__(self, fd: int, slots: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, slots * _SIZE)
        self.slots = slots
        self._free = deque(range(slots))

    @classmethod
    def create(cls, slots: int) -> Board:
        """Make a board of so many slots, in a file that has no name any more."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("amqtask-board", os.MFD_CLOEXEC)
        else:
            import tempfile  # brings shutil and all compressions along, and Linux needs none

            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, slots * _SIZE)
        return cls(fd, slots)

    @classmethod
    def attach(cls, fd: int) -> Board:
        """Open the board of an inherited descriptor."""
        return cls(fd, os.fstat(fd).st_size // _SIZE)

    def fileno(self) -> int:
        """Return the descriptor, for ``pass_fds``."""
        return self._fd

    def take(self) -> int | None:
        """Return a free slot; None when there is none, and what runs is not noted."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def begin(self, slot: int, id: str, task: str, deadline: float | None) -> None:
        """Note that a task runs in ``slot``; ``deadline`` in Unix seconds."""
        start = slot * _SIZE
        self._map[start] = 0  # a reader must not take half of it for a whole
        _ENTRY.pack_into(
            self._map, start, 0, time.time(), deadline or 0.0, id.encode(), task.encode()
        )
        self._map[start] = 1

    def end(self, slot: int) -> None:
        """Note that nothing runs in ``slot`` any more, and have it free."""
        self._map[slot * _SIZE] = 0
        self._free.append(slot)

    def entries(self) -> list[BoardEntry]:
        """Return what runs, by slot."""
        found = []
        for slot in range(self.slots):
            noted, started, deadline, id_, task = _ENTRY.unpack_from(self._map, slot * _SIZE)
            if noted:
                found.append(
                    BoardEntry(
                        id_.decode("utf-8", "replace"),
                        task.decode("utf-8", "replace"),
                        started,
                        deadline or None,
                    )
                )
        return found

    def close(self) -> None:
        """Let go of the memory and the descriptor."""
        self._map.close()
        os.close(self._fd)
