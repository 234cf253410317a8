"""The contract of joins: whoever keeps the parts, a chord ends once, whole, and in order."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pytest
import redis as redis_py

from amqtask import App
from amqtask.backends import StoredBackend
from amqtask.backends.chords import ON_RECORD, OpenChord, Register
from amqtask.clock import wall
from amqtask.errors import (
    BackendError,
    ChordError,
    ConnectionLost,
    EncodeError,
    MessageTooLarge,
    TaskRevoked,
)
from amqtask.message.model import Call
from amqtask.transport.declare import declare
from amqtask.workflow import join_queue
from amqtask.workflow.alarm import BY_HAND_HEADER, OPENED_HEADER, OpenJoin
from amqtask.workflow.join import joins_of
from amqtask.workflow.join_queue import PREFIX, QueueJoins
from amqtask.workflow.join_store import StoreJoins
from amqtask.workflow.ports import EXPIRE, Done, Joins, Opening, Part
from tests.contract.backends.places import PREFIX as STORE_PREFIX
from tests.contract.backends.places import places
from tests.helpers import TIMEOUT, eventually
from tests.integration.worker.inprocess import line_to
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


@pytest.fixture(scope="session")
def _stores(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    with places(request) as place:
        yield place


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
    assert "1 of 4 parts came, none yet of members 0, 2, 3" in str(error)
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


def test_a_chord_that_waits_for_long_is_listed(queues: Shop) -> None:
    """Its first alarm notes it; whoever reads the list leaves out what has no queue any more."""
    waits, ends = queues.chord(3), queues.chord(1)
    waits.part(1)
    for chord in (waits, ends):
        assert chord.id not in queues.listed()
        _ring(queues, chord)
        chord.alarm()
    assert {waits.id, ends.id} <= queues.listed().keys()
    ends.part(0)
    row = queues.listed()[waits.id]
    assert (row.kept, row.came, row.waiting.size) == ("broker", 1, 3)
    assert (row.task, row.body_id) == ("t.body", "body")
    assert 0 <= wall() - row.waiting.opened < TIMEOUT
    assert row.due > wall() + 80_000
    assert ends.id not in queues.listed()
    assert waits.id in queues.listed()


def test_a_chord_is_shown_however_long_it_has_waited(queues: Shop) -> None:
    """From its alarm, and once that has rung from what is in its place."""
    chord = queues.chord(3)
    chord.part(1)
    early = queues.find(chord)
    _ring(queues, chord)
    with pytest.raises(BackendError, match="on its way to a worker"):
        queues.find(chord)
    chord.alarm()
    late = queues.find(chord)
    for row in (early, late):
        assert row is not None
        assert (row.came, list(row.missing or ())) == (1, [0, 2])
        assert (row.task, row.waiting.size) == ("t.body", 3)
    for index in (0, 2):
        chord.part(index)
    assert queues.find(chord) is None
    assert chord.follow.bodies == [[0, 1, 2]]


def _ring(shop: Shop, chord: Chord) -> None:
    """Take the alarm out of the queue, as the broker does when its time has come."""
    with line_to(shop.broker) as line:
        line.channel.basic_get(PREFIX + chord.id, auto_ack=True)


def test_the_first_alarm_rings_before_the_chord_is_given_up(
    make_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is when the chord gets on the list."""
    monkeypatch.setattr(join_queue, "LISTED_AFTER", 0.01)
    shop = make_shop("embedded")
    shop.apps[0].transport.io.run(_declared(shop.apps[0]), TIMEOUT)
    shop.chord(2)
    with line_to(shop.broker) as line:
        properties, _ = line.take(shop.apps[0].settings.default_queue)
    assert properties.headers is not None
    assert properties.headers["task"] == EXPIRE


async def _declared(app: App) -> None:
    link = app.transport.link("publish")
    link.start()
    await declare(await link.up(), app.topology())


# -- given up ---------------------------------------------------------------------------


@pytest.fixture(params=LISTING)
def listing(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers of each store that lists open chords, where one is given up after a second."""
    made: Shop = make_shop(request.param, join_expires=1.0)
    return made


@pytest.fixture(params=[*QUEUES, *LISTING])
def any_listing(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers of each kind of join that knows its open chords."""
    made: Shop = make_shop(request.param)
    return made


def test_a_chord_is_given_up_by_hand(any_listing: Shop) -> None:
    """Though its time is not over; what comes later is left."""
    chord = any_listing.chord(3)
    chord.part(1)
    chord.alarm(by_hand=True)
    (error,) = chord.follow.failures
    assert "was given up by hand: 1 of 3 parts came, none yet of members 0, 2" in str(error)
    assert any_listing.find(chord) is None
    chord.alarm(by_hand=True)
    for index in range(3):
        chord.part(index)
    assert (len(chord.follow.failures), chord.follow.bodies) == (1, [])


def test_a_chord_that_ended_is_not_given_up(any_listing: Shop) -> None:
    """Nor is one that failed, whose body has ended."""
    joined, failed = any_listing.chord(2), any_listing.chord(2)
    for index in range(2):
        joined.part(index)
        failed.part(index, error=ValueError("bad"))
    for chord in (joined, failed):
        chord.alarm(by_hand=True)
    assert (joined.follow.bodies, joined.follow.failures) == ([[0, 1]], [])
    assert len(failed.follow.failures) == 1


def test_a_chord_whose_end_was_not_safe_is_given_up_by_the_next_alarm(any_listing: Shop) -> None:
    """The alarm is a message: whoever dies over it leaves it to another worker."""
    chord = any_listing.chord(2)
    chord.part(0)
    chord.follow.refuse_failures.append(ConnectionLost("gone"))
    with pytest.raises(ConnectionLost, match="gone"):
        chord.alarm(by_hand=True)
    assert chord.follow.failures == []
    chord.alarm(by_hand=True, worker=1)
    assert len(chord.follow.failures) == 1


def test_a_chord_that_nobody_knows_is_not_given_up(any_listing: Shop) -> None:
    """Its alarm came twice, say, and the second one after all traces of its end were gone."""
    chord = any_listing.chord(2, opened=False)
    chord.alarm(by_hand=True)
    assert chord.follow.failures == []


def test_open_chords_are_on_record(listing: Shop) -> None:
    """From the opening to the end, with when they are given up."""
    chord, other = listing.chord(2), listing.chord(1)
    other.part(0, error=ValueError("bad"))
    chord.part(1)
    rows = listing.listed()
    assert other.id not in rows
    row = rows[chord.id]
    assert (row.kept, row.came, row.waiting.size, row.task) == ("store", 1, 2, "t.body")
    assert row.due == pytest.approx(row.waiting.opened + 1.0, abs=1.1)
    found = listing.find(chord)
    assert found is not None
    assert found.waiting == row.waiting
    chord.part(0)
    assert chord.id not in listing.listed()
    assert listing.find(chord) is None


def test_who_takes_an_overdue_chord_has_it_for_a_while(listing: Shop) -> None:
    """Nobody else gets it before the claim ends, and then somebody does."""
    chord = listing.chord(2)
    due = wall() + 2.0
    assert chord.id not in _taken_chords(listing, wall() - 10.0, due)
    assert chord.id in _taken_chords(listing, due, due + 60.0)
    assert chord.id not in _taken_chords(listing, due, due + 60.0)
    assert chord.id not in _taken_chords(listing, due + 59.0, due + 60.0)
    assert chord.id in _taken_chords(listing, due + 60.0, due + 120.0)
    listing.register.put_off([chord.id, "unknown"], due + 200.0)
    assert chord.id not in _taken_chords(listing, due + 150.0, due + 200.0)
    assert chord.id in _taken_chords(listing, due + 200.0, due + 250.0)
    listing.register.drop(chord.id)
    listing.register.drop(chord.id)
    assert chord.id not in _taken_chords(listing, due + 999.0, due + 1000.0)
    assert listing.register.find("unknown") is None


def _taken_chords(shop: Shop, now: float, until: float) -> dict[str, OpenChord]:
    return {each.group_id: each for each in shop.register.take(now, until, 1000)}


def test_chords_of_another_home_are_left(make_shop: Any) -> None:
    """Apps of another broker may use the same store, and have queues of their own."""
    ours, theirs = make_shop("redis"), make_shop("redis")
    chord = ours.chord(1)
    assert chord.id in ours.listed()
    assert chord.id not in theirs.listed()


def test_a_chord_of_which_no_part_came_is_given_up(listing: Shop) -> None:
    """All members were lost, and there is nobody else to tell."""
    chord = listing.chord(2)
    eventually(lambda: _taken_chords(listing, wall(), wall() + 60.0).get(chord.id))
    chord.alarm()
    (error,) = chord.follow.failures
    assert "was given up after 1 s: 0 of 2 parts came, none yet of members 0, 1" in str(error)
    assert chord.id not in listing.listed()


def test_what_was_added_on_the_way_may_be_what_is_missing(any_listing: Shop) -> None:
    """The header is complete then."""
    chord = any_listing.chord(1)
    chord.part(0, extra=2)
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.alarm(by_hand=True)
    (error,) = chord.follow.failures
    assert "2 of 3 parts came, none yet of 1 added on the way" in str(error)


def test_a_part_in_redis_puts_off_that_its_chord_is_given_up(make_shop: Any) -> None:
    """For as long as a chord waits; whoever finds it too early puts it down for later."""
    shop = make_shop("redis", join_expires=600.0)
    chord = shop.chord(2)
    late = wall() + 900.0
    assert chord.id in _taken_chords(shop, late, late)
    chord.part(0)
    assert chord.id not in _taken_chords(shop, late, late)
    assert shop.listed()[chord.id].due > late + 500.0
    chord.alarm()
    assert chord.follow.failures == []


def test_a_chord_that_a_celery_worker_ended_is_not_given_up(
    make_shop: Any, request: pytest.FixtureRequest
) -> None:
    """It deletes the size, and knows nothing of the register."""
    shop = make_shop("redis")
    chord = shop.chord(2)
    client: Any = redis_py.Redis.from_url(request.getfixturevalue("redis").url)
    assert client.delete(f"{STORE_PREFIX}_celery-taskset-meta-{chord.id}.s") == 1
    client.close()
    assert chord.id not in shop.listed()
    chord.alarm(by_hand=True)
    assert chord.follow.failures == []
    assert shop.register.find(chord.id) is None


def test_chords_that_only_celery_workers_see_do_not_pile_up(make_shop: Any) -> None:
    """Who opens a chord strikes off what has been overdue for as long as a record is kept."""
    shop = make_shop("redis")
    shop.register.note(OpenChord("old", b"{}", wall() - ON_RECORD - 60.0), 600.0)
    shop.register.note(OpenChord("late", b"{}", wall() - ON_RECORD + 600.0), 600.0)
    chord = shop.chord(1)
    assert [each.group_id for each in shop.register.list(9)] == ["late", chord.id]


def test_a_record_that_redis_has_dropped_is_named(
    make_shop: Any, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """No worker was there for longer than it is kept: nobody knows what the body was."""
    shop = make_shop("redis")
    chord = shop.chord(2)
    client: Any = redis_py.Redis.from_url(request.getfixturevalue("redis").url)
    assert client.delete(f"{STORE_PREFIX}_celery-taskset-meta-{chord.id}.b") == 1
    client.close()
    assert _taken_chords(shop, wall() + 90_000.0, wall() + 90_001.0) == {}
    assert f"chord.off_record group={chord.id}" in caplog.text
    assert chord.id not in shop.listed()


def test_a_store_that_cannot_list_says_so(make_shop: Any) -> None:
    """And which ones can."""
    shop = make_shop("memcached")
    shop.chord(1).part(0)
    with pytest.raises(BackendError, match="cannot tell which chords are open"):
        shop.listed()


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
