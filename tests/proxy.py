"""A TCP proxy between a test and a broker, for everything a network can do to a connection.

    forwarding --black_hole()--> silent --forward()--> forwarding
        |--delay(seconds)--> late
        |--down()--> every connection is reset at once --up()--> forwarding
        |--half_open()--> its connections have lost the server, and do not know; new ones are welcome
        `--cut()--> its connections are reset; new ones are welcome

Bytes that a silent proxy holds back go out with `forward`, as after a healed network. Every
method returns once it has taken effect.
"""

from __future__ import annotations

import asyncio
import atexit
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from amqtask.testing.servers import reserved_ports

T = TypeVar("T")

#: Until the end: a test may start a server on such a port again and again.
_reserved = ExitStack()
atexit.register(_reserved.close)
_CHUNK = 1 << 16
_AMQP_PORT = 5672
#: SO_LINGER on, for no time: closing sends RST instead of FIN.
_NO_LINGER = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to the server that ``url`` names, from a thread of its own.

    Attributes:
        url: The same URL, leading through the proxy.
        accepted: Connections taken so far.

    Threads: every method may be called from any thread.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or _AMQP_PORT)
        self.accepted = 0
        self._pairs: set[_Pair] = set()
        self._down = False
        self._delay = 0.0
        self._loop = asyncio.new_event_loop()
        self._requests, self._answers = asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.forward()
        port = self._server.sockets[0].getsockname()[1]
        userinfo, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{port}"))

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._pairs)

    def forward(self) -> None:
        """Pass everything on again, what was held back first."""
        self._delay = 0.0
        self._run(self._flow(True, True))

    def black_hole(self, *, requests: bool = True, answers: bool = True) -> None:
        """Keep connections open and pass nothing on.

        Args:
            requests: Hold back what goes to the server.
            answers: Hold back what comes from the server.
        """
        self._run(self._flow(not requests, not answers))

    def delay(self, seconds: float) -> None:
        """Pass on later whatever comes from now on, in both directions."""
        self._delay = seconds

    def cut(self) -> int:
        """Reset every connection, on both sides; return how many there were."""
        return self._run(self._cut())

    def half_open(self) -> int:
        """Reset the server's side of every connection and tell the client nothing.

        What the client sends from now on is swallowed, as by a firewall that has forgotten the
        connection. Returns how many there were.
        """
        return self._run(self._half_open())

    def down(self) -> None:
        """Reset every connection, and each new one at once."""
        self._down = True
        self.cut()

    def up(self) -> None:
        """Take connections again."""
        self._down = False

    def close(self) -> None:
        """Reset every connection and end the thread."""
        self._down = True
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # -- on the proxy's own loop --------------------------------------------------

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _flow(self, requests: bool, answers: bool) -> None:
        for gate, is_open in ((self._requests, requests), (self._answers, answers)):
            if is_open:
                gate.set()
            else:
                gate.clear()

    async def _cut(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    async def _half_open(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.forsake()
        return len(pairs)

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted closes its socket in the next turn

    def _refuse(self, pair: _Pair) -> None:
        if self._down:  # since the connection was taken
            pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._down:
            _reset(writer)
            return
        try:
            there, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(
            (writer, to_server),
            asyncio.create_task(self._pass_on(reader, to_server, self._requests)),
            asyncio.create_task(self._pass_on(there, writer, self._answers)),
        )
        self._pairs.add(pair)
        self._refuse(pair)
        # until both sides have ended, or one was reset
        await asyncio.wait(pair.pumps, return_when=asyncio.FIRST_EXCEPTION)
        while pair.forsaken and not pair.ended and not reader.at_eof():
            with suppress(OSError):
                await reader.read(_CHUNK)
        pair.reset()
        self._pairs.discard(pair)
        await asyncio.gather(*pair.pumps, return_exceptions=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, data = await late.get()
                await asyncio.sleep(due - loop.time())
                await gate.wait()
                if isinstance(data, OSError):
                    raise data
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        writing = asyncio.create_task(write())
        try:
            data: bytes | OSError = b"-"
            while data and not isinstance(data, OSError):
                try:
                    data = await reader.read(_CHUNK)
                except OSError as error:
                    data = error  # a reset passes the gate like all the rest
                late.put_nowait((loop.time() + self._delay, data))
            await writing
        finally:
            writing.cancel()


class _Pair:
    """The two halves of one connection."""

    def __init__(
        self, writers: tuple[asyncio.StreamWriter, ...], *pumps: asyncio.Task[None]
    ) -> None:
        self._writers = writers
        self.pumps = pumps
        self.forsaken = False  # the server's side is gone, the client's is kept
        self.ended = False

    def reset(self) -> None:
        self.ended = True
        for pump in self.pumps:
            pump.cancel()
        for writer in self._writers:
            _reset(writer)

    def forsake(self) -> None:
        self.forsaken = True
        for pump in self.pumps:
            pump.cancel()
        _reset(self._writers[1])


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # gone already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """Run a proxy to ``url`` for the length of a ``with``."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()


def closed_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens, unless a server is told to.

    The system gives it to nobody else until this process ends.
    """
    (port,) = _reserved.enter_context(reserved_ports(1))
    return port
