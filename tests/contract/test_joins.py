"""The contract of joins: whoever keeps the parts, a chord ends once, whole, and in order."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from amqtask import App
from amqtask.errors import ChordError, ConnectionLost, EncodeError, MessageTooLarge, TaskRevoked
from amqtask.message.model import Call
from amqtask.workflow.join import joins_of
from amqtask.workflow.join_queue import PREFIX, QueueJoins
from amqtask.workflow.ports import EXPIRE, Done, Joins, Opening, Part
from tests.contract.backends.places import PREFIX as STORE_PREFIX
from tests.contract.backends.places import places
from tests.helpers import TIMEOUT, eventually
from tests.servers import Names

QUEUES = ("embedded", "rabbitmq", "rabbitmq4")
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
        self.failures.append(error)
        done(None)


class Chord:
    """One chord, and workers that run its members."""

    def __init__(self, workers: Sequence[Joins], size: int) -> None:
        self.id = str(uuid.uuid4())
        self.size = size
        self.follow = Follow()
        self._workers = workers

    def open(self) -> None:
        self.begin_open()()

    def begin_open(self) -> Callable[[], None]:
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
    ) -> Callable[[], None]:
        task_id = id or f"{self.id}-{index}"
        call = Call(task, task_id, group=self.id, group_index=index)
        value = value if value is not None else index
        part = Part(self.id, index, self.size, BODY, task_id, task, value, error, extra, call)
        joins = self._workers[worker]
        return _begun(lambda done: joins.part(part, self.follow, done, ours))


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


@pytest.fixture(scope="session")
def _stores(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    with places(request) as place:
        yield place


class Shop:
    """Two workers of one kind of join, each with connections of its own."""

    def __init__(self, broker: str, backend: str | None, **settings: Any) -> None:
        self.names = Names()
        self.broker = broker
        said: dict[str, Any] = {
            "broker": broker,
            "default_queue": self.names.queue("alarms"),
            "publish_timeout": TIMEOUT,
            "result_prefix": STORE_PREFIX,
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

    def close(self) -> None:
        for app in self.apps:
            app.close()
        self.names.delete(self.broker)


@pytest.fixture
def make_shop(request: pytest.FixtureRequest, _stores: Callable[[str], str]) -> Iterator[Any]:
    made: list[Shop] = []

    def make(kind: str, **settings: Any) -> Shop:
        if kind in QUEUES:
            shop = Shop(request.getfixturevalue(kind).url, None, **settings)
        else:
            broker = request.getfixturevalue("any_broker").url
            shop = Shop(broker, _stores(kind), **settings)
        made.append(shop)
        return shop

    yield make
    for shop in made:
        shop.close()


@pytest.fixture(params=[*QUEUES, *STORES])
def shop(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers of each kind of join."""
    made: Shop = make_shop(request.param)
    return made


@pytest.fixture(params=QUEUES)
def queues(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers that join by queues, on each broker."""
    made: Shop = make_shop(request.param)
    return made


def test_the_body_gets_the_values_in_the_order_of_the_header(shop: Shop) -> None:
    """Whatever the order in which members end, on whatever worker."""
    chord = shop.chord(3)
    chord.part(2, value="c")
    chord.part(0, value="a", worker=1)
    assert chord.follow.bodies == []
    chord.part(1, value={"b": [1, None]})
    assert chord.follow.bodies == [["a", {"b": [1, None]}, "c"]]
    assert chord.follow.failures == []


def test_a_chord_of_one_member(shop: Shop) -> None:
    """The first part is the last one."""
    chord = shop.chord(1)
    chord.part(0, value=7)
    assert chord.follow.bodies == [[7]]


def test_many_chords_are_opened_at_the_same_time(shop: Shop) -> None:
    """Each of them with the number of members that is its own."""
    chords = [shop.chord(1 + number % 2, opened=False) for number in range(30)]
    for wait in [chord.begin_open() for chord in chords]:
        wait()
    for chord in chords:
        chord.part(0)
    assert [chord.follow.bodies for chord in chords] == [[[0]], []] * 15


def test_a_part_that_comes_twice_counts_once(shop: Shop) -> None:
    """A member that was delivered again completes nothing that is not complete."""
    chord = shop.chord(3)
    for worker in (0, 1, 0, 1):
        chord.part(0, value="a", worker=worker)
    chord.part(1, value="b")
    assert chord.follow.bodies == []
    chord.part(2, value="c")
    assert chord.follow.bodies == [["a", "b", "c"]]


def test_a_part_that_comes_after_the_join_begins_nothing(shop: Shop) -> None:
    """All members delivered once more do not make a second body."""
    chord = shop.chord(2)
    for index in (0, 1, 0, 1, 0, 1):
        chord.part(index)
    assert chord.follow.bodies == [[0, 1]]


def test_all_members_end_at_the_same_time(shop: Shop) -> None:
    """Fifty on two workers, some of them twice: one body."""
    chord = shop.chord(50)
    waits = [chord.begin(index, worker=index % 2) for index in range(50)]
    waits += [chord.begin(index, worker=1) for index in range(0, 50, 10)]
    for wait in waits:
        wait()
    assert chord.follow.bodies == [list(range(50))]


def test_a_failing_member_fails_the_body_once_all_have_ended(shop: Shop) -> None:
    """The error names the member; siblings that end later change nothing."""
    chord = shop.chord(3)
    chord.part(1, error=ValueError("bad"))
    chord.part(0)
    assert chord.follow.failures == []
    chord.part(2, error=KeyError("worse"))
    chord.part(0)
    chord.part(2, error=KeyError("worse"))
    (error,) = chord.follow.failures
    assert f"{chord.id}-1" in str(error)
    assert "ValueError: bad" in str(error)
    assert chord.follow.bodies == []


def test_a_cancelled_member_fails_the_body(shop: Shop) -> None:
    """It will never have a value."""
    chord = shop.chord(2)
    chord.part(0)
    chord.part(1, error=TaskRevoked("cancelled by hand"))
    (error,) = chord.follow.failures
    assert "was cancelled or expired" in str(error)


def test_a_member_that_was_sent_back_ends_the_chord_after_all(shop: Shop) -> None:
    """Its value takes the place of its failure, before and after the body failed for it."""
    early = shop.chord(2)
    early.part(0, error=ValueError("bad"))
    early.part(0, value="better")
    early.part(1)
    assert (early.follow.bodies, early.follow.failures) == ([["better", 1]], [])

    late = shop.chord(2)
    late.part(0, error=ValueError("bad"))
    late.part(1)
    assert len(late.follow.failures) == 1
    late.part(0, value="better", worker=1)
    assert late.follow.bodies == [["better", 1]]
    assert len(late.follow.failures) == 1


def test_a_member_that_adds_others_has_the_chord_wait_for_them(shop: Shop) -> None:
    """What was added comes after the others, whichever ends first."""
    chord = shop.chord(2)
    chord.part(0, extra=2)
    chord.part(0, extra=2)
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.part(1)
    assert chord.follow.bodies == []
    chord.part(None, id=f"{chord.id}-y", value="y", worker=1)
    (values,) = chord.follow.bodies
    assert (values[:2], sorted(values[2:])) == ([0, 1], ["x", "y"])


def test_what_was_added_may_end_before_the_member_that_has_added_it(shop: Shop) -> None:
    """It is sent before that member's part is kept, and completes nothing in its place."""
    chord = shop.chord(2)
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.part(1)
    assert chord.follow.bodies == []
    chord.part(0, extra=1)
    assert chord.follow.bodies == [[0, 1, "x"]]


def test_a_body_that_was_not_sent_is_sent_when_its_part_is_offered_again(shop: Shop) -> None:
    """The part is not safe before the body is: the error reaches whoever holds the delivery."""
    chord = shop.chord(2)
    chord.part(0)
    chord.follow.refuse.append(ConnectionLost("gone"))
    with pytest.raises(ConnectionLost, match="gone"):
        chord.part(1)
    assert chord.follow.bodies == []
    chord.part(1, worker=1)
    assert chord.follow.bodies == [[0, 1]]


def test_a_body_that_can_never_be_sent_fails(shop: Shop) -> None:
    """Values that are too large together must not keep the last member for ever."""
    chord = shop.chord(1)
    chord.follow.refuse.append(MessageTooLarge("20 MB"))
    chord.part(0)
    (error,) = chord.follow.failures
    assert "has no body: 20 MB" in str(error)


def test_a_value_that_does_not_serialise_is_refused(shop: Shop) -> None:
    """The settler parks the member for it, and offers that failure instead."""
    chord = shop.chord(1)
    with pytest.raises(EncodeError):
        chord.part(0, value=object())
    chord.part(0, error=EncodeError("no"))
    assert len(chord.follow.failures) == 1


def test_opening_twice_is_fine(shop: Shop) -> None:
    """A step that launches a chord may be delivered again before any of it has run."""
    chord = shop.chord(2)
    chord.open()
    chord.part(0)
    chord.part(1)
    assert chord.follow.bodies == [[0, 1]]


# -- queues only ------------------------------------------------------------------------


def test_the_queue_is_gone_after_the_join(queues: Shop) -> None:
    """A chord leaves nothing on the broker."""
    chord = queues.chord(2)
    chord.part(0)
    chord.part(1)
    counting = queues.joins[0]
    assert isinstance(counting, QueueJoins)
    # nothing takes it, so the broker returns it, and the part is left
    chord.part(1, worker=1)
    assert chord.follow.bodies == [[0, 1]]


def test_a_taker_that_is_refused_waits_until_the_queue_is_gone(queues: Shop) -> None:
    """Its delivery stays unacked meanwhile: the one who has the queue may die."""
    chord = queues.chord(2)
    chord.follow.gate.clear()
    chord.part(0)
    first = chord.begin(1)
    second = chord.begin(1, worker=1)
    time.sleep(0.2)  # not for it to happen, but for it to go wrong
    chord.follow.gate.set()
    first()
    second()
    assert chord.follow.bodies == [[0, 1]]


def test_a_taker_that_dies_leaves_the_queue_to_another_one(queues: Shop) -> None:
    """The broker puts everything back, and the second body is the first one's repeat."""
    chord = queues.chord(2)
    chord.part(0)
    chord.follow.gate.clear()
    chord.begin(1)
    eventually(lambda: _taken(queues.joins[0]))
    # its connection ends, as it does when the process is killed
    io = queues.apps[0].transport.io

    async def cut() -> None:
        session = queues.apps[0].transport.link("consume").session
        assert session is not None
        session.abort()

    second = chord.begin(1, worker=1)
    io.run(cut(), TIMEOUT)
    chord.follow.gate.set()
    second()
    assert set(map(tuple, chord.follow.bodies)) == {(0, 1)}


def _taken(joins: Joins) -> bool:
    assert isinstance(joins, QueueJoins)
    return joins._takes._value < 8


def test_a_taker_whose_delivery_is_gone_stops(queues: Shop) -> None:
    """Somebody else has it by then."""
    chord = queues.chord(2)
    chord.part(0)
    chord.follow.gate.clear()
    first = chord.begin(1)
    eventually(lambda: _taken(queues.joins[0]))
    with pytest.raises(ConnectionLost, match="no longer this worker's"):
        chord.begin(1, worker=1, ours=lambda: False)()
    chord.follow.gate.set()
    first()
    assert chord.follow.bodies == [[0, 1]]


def test_an_alarm_gives_up_what_nothing_comes_for(make_shop: Any) -> None:
    """The error names who is missing, the queue goes, and late parts are left."""
    shop = make_shop("embedded", join_expires=0.2)
    chord = shop.chord(4)
    chord.part(1)
    time.sleep(1.3)  # timestamps on the wire have whole seconds
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    (error,) = chord.follow.failures
    assert "of 4 members there is none yet of members 0, 2, 3" in str(error)
    for index in range(4):
        chord.part(index)
    assert chord.follow.bodies == []


def test_an_alarm_that_comes_while_parts_come_waits_on(queues: Shop) -> None:
    """`join_expires` counts from the last part."""
    chord = queues.chord(2)
    chord.part(0)
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    assert chord.follow.failures == []
    chord.part(1)
    assert chord.follow.bodies == [[0, 1]]
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    assert (len(chord.follow.bodies), chord.follow.failures) == (1, [])


def test_an_alarm_ends_a_failed_chord_without_a_second_failure(make_shop: Any) -> None:
    """Its queue was only kept for a member that is sent back."""
    shop = make_shop("embedded", join_expires=1.0)
    chord = shop.chord(2)
    chord.part(0, error=ValueError("bad"))
    chord.part(1)
    chord.part(None, id=f"{chord.id}-alarm", task=EXPIRE)
    chord.part(0, value="late")
    assert len(chord.follow.failures) == 1
    assert chord.follow.bodies == []


# -- stores only ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
def test_a_part_of_a_chord_that_the_store_has_lost_fails_it(make_shop: Any, kind: str) -> None:
    """Once, and not in silence: nobody else would ever say so."""
    shop = make_shop(kind)
    chord = shop.chord(3, opened=False)
    chord.part(0)
    chord.part(1)
    chord.part(2)
    (error,) = chord.follow.failures
    assert "has lost what it knew of it" in str(error)
    assert chord.follow.bodies == []
