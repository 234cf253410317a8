"""Publishing when the channel, the broker or the caller's patience fails: each message's outcome."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest

from amqtask.errors import (
    AccessRefused,
    Blocked,
    BrokerUnreachable,
    MessageTooLarge,
    PublishError,
    PublishTimeout,
    Unroutable,
)
from amqtask.transport import Publisher, Session
from amqtask.transport import publisher as module
from tests.helpers import aeventually
from tests.unit.transport.fakes import FakeLink, as_link, publication
from tests.unit.transport.publishing import WHAT, channel_of, failure_of, requirement

# -- losing the channel -----------------------------------------------------------


async def test_the_unconfirmed_go_again_first_and_in_order(
    link: FakeLink, publisher: Publisher
) -> None:
    """After a lost connection what was sent goes before what waited, each once."""
    channel = await channel_of(link)
    sent = [publication(f"q{n}") for n in range(4)]
    for each in sent:
        publisher.send(each)
    channel.ack(2)
    link.lose()
    publisher.send(publication("late"))
    again = await channel_of(link)
    await aeventually(lambda: len(again.published) == 4)
    assert [key for _, key in again.published] == ["q0", "q2", "q3", "late"]
    again.ack(4, multiple=True)
    assert all(each.error is None and each.done for each in sent)


async def test_confirms_of_an_old_channel_say_nothing(link: FakeLink, publisher: Publisher) -> None:
    """Tags start over on a new channel; a late confirm of the old one must not meet them."""
    old = await channel_of(link)
    publisher.send(sent := publication())
    link.lose()
    new = await channel_of(link)
    await aeventually(lambda: new.published)
    old.ack(1)
    new.ack(1)
    assert (sent.done, sent.error) == (True, None)


@pytest.mark.parametrize("requires", [0, 1])
async def test_a_missing_exchange_fails_only_its_own(
    link: FakeLink, publisher: Publisher, requires: int
) -> None:
    """404 closes the channel for all; those of other exchanges are sent again."""
    channel = await channel_of(link)
    good = publication("good", exchange="other")
    bad = publication(hint="list the queue")
    for each in (good, bad):
        publisher.send(each)
    channel.refuse(404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    error = await failure_of(bad)
    assert isinstance(error, Unroutable)
    assert str(error) == WHAT + "NOT_FOUND - no exchange 'x' in vhost '/'"
    assert error.hint == "list the queue"
    again = await channel_of(link, 1)
    await aeventually(lambda: again.published == [("other", "good")])
    again.ack(1)
    assert (good.done, good.error) == (True, None)


async def test_an_exchange_that_was_declared_is_declared_anew(
    link: FakeLink, publisher: Publisher
) -> None:
    """Deleted under us: the next channel declares it; a second 404 is the answer."""
    needed, met = requirement()
    channel = await channel_of(link)
    publisher.send(sent := publication(requires=[needed]))
    await aeventually(lambda: channel.published)
    channel.refuse(404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    again = await channel_of(link, 1)
    await aeventually(lambda: again.published)
    assert (sent.done, len(met)) == (False, 2)
    again.refuse(404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    assert isinstance(await failure_of(sent), Unroutable)


async def test_too_large_for_the_broker_fails_only_what_is(
    link: FakeLink, publisher: Publisher
) -> None:
    """406 names a size: those below it are sent again."""
    channel = await channel_of(link)
    small, large = publication("small"), publication(body=b"x" * 900)
    for each in (small, large):
        publisher.send(each)
    text = "PRECONDITION_FAILED - message size 900 is larger than configured max size 500"
    channel.refuse(406, text)
    error = await failure_of(large)
    assert isinstance(error, MessageTooLarge)
    assert str(error) == WHAT + text
    again = await channel_of(link, 1)
    await aeventually(lambda: again.published == [("x", "small")])


async def test_no_permission_is_said(link: FakeLink, publisher: Publisher) -> None:
    """403 names task, route and the remedy."""
    channel = await channel_of(link)
    publisher.send(sent := publication())
    channel.end(AccessRefused("broker mq refused an operation: access refused", hint="ask"))
    error = await failure_of(sent)
    assert type(error) is PublishError
    assert str(error) == WHAT + "broker mq refused an operation: access refused"
    assert error.hint == "ask"


async def test_any_other_code_is_passed_on(link: FakeLink, publisher: Publisher) -> None:
    """What the broker will refuse again is not tried for ever."""
    channel = await channel_of(link)
    publisher.send(sent := publication())
    channel.refuse(406, "PRECONDITION_FAILED - invalid expiration '-1'")
    error = await failure_of(sent)
    assert type(error) is PublishError
    assert str(error) == WHAT + (
        "broker amqp://user@mq.example:5672 closed a channel:"
        " 406 PRECONDITION_FAILED - invalid expiration '-1'"
    )


# -- limits -----------------------------------------------------------------------


async def test_the_window_bounds_what_is_unconfirmed(
    link: FakeLink, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow broker has a bounded number to confirm; each confirm lets the next one go."""
    monkeypatch.setattr(module, "WINDOW", 3)
    channel = await channel_of(link)
    for number in range(10):
        publisher.send(publication(f"q{number}"))
    assert len(channel.published) == 3
    channel.ack(1)
    assert len(channel.published) == 4
    channel.ack(4, multiple=True)
    assert len(channel.published) == 7
    channel.ack(7, multiple=True)
    channel.ack(10, multiple=True)
    assert ([key for _, key in channel.published], publisher.pending) == (
        [f"q{number}" for number in range(10)],
        0,
    )


async def test_the_window_bounds_bytes_too(
    link: FakeLink, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large bodies do not pile up in memory; what is confirmed or lost is given free."""
    monkeypatch.setattr(module, "WINDOW_BYTES", 1500)
    channel = await channel_of(link)
    for number in range(5):
        publisher.send(publication(f"q{number}", body=b"x" * 1000))
    assert len(channel.published) == 2
    channel.ack(1)
    assert len(channel.published) == 3
    link.lose()
    again = await channel_of(link)
    await aeventually(lambda: len(again.published) == 2)
    for tag in range(1, 5):
        again.ack(tag)
    assert publisher.pending == 0


async def test_nothing_is_sent_under_an_alarm(link: FakeLink, publisher: Publisher) -> None:
    """A blocked broker gets nothing until it says that it takes messages again."""
    channel = await channel_of(link)
    channel.session.blocked = "low on memory"
    publisher.send(sent := publication())
    assert channel.published == []
    channel.session.unblock()
    assert channel.published == [("x", "q")]
    channel.ack(1)
    assert sent.error is None


# -- deadlines --------------------------------------------------------------------


def _soon() -> float:
    return time.monotonic() + 0.15


async def test_blocked_in_full(link: FakeLink, publisher: Publisher) -> None:
    """At the deadline an alarm is named as the reason, with the broker's own words."""
    channel = await channel_of(link)
    channel.session.blocked = "low on memory"
    publisher.send(sent := publication(deadline=_soon()))
    error = await failure_of(sent)
    assert isinstance(error, Blocked)
    assert (
        str(error) == WHAT + "broker amqp://user@mq.example:5672 takes no messages: low on memory"
    )
    assert error.hint == "free memory or disk on the broker, or raise its watermark"
    channel.session.unblock()
    assert channel.published == []


async def test_no_confirm_in_time(link: FakeLink, publisher: Publisher) -> None:
    """A message that went out and was not confirmed may still arrive, and that is said."""
    channel = await channel_of(link)
    publisher.send(sent := publication(deadline=_soon()))
    error = await failure_of(sent)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "no confirm before the deadline; it was sent and may still arrive"
    channel.ack(1)
    assert publisher.pending == 0


async def test_no_broker_in_time(link: FakeLink, publisher: Publisher) -> None:
    """Without a connection the reason is why there is none."""
    link.fail(BrokerUnreachable("broker amqp://mq does not answer: refused"))
    publisher.send(sent := publication(deadline=_soon()))
    error = await failure_of(sent)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "broker amqp://mq does not answer: refused"
    channel = await channel_of(link)
    assert (channel.published, publisher.pending) == ([], 0)


async def test_a_requirement_that_takes_too_long(link: FakeLink, publisher: Publisher) -> None:
    """What it waited for is named; when that is there at last, nothing is sent any more."""
    gate = asyncio.Event()

    async def wait(_: Session) -> None:
        await gate.wait()

    needed, _ = requirement(wait, "reply queue")
    channel = await channel_of(link)
    publisher.send(sent := publication(requires=[needed], deadline=_soon()))
    error = await failure_of(sent)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "it waited for reply queue until its deadline"
    gate.set()
    assert await publisher.drain(5)
    assert channel.published == []


async def test_each_message_has_its_own_deadline(link: FakeLink, publisher: Publisher) -> None:
    """The patient one goes out after the impatient one gave up."""
    publisher.send(short := publication("short", deadline=_soon()))
    publisher.send(patient := publication("patient", deadline=None))
    await failure_of(short)
    channel = await channel_of(link)
    await aeventually(lambda: channel.published == [("x", "patient")])
    assert not patient.done


# -- refused, drained, closed -----------------------------------------------------


async def test_refused_credentials_fail_at_once(link: FakeLink, publisher: Publisher) -> None:
    """No deadline is waited for when no broker takes these credentials."""
    refused = AccessRefused("broker mq refused access to vhost '/'")
    publisher.send(before := publication(deadline=None))
    link.fail(refused, refused=True)
    assert before.error is refused
    publisher.send(after := publication(deadline=None))
    assert after.error is refused
    assert publisher.pending == 0


async def test_drain_waits_for_the_last_outcome(link: FakeLink, publisher: Publisher) -> None:
    """True once nothing is pending, False when time runs out."""
    assert await publisher.drain(0)
    channel = await channel_of(link)
    publisher.send(publication())
    assert not await publisher.drain(0.01)
    draining = asyncio.create_task(publisher.drain(10))
    channel.ack(1)
    assert await draining


async def test_close_fails_what_is_pending(link: FakeLink) -> None:
    """Nobody waits for ever on an app that was closed."""
    publisher = Publisher(as_link(link), max_message_size=1000)
    publisher.send(waiting := publication())
    await publisher.close()
    error = await failure_of(waiting)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "the app was closed"
    assert link.on_change == []


async def test_a_caller_that_raises_does_not_stop_the_others(
    link: FakeLink, publisher: Publisher
) -> None:
    """What a callback raises is not the publisher's problem: tags and window stay right."""
    channel = await channel_of(link)

    def bug(_: Any) -> None:
        raise ZeroDivisionError

    publisher.send(publication("a", on_done=bug))
    publisher.send(second := publication("b"))
    with suppress(ZeroDivisionError):
        channel.ack(1)
    channel.ack(2)
    assert (second.done, second.error, publisher.pending) == (True, None, 0)


async def test_what_comes_after_close_fails_at_once(link: FakeLink) -> None:
    """A call that meets the closing of its app has an outcome like any other."""
    publisher = Publisher(as_link(link), max_message_size=1000)
    publisher.start()
    channel = await channel_of(link)
    await publisher.close()
    publisher.send(late := publication())
    assert str(late.error) == WHAT + "the app was closed"
    assert (channel.published, publisher.pending) == ([], 0)
