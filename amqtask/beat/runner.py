"""A beat as a process of its own: signals, and how it is."""

from __future__ import annotations

import asyncio
import logging
import signal

from amqtask.app import App
from amqtask.beat.service import Beat
from amqtask.worker.notify import Notifier
from amqtask.worker.status import Status

log = logging.getLogger(__name__)

#: Seconds between words to systemd.
_ROUND = 1.0


class BeatRunner:
    """Runs one beat until SIGTERM or SIGINT.

    Args:
        app: Its tasks are imported already.
        name: The beat's name; host and process id by default.
        notifier: Who is told how it is, besides the log.
    """

    def __init__(
        self, app: App, *, name: str | None = None, notifier: Notifier | None = None
    ) -> None:
        self._app = app
        self.beat = Beat(app, lambda: app.entries, name=name, on_change=self._on_change)
        self._notifier = notifier or Notifier({})
        self._stopping = asyncio.Event()
        self._announced = False

    async def run(self) -> int:
        """Run until stopped; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number.name)
        self.beat.start()
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(_ROUND):
                    await self._stopping.wait()
            except TimeoutError:
                if not self._announced:
                    self._notifier.starting()
                if self.status().live:
                    self._notifier.alive(loop.time())
        self._notifier.stopping()
        await self.beat.stop()
        log.info("beat.stopped counts=%s", dict(self.beat.tally.counts))
        return 0

    def status(self) -> Status:
        """Return how it is now, as ``/live`` and ``/ready`` tell it."""
        return beat_status(self.beat, stopping=self._stopping.is_set())

    def _stop(self, name: str) -> None:
        log.info("beat.stopping signal=%s: handing over", name)
        self._stopping.set()

    def _on_change(self) -> None:
        self._notifier.status(f"beat: {self.beat.role}")
        if self.beat.role != "connecting" and not self._announced:
            self._announced = True
            log.info("beat.ready name=%s role=%s", self.beat.name, self.beat.role)
            self._notifier.ready()


def beat_status(beat: Beat, *, stopping: bool = False) -> Status:
    """Return how a beat is, for those who probe it."""
    tally = beat.tally
    shown: dict[str, object] = {
        "role": beat.role,
        "counts": dict(tally.counts),
        "drift": round(tally.drift, 3),
        "most_drift": round(tally.most_drift, 3),
    }
    if beat.term is not None:
        shown["entries"] = len(beat.term.entries)
    deaf = ("it stops",) if stopping else tuple(beat.unready())
    return Status(beat.name, tuple(beat.dead()), deaf, (shown,))
