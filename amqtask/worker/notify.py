"""systemd's notification protocol: datagrams of ``KEY=value`` lines to a Unix socket.

Where no ``NOTIFY_SOCKET`` is set, nothing is sent, so nobody has to ask.

Source: sd_notify(3) and sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

#: Microseconds granted to a start that still waits, each time it says so.
_MORE_START = 30_000_000


class Notifier:
    """Tells the service manager how the worker is.

    The variables are taken out of ``environ``, as sd_notify(3) advises:
    children, and what tasks start, must not speak for the service.

    Args:
        environ: Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are.

    Attributes:
        watchdog: Seconds between two signs of life that it asks for; None asks for none.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.pop("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""))
        self._beaten = 0.0
        self._status = ""

    def ready(self) -> None:
        """Say that the start, or a reload, is over."""
        self._send("READY=1")

    def starting(self) -> None:
        """Ask for more time: the broker is not there yet."""
        self._send(f"EXTEND_TIMEOUT_USEC={_MORE_START}")

    def reloading(self) -> None:
        """Say that a rolling restart has begun; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that a stop has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show one line in ``systemctl status``; the same one again is not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self, now: float) -> None:
        """Give a sign of life when half of the watchdog's time is over."""
        if self.watchdog is not None and now - self._beaten >= self.watchdog / 2:
            self._beaten = now
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # @ stands for the zero byte that begins an abstract address
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0.2)
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("notify.failed said=%r error=%r: the worker goes on", lines[0], str(error))


def _watchdog(usec: str, pid: str) -> float | None:
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
