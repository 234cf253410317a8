"""The broker: vhosts, users, a listening socket, and time.

    made --> started --> stopped        (it can be started again, with empty vhosts
                ^           |            unless it keeps data)
                +-----------+

Everything happens on one event loop: the one `Broker.start` is awaited on, or
that of a thread of its own. What tests call from elsewhere is carried there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from amqtask.broker.basics import HANDLERS
from amqtask.broker.clock import Clock
from amqtask.broker.connection import Connection
from amqtask.broker.faults import Faults
from amqtask.broker.ports import Archive, Keeper
from amqtask.broker.queues import Queue
from amqtask.broker.store import Store
from amqtask.broker.vhost import VHost
from amqtask.errors import ConfigurationError

T = TypeVar("T")

#: Connections that may wait to be accepted.
_BACKLOG = 1024

log = logging.getLogger(__name__)


class Broker:
    """An AMQP 0-9-1 broker, for development, tests and one machine.

    Behaviour: Clients cannot tell it from RabbitMQ 4.0 but by its product name
    and by what ``docs/reference/embedded-broker.md`` lists.

    Args:
        data: A folder for durable queues and persistent messages; None keeps all in memory.
        clock: Time; `advance` moves it.
        vhosts_on_demand: Whether a vhost is made by whoever connects to it. Otherwise
            there are ``/`` and those of `add_vhost`, and others are refused.

    Attributes:
        faults: Misfortunes to happen on command.

    Delivery: With ``data`` a confirmed persistent message survives the process; without,
    nothing does.

    Threads: `start` and `stop` belong to one event loop. Everything else may be called
    from any thread.

    Example:
        >>> with Broker() as broker:
        ...     print(broker.url.partition("@")[0])
        amqp://guest:guest
    """

    def __init__(
        self,
        *,
        data: Path | None = None,
        clock: Clock | None = None,
        vhosts_on_demand: bool = False,
    ) -> None:
        self.clock = clock or Clock()
        self.data = data
        self.name = "amqtask@embedded"
        self.version = _version()
        self.handlers = HANDLERS
        self.keeper: Keeper | None = None
        self.archive: Archive | None = None
        self._store: Store | None = None
        self.connections: dict[Connection, None] = {}
        self.faults = Faults(self)
        self._on_demand = vhosts_on_demand
        self._users: dict[str, tuple[str, frozenset[str] | None]] = {"guest": ("guest", None)}
        self._vhosts: dict[str, VHost] = {}
        self._names = ["/"]
        self._orders = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._servers: list[asyncio.Server] = []
        self._address = ("", 0)
        self._unix: str | None = None
        self._later: set[asyncio.TimerHandle] = set()
        self._stopping: asyncio.Event | None = None
        self._alone: asyncio.Event | None = None

    # -- life -----------------------------------------------------------------

    async def start(
        self, host: str | None = "127.0.0.1", port: int = 0, unix_socket: str | None = None
    ) -> None:
        """Listen.

        Args:
            host: Where; None listens on no port.
            port: 0 takes any that is free; `url` tells which.
            unix_socket: A path to listen on too.

        Raises:
            ConfigurationError: It runs already, or cannot listen there, or not use its data.
        """
        if self._loop is not None:
            raise ConfigurationError("this broker runs already")
        loop = asyncio.get_running_loop()
        self._loop, self._owner = loop, threading.get_ident()
        try:
            self._open_vhosts(loop)
            if host is not None:
                server = await loop.create_server(self._connection, host, port, backlog=_BACKLOG)
                self._servers.append(server)
                self._address = server.sockets[0].getsockname()[:2]
            if unix_socket is not None:
                self._servers.append(
                    await loop.create_unix_server(self._connection, unix_socket, backlog=_BACKLOG)
                )
                self._unix = unix_socket
        except OSError as error:
            await self.stop()
            raise ConfigurationError(
                f"the broker cannot listen on {host}:{port}: {error.strerror or error}",
                hint="another broker may be running there; port 0 takes any that is free",
            ) from error
        except ConfigurationError:
            await self.stop()
            raise
        self.clock.start(loop)

    def _connection(self) -> Connection:
        return Connection(self)

    def _open_vhosts(self, loop: asyncio.AbstractEventLoop) -> None:
        store = None if self.data is None else Store(self.data, self.clock)
        self._store = self.keeper = self.archive = store
        for name in self._names:
            self.restore_vhost(name)
        if store is not None:
            store.open(loop, self)

    async def stop(self) -> None:
        """Close all connections, as RabbitMQ does when it is shut down, and stop listening."""
        if self._loop is None:
            return
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.shut_down()
        await self._until_alone(0.5)
        for connection in list(self.connections):
            connection.cut()
        await self._until_alone(0.5)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self._remove_socket()
        self.clock.stop()
        for handle in self._later:
            handle.cancel()
        self._later.clear()
        if self._store is not None:
            self._store.close()
            self._store = self.keeper = self.archive = None
        for vhost in self._vhosts.values():
            vhost.close()
        self._vhosts.clear()
        self._loop = None

    async def _until_alone(self, seconds: float) -> None:
        """Wait for the last connection to end, but not longer than that."""
        if self.connections:
            self._alone = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._alone.wait(), seconds)

    def ended(self, connection: Connection) -> None:
        """Learn that a connection has ended."""
        self.connections.pop(connection, None)
        if not self.connections and self._alone is not None:
            self._alone.set()

    def _remove_socket(self) -> None:
        if self._unix is not None:
            Path(self._unix).unlink(missing_ok=True)
            self._unix = None

    async def __aenter__(self) -> Broker:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- in a thread ----------------------------------------------------------

    def start_in_thread(self, host: str = "127.0.0.1", port: int = 0) -> Broker:
        """Start on an event loop in a thread of its own; returns this broker, which listens.

        Use it as a context manager, or call `stop_thread` in the end.

        Raises:
            ConfigurationError: As `start`.
        """
        started: Future[None] = Future()

        async def serve() -> None:
            stopping = asyncio.Event()
            try:
                await self.start(host, port)
            except BaseException as error:
                started.set_exception(error)
                return
            self._stopping = stopping
            started.set_result(None)
            await stopping.wait()
            await self.stop()

        self._thread = threading.Thread(
            target=lambda: asyncio.run(serve()), name="amqtask-broker", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self

    def stop_thread(self) -> None:
        """Stop what `start_in_thread` started, and wait for it to end."""
        thread, self._thread = self._thread, None
        loop, stopping = self._loop, self._stopping
        if thread is None:
            return
        if loop is not None and stopping is not None:
            loop.call_soon_threadsafe(stopping.set)
        thread.join()

    def let_go(self) -> None:
        """In a forked child: drop its copies of the sockets, and leave the broker to the parent.

        Their numbers stay taken, by something harmless: the objects that hold them may
        close them at any time, and must not meet a file of somebody else's then.
        """
        numbers = [each.fileno() for server in self._servers for each in server.sockets]
        numbers += [each.fileno() for each in self.connections]
        null = os.open(os.devnull, os.O_RDWR)
        for number in numbers:
            if number >= 0:
                os.dup2(null, number)
        os.close(null)

    def __enter__(self) -> Broker:
        return self if self._thread is not None else self.start_in_thread()

    def __exit__(self, *_: object) -> None:
        self.stop_thread()

    # -- where and who --------------------------------------------------------

    @property
    def host(self) -> str:
        """Where it listens."""
        return str(self._address[0])

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._address[1])

    @property
    def url(self) -> str:
        """The URL of its vhost ``/``, for the user guest."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """Return the URL of a vhost, for the user guest."""
        path = "" if vhost == "/" else quote(vhost, safe="")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"amqp://guest:guest@{host}:{self.port}/{path}"

    def add_user(self, name: str, password: str, *, vhosts: list[str] | None = None) -> None:
        """Let somebody log in, to these vhosts only or to all."""
        self._users[name] = (password, None if vhosts is None else frozenset(vhosts))

    def add_vhost(self, name: str) -> None:
        """Make a vhost; one that is there is fine."""

        def add() -> None:
            if name not in self._names:
                self._names.append(name)
            if self._loop is not None and name not in self._vhosts:
                self.restore_vhost(name)
                if self.archive is not None:
                    self.archive.vhost_made(name)

        self.run(add)

    def restore_vhost(self, name: str) -> VHost:
        """Return a vhost that is known already, which is made where it is not there."""
        if name not in self._vhosts:
            self._vhosts[name] = VHost(name, self)
        return self._vhosts[name]

    def delete_vhost(self, name: str) -> None:
        """Delete a vhost with all that is in it, and close its connections."""

        def delete() -> None:
            if name in self._names:
                self._names.remove(name)
            vhost = self._vhosts.pop(name, None)
            for connection in list(self.connections):
                if connection.vhost is vhost and vhost is not None:
                    connection.shut_down()
            if vhost is not None:
                vhost.empty()
                if self.archive is not None:
                    self.archive.vhost_gone(name)

        self.run(delete)

    def knows(self, user: str, password: str) -> bool:
        """Tell whether somebody may log in."""
        return user in self._users and self._users[user][0] == password

    def may_use(self, user: str, vhost: str) -> bool:
        """Tell whether somebody may use a vhost."""
        allowed = self._users[user][1]
        return allowed is None or vhost in allowed

    def has_vhost(self, name: str) -> bool:
        """Tell whether there is a vhost; makes it on demand."""
        if name not in self._vhosts and self._on_demand:
            self.add_vhost(name)
        return name in self._vhosts

    def vhost(self, name: str) -> VHost:
        """Return a vhost.

        Raises:
            ConfigurationError: There is none.
        """
        found = self._vhosts.get(name)
        if found is None:
            raise ConfigurationError(
                f"the broker has no vhost {name!r}", hint="add_vhost() makes one"
            )
        return found

    # -- time -----------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass at once: what waits for it, as delays and TTLs do, happens now."""
        self.run(lambda: self.clock.advance(seconds))

    def call_soon(self, action: Callable[[], object]) -> None:
        """Do something in the loop's next turn."""
        if self._loop is not None:
            self._loop.call_soon(action)

    def later(self, seconds: float, action: Callable[[], object]) -> asyncio.TimerHandle:
        """Do something after so many seconds of real time."""
        assert self._loop is not None
        return self._loop.call_later(seconds, action)

    def call_later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something after so many seconds of real time, unless it is stopped before."""

        def act() -> None:
            self._later.discard(handle)
            action()

        handle = self.later(seconds, act)
        self._later.add(handle)

    def run(self, action: Callable[[], T]) -> T:
        """Do something on the broker's loop, whatever thread this is, and wait for it."""
        loop = self._loop
        if loop is None or threading.get_ident() == self._owner:
            return action()
        outcome: Future[T] = Future()

        def act() -> None:
            try:
                outcome.set_result(action())
            except BaseException as error:
                outcome.set_exception(error)

        loop.call_soon_threadsafe(act)
        return outcome.result()

    # -- for its parts --------------------------------------------------------

    def cannot_save(self, reason: str | None) -> None:
        """Block publishers while nothing can be saved."""
        if reason is None:
            self.faults.unblock()
        else:
            self.faults.block(reason)

    def next_order(self) -> int:
        """Return a number that is higher than those before."""
        return next(self._orders)

    def start_orders_after(self, order: int) -> None:
        """Count on from an earlier run."""
        self._orders = itertools.count(order + 1)

    def doubles(self, queue: Queue) -> bool:
        """Tell whether a delivery is to be doubled."""
        return self.faults.doubles(queue)


def _version() -> str:
    try:
        return version("amqtask")
    except PackageNotFoundError:
        return "0"
