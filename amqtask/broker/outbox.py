"""What a connection sends: gathered for a turn of the loop, and written at once.

Confirms are asked for at the end, as late as can be, so that one frame can
stand for many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqtask.broker.publishing import Publishing

#: Octets that wait for the end of a turn at most.
_FLUSH_AT = 256 * 1024


class Outbox:
    """A connection's frames to be sent.

    Args:
        call_soon: The loop's.

    Attributes:
        transport: Where they go; None sends nothing any more.
        reading: Whether frames are being read, at whose end all is flushed anyway.
        spoke: Whether something was sent since the heartbeat looked last.
    """

    def __init__(self, call_soon: Callable[[Callable[[], object]], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.reading = False
        self.spoke = False
        self._call_soon = call_soon
        self._frames: list[bytes] = []
        self._owed = 0
        self._scheduled = False
        self._confirms: list[Publishing] = []

    def send(self, frames: bytes) -> None:
        """Send frames at the end of this turn, or now when they are many."""
        if self.transport is None:
            return
        self._frames.append(frames)
        self._owed += len(frames)
        if self._owed >= _FLUSH_AT:
            self._write()
        elif not self._scheduled and not self.reading:
            self._schedule()

    def confirms_soon(self, publishing: Publishing) -> None:
        """Send a channel's confirms at the end of this turn."""
        self._confirms.append(publishing)
        if not self._scheduled and not self.reading:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._call_soon(self._later)

    def _later(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send all that is due."""
        self.flush_confirms()
        if self._frames:
            self._write()

    def flush_confirms(self) -> None:
        """Let channels add their confirms to what is to be sent."""
        if self._confirms:
            due, self._confirms = self._confirms, []
            for publishing in due:
                publishing.flush()

    def _write(self) -> None:
        frames = self._frames
        octets = frames[0] if len(frames) == 1 else b"".join(frames)
        frames.clear()
        self._owed = 0
        self.spoke = True
        # of a socket that has just failed the connection hears in the loop's next turn
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(octets)

    def close(self) -> None:
        """Send nothing any more."""
        self.transport = None
        self._frames.clear()
        self._confirms.clear()
