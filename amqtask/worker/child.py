"""The process that runs tasks: ``python -m amqtask.worker.child``, or a copy of the template.

    importing --> running --stop--> warm --cancel--> --now--> quick --> ended
                     |                ^                         ^
                     |--line ends-----'  (orphaned: it goes down a ladder of its own)
                     `--a task must be got rid of---------------'  (exit code 75)

Its standard input is the line to the supervisor, see `amqtask.worker.lines`;
the first one is the spec. Once the app is imported the line belongs to the
thread that has the connection, so what the supervisor says is heard, and
beats go out, whatever tasks do to the main thread.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, NoReturn

from amqtask.discovery import find_app
from amqtask.worker.board import Board
from amqtask.worker.ladder import QUICK, Descent, Ladder, Rung
from amqtask.worker.lines import BEAT, GAVE_UP, IDLE_BEAT, MOST, pack, unpack
from amqtask.worker.logs import set_up_logging
from amqtask.worker.node import Node
from amqtask.worker.process import BY_HAND, end_process, memory, take_standard_input
from amqtask.worker.slots import QueueSlots
from amqtask.worker.spec import WorkerSpec

log = logging.getLogger(__name__)

#: Seconds that an orphan has to finish what it runs, where no shutdown timeout is set.
ORPHANED = 60.0
#: Seconds that the loop of the async tasks has to give back what runs, before that is done for it.
STUCK = 3.0
#: Bytes of the first line that are looked at together.
_PEEK = 64 * 1024
#: Bytes unsent to the supervisor beyond which beats are left out.
_BEHIND = 64 * 1024


class Child:
    """A node, and the line to its supervisor.

    Threads: `run` on the loop of the async tasks; the line on the I/O loop.
    """

    def __init__(self, spec: WorkerSpec, board: Board, sock: socket.socket) -> None:
        self._spec = spec
        self._board = board
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()  # to stop, warm
        self._hurried = asyncio.Event()  # to stop now
        self._code = 0
        self._writer: asyncio.StreamWriter | None = None
        self._descent: Descent | None = None
        self._fuse: asyncio.Task[None] | None = None
        self._asked_loop: float | None = None  # since when the async tasks' loop owes an answer
        self._told: tuple[object, ...] = ()  # with the last beat
        self._told_at = -IDLE_BEAT

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        spec = self._spec
        app = find_app(spec.app)
        self._io = app.transport.io
        self._node = node = Node(
            app,
            [QueueSlots(name, slots) for name, slots in spec.queues],
            concurrency=spec.concurrency,
            prefetch=spec.prefetch,
            name=spec.name,
            pool=spec.pool,
            process_slots=spec.process_slots,
            max_tasks_per_child=spec.max_tasks_per_child,
            max_memory_per_child=spec.max_memory_per_child,
            board=self._board,
            on_change=self._report,
            on_give_up=self._give_up,
        )
        self._loop.add_signal_handler(signal.SIGTERM, self._asked.set)
        await asyncio.wrap_future(self._io.submit(self._open_line()))
        await node.start()
        await self._asked.wait()
        self._io.post(self._say_stopping)
        await self._stop()
        await asyncio.wrap_future(self._io.submit(self._say_goodbye()))
        await asyncio.to_thread(app.close, 1.0)
        return self._code

    async def _stop(self) -> None:
        """Stop warm; the moment it has to be quick, quickly."""
        warm = asyncio.create_task(self._node.stop())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait([warm, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if warm.done():
            await warm
        else:
            warm.cancel()
            await self._node.stop_now()

    # -- the line, on the I/O loop ----------------------------------------------------

    async def _open_line(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=MOST)
        self._line = [
            asyncio.create_task(self._listen(reader), name="amqtask line"),
            asyncio.create_task(self._beat(), name="amqtask beat"),
        ]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._obey(unpack(line))
        except (ConnectionError, ValueError) as error:
            log.warning("child.line_lost error=%r", str(error))
        self._orphaned()

    def _obey(self, said: dict[str, Any]) -> None:
        match said.get("do"):
            case "stop":
                self.take(Rung.WARM)
            case "cancel":
                self.take(Rung.CANCEL)
            case "now":
                self.take(Rung.NOW)
            case "stacks":
                # a runner may take a while to tell its own, and nothing waits for this
                threading.Thread(target=self._show_stacks, daemon=True).start()
            case "suspect":
                self._node.suspect(said["ids"], said["why"])
            case "condemn":
                self._node.condemn(said["id"], said["why"])
            case other:
                log.warning("child.unknown_word do=%r: left alone", other)

    def _show_stacks(self) -> None:
        log.warning("child.stacks pid=%d\n%s", os.getpid(), self._node.stacks())

    def take(self, rung: Rung) -> None:
        """Go down to this rung of the ladder; one taken before is no trouble."""
        self._on_loop(self._asked.set)
        if rung is Rung.CANCEL:
            self._node.cancel_running()
        if rung >= Rung.NOW:
            self._hurry()
        if rung is Rung.KILL:
            end_process(1)

    def _orphaned(self) -> None:
        if self._descent is not None:
            return
        warm = ORPHANED if self._spec.shutdown_timeout is None else self._spec.shutdown_timeout
        log.warning("child.orphaned: the supervisor is gone, what runs has %g s to finish", warm)
        self._descent = Descent(
            Ladder(warm=warm, cleanup=self._spec.cleanup_timeout), lambda: [self]
        )
        self._descent.press()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                if self._has_news(now := loop.time()):
                    self._say_beat(lag=now - due)
                    self._ask_loop()
            except Exception:  # a child whose beats stop counts as hung
                log.exception("child.beat_failed: the next one follows")
            due = max(due + BEAT, loop.time())
            await asyncio.sleep(due - loop.time())

    def _has_news(self, now: float) -> bool:
        """Whether a beat is due: an idle process has little to tell, and need not wake others for it."""
        node = self._node
        here = (node.running, node.waiting, node.finished, node.ready)
        quiet = here == self._told and not node.running and not node.waiting and node.ready
        if quiet and self._asked_loop is None and now - self._told_at < IDLE_BEAT - BEAT / 2:
            return False
        self._told, self._told_at = here, now
        return True

    def _ask_loop(self) -> None:
        if self._asked_loop is None:
            self._asked_loop = time.monotonic()
            self._on_loop(self._answer)

    def _answer(self) -> None:
        self._asked_loop = None

    def _blocked(self) -> float:
        """Return for how many seconds the loop of the async tasks has owed an answer."""
        asked = self._asked_loop  # the other thread may clear it at any moment
        return 0.0 if asked is None else time.monotonic() - asked

    def _say_beat(self, lag: float) -> None:
        assert self._writer is not None
        if self._writer.transport.get_write_buffer_size() > _BEHIND:
            return  # the supervisor does not read; what it misses it learns from a later one
        node = self._node
        self._say(
            event="beat",
            running=node.running,
            waiting=node.waiting,
            finished=node.finished,
            rss=memory(),
            lag=round(lag, 3),
            blocked=round(self._blocked(), 3),
            reasons=[] if node.ready else node.unready(),
        )

    def _report(self) -> None:  # by the node, in the I/O thread
        if self._node.ready:
            self._say(event="ready")
        else:
            self._say(event="waiting", reasons=self._node.unready())

    def _say_stopping(self) -> None:
        self._say(event="stopping", running=self._node.running)

    async def _say_goodbye(self) -> None:
        for task in self._line:
            task.cancel()
        if self._descent is not None:
            self._descent.close()
        if self._fuse is not None:
            self._fuse.cancel()
        await self._say_stopped()

    async def _say_stopped(self) -> None:
        self._say(event="stopped", counts=dict(self._node.counts))
        assert self._writer is not None
        try:
            async with asyncio.timeout(1.0):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):
            log.debug("child.unheard: the supervisor is gone")

    def _say(self, **fields: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(**fields))

    # -- ending for certain -----------------------------------------------------------

    def _give_up(self, reason: str) -> None:  # by the node, in any thread
        def end() -> None:
            self._code = GAVE_UP
            self._say(event="giving_up", reason=reason)
            self._on_loop(self._asked.set)
            self._hurry()

        self._io.post(end)

    def _hurry(self) -> None:
        self._on_loop(self._hurried.set)
        if self._fuse is None:
            self._fuse = asyncio.create_task(self._end_from_here(), name="amqtask fuse")

    async def _end_from_here(self) -> None:
        """End the process though the loop of the async tasks may never run again."""
        await asyncio.sleep(STUCK)
        log.warning("child.stuck pid=%d: its event loop does not answer", os.getpid())
        try:
            async with asyncio.timeout(QUICK - STUCK - 0.5):
                await self._node.release()
                await self._say_stopped()
        except Exception:  # whatever it is, it must not keep the process
            log.exception("child.not_released: what it ran is delivered again")
        end_process(self._code)

    def _on_loop(self, function: Any) -> None:
        self._loop.call_soon_threadsafe(function)


def _read_spec(sock: socket.socket) -> dict[str, Any]:
    """Take the first line, and nothing of what follows it."""
    line = b""
    while not line.endswith(b"\n"):
        seen = sock.recv(_PEEK, socket.MSG_PEEK)
        if not seen:
            raise SystemExit(BY_HAND.format("amqtask.worker.child"))
        line += sock.recv(seen.find(b"\n") + 1 or len(seen))
    fields: dict[str, Any] = json.loads(line)
    return fields


def main() -> None:
    """Run a child on the socket that is standard input."""
    run_child(take_standard_input("amqtask.worker.child"))


def run_child(sock: socket.socket, board: int | None = None) -> NoReturn:
    """Run a child, one that runs tasks or a beat, and end the process with it.

    Args:
        sock: The line to the supervisor; the spec is yet to come on it.
        board: Descriptor of the run board; None takes the one that is named with the spec.
    """
    # what a terminal sends to its whole group is the supervisor's to hear
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # a crash says where it was, and so does SIGUSR1 when a task holds the interpreter
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    fields = _read_spec(sock)
    named = fields.pop("board")
    spec = WorkerSpec.read(fields)
    if spec.environ:  # a copy has that of its template
        os.environ.clear()
        os.environ.update(spec.environ)
    sys.path[:] = spec.path
    set_up_logging(spec.loglevel)
    run = _beat(spec, sock) if spec.beat else _child(spec, named if board is None else board, sock)
    end_process(asyncio.run(_fused(run)))


async def _child(spec: WorkerSpec, board: int, sock: socket.socket) -> int:
    return await Child(spec, Board.attach(board), sock).run()


async def _beat(spec: WorkerSpec, sock: socket.socket) -> int:
    from amqtask.beat.child import BeatChild  # those that run tasks need not hold it

    return await BeatChild(spec, sock).run()


async def _fused(run: Coroutine[Any, Any, int]) -> int:
    code = await run
    # asyncio.run waits for threads and tasks that users started; not for ever
    fuse = threading.Timer(QUICK - 1.0, end_process, [code])
    fuse.daemon = True
    fuse.start()
    return code


if __name__ == "__main__":
    main()
