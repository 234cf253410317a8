"""A settler with everything around it stood in for: tests say when what was sent is safe."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from amqtask import App, Queue
from amqtask.errors import EncodeError
from amqtask.message.model import Message
from amqtask.transport import Publication
from amqtask.worker.execute import Executor, Job
from amqtask.worker.outcome import Outcome
from amqtask.worker.settle import Settler
from tests.unit.worker.fakes import FakeLease, delivery

ETA = datetime(2026, 11, 23, tzinfo=UTC)


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Loop:
    """Stands for the I/O loop's timers: they ring when a test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []

    def call_later(self, wait: float, function: Callable[..., object], *args: Any) -> None:
        self.timers.append((wait, function, args))

    def ring(self) -> float:
        wait, function, args = self.timers.pop(0)
        function(*args)
        return wait


class IO:
    """Stands for the I/O thread, which everything here happens in: what is posted, at once."""

    is_current = True

    def __init__(self) -> None:
        self.loop = Loop()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)


class Transport:
    """Collects publications; a test confirms them or has them fail."""

    def __init__(self) -> None:
        self.io = IO()
        self.sent: list[Publication] = []

    def publish(self, publication: Publication) -> None:
        self.sent.append(publication)

    def answer(self, error: Exception | None = None) -> Message:
        """Give the oldest publication its outcome, and return its message."""
        publication = self.sent.pop(0)
        publication.finish(error)  # type: ignore[arg-type]
        return publication.message


class Backend:
    """Keeps what is stored; a test confirms it or has it fail."""

    def __init__(self) -> None:
        self.saved: list[tuple[Any, str, str]] = []
        self._waiting: list[Callable[[Exception | None], object]] = []

    def save(self, meta: Any, *, reply_to: str, correlation_id: str, done: Any) -> None:
        if isinstance(meta.result, set):
            raise EncodeError("cannot encode the result: set")
        self.saved.append((meta, reply_to, correlation_id))
        self._waiting.append(done)

    def answer(self, error: Exception | None = None) -> None:
        self._waiting.pop(0)(error)


class Desk:
    """A settler with everything around it stood in for."""

    def __init__(
        self, *, backend: bool = True, queue: Queue | None = None, **settings: Any
    ) -> None:
        self.app = App("desk", environ={}, queues=[queue or "q"], **settings)
        self.app.task(name="t.task")(lambda: None)
        self.transport, self.backend = Transport(), Backend() if backend else None
        self.lease = FakeLease()
        self.app.transport = self.transport  # type: ignore[assignment]
        self.app.producer.backend = self.backend  # type: ignore[assignment]
        self.settler = Settler(self.app, "host")
        self._executor = Executor(self.app, "host", lambda _: None)

    def settle(self, outcome: Outcome, **said: Any) -> Job:
        """Settle a job that ended so."""
        job = Job(delivery(lease=self.lease, **said))
        self._executor.admit(job)
        job.started, job.ended = 1.0, 1.5
        job.outcome = outcome
        self.settler.settle(job)
        return job

    @property
    def settled(self) -> list[str]:
        return [verb for verb, _ in self.lease.settled]

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.settler.counts)
