"""A chord whose parts a test ends by hand, and what becomes of it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from amqtask import App
from amqtask.backends import StoredBackend
from amqtask.backends.chords import Register
from amqtask.clock import wall
from amqtask.errors import ChordError
from amqtask.message.model import Call
from amqtask.workflow.alarm import BY_HAND_HEADER, OPENED_HEADER, OpenJoin
from amqtask.workflow.join import joins_of
from amqtask.workflow.join_queue import PREFIX, QueueJoins
from amqtask.workflow.join_store import StoreJoins
from amqtask.workflow.ports import EXPIRE, Done, Joins, Opening, Part
from tests.contract.backends.places import PREFIX as STORE_PREFIX
from tests.helpers import TIMEOUT
from tests.servers import Names

QUEUES = ("embedded", "rabbitmq", "rabbitmq4")
#: Stores that can tell which chords are open in them.
LISTING = ("memory", "sqlite", "redis", "postgresql", "mysql", "mongodb")
STORES = ("memory", "sqlite", "redis", "postgresql", "mysql", "memcached", "mongodb")
BODY = {"task": "t.body", "args": [], "kwargs": {}, "options": {"task_id": "body"}}


class Follow:
    """Takes bodies and failures down.

    Attributes:
        refuse: Raised, so to say, at the next body.
        gate: A body is not sent before it is set.
    """

    def __init__(self) -> None:
        self.bodies: list[list[Any]] = []
        self.failures: list[ChordError] = []
        self.refuse_failures: list[Exception] = []
        self.refuse: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def send_body(self, part: Part, values: Sequence[Any], done: Done) -> None:
        def send() -> None:
            assert self.gate.wait(TIMEOUT)
            if self.refuse:
                done(self.refuse.pop())
                return
            self.bodies.append(list(values))
            done(None)

        threading.Thread(target=send, daemon=True).start()

    def fail_body(self, part: Part, error: ChordError, done: Done) -> None:
        if self.refuse_failures:
            done(self.refuse_failures.pop())
            return
        self.failures.append(error)
        done(None)


class Chord:
    """One chord, and workers that run its members."""

    def __init__(self, workers: Sequence[Joins], size: int) -> None:
        self.id = str(uuid.uuid4())
        self.size = size
        self.opened = 0.0
        self.follow = Follow()
        self._workers = workers

    def open(self) -> None:
        self.begin_open()()

    def begin_open(self) -> Callable[[], None]:
        self.opened = wall()
        opening = Opening(self.id, self.size, BODY)
        return _begun(lambda done: self._workers[0].open(opening, done))

    def part(self, index: int | None, **said: Any) -> None:
        """Have a member end, and wait until its delivery would be acked."""
        self.begin(index, **said)()

    def begin(
        self,
        index: int | None,
        value: Any = None,
        *,
        error: BaseException | None = None,
        extra: int = 0,
        worker: int = 0,
        id: str | None = None,
        task: str = "t.member",
        ours: Callable[[], bool] = lambda: True,
        headers: Mapping[str, Any] | None = None,
    ) -> Callable[[], None]:
        task_id = id or f"{self.id}-{index}"
        call = Call(task, task_id, group=self.id, group_index=index, headers=headers or {})
        value = value if value is not None else index
        part = Part(self.id, index, self.size, BODY, task_id, task, value, error, extra, call)
        joins = self._workers[worker]
        return _begun(lambda done: joins.part(part, self.follow, done, ours))

    def alarm(self, *, by_hand: bool = False, worker: int = 0) -> None:
        """Have the alarm ring."""
        said: dict[str, Any] = {OPENED_HEADER: int(self.opened)}
        if by_hand:
            said[BY_HAND_HEADER] = True
        self.part(None, id=f"{self.id}-alarm", task=EXPIRE, headers=said, worker=worker)


def _begun(call: Callable[[Done], object]) -> Callable[[], None]:
    ended = threading.Event()
    errors: list[Exception | None] = []

    def done(error: Exception | None) -> None:
        errors.append(error)
        ended.set()

    call(done)

    def wait() -> None:
        assert ended.wait(TIMEOUT), "the join did not say that it is done"
        if errors[0] is not None:
            raise errors[0]

    return wait


MakeChord = Callable[..., Chord]
T = TypeVar("T")


class Shop:
    """Two workers of one kind of join, each with connections of its own."""

    def __init__(self, broker: str, backend: str | None, **settings: Any) -> None:
        self.names = Names()
        self.broker = broker
        exchange = self.names.exchange()
        self.names.also(f"{exchange}.joins")
        said: dict[str, Any] = {
            "broker": broker,
            "default_queue": self.names.queue("alarms"),
            "publish_timeout": TIMEOUT,
            "result_prefix": STORE_PREFIX,
            # a shop's chords are its own, in whatever store
            "exchange": exchange,
            **settings,
        }
        if backend is not None:
            said["backend"] = backend
        self.apps = [App(f"joins-{n}", environ={}, **said) for n in range(2)]
        self.joins = [joins_of(app) for app in self.apps]

    def chord(self, size: int, *, opened: bool = True) -> Chord:
        chord = Chord(self.joins, size)
        self.names.also(PREFIX + chord.id)
        if opened:
            chord.open()
        return chord

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.apps[1].transport.io.run(work, TIMEOUT)

    def listed(self) -> dict[str, OpenJoin]:
        """Return the open chords by their ids."""
        joins = self.joins[1]
        assert isinstance(joins, QueueJoins | StoreJoins)
        return {each.id: each for each in self.run(joins.listing(1000))}

    def find(self, chord: Chord) -> OpenJoin | None:
        joins = self.joins[1]
        assert isinstance(joins, QueueJoins | StoreJoins)
        return self.run(joins.find(chord.id))

    @property
    def register(self) -> Register:
        backend = self.apps[1].backend
        assert isinstance(backend, StoredBackend)
        register = backend.store.register()
        assert register is not None
        return register

    def close(self) -> None:
        for app in self.apps:
            app.close()
        self.names.delete(self.broker)
