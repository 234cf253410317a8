"""The beat of a worker, in a process of its own under the supervisor: ``amqtask worker --beat``.

    importing --> in line --its turn--> leading
                     `--stop, SIGTERM, the line ends--> handing over --> ended

It is started, and told to end, as the processes that run tasks are, over a line of
the same form; see `amqtask.worker.child` and `amqtask.worker.lines`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from typing import Any

from amqtask.beat.runner import beat_status
from amqtask.beat.service import Beat
from amqtask.discovery import find_app
from amqtask.worker.ladder import QUICK
from amqtask.worker.lines import BEAT, IDLE_BEAT, MOST, pack, unpack
from amqtask.worker.process import end_process, memory, name_process
from amqtask.worker.spec import WorkerSpec

log = logging.getLogger(__name__)

#: What ``ps -o comm`` and ``top`` show of it.
NAME = "amqtask-beat"


class BeatChild:
    """A beat, and the line to its supervisor.

    Threads: all of it on one loop.
    """

    def __init__(self, spec: WorkerSpec, sock: socket.socket) -> None:
        self._spec = spec
        self._sock = sock
        self._stopping = asyncio.Event()
        self._fuse: asyncio.TimerHandle | None = None
        self._told: dict[str, Any] = {}  # with the last word of how it is
        self._told_at = 0.0

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        name_process(NAME)
        app = find_app(self._spec.app)
        name = f"{self._spec.name}:{os.getpid()}"
        self._beat = Beat(app, lambda: app.entries, name=name, on_change=self._on_change)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=MOST)
        line = [
            asyncio.create_task(self._listen(reader), name="amqtask line"),
            asyncio.create_task(self._tell(), name="amqtask tell"),
        ]
        self._beat.start()
        await self._stopping.wait()
        self._say(event="stopping")
        await self._beat.stop()
        for task in line:
            task.cancel()
        await self._say_stopped()
        await asyncio.to_thread(app.close, 1.0)
        return 0

    # -- the line -----------------------------------------------------------------

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._obey(unpack(line).get("do"))
        except (ConnectionError, ValueError) as error:
            log.warning("beat.line_lost error=%r", str(error))
        if not self._stopping.is_set():
            log.warning("beat.orphaned: the supervisor is gone, it hands over and ends")
            self._stopping.set()

    def _obey(self, word: Any) -> None:
        if word == "now" and self._fuse is None:
            # it still hands over if that is a matter of moments, and ends before it is killed
            self._fuse = asyncio.get_running_loop().call_later(QUICK / 2, end_process, 0)
        self._stopping.set()  # there is nothing else that it could be told

    async def _tell(self) -> None:
        while True:
            self._tell_news()
            await asyncio.sleep(BEAT)

    def _tell_news(self) -> None:
        """Say how it is, if that has changed or was said long ago."""
        now = asyncio.get_running_loop().time()
        status = beat_status(self._beat)
        news = {
            "shown": status.children[0],
            "dead": status.dead,
            "reasons": status.deaf,
        }
        if news != self._told or now - self._told_at >= IDLE_BEAT - BEAT / 2:
            self._told, self._told_at = news, now
            self._say(event="beat", rss=memory(), **news)

    def _on_change(self) -> None:
        if reasons := self._beat.unready():
            self._say(event="waiting", reasons=reasons)
        else:
            self._say(event="ready")
        self._tell_news()

    async def _say_stopped(self) -> None:
        self._say(event="stopped", counts=dict(self._beat.tally.counts))
        try:
            async with asyncio.timeout(1.0):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):
            log.debug("beat.unheard: the supervisor is gone")

    def _say(self, **fields: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(pack(**fields))
