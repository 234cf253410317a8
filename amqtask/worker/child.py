"""The process that runs tasks: ``python -m amqtask.worker.child``, started by the supervisor.

Its standard input is a socket to the supervisor. First comes one JSON line,
the spec; then words, a line each: ``stop`` (warm) and ``now`` (quick). It
answers with JSON lines: what is ready, what changed, how it ended. When the
socket ends the supervisor is gone, and the child stops warm.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from typing import Any

from amqtask.discovery import find_app
from amqtask.worker.logs import set_up_logging
from amqtask.worker.node import Node

log = logging.getLogger(__name__)


#: Exit code of a child that a task would not let go.
GIVEN_UP = 75


class Child:
    """A node, and the line to its supervisor."""

    def __init__(self, spec: dict[str, Any], sock: socket.socket) -> None:
        self._spec = spec
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._stops = 0
        self._given_up = False
        self._asked = asyncio.Event()  # to stop, warm
        self._hurried = asyncio.Event()  # to stop now

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        spec = self._spec
        app = find_app(spec["app"])
        node = Node(
            app,
            spec["queues"],
            concurrency=spec["concurrency"],
            prefetch=spec["prefetch"],
            name=spec["name"],
            on_change=lambda: report(),
            on_give_up=lambda _: give_up(),
        )

        def give_up() -> None:
            self._loop.call_soon_threadsafe(self._give_up)

        def report() -> None:  # called in the I/O thread
            self._loop.call_soon_threadsafe(self._report, node)

        self._loop.add_signal_handler(signal.SIGTERM, self._stop)
        await node.start()
        listener = asyncio.create_task(self._listen())
        await self._asked.wait()
        self._say(event="stopping", running=node.running)
        warm = asyncio.create_task(node.stop())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait([warm, hurried], return_when=asyncio.FIRST_COMPLETED)
        if not warm.done():
            warm.cancel()
            await node.stop_now()
        else:
            await warm
        hurried.cancel()
        listener.cancel()
        await asyncio.to_thread(app.close, 1.0)
        self._say(event="stopped", counts=dict(node.counts))
        return GIVEN_UP if self._given_up else 0

    async def _listen(self) -> None:
        reader, _ = await asyncio.open_connection(sock=self._sock.dup())
        while line := await reader.readline():
            word = line.decode().strip()
            self._stop()
            if word == "now":
                self._hurried.set()
        if not self._asked.is_set():
            log.warning("child.orphaned: the supervisor is gone, stopping warm")
            self._stop()

    def _stop(self) -> None:
        self._stops += 1
        self._asked.set()

    def _give_up(self) -> None:
        self._given_up = True
        self._hurried.set()
        self._stop()

    def _report(self, node: Node) -> None:
        self._say(event="ready" if node.ready else "waiting", pid=os.getpid())

    def _say(self, **fields: Any) -> None:
        try:
            self._sock.sendall(json.dumps(fields).encode() + b"\n")
        except OSError:
            log.debug("child.unheard: the supervisor is gone")


def _read_spec(sock: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise SystemExit("amqtask.worker.child is started by `amqtask worker`, not by hand")
        line += byte
    spec: dict[str, Any] = json.loads(line)
    return spec


def main() -> None:
    """Run a child on the socket that is standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to hear
    try:
        sock = socket.socket(fileno=os.dup(0))
        sock.getpeername()
    except OSError:
        raise SystemExit(
            "amqtask.worker.child is started by `amqtask worker`, not by hand"
        ) from None
    # tasks that read standard input must find it empty, not the supervisor's words
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    spec = _read_spec(sock)
    sys.path[:] = spec["path"]
    set_up_logging(spec["loglevel"])

    async def run() -> int:
        return await Child(spec, sock).run()

    code = asyncio.run(run())
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a task's thread that never ends must not keep the process


if __name__ == "__main__":
    main()
