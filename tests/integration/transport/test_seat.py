"""A seat for one: who leads knows it, who does not sends nothing, and records are handed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from amqtask.errors import Blocked, ConnectionLost, PublishError, TransportError, Unroutable
from amqtask.message.model import Message
from amqtask.topology.beating import beat_queue_arguments
from amqtask.topology.plan import DeclareQueue, Plan
from amqtask.transport import BrokerURL, Publication, Requirement, Session
from amqtask.transport import seat as seats
from amqtask.transport.declare import declare
from amqtask.transport.fenced import Fenced
from amqtask.transport.seat import Seat
from tests.helpers import aeventually
from tests.proxy import proxied
from tests.servers import Names

Connect = Callable[..., Any]


@pytest.fixture
async def connect(broker: str) -> AsyncIterator[Connect]:
    """Opens sessions; closes those that are left."""
    made: list[Session] = []

    async def open_(url: str = broker) -> Session:
        session = await Session.open(
            BrokerURL.parse(url), epoch=1, name="seat", heartbeat=30, timeout=10
        )
        made.append(session)
        return session

    yield open_
    for session in made:
        await session.close()


@pytest.fixture
def queue(names: Names) -> str:
    """The queue that is led."""
    return names.queue("seat")


async def sit(session: Session, queue: str) -> Seat:
    plan = Plan((DeclareQueue(queue, arguments=beat_queue_arguments("quorum")),))
    await declare(session, plan)
    return await Seat.sit(session, queue)


async def test_one_leads_and_hands_over(connect: Connect, queue: str) -> None:
    """The second one waits, and gets what the first one held, the newest record included."""
    first, second = await sit(await connect(), queue), await sit(await connect(), queue)
    assert await first.lead()
    assert first.may()
    assert not first.held
    waiting = asyncio.create_task(second.lead())
    old = await first.put(Message(b"old"))
    await first.put(Message(b"new"))
    first.drop(old)
    assert not second.may()
    assert not waiting.done()
    await first.release()
    assert not first.may()
    assert await waiting
    assert [held.message.body for held in second.held.values()] == [b"new"]
    await second.release()


async def test_a_leader_whose_connection_ends_is_followed(connect: Connect, queue: str) -> None:
    """It knows at once that it leads no more, and can show nothing."""
    session = await connect()
    first, second = await sit(session, queue), await sit(await connect(), queue)
    assert await first.lead()
    await first.put(Message(b"record"))
    session.abort()
    await first.over
    assert not first.may()
    with pytest.raises(ConnectionLost):
        await first.prove()
    with pytest.raises(ConnectionLost):
        await first.put(Message(b"more"))
    assert await second.lead()
    assert [held.message.body for held in second.held.values()] == [b"record"]
    await second.release()


async def test_a_proof_runs_out(
    connect: Connect, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a process that was stopped, or a machine that slept: it has to be shown again."""
    now = [1000.0]
    monkeypatch.setattr(seats, "awake", lambda: now[0])
    seat = await sit(await connect(), queue)
    assert await seat.lead()
    now[0] += seats.LEASE
    assert seat.may()
    now[0] += 0.1
    assert not seat.may()
    await seat.prove()
    assert seat.may()
    now[0] += seats.LEASE + 1
    await seat.put(Message(b"a record is a proof too"))
    assert seat.may()
    await seat.release()


async def test_who_is_not_heard_gives_up(
    connect: Connect, queue: str, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection over which nothing comes back is dropped, so that another one leads."""
    with proxied(broker) as proxy:
        session = await connect(proxy.url)
        first = await sit(session, queue)
        assert await first.lead()
        second = await sit(await connect(), queue)
        await asyncio.to_thread(proxy.black_hole)
        with monkeypatch.context() as hurried:
            hurried.setattr(seats, "PATIENCE", 0.5)
            with pytest.raises(ConnectionLost, match="did not come back within 0.5 s"):
                await first.prove()
        assert not first.may()
        await asyncio.wait_for(asyncio.shield(session.closed), 60)
        await asyncio.to_thread(proxy.cut)
        assert await second.lead()
        await second.release()


async def test_records_of_others_are_news(connect: Connect, queue: str) -> None:
    """One that is in line gives what it remembers to the one that leads."""
    first, second = await sit(await connect(), queue), await sit(await connect(), queue)
    assert await first.lead()
    second.send(Message(b"remembered"))
    await asyncio.wait_for(first.news.wait(), 60)
    assert [held.message.body for held in first.held.values()] == [b"remembered"]
    await first.release()
    await second.release()


async def test_a_deleted_queue_ends_the_seat(connect: Connect, queue: str) -> None:
    """Whoever leads it, and whoever stands in line."""
    session = await connect()
    seat = await sit(session, queue)
    assert await seat.lead()
    await seat.put(Message(b"record"))
    channel = await (await connect()).channel()
    await channel.delete_queue(queue)
    await asyncio.wait_for(asyncio.shield(seat.over), 60)
    assert not seat.may()
    await seat.release()


# -- sending with the right to ------------------------------------------------------


def to(queue: str, body: bytes = b"x", **said: Any) -> Publication:
    return Publication(Message(body, message_id=body.decode()), "", queue, **said)


async def make(session: Session, queue: str, **arguments: Any) -> None:
    said = {"x-queue-type": "classic", **arguments}
    await declare(session, Plan((DeclareQueue(queue, arguments=said),)))


async def size(session: Session, queue: str) -> int:
    channel = await session.channel()
    _, ready, _ = await channel.declare_queue(queue, passive=True)
    await channel.close()
    return ready


async def test_what_may_be_sent_is_confirmed(connect: Connect, queue: str) -> None:
    """More than one batch of it, in order, what it requires made first."""
    session = await connect()
    fenced = Fenced(session)

    async def prepare(session: Session) -> None:
        await make(session, queue)

    needed = Requirement("queue", prepare)
    sent = [to(queue, str(n).encode(), requires=(needed,)) for n in range(1200)]
    await fenced.publish(sent, may=lambda: True, timeout=30)
    assert all(each.done and each.error is None for each in sent)
    assert await size(session, queue) == 1200
    await fenced.close()


async def test_what_it_needs_is_made_before_the_right_is_asked_for(
    connect: Connect, queue: str
) -> None:
    """Declaring takes its time, and the proof is fresh when the bytes go out."""
    session = await connect()
    said: list[str] = []

    async def prepare(session: Session) -> None:
        said.append("prepared")
        await make(session, queue)

    def may() -> bool:
        said.append("asked")
        return True

    fenced = Fenced(session)
    sent = [to(queue, requires=(Requirement("queue", prepare),))]
    await fenced.prepare(sent)
    assert said == ["prepared"]
    await fenced.publish(sent, may=may, timeout=10)
    assert said == ["prepared", "asked"]
    assert sent[0].error is None


async def test_without_the_right_nothing_is_sent(connect: Connect, queue: str) -> None:
    """It is asked right before: all of it fails, and nothing is in the queue."""
    session = await connect()
    await make(session, queue)
    fenced = Fenced(session)
    sent = [to(queue) for _ in range(3)]
    await fenced.publish(sent, may=lambda: False, timeout=10)
    assert all(isinstance(each.error, PublishError) for each in sent)
    assert "the right to send has lapsed" in str(sent[0].error)
    assert await size(session, queue) == 0


async def test_a_session_that_has_ended_sends_nothing(connect: Connect, queue: str) -> None:
    """Nothing is sent over another one."""
    session = await connect()
    await make(session, queue)
    session.abort()
    await session.closed
    sent = [to(queue)]
    await Fenced(session).publish(sent, may=lambda: True, timeout=10)
    assert isinstance(sent[0].error, PublishError)
    assert await size(await connect(), queue) == 0


async def test_each_failure_is_its_own(connect: Connect, queue: str, names: Names) -> None:
    """A queue that is not there, an exchange that is not there, one that is full: others go out."""
    session = await connect()
    full = names.queue("full")
    await make(session, queue)
    await make(session, full, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    fenced = Fenced(session)
    await fenced.publish([to(full)], may=lambda: True, timeout=10)
    lost = Publication(Message(b"z", message_id="z"), names.exchange("nowhere"), "key")
    sent = [to(queue, b"a"), to(f"{queue}-gone"), lost, to(full, b"b"), to(queue, b"c")]
    await fenced.publish(sent, may=lambda: True, timeout=30)
    good, gone, nowhere, refused, also = sent
    assert good.error is None
    assert also.error is None
    assert isinstance(gone.error, Unroutable)
    assert isinstance(nowhere.error, Unroutable)
    assert isinstance(refused.error, TransportError)
    assert "the queue refused it" in str(refused.error)
    assert await size(session, queue) >= 2


async def test_an_alarm_is_said(connect: Connect, queue: str) -> None:
    """While the broker takes no messages nothing is sent, and nothing waits for that to end."""
    session = await connect()
    session.blocked = "low on memory"
    sent = [to(queue)]
    await Fenced(session).publish(sent, may=lambda: True, timeout=10)
    assert isinstance(sent[0].error, Blocked)
    await aeventually(lambda: sent[0].done)
