"""Cancelled calls on record: who learns of them, in which order readers get their turn, what goes.

On the embedded broker too: development and tests of applications cancel there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from amqtask import App
from amqtask.broker import Broker
from amqtask.message.cancellation import Cancellation, encode_cancellation
from amqtask.testing.servers import Server
from amqtask.topology.cancelling import MARKS, register_arguments, register_name
from amqtask.transport.backoff import Backoff
from amqtask.worker import cancelled
from amqtask.worker.cancelled import Cancelled
from tests.helpers import TIMEOUT, aeventually, eventually
from tests.proxy import proxied
from tests.servers import Names

FAR = 4_000_000_000.0


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    with Broker().start_in_thread() as broker:
        yield broker.url


@pytest.fixture(scope="module", params=["rabbitmq", "rabbitmq4", "embedded"])
def broker(request: pytest.FixtureRequest) -> str:
    found: Server | str = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else found.url


MakeApp = Callable[..., App]


@pytest.fixture
def make_app(broker: str, names: Names) -> Iterator[MakeApp]:
    """Makes apps that share one register."""
    exchange = names.cancel_exchange()
    with ExitStack() as stack:

        def make(**settings: Any) -> App:
            said = {"broker": broker, "cancel_exchange": exchange, **settings}
            return stack.enter_context(App("cancelling", environ={}, **said))

        yield make


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app()


class Follower:
    """A `Cancelled` on its app's I/O loop.

    Attributes:
        heard: What it called back with.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.heard: list[tuple[str, bool]] = []
        self.cancelled = app.transport.io.run(self._start(), TIMEOUT)

    async def _start(self) -> Cancelled:
        made = Cancelled(self.app, lambda id_, terminate: self.heard.append((id_, terminate)))
        made.start()
        return made

    @property
    def ready(self) -> bool:
        return self.cancelled.ready

    @property
    def ids(self) -> list[str]:
        return [id_ for id_, _ in self.heard]

    def wait(self, timeout: float = TIMEOUT) -> Follower:
        eventually(lambda: self.ready, timeout=timeout, message="it did not read the register")
        return self

    async def caught_up(self) -> None:
        session = await self.app.transport.link("consume").up()
        await self.cancelled.caught_up(session)

    def close(self) -> None:
        self.app.transport.io.run(self.cancelled.close(), TIMEOUT)


@pytest.fixture
def follow(make_app: MakeApp) -> Iterator[Callable[..., Follower]]:
    """Starts followers, each with connections of its own."""
    made: list[Follower] = []

    def start(app: App | None = None) -> Follower:
        made.append(Follower(app or make_app()))
        return made[-1]

    yield start
    for follower in made:
        follower.close()


@pytest.fixture
def look(broker: str) -> Iterator[Callable[..., BlockingChannel]]:
    """Opens channels of pika's, each on a connection of its own."""
    with ExitStack() as stack:

        def open_(url: str = broker) -> BlockingChannel:
            parameters = pika.URLParameters(url)
            parameters.heartbeat = 0
            connection = pika.BlockingConnection(parameters)
            stack.callback(_close, connection)
            channel = connection.channel()
            channel.confirm_delivery()
            return channel

        yield open_


def _close(connection: pika.BlockingConnection) -> None:
    with contextlib.suppress(pika.exceptions.AMQPError):  # several tests cut it
        connection.close()


def _ready(channel: BlockingChannel, app: App) -> int:
    declared = channel.queue_declare(register_name(app.settings), passive=True)
    return int(declared.method.message_count)


def _declare_register(channel: BlockingChannel, app: App) -> str:
    name = register_name(app.settings)
    channel.queue_declare(name, durable=True, arguments=register_arguments(app.settings))
    return name


# -- who learns of it -----------------------------------------------------------------


def test_who_starts_later_knows_it(app: App, follow: Callable[..., Follower]) -> None:
    """Nobody was there when it was cancelled: that is what the register is for."""
    app.cancel(["one", "two"])
    app.cancel("three", terminate=True)
    follower = follow().wait()
    assert follower.heard == [("one", False), ("two", False), ("three", True)]
    record = follower.cancelled.get("three")
    assert record is not None
    assert record.terminate
    assert follower.cancelled.get("four") is None


def test_who_is_there_hears_it_at_once(app: App, follow: Callable[..., Follower]) -> None:
    """Every process that follows gets every record."""
    followers = [follow().wait() for _ in range(3)]
    app.cancel("one")
    for follower in followers:
        eventually(lambda f=follower: f.heard == [("one", False)])  # type: ignore[misc]


def test_one_record_is_heard_once(app: App, follow: Callable[..., Follower]) -> None:
    """Cancelled again is nothing new, unless it is now to be ended for certain."""
    follower = follow().wait()
    app.cancel("one")
    app.cancel("one")
    app.cancel("one", terminate=True)
    app.cancel("one")
    app.cancel("two")
    eventually(lambda: "two" in follower.ids)
    assert follower.heard == [("one", False), ("one", True), ("two", False)]


def test_readers_take_turns(
    app: App, follow: Callable[..., Follower], look: Callable[..., BlockingChannel]
) -> None:
    """More readers than RabbitMQ 4 allows returns by default, at once: each gets all, all stays."""
    ids = [f"id-{number}" for number in range(50)]
    app.cancel(ids)
    followers = [follow() for _ in range(24)]
    for follower in followers:
        assert follower.wait(60).ids == ids
    channel = look()
    # marks of other readers may still be there for a moment
    eventually(lambda: _ready(channel, app) >= 50)
    assert follow().wait().ids == ids


def test_ten_thousand_records(app: App, follow: Callable[..., Follower]) -> None:
    """A register that is full is read whole."""
    ids = [f"id-{number}" for number in range(10_000)]
    app.cancel(ids)
    for follower in [follow() for _ in range(3)]:
        assert follower.wait(60).ids == ids


def test_a_cancel_between_binding_and_reading_is_not_missed(
    make_app: MakeApp, follow: Callable[..., Follower]
) -> None:
    """Records that come while many start: each of them knows each."""
    apps = [make_app() for _ in range(4)]
    ids = [f"id-{number}" for number in range(200)]

    def cancel() -> None:
        for id_ in ids:
            apps[0].cancel(id_)

    thread = threading.Thread(target=cancel)
    thread.start()
    followers = [follow() for _ in range(8)]
    thread.join(60)
    for follower in followers:
        follower.wait(60)
        eventually(lambda f=follower: sorted(f.ids) == sorted(ids))  # type: ignore[misc]


# -- bounds ---------------------------------------------------------------------------


def test_the_oldest_goes_when_it_is_full(
    make_app: MakeApp, follow: Callable[..., Follower], look: Callable[..., BlockingChannel]
) -> None:
    """Register and worker remember ``cancel_limit`` records, the newest."""
    app = make_app(cancel_limit=20)
    ids = [f"id-{number}" for number in range(400)]
    app.cancel(ids)
    channel = look()
    eventually(lambda: _ready(channel, app) <= 20 + MARKS)
    follower = follow(make_app(cancel_limit=20)).wait()
    assert follower.ids == ids[-len(follower.ids) :]
    known = [id_ for id_ in ids if follower.cancelled.get(id_)]
    assert known == ids[-len(known) :]
    assert 17 < len(known) <= 20


def test_what_is_over_is_taken_out_behind_what_is_not(
    app: App, follow: Callable[..., Follower], look: Callable[..., BlockingChannel]
) -> None:
    """A broker expires only what is at the head; readers take the rest out, and never heed it."""
    channel = look()
    app.cancel("long", keep=1000)
    register = register_name(app.settings)
    over = encode_cancellation(Cancellation("over", False, 1.0), 0.0)
    channel.basic_publish("", register, over.body, mandatory=True)
    assert follow().wait().ids == ["long"]
    eventually(lambda: _ready(channel, app) == 1)


def test_a_short_record_expires_in_the_broker(
    app: App, look: Callable[..., BlockingChannel]
) -> None:
    """Nobody needs to read it for that."""
    app.cancel("short", keep=0.2)
    channel = look()
    eventually(lambda: _ready(channel, app) == 0)


def test_what_is_no_record_is_taken_out(
    app: App, follow: Callable[..., Follower], look: Callable[..., BlockingChannel]
) -> None:
    """Whatever somebody puts there: readers go on, and leave it to nobody else."""
    channel = look()
    register = _declare_register(channel, app)
    for body in (b"", b"\xff", b"[]", b'{"id": 1, "terminate": false, "until": 4e9}', b"null"):
        channel.basic_publish("", register, body, mandatory=True)
    app.cancel("one")
    assert follow().wait().ids == ["one"]
    eventually(lambda: _ready(channel, app) == 1)


# -- what goes wrong ------------------------------------------------------------------


def test_a_reader_that_dies_gives_its_turn_on(
    app: App, broker: str, follow: Callable[..., Follower], look: Callable[..., BlockingChannel]
) -> None:
    """Cut in the middle of reading: the next one finds everything, in order."""
    ids = [f"id-{number}" for number in range(10)]
    app.cancel(ids)
    with proxied(broker) as proxy:
        holder = look(proxy.url)
        held: list[Any] = []
        holder.basic_consume(register_name(app.settings), lambda *each: held.append(each))
        while len(held) < 10:
            holder.connection.process_data_events(1)
        follower = follow()
        eventually(lambda: follower.app.transport.link("consume").session is not None)
        assert not follower.ready
        proxy.cut()
        assert follower.wait().ids == ids


def test_a_register_that_others_hold_is_not_waited_for_long(
    app: App,
    broker: str,
    follow: Callable[..., Follower],
    look: Callable[..., BlockingChannel],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Consuming goes on without it, says so once, and learns the rest when it is its turn."""
    monkeypatch.setattr(cancelled, "PATIENCE", 0.3)
    monkeypatch.setattr(cancelled, "MARK_AGAIN", 0.2)
    app.cancel("one")
    with proxied(broker) as proxy:
        look(proxy.url).basic_consume(register_name(app.settings), lambda *_: None)
        follower = follow()
        for _ in range(3):
            follower.app.transport.io.run(follower.caught_up(), TIMEOUT)
        assert not follower.ready
        said = [record.getMessage() for record in caplog.records if "cancel.late" in record.msg]
        assert len(said) == 1
        assert register_name(app.settings) in said[0]
        app.cancel("two")
        eventually(lambda: follower.ids == ["two"])  # notices do not need a turn
        proxy.cut()
        follower.wait()
    assert sorted(follower.ids) == ["one", "two"]


def test_cancelled_while_the_connection_was_lost(
    app: App, make_app: MakeApp, broker: str, follow: Callable[..., Follower]
) -> None:
    """After a lost connection everything is read anew, before anything is consumed."""
    with proxied(broker) as proxy:
        through = make_app(broker=proxy.url)
        follower = follow(through).wait()
        proxy.down()
        eventually(lambda: not follower.ready)
        app.cancel("one")
        proxy.up()
        through.transport.io.run(follower.caught_up(), TIMEOUT)
        assert follower.cancelled.get("one") is not None
        follower.wait()


def test_a_queue_of_its_own_that_is_deleted_is_made_again(
    app: App, broker: str, follow: Callable[..., Follower], make_app: MakeApp
) -> None:
    """The channel that listens is closed under it: listened to again, and read anew."""
    mine = make_app()
    follower = follow(mine).wait()

    async def harm() -> None:
        session = mine.transport.link("consume").session
        assert session is not None
        # acking what nobody delivered closes each channel there is
        for channel in list(session._raw._channels.values()):
            channel.basic_ack(99)

    mine.transport.io.run(harm(), TIMEOUT)
    eventually(lambda: not follower.ready)
    follower.wait()
    app.cancel("one")
    eventually(lambda: follower.ids == ["one"])


@pytest.mark.parametrize("declare", ["never", "passive"])
def test_without_a_register_work_goes_on(
    make_app: MakeApp,
    follow: Callable[..., Follower],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    declare: str,
) -> None:
    """Nobody waits for what is not there; one line says so; it is used once somebody made it."""
    monkeypatch.setattr(cancelled, "Backoff", lambda **_: Backoff(cap=0.05))
    app = make_app(declare=declare)
    follower = follow(app)
    app.transport.io.run(follower.caught_up(), TIMEOUT)
    assert not follower.ready
    eventually(lambda: "cancel.off" in caplog.text)
    assert "no exchange" in str(follower.cancelled.error)
    make_app().cancel("one")  # an app that declares
    follower.wait()
    assert follower.ids == ["one"]
    said = [r for r in caplog.records if "cancel.off" in r.msg and r.levelname == "WARNING"]
    assert len(said) == 1


async def test_awaited(make_app: MakeApp, follow: Callable[..., Follower]) -> None:
    """One and many, from a coroutine."""
    app = make_app()
    await app.acancel("one")
    await app.acancel(["two", "three"], terminate=True)
    follower = follow()
    await aeventually(lambda: follower.ready)
    assert follower.heard == [("one", False), ("two", True), ("three", True)]


def test_under_an_alarm_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mark can be put then, so the register cannot be read; consuming goes on all the same."""
    monkeypatch.setattr(cancelled, "PATIENCE", 0.3)
    with Broker().start_in_thread() as broker:
        with App("alarm", broker=broker.url, environ={}) as other:
            other.cancel("one")
        broker.faults.block("low on memory")
        with App("alarm", broker=broker.url, environ={}) as app:
            follower = Follower(app)
            try:
                app.transport.io.run(follower.caught_up(), TIMEOUT)
                assert not follower.ready
                broker.faults.unblock()
                assert follower.wait().ids == ["one"]
            finally:
                follower.close()
