"""Keeping a session: which URL is tried when, and what is said in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from amqtask.errors import AccessRefused, BrokerUnreachable, ConnectionLost, TransportError
from amqtask.transport import BrokerURL, Link, Session
from amqtask.transport.backoff import Backoff
from tests.helpers import aeventually

ONE, TWO, THREE = [BrokerURL.parse(f"amqp://{name}") for name in ("one", "two", "three")]


class OpenSession:
    """A session that ends when a test says so."""

    def __init__(self, url: BrokerURL, epoch: int) -> None:
        self.url, self.epoch = url, epoch
        self.closed: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        return not self.closed.done()

    def lose(self) -> None:
        self.closed.set_result(ConnectionLost("lost"))

    async def close(self) -> None:
        self.closed.set_result(ConnectionLost("closed here"))

    def abort(self) -> None:
        self.closed.set_result(ConnectionLost("aborted"))


class Brokers:
    """What each URL answers, and in which order they were asked."""

    def __init__(self) -> None:
        self.answers: dict[BrokerURL, TransportError | None] = {}
        self.asked: list[BrokerURL] = []

    async def open(self, url: BrokerURL, *, epoch: int, **_: Any) -> OpenSession:
        self.asked.append(url)
        await asyncio.sleep(0)
        if (error := self.answers.get(url)) is not None:
            raise error
        return OpenSession(url, epoch)


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Brokers:
    made = Brokers()
    monkeypatch.setattr(Session, "open", made.open)
    return made


@pytest.fixture
async def make(brokers: Brokers) -> AsyncIterator[Callable[..., Link]]:
    links: list[Link] = []

    def make(*urls: BrokerURL) -> Link:
        backoff = Backoff(first=0.01, cap=0.02)
        link = Link(urls, name="test", heartbeat=30, connect_timeout=1, backoff=backoff)
        links.append(link)
        link.start()
        return link

    yield make
    for link in links:
        await link.close()


async def test_fails_over_to_the_next_url(make: Callable[..., Link], brokers: Brokers) -> None:
    """A dead first URL costs one attempt; the one that answered is tried first from then on."""
    brokers.answers[ONE] = BrokerUnreachable("one is dead")
    link = make(ONE, TWO, THREE)
    session = await link.up()
    assert (session.url, brokers.asked) == (TWO, [ONE, TWO])
    assert (link.last_error, link.refused) == (None, False)
    session.lose()  # type: ignore[attr-defined]
    session = await link.up()
    assert (session.url, brokers.asked) == (TWO, [ONE, TWO, TWO])


async def test_each_attempt_has_an_epoch_of_its_own(make: Callable[..., Link]) -> None:
    """Epochs only count up, so an old delivery can never pass for a new one."""
    link = make(ONE)
    epochs = []
    for _ in range(4):
        session = await link.up()
        epochs.append(session.epoch)
        session.lose()  # type: ignore[attr-defined]
        await aeventually(lambda: link.session is not None)
    assert epochs == sorted(set(epochs))


async def test_tries_for_ever(make: Callable[..., Link], brokers: Brokers) -> None:
    """No number of failures ends it; the last error says why it is down."""
    brokers.answers[ONE] = brokers.answers[TWO] = BrokerUnreachable("nobody there")
    link = make(ONE, TWO)
    await aeventually(lambda: len(brokers.asked) >= 20)
    assert link.session is None
    assert str(link.last_error) == "nobody there"
    brokers.answers.clear()
    await link.up()
    assert link.last_error is None


async def test_refused_only_when_every_url_refused(
    make: Callable[..., Link], brokers: Brokers
) -> None:
    """A password that one broker refuses may be good on the one that is down now."""
    brokers.answers = {ONE: AccessRefused("no"), TWO: BrokerUnreachable("down")}
    link = make(ONE, TWO)
    await aeventually(lambda: len(brokers.asked) >= 6)
    assert not link.refused
    brokers.answers[TWO] = AccessRefused("no")
    await aeventually(lambda: link.refused)
    brokers.answers.clear()
    await link.up()
    assert link.refused is False


async def test_tells_of_each_change(make: Callable[..., Link], brokers: Brokers) -> None:
    """Told when up, when lost, and after each round in vain."""
    brokers.answers[ONE] = BrokerUnreachable("down")
    link = make(ONE)
    seen: list[tuple[bool, str]] = []
    link.on_change.append(lambda: seen.append((link.session is not None, str(link.last_error))))
    await aeventually(lambda: seen)
    assert seen[0] == (False, "down")
    brokers.answers.clear()
    session = await link.up()
    await aeventually(lambda: seen[-1] == (True, "None"))
    brokers.answers[ONE] = BrokerUnreachable("down again")
    session.lose()  # type: ignore[attr-defined]
    await aeventually(lambda: (False, "lost") in seen)
    await aeventually(lambda: (False, "down again") in seen)


async def test_start_twice_is_one_connection(make: Callable[..., Link], brokers: Brokers) -> None:
    """Publisher and consumers each start the link they share."""
    link = make(ONE)
    link.start()
    await link.up()
    link.start()
    await asyncio.sleep(0)
    assert brokers.asked == [ONE]


async def test_close_while_waiting(make: Callable[..., Link], brokers: Brokers) -> None:
    """A link that waits for its next try stops at once, and tries no more."""
    brokers.answers[ONE] = BrokerUnreachable("down")
    link = make(ONE)
    await aeventually(lambda: link.last_error is not None)
    await link.close()
    assert link._task is not None
    assert link._task.cancelled()


async def test_close_closes_the_session(make: Callable[..., Link]) -> None:
    """In good order; a second close finds nothing to do."""
    link = make(ONE)
    session = await link.up()
    await link.close()
    assert not session.is_open
    assert link.session is None


async def test_a_long_outage_is_said_once(
    make: Callable[..., Link], brokers: Brokers, caplog: pytest.LogCaptureFixture
) -> None:
    """Tried again all the time, said again only when there is something new, and at its end."""
    brokers.answers[ONE] = BrokerUnreachable("nobody there")
    link = make(ONE)
    await aeventually(lambda: len(brokers.asked) >= 10)
    brokers.answers[ONE] = AccessRefused("wrong password")
    await aeventually(lambda: len(brokers.asked) >= 20)
    brokers.answers.clear()
    with caplog.at_level(logging.INFO):
        await link.up()
        await aeventually(lambda: "broker.connected" in caplog.text)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
    assert [line.split(" ", 1)[0] for line in said] == [
        "broker.unreachable",
        "broker.unreachable",
        "broker.connected",
    ]
    assert "nobody there" in said[0]
    assert "wrong password" in said[1]
