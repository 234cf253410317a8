"""The embedded broker as tests need it: a clock for each vhost, and a word when something came.

Each vhost has a time of its own, so that a test that lets a year pass does not
take the next test along. And whoever waits for a state of the broker is told
after every piece of data from a client, rather than look again and again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from amqtask.broker import Broker, Clock
from amqtask.broker.connection import Connection
from amqtask.broker.fields import Field, Table
from amqtask.broker.vhost import VHost
from amqtask.topology.plan import (
    BindExchange,
    BindQueue,
    DeclareExchange,
    DeclareQueue,
    Plan,
    Step,
)

#: Seconds after which waiters look without being told, for what no client's data announces.
_LOOK = 0.02


class StoppableClock(Clock):
    """A clock that can stand still: then only `advance` moves it."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped: float | None = None
        self._lost = 0.0
        #: What `now` has to be given to be a time of day; one number, so that both stand still.
        self._epoch = time.time() - time.monotonic()

    def wall(self) -> float:
        """Return seconds since 1970, advanced along."""
        # whole microseconds, as datetimes have them: what is put off by a second is due in just that
        return round(self.now() + self._epoch, 6)

    def _real(self) -> float:
        stopped = self._stopped
        return time.monotonic() - self._lost if stopped is None else stopped

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Stand still for as long as the block runs; nothing of it is made up for later."""
        if self._stopped is not None:
            yield
            return
        self._stopped = self._real()
        try:
            yield
        finally:
            # in this order, so that nobody sees time go back
            self._lost = time.monotonic() - self._stopped
            self._stopped = None


class _Telling(Connection):
    """A connection that tells its broker when it has done what a client asked."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        assert isinstance(self.broker, Server)
        self.broker.stirred()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        assert isinstance(self.broker, Server)
        self.broker.stirred()


class Server(Broker):
    """The broker of a test run; `amqtask.testing.Sandbox` is what a test sees of it."""

    def __init__(self) -> None:
        super().__init__()
        self._waiters: dict[Future[None], Callable[[], bool]] = {}

    def _connection(self) -> Connection:
        return _Telling(self)

    def restore_vhost(self, name: str) -> VHost:
        """Make a vhost, with a clock of its own."""
        vhost = super().restore_vhost(name)
        if vhost.clock is self.clock:
            vhost.clock = StoppableClock()
            vhost.clock.start(asyncio.get_running_loop())
        return vhost

    def delete_vhost(self, name: str) -> None:
        """Delete a vhost and stop its clock."""
        clock = self.vhost(name).clock
        super().delete_vhost(name)
        self.run(clock.stop)

    def make(self, vhost: str, plan: Plan) -> None:
        """Make a topology, without the hundred questions and answers of a client."""

        def act() -> None:
            for step in plan.steps:
                _take(self.vhost(vhost), step)

        self.run(act)

    # -- waiting --------------------------------------------------------------

    def when(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``condition``, which is asked on the broker's loop, is true.

        Returns:
            False when it was not within ``timeout`` seconds.
        """
        done: Future[None] = Future()

        def begin() -> None:
            if condition():
                done.set_result(None)
            else:
                self._waiters[done] = condition
                self._look()

        self.run(begin)
        try:
            done.result(timeout)
        except TimeoutError:
            self.run(lambda: self._waiters.pop(done, None))
            return False
        return True

    def stirred(self) -> None:
        """Ask those who wait."""
        for done, condition in list(self._waiters.items()):
            if condition():
                del self._waiters[done]
                done.set_result(None)

    def _look(self) -> None:
        self.stirred()
        if self._waiters:
            self.call_later(_LOOK, self._look)


def _take(vhost: VHost, step: Step) -> None:
    match step:
        case DeclareExchange():
            vhost.declare_exchange(
                step.name,
                step.type,
                durable=step.durable,
                auto_delete=step.auto_delete,
                internal=step.internal,
                arguments=_table(step.arguments),
            )
        case DeclareQueue():
            vhost.declare_queue(
                step.name,
                durable=step.durable,
                exclusive=step.exclusive,
                auto_delete=step.auto_delete,
                arguments=_table(step.arguments),
                user=None,
            )
        case BindQueue():
            vhost.bind(
                step.exchange,
                vhost.queue(step.queue, None),
                step.routing_key,
                _table(step.arguments),
            )
        case BindExchange():
            vhost.bind(
                step.source,
                vhost.exchange(step.destination),
                step.routing_key,
                _table(step.arguments),
            )


def _table(arguments: Mapping[str, Any]) -> Table:
    # the kinds that a topology has: text and whole numbers
    return {
        name: Field("S" if isinstance(value, str) else "l", value)
        for name, value in arguments.items()
    }
