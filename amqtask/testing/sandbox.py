"""One test's broker: a vhost of its own, its time, what is in it, and the apps that use it.

    open --use(app), worker(app), beat(app)--> in use
    in use --close--> beats and workers stopped, apps back where they were, vhost deleted,
                      failures raised

Time passes in steps. It stands still while the test waits for its workers, and `advance` jumps from one instant at which something falls
due to the next, and lets the workers finish what that brought before it jumps
on. So a task that fails at minute one and waits two more is tried again at
minute three, not at the end of the hour that was asked for, whatever the
threads do. An instant of a schedule is such an instant too, where a beat runs.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from amqtask.app import App
from amqtask.broker.queues import Queue
from amqtask.clock import telling, wall
from amqtask.testing.beat import Beat
from amqtask.testing.embedded import Server, StoppableClock
from amqtask.testing.failures import Failure, Failures
from amqtask.testing.faults import Faults
from amqtask.testing.letters import Letter, read
from amqtask.testing.outbox import Outbox
from amqtask.testing.worker import PATIENCE, Worker
from amqtask.topology.beating import beat_queue_name
from amqtask.topology.deadletter import dead_queue_name
from amqtask.topology.delay import TICK_MS, delay_plan, delay_prefix
from amqtask.transport.url import BrokerURL

_numbers = itertools.count(1)
#: Seconds that a delayed call may come after its time, as delays are rounded up; and a microsecond,
#: for sums of the same seconds in another order differ, by more the longer the machine runs.
_TICK = TICK_MS / 1000 + 1e-6
#: Seconds by which times of day differ at least.
_MICROSECOND = 1e-6


class Sandbox(Outbox):
    """A broker for one test, and what its apps have sent to it.

    Attributes:
        url: Where it is, for any AMQP client.
        faults: Misfortunes to happen on command.

    Threads: from the test's thread. There is one time for the process, so one sandbox
    at once.
    """

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._name = f"test-{os.getpid()}-{next(_numbers)}"
        server.add_vhost(self._name)
        self.url = server.url_of(self._name)
        self.faults = Faults(server, self._name)
        self._failures = Failures()
        self._apps: list[App] = []
        self._workers: list[Worker] = []
        self._beats: list[Beat] = []
        self._vhost = server.vhost(self._name)
        assert isinstance(self._vhost.clock, StoppableClock)
        self._clock = self._vhost.clock
        self._closing = ExitStack()
        self._closing.enter_context(telling(self._clock.wall))
        self._closing.callback(server.delete_vhost, self._name)
        self._closing.callback(self._failures.forget)

    def close(self) -> None:
        """Stop beats and workers, give apps back, delete what was on the broker.

        Raises:
            BaseException: What a task raised that the test has not seen.
            AssertionError: A worker did not stop.
        """
        with self._closing:
            self.faults.clear()
            # the last one is called first: once the workers have stopped nothing can fail any more
            self._closing.callback(self._look_for_failures)
            for worker in self._workers:
                self._closing.callback(worker.stop)
            for beat in self._beats:
                self._closing.callback(beat.stop)
        self._failures.raise_first()

    # -- apps and workers -----------------------------------------------------

    def use(self, app: App) -> App:
        """Point an app at this broker, until the test ends; returns the app.

        It is disconnected from where it was. Doing it twice is fine.
        """
        if app not in self._apps:
            self._apps.append(app)
            before = app.transport.move_to([BrokerURL.parse(self.url)])
            record = partial(self.record, app)
            app.producer.on_sent.append(record)
            self._closing.callback(app.transport.move_to, before)
            self._closing.callback(app.producer.on_sent.remove, record)
            self._make_levels(app)
        self._failures.watch(app)
        return app

    def _make_levels(self, app: App) -> None:
        """Make the levels that delayed calls wait in, as the first of them would take 50 ms."""
        settings = app.settings
        if settings.declare == "auto":
            for prefix in {delay_prefix(queue, settings) for queue in app.queues.values()}:
                self._server.make(self._name, delay_plan(prefix))

    def worker(
        self, app: App, queues: Iterable[str] = (), *, concurrency: int | None = None
    ) -> Worker:
        """Return a worker for an app; start it by ``with``, ``async with`` or `Worker.start`.

        Args:
            app: Its tasks; it is pointed at this broker.
            queues: Names of the queues it consumes; all the app knows by default.
            concurrency: Tasks at once; the app's setting by default.
        """
        self.use(app)
        app.import_tasks()
        self._failures.watch(app)
        worker = Worker(self, app, tuple(queues) or tuple(app.queues), concurrency)
        self._workers.append(worker)
        return worker

    def beat(self, app: App, name: str = "test-beat") -> Beat:
        """Return a beat for an app; start it by ``with``, ``async with`` or `Beat.start`.

        Where one runs, `advance` stops at every instant of the app's schedule.

        Args:
            app: Its entries; it is pointed at this broker.
            name: What logs and ``app.schedules.status()`` call it.
        """
        self.use(app)
        app.import_tasks()
        self._failures.watch(app)
        beat = Beat(app, name, lambda: any(each.leads for each in self._beats if each.app is app))
        self._beats.append(beat)
        return beat

    # -- time -----------------------------------------------------------------

    def now(self) -> float:
        """Return this broker's time in seconds since 1970; `time.time` plus what was advanced."""
        return wall()

    def freeze(self) -> None:
        """Have time stand still from now on, until the test ends: only `advance` moves it.

        Without it time also passes by itself, as everywhere, which a test that looks at
        exact times on a slow machine may not want.
        """
        self._closing.enter_context(self._clock.standing())

    def advance(self, seconds: float, *, timeout: float = PATIENCE) -> None:
        """Let time pass at once: delays, TTLs and back-off that end in it fire, in their order.

        So do schedules, where a `beat` runs. Workers that run have run what that brought them when this returns. What is due
        within one tick of the delays, 50 ms, beyond the end fires too.

        Args:
            seconds: How much.
            timeout: Seconds of real time that all of it may take.

        Raises:
            ValueError: It is negative.
            BaseException: What a task raised that is not retried.
            AssertionError: A worker was not idle, or a beat not done, in time.
        """
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds!r} seconds")
        deadline = time.monotonic() + timeout
        with self._clock.standing():
            target = self._clock.now() + seconds
            while not self._server.run(partial(self._jump, target, self._settle(deadline))):
                continue
            self._settle(deadline)
            self._wait_until_idle(deadline)
        self._raise_failures()

    def _jump(self, target: float, fire: datetime | None) -> bool:
        """Go on to ``target``; False at the first instant that gives somebody something to do.

        Args:
            fire: When a beat has something to send.
        """
        clock, stop = self._clock, self._instant(fire)
        end = target + _TICK if stop is None else min(stop, target + _TICK)
        while not (busy := self._busy()) and (due := clock.due) is not None and due <= end:
            clock.advance(max(0.0, due - clock.now()))
        if busy:
            return False
        there = stop is None or stop > target
        clock.advance(max(0.0, (target if stop is None else min(stop, target)) - clock.now()))
        return there

    def _instant(self, fire: datetime | None) -> float | None:
        """Return the time of day of a fire by the broker's clock; later than now in any case."""
        if fire is None:
            return None
        return self._clock.now() + max(_MICROSECOND, fire.timestamp() - self._clock.wall())

    def _settle(self, deadline: float) -> datetime | None:
        """Have workers and beats do what there is to do now; returns when beats have more."""
        self._wait_until_idle(deadline)
        while True:
            beats = [beat for beat in self._beats if beat.running]
            try:
                found = {beat.app.name: look for beat in beats if (look := beat.catch_up(deadline))}
            except TimeoutError:
                raise AssertionError("a beat did not send what is due in time") from None
            if not (missing := {beat.app.name for beat in beats} - found.keys()):
                return min((each.fire for each in found.values() if each.fire), default=None)
            if time.monotonic() > deadline:
                raise AssertionError(f"no beat of {', '.join(missing)} got to lead in time")
            time.sleep(0.005)  # its connection was lost: it, or another one, is on its way

    # -- idleness -------------------------------------------------------------

    def run_until_idle(self, timeout: float = PATIENCE) -> None:
        """Wait until the workers have nothing to do; see `Worker.run_until_idle`."""
        deadline = time.monotonic() + timeout
        with self._clock.standing():
            self._settle(deadline)
            self._wait_until_idle(deadline)
        self._raise_failures()

    def drain(self, timeout: float = PATIENCE) -> None:
        """Run until nothing is left, delayed calls included; see `Worker.drain`."""
        deadline = time.monotonic() + timeout
        with self._clock.standing():
            try:
                while not self._server.run(partial(self._jump_to_the_next, self._settle(deadline))):
                    continue
            except AssertionError as late:
                raise AssertionError(
                    f"calls were left after {timeout:g} s ({late}); does a task call itself? "
                    "advance() lets a certain time pass"
                ) from None
        self._raise_failures()

    def _jump_to_the_next(self, fire: datetime | None) -> bool:
        """Let time pass until something becomes of what waits; True when nothing waits.

        Args:
            fire: When a beat has something to send; that alone is nothing to wait for.
        """
        clock, stop = self._clock, self._instant(fire)
        while not self._busy():
            if not any(len(queue) for queue in self._waiting_rooms()):
                return True
            due = clock.due
            assert due is not None, "messages wait for a time, and no timer is set"
            if stop is not None and stop < due:
                clock.advance(max(0.0, stop - clock.now()))
                return False
            clock.advance(max(0.0, due - clock.now()))
        return False

    def _waiting_rooms(self) -> Iterator[Queue]:
        """Yield the queues that messages leave by themselves: the levels of delays."""
        for queue in self._vhost.queues.values():
            if queue.rules.ttl is not None and queue.rules.dead_exchange is not None:
                yield queue

    def _wait_until_idle(self, deadline: float) -> None:
        """Wait until whatever clients can do about the queues is done.

        A worker acks a call last, once its successor, its result or its dead letter is
        confirmed, and a client acks a reply once whoever waits has it. So when no consumer
        has an unacked message, and none is left for it, everything has happened.
        """
        for app in self._apps:
            self._failures.watch(app)  # tasks may have been defined since
        left = deadline - time.monotonic()
        if left <= 0 or not self._server.when(lambda: not self._busy(), left):
            busy = self._server.run(self._busy)
            raise AssertionError(f"not idle in time: {'; '.join(busy) or 'it is, just now'}")

    def _busy(self) -> list[str]:
        """Return what is not done yet, a phrase for each queue; on the broker's loop."""
        queues = self._vhost.queues
        found = []
        # a beat that leads holds its state for as long as it does
        states = {beat_queue_name(app.settings, app.name) for app in self._apps}
        for queue in queues.values():
            if queue.name in states:
                continue
            waiting = len(queue) if len(queue.roster) else 0
            if waiting or queue.unacked:
                found.append(f"queue {queue.name!r}: {waiting} waiting, {queue.unacked} unacked")
        for worker in self._workers:
            found += [
                f"queue {name!r}: the worker does not consume it"
                for name in (worker.queues if worker.running else ())
                if name not in queues or not len(queues[name].roster)
            ]
        return found

    # -- failures -------------------------------------------------------------

    def take_failures(self) -> list[Failure]:
        """Return the failures that the test has not seen yet; they count as seen now."""
        self._look_for_failures()
        return self._failures.take()

    def _raise_failures(self) -> None:
        self._look_for_failures()
        self._failures.raise_first()

    def _look_for_failures(self) -> None:
        for app in self._apps:
            for name in app.queues:
                for letter in self.dead_letters(name):
                    self._failures.parked(letter)
        self._failures.see(self._was_got)

    def _was_got(self, failure: Failure) -> bool:
        """Tell whether the test has had it raised by ``result.get()``."""
        outgoing = self.outgoing(failure.id)
        if outgoing is not None and outgoing.pending is not None and outgoing.pending.raised:
            return True
        return not self._raised().isdisjoint((failure.id, *failure.also))

    def _raised(self) -> set[str]:
        """Return the ids of steps of workflows whose failure the test has had raised."""
        wholes = [each.whole for each in self.outgoings() if each.whole is not None]
        steps = [step for whole in wholes for step in whole.steps]
        return {step.id for step in steps if step._pending is not None and step._pending.raised}

    # -- what is in the queues ------------------------------------------------

    def messages(self, queue: str) -> list[Letter]:
        """Return what waits in a queue, in order, and leave it there."""
        return self._read([queue], dead=False)

    def dead_letters(self, queue: str) -> list[Letter]:
        """Return what was parked of a queue's calls, with the reason, and leave it there."""
        return self._read([dead_queue_name(queue)], dead=True)

    def delayed(self) -> list[Letter]:
        """Return the calls that wait for their time, wherever they are on their way."""
        rooms = self._server.run(lambda: [queue.name for queue in self._waiting_rooms()])
        return self._read(rooms, dead=False)

    def _read(self, names: Sequence[str], *, dead: bool) -> list[Letter]:
        def held() -> list[tuple[str, Any]]:
            queues = self._vhost.queues
            return [
                (name, entry.message)
                for name in names
                if name in queues
                for entry in queues[name].waiting()
            ]

        return [read(name, message, dead=dead) for name, message in self._server.run(held)]


@contextmanager
def sandbox(*apps: App) -> Iterator[Sandbox]:
    """Give a broker for as long as the block runs, without pytest.

    Args:
        apps: Apps to point at it.
    """
    server = Server()
    with server:
        made = Sandbox(server)
        try:
            for app in apps:
                made.use(app)
            yield made
        finally:
            made.close()
