"""Deaf consumers: what speaks for one, what does not, and what is done about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from amqtask.errors import AccessRefused, ChannelClosed, ConnectionLost
from amqtask.transport import Consumer, Session, watch
from amqtask.transport.watch import Watch
from tests.helpers import aeventually
from tests.unit.transport.fakes import FakeLink, FakeSession, as_link

DEAF = "3 messages wait in it"


@dataclass
class Progress:
    last: int = 0
    outstanding: int = 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other as fast as the loop turns; renewals are far away."""
    for name, value in {"LOOK": 0.001, "AGAIN": 0.001, "MOST": 0.004, "RENEW": 1e9}.items():
        monkeypatch.setattr(watch, name, value)


@pytest.fixture
async def session() -> FakeSession:
    return FakeSession()


async def _verdict(session: FakeSession, progress: Progress, prefetch: int = 10) -> str | None:
    watching = Watch("q").until_deaf(_as_session(session), progress, prefetch)
    async with asyncio.timeout(60):
        return await watching


async def _hears_on(session: FakeSession, progress: Progress, prefetch: int = 10) -> bool:
    """Whether it is still listened to after many looks."""
    watching = asyncio.create_task(Watch("q").until_deaf(_as_session(session), progress, prefetch))
    _, pending = await asyncio.wait([watching], timeout=0.1)
    watching.cancel()
    return bool(pending)


def _as_session(session: FakeSession) -> Session:
    return session  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("look", "why"),
    [
        ((3, 1), DEAF),
        ((0, 0), "it has no consumer"),
        (ChannelClosed("gone", code=404, text="NOT_FOUND"), "the queue is gone"),
    ],
)
async def test_what_speaks_for_it(
    session: FakeSession, look: tuple[int, int] | Exception, why: str
) -> None:
    """Twice in a row, while nothing was delivered."""
    session.looks = [look]
    assert await _verdict(session, Progress()) == why


@pytest.mark.parametrize(
    "look",
    [
        (0, 1),
        ConnectionLost("lost"),
        ChannelClosed("busy", code=405, text="RESOURCE_LOCKED"),
        AccessRefused("no"),
    ],
)
async def test_what_does_not(session: FakeSession, look: tuple[int, int] | Exception) -> None:
    """An empty queue, and whatever has another cause."""
    session.looks = [look]
    assert await _hears_on(session, Progress())


async def test_once_is_not_enough(session: FakeSession) -> None:
    """A message that came in just before the look is on its way."""
    session.looks = [(3, 1), (0, 1)] * 200
    assert await _hears_on(session, Progress())


async def test_who_holds_all_it_may_is_not_deaf(session: FakeSession) -> None:
    """Long tasks and a full prefetch: messages wait, as they should."""
    session.looks = [(3, 1)]
    assert await _hears_on(session, Progress(5, 10), prefetch=10)
    assert session.channels == []  # the broker was not even asked


async def test_who_was_given_something_is_not_deaf(session: FakeSession) -> None:
    """Between the two looks, too."""
    progress = Progress()

    class Given(list[tuple[int, int] | Exception]):
        def __getitem__(self, index: int) -> tuple[int, int]:  # type: ignore[override]
            progress.last += 1
            return (3, 1)

    session.looks = Given([(3, 1)])
    assert await _hears_on(session, progress)


async def test_who_may_not_look_does_not_try_again(
    session: FakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ 4.3.0 asks for more rights than a worker needs; it says so once."""
    session.looks = [AccessRefused("broker refused")]
    with caplog.at_level(logging.INFO):
        assert await _hears_on(session, Progress())
    assert len(session.channels) == 1
    assert caplog.text.count("consumer.unwatched") == 1


async def test_looks_become_rarer_while_nothing_comes() -> None:
    """A consumer that waits for its turn would be made anew for ever."""
    session = FakeSession()
    session.looks = [(3, 1)]
    progress = Progress()
    watching = Watch("q")
    pauses = []
    for _ in range(4):
        assert await watching.until_deaf(_as_session(session), progress, 10) == DEAF
        pauses.append(watching._pause)
    assert pauses == [0.002, 0.004, 0.004, 0.004]


@pytest.mark.parametrize(
    ("version", "outstanding", "renewed"),
    [
        ((3, 10), 0, True),
        ((3, 13), 0, True),
        ((3, 10), 1, False),
        ((4, 0), 0, False),
        (None, 0, False),
    ],
)
async def test_quiet_for_long_where_consumers_are_forgotten(
    session: FakeSession,
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int] | None,
    outstanding: int,
    renewed: bool,
) -> None:
    """Old RabbitMQ shows nothing at all: it is made anew while that costs nobody's work."""
    monkeypatch.setattr(watch, "RENEW", 0.005)
    session.rabbitmq = version
    progress = Progress(0, outstanding)
    if renewed:
        assert await _verdict(session, progress) is None
    else:
        assert await _hears_on(session, progress)


# -- the consumer ---------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.prepared = 0
        self.states: list[bool] = []

    async def prepare(self, _: Session) -> None:
        self.prepared += 1


@pytest.fixture
async def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def consumer(link: FakeLink, heard: Heard) -> AsyncIterator[Consumer]:
    made = Consumer(
        as_link(link),
        "email",
        prefetch=10,
        on_delivery=lambda _: None,
        prepare=heard.prepare,
        on_change=lambda each: heard.states.append(each.consuming),
    )
    made.start()
    yield made
    await made.close()


async def test_a_deaf_consumer_is_made_anew(
    link: FakeLink, consumer: Consumer, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """On another channel, after the queue was looked after; not ready meanwhile, and said so."""
    session = link.connect()
    session.looks = [(3, 1), (3, 1), (0, 1)]
    await aeventually(lambda: heard.states == [True, False, True])
    consumed = [channel for channel in session.channels if channel.prefetch]
    assert [channel.is_open for channel in consumed] == [False, True]
    assert heard.prepared == 2
    assert "consumer.deaf queue='email' why='3 messages wait in it'" in caplog.text


async def test_what_still_runs_keeps_its_channel_the_first_time(
    link: FakeLink, consumer: Consumer, heard: Heard
) -> None:
    """Its acks would be lost with the channel; only when that does not help they are."""
    session = link.connect()
    await aeventually(lambda: consumer.consuming)
    channel = session.channels[0]
    channel.deliver(b"", 1)
    session.looks = [(3, 1), (3, 1), (0, 1)]
    await aeventually(lambda: heard.states == [True, False, True])
    assert channel.is_open
    assert channel.prefetch == [10, 10]
    session.looks = [(3, 1), (3, 1), (0, 1)]
    await aeventually(lambda: heard.states == [True, False, True, False, True])
    assert not channel.is_open


async def test_a_renewal_is_no_loss(
    link: FakeLink,
    consumer: Consumer,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is wrong, so nothing is said, and readiness stays."""
    monkeypatch.setattr(watch, "RENEW", 0.005)
    session = link.connect()
    session.rabbitmq = (3, 10)
    await aeventually(lambda: len([c for c in session.channels if c.prefetch]) >= 3)
    assert heard.states == [True]
    assert caplog.records == []
