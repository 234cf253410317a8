"""Fixtures of the beat's tests: apps with names of their own, beats in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from amqtask import App
from amqtask.beat import handover
from amqtask.beat.service import Beat
from tests.helpers import TIMEOUT, eventually
from tests.integration.worker.inprocess import Line, line_to
from tests.servers import Names

T = TypeVar("T")


class RunningBeat:
    """A `Beat` on its own event loop in a daemon thread."""

    def __init__(self, app: App, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.beat = self.run(self._make(app, name))

    async def _make(self, app: App, name: str) -> Beat:
        beat = Beat(app, lambda: app.entries, name=name)
        beat.start()
        return beat

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = TIMEOUT) -> T:
        """Run a coroutine on the beat's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    @property
    def role(self) -> str:
        """What it is now."""
        return self.beat.role

    @property
    def leads(self) -> bool:
        """Whether it has read the state and fires."""
        return self.beat.term is not None

    @property
    def counts(self) -> dict[str, int]:
        """What became of its fires."""
        return dict(self.beat.tally.counts)

    def abort(self) -> None:
        """Drop its connection without a word."""

        async def drop() -> None:
            session = self.beat._link.session
            assert session is not None
            session.abort()

        self.run(drop())

    def stop(self) -> None:
        """Hand over and end, as often as one likes."""
        if self._loop.is_closed():
            return
        try:
            self.run(self.beat.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT)
            self._loop.close()


MakeApp = Callable[..., App]
Beating = Callable[..., RunningBeat]


@pytest.fixture(autouse=True)
def _short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that finds no state waits less for one that remembers it; where none can, that is."""
    monkeypatch.setattr(handover, "REMEMBER", 0.2)


@pytest.fixture
def queue(names: Names) -> str:
    """Where the calls go."""
    return names.queue("work")


@pytest.fixture
def state(names: Names) -> str:
    """The queue that holds the state."""
    return names.beat_queue()


@pytest.fixture
def make_app(broker: str, queue: str, state: str, names: Names) -> Iterator[MakeApp]:
    """Makes apps that share one state; one task, `note`, is registered."""
    made: list[App] = []
    shared = {
        "broker": broker,
        "default_queue": queue,
        "beat_queue": state,
        "publish_timeout": TIMEOUT,
        "control_exchange": names.exchange("control"),
        "cancel_exchange": names.cancel_exchange(),
        "delay_prefix": names.delay_prefix(),
    }

    def make(**settings: Any) -> App:
        app = App("beat-tests", environ={}, **{**shared, **settings})

        @app.task(name="note")
        def note(*args: Any, **kwargs: Any) -> None:
            pass

        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def app(make_app: MakeApp) -> App:
    """An app without entries."""
    return make_app()


@pytest.fixture
def beating() -> Iterator[Beating]:
    """Starts beats in this process, and waits until they lead or stand by; stops what still runs."""
    running: list[RunningBeat] = []

    def start(app: App, name: str = "first", *, leads: bool = True) -> RunningBeat:
        beat = RunningBeat(app, name)
        running.append(beat)
        eventually(
            lambda: beat.leads if leads else beat.role == "standby",
            message="the beat did not get there",
        )
        return beat

    yield start
    for beat in running:
        beat.stop()


@pytest.fixture
def line(broker: str, app: App, queue: str) -> Iterator[Line]:
    """pika's blocking client on the same broker; the queue of the calls is there, and empty."""
    with line_to(broker) as line:
        app.send_task("note")
        line.take(queue)
        yield line
