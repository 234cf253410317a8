"""A connection's heartbeat: something goes out often enough, and silence ends it.

It looks twice in each interval that was agreed. It stays on real time: the
peer does not travel along when a test advances the broker's clock.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqtask.broker.connection import Connection

#: Looks without a sign of life that end a connection: two whole intervals.
_MISSED = 4

log = logging.getLogger(__name__)


class Heartbeat:
    """The heartbeat of a connection.

    Args:
        connection: The connection.
        interval: Seconds, as agreed.
    """

    def __init__(self, connection: Connection, interval: float) -> None:
        self._connection = connection
        self._seconds = interval / 2
        self._silence = 0
        self._handle = connection.broker.later(self._seconds, self._look)

    def _look(self) -> None:
        connection = self._connection
        # what is not read cannot be heard
        alive = connection.heard or connection.held_back
        self._silence = 0 if alive else self._silence + 1
        if self._silence >= _MISSED:
            log.info(
                "broker.heartbeat_missed connection=%s seconds=%.0f: it is closed",
                connection.name,
                self._silence * self._seconds,
            )
            connection.cut()
            return
        connection.beat()
        connection.heard = False
        self._handle = connection.broker.later(self._seconds, self._look)

    def stop(self) -> None:
        """End with the connection."""
        self._handle.cancel()
