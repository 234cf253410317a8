"""Publishing without a socket: one outcome for each message, and the right one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtask.errors import (
    AccessRefused,
    AmqtaskError,
    Blocked,
    BrokerUnreachable,
    ChannelClosed,
    ConnectionLost,
    EncodeError,
    MessageTooLarge,
    Nacked,
    PublishError,
    PublishTimeout,
    TopologyMismatch,
    Unroutable,
)
from amqtask.message.model import Message
from amqtask.transport import Publication, Publisher, Requirement, Session
from amqtask.transport import publisher as module
from tests.helpers import aeventually
from tests.unit.transport.fakes import FakeChannel, FakeLink, as_link, publication

WHAT = "task 't.add' (id id-q) to exchange 'x' with routing key 'q' was not published: "


@pytest.fixture
async def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
async def publisher(link: FakeLink) -> AsyncIterator[Publisher]:
    made = Publisher(as_link(link), max_message_size=1000)
    made.start()
    yield made
    await made.close()


async def _channel(link: FakeLink, number: int = 0) -> FakeChannel:
    """Return the publisher's channel of the current session, once it publishes there."""
    session = link.session or link.connect()

    def found() -> FakeChannel | None:
        publishing = [each for each in session.channels if each.on_confirm is not None]
        return publishing[number] if len(publishing) > number else None

    channel = await aeventually(found)
    assert channel is not None
    await asyncio.sleep(0)  # the publisher takes it right after confirm.select
    return channel


async def _failed(sent: Publication) -> AmqtaskError:
    await aeventually(lambda: sent.done)
    assert sent.error is not None
    return sent.error


def _requirement(
    prepare: Callable[[Session], Awaitable[None]] | None = None, name: str = "queue 'q'"
) -> tuple[Requirement, list[Session]]:
    """Return a requirement, and the list of sessions it was met on."""
    met: list[Session] = []

    async def note(session: Session) -> None:
        met.append(session)
        if prepare is not None:
            await prepare(session)

    return Requirement(name, note), met


# -- confirms ---------------------------------------------------------------------


async def test_a_confirm_is_the_only_success(link: FakeLink, publisher: Publisher) -> None:
    """Writing is not enough: it is done when the broker says so, and told once."""
    told: list[Publication] = []
    sent = publication(on_done=told.append)
    channel = await _channel(link)
    publisher.send(sent)
    assert channel.published == [("x", "q")]
    assert (sent.done, publisher.pending) == (False, 1)
    channel.ack(1)
    assert (sent.done, sent.error, told, publisher.pending) == (True, None, [sent], 0)
    channel.ack(1)
    assert told == [sent]


async def test_multiple_covers_what_came_before(link: FakeLink, publisher: Publisher) -> None:
    """An ack with multiple confirms up to its tag and nothing behind it."""
    channel = await _channel(link)
    sent = [publication(f"q{n}") for n in range(5)]
    for each in sent:
        publisher.send(each)
    channel.ack(2)
    channel.ack(4, multiple=True)
    assert [each.done for each in sent] == [True, True, True, True, False]
    channel.nack(5, multiple=True)
    assert isinstance(sent[4].error, Nacked)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 40)), min_size=1, max_size=60),
    st.integers(1, 40),
)
def test_each_confirm_settles_what_it_covers(
    confirms: list[tuple[bool, bool, int]], count: int
) -> None:
    """In any order of acks and nacks, single or multiple, each message has the first one's word."""

    async def run() -> None:
        link = FakeLink()
        publisher = Publisher(as_link(link), max_message_size=1000)
        publisher.start()
        channel = await _channel(link)
        sent = [publication(f"q{n}") for n in range(count)]
        for each in sent:
            publisher.send(each)
        expected: dict[int, bool] = {}
        for is_nack, multiple, pick in confirms:
            tag = pick % count + 1
            for covered in range(1 if multiple else tag, tag + 1):
                expected.setdefault(covered, is_nack)
            (channel.nack if is_nack else channel.ack)(tag, multiple=multiple)
        for tag, each in enumerate(sent, 1):
            assert each.done is (tag in expected)
            assert isinstance(each.error, Nacked) is expected.get(tag, False)
        assert publisher.pending == count - len(expected)
        await publisher.close()

    asyncio.run(run())


async def test_nacked_in_full(link: FakeLink, publisher: Publisher) -> None:
    """A refused message says so, with where it was going in text and attributes."""
    channel = await _channel(link)
    sent = publication()
    publisher.send(sent)
    channel.nack(1)
    error = await _failed(sent)
    assert isinstance(error, Nacked)
    assert str(error) == WHAT + "the queue refused it"
    assert error.hint == (
        "it is full (x-max-length with reject-publish) or its replicas are down;"
        " see the broker's log"
    )
    assert (error.task, error.task_id) == ("t.add", "id-q")
    assert (error.exchange, error.routing_key) == ("x", "q")


def test_what_is_no_task_is_called_a_message() -> None:
    """Results and the like have no task; the default exchange has no name."""
    sent = Publication(Message(b""), "", "reply")
    assert sent.what() == "message to the default exchange with routing key 'reply'"


# -- returns ----------------------------------------------------------------------


async def test_unroutable_in_full(link: FakeLink, publisher: Publisher) -> None:
    """What no queue took is an error, though the broker acks it."""
    channel = await _channel(link)
    sent = publication(hint="no queue of this app takes it")
    publisher.send(sent)
    channel.give_back(sent)
    assert not sent.done
    channel.ack(1)
    error = await _failed(sent)
    assert isinstance(error, Unroutable)
    assert str(error) == WHAT + "no queue took it (312 NO_ROUTE)"
    assert error.hint == "no queue of this app takes it"


async def test_a_return_finds_its_own_message(link: FakeLink, publisher: Publisher) -> None:
    """A return has no tag: id and route decide, and twins of one id are told apart by route."""
    channel = await _channel(link)
    good, lost = publication("here", id="same"), publication("nowhere", id="same")
    other = publication("nowhere", id="other")
    for each in (good, other, lost):
        publisher.send(each)
    channel.give_back(lost)
    channel.ack(3, multiple=True)
    assert (good.error, other.error) == (None, None)
    assert isinstance(lost.error, Unroutable)


async def test_a_message_sent_twice_may_come_back_twice(
    link: FakeLink, publisher: Publisher
) -> None:
    """Two calls with the same id and route have a return each."""
    channel = await _channel(link)
    twins = [publication("nowhere"), publication("nowhere")]
    for each in twins:
        publisher.send(each)
    channel.give_back(twins[0])
    channel.ack(1)
    channel.give_back(twins[1])
    channel.ack(2)
    assert [type(each.error) for each in twins] == [Unroutable, Unroutable]


async def test_a_deleted_queue_is_declared_once_more(link: FakeLink, publisher: Publisher) -> None:
    """A return from a queue that was declared means it was deleted: one new try, then the error."""
    requirement, met = _requirement()
    channel = await _channel(link)
    sent = publication(requires=[requirement])
    publisher.send(sent)
    await aeventually(lambda: len(channel.published) == 1)
    channel.give_back(sent)
    channel.ack(1)
    await aeventually(lambda: len(channel.published) == 2)
    assert (sent.done, len(met)) == (False, 2)
    channel.give_back(sent)
    channel.ack(2)
    assert isinstance(await _failed(sent), Unroutable)
    assert len(channel.published) == 2


async def test_declaring_anew_is_enough(link: FakeLink, publisher: Publisher) -> None:
    """The second try that a queue takes is a success like any other."""
    requirement, _ = _requirement()
    channel = await _channel(link)
    sent = publication(requires=[requirement])
    publisher.send(sent)
    await aeventually(lambda: len(channel.published) == 1)
    channel.give_back(sent)
    channel.ack(1)
    await aeventually(lambda: len(channel.published) == 2)
    channel.ack(2)
    assert (sent.done, sent.error) == (True, None)


# -- requirements -----------------------------------------------------------------


async def test_a_requirement_is_met_once_a_session(link: FakeLink, publisher: Publisher) -> None:
    """Messages of one route wait together, and the next session meets it again."""
    gate = asyncio.Event()

    async def wait(_: Session) -> None:
        await gate.wait()

    requirement, met = _requirement(wait)
    channel = await _channel(link)
    sent = [publication(f"q{n}", requires=[requirement]) for n in range(3)]
    for each in sent:
        publisher.send(each)
    await aeventually(lambda: met)
    free = publication("free")
    publisher.send(free)
    assert channel.published == [("x", "free")]
    gate.set()
    await aeventually(lambda: len(channel.published) == 4)
    assert [key for _, key in channel.published[1:]] == ["q0", "q1", "q2"]
    assert len(met) == 1
    link.lose()
    again = await _channel(link)
    await aeventually(lambda: len(again.published) == 4)
    assert len(met) == 2


async def test_requirements_are_met_in_order(link: FakeLink, publisher: Publisher) -> None:
    """The reply queue before the queue, the queue before the message."""
    order: list[str] = []

    def named(name: str) -> Requirement:
        async def prepare(_: Session) -> None:
            order.append(name)

        return Requirement(name, prepare)

    channel = await _channel(link)
    publisher.send(publication(requires=[named("first"), named("second")]))
    await aeventually(lambda: channel.published)
    assert order == ["first", "second"]


async def test_a_failed_requirement_fails_what_waits_for_it(
    link: FakeLink, publisher: Publisher
) -> None:
    """All that wait get the reason, named with task and route; later ones try again."""

    async def refuse(_: Session) -> None:
        raise ChannelClosed("broker mq closed a channel: 404 no", code=404, text="no")

    requirement, met = _requirement(refuse)
    await _channel(link)
    sent = [publication(requires=[requirement]), publication("other", requires=[requirement])]
    for each in sent:
        publisher.send(each)
    first, second = [await _failed(each) for each in sent]
    assert isinstance(first, PublishError)
    assert str(first) == WHAT + "broker mq closed a channel: 404 no"
    assert "routing key 'other'" in str(second)
    publisher.send(later := publication(requires=[requirement]))
    await _failed(later)
    assert len(met) == 2


async def test_a_mismatch_keeps_its_class(link: FakeLink, publisher: Publisher) -> None:
    """TopologyMismatch speaks for itself."""
    mismatch = TopologyMismatch("queue 'q' has another x-queue-type", entity="queue 'q'")

    async def refuse(_: Session) -> None:
        raise mismatch

    requirement, _ = _requirement(refuse)
    await _channel(link)
    publisher.send(sent := publication(requires=[requirement]))
    assert await _failed(sent) is mismatch


async def test_a_session_lost_while_declaring_is_no_failure(
    link: FakeLink, publisher: Publisher
) -> None:
    """The message goes out with the next session, after declaring there."""

    async def lose_first(_: Session) -> None:
        if len(met) == 1:
            link.lose()
            raise ConnectionLost("lost while declaring")

    requirement, met = _requirement(lose_first)
    await _channel(link)
    publisher.send(sent := publication(requires=[requirement]))
    await aeventually(lambda: met)
    again = await _channel(link)
    await aeventually(lambda: again.published)
    again.ack(1)
    assert (sent.done, sent.error, len(met)) == (True, None, 2)


# -- losing the channel -----------------------------------------------------------


async def test_the_unconfirmed_go_again_first_and_in_order(
    link: FakeLink, publisher: Publisher
) -> None:
    """After a lost connection what was sent goes before what waited, each once."""
    channel = await _channel(link)
    sent = [publication(f"q{n}") for n in range(4)]
    for each in sent:
        publisher.send(each)
    channel.ack(2)
    link.lose()
    publisher.send(publication("late"))
    again = await _channel(link)
    await aeventually(lambda: len(again.published) == 4)
    assert [key for _, key in again.published] == ["q0", "q2", "q3", "late"]
    again.ack(4, multiple=True)
    assert all(each.error is None and each.done for each in sent)


async def test_confirms_of_an_old_channel_say_nothing(link: FakeLink, publisher: Publisher) -> None:
    """Tags start over on a new channel; a late confirm of the old one must not meet them."""
    old = await _channel(link)
    publisher.send(sent := publication())
    link.lose()
    new = await _channel(link)
    await aeventually(lambda: new.published)
    old.ack(1)
    new.ack(1)
    assert (sent.done, sent.error) == (True, None)


@pytest.mark.parametrize("requires", [0, 1])
async def test_a_missing_exchange_fails_only_its_own(
    link: FakeLink, publisher: Publisher, requires: int
) -> None:
    """404 closes the channel for all; those of other exchanges are sent again."""
    channel = await _channel(link)
    good = publication("good", exchange="other")
    bad = publication(hint="list the queue")
    for each in (good, bad):
        publisher.send(each)
    channel.refuse(404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    error = await _failed(bad)
    assert isinstance(error, Unroutable)
    assert str(error) == WHAT + "NOT_FOUND - no exchange 'x' in vhost '/'"
    assert error.hint == "list the queue"
    again = await _channel(link, 1)
    await aeventually(lambda: again.published == [("other", "good")])
    again.ack(1)
    assert (good.done, good.error) == (True, None)


async def test_an_exchange_that_was_declared_is_declared_anew(
    link: FakeLink, publisher: Publisher
) -> None:
    """Deleted under us: the next channel declares it; a second 404 is the answer."""
    requirement, met = _requirement()
    channel = await _channel(link)
    publisher.send(sent := publication(requires=[requirement]))
    await aeventually(lambda: channel.published)
    channel.refuse(404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    again = await _channel(link, 1)
    await aeventually(lambda: again.published)
    assert (sent.done, len(met)) == (False, 2)
    again.refuse(404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    assert isinstance(await _failed(sent), Unroutable)


async def test_too_large_for_the_broker_fails_only_what_is(
    link: FakeLink, publisher: Publisher
) -> None:
    """406 names a size: those below it are sent again."""
    channel = await _channel(link)
    small, large = publication("small"), publication(body=b"x" * 900)
    for each in (small, large):
        publisher.send(each)
    text = "PRECONDITION_FAILED - message size 900 is larger than configured max size 500"
    channel.refuse(406, text)
    error = await _failed(large)
    assert isinstance(error, MessageTooLarge)
    assert str(error) == WHAT + text
    again = await _channel(link, 1)
    await aeventually(lambda: again.published == [("x", "small")])


async def test_no_permission_is_said(link: FakeLink, publisher: Publisher) -> None:
    """403 names task, route and the remedy."""
    channel = await _channel(link)
    publisher.send(sent := publication())
    channel.end(AccessRefused("broker mq refused an operation: access refused", hint="ask"))
    error = await _failed(sent)
    assert type(error) is PublishError
    assert str(error) == WHAT + "broker mq refused an operation: access refused"
    assert error.hint == "ask"


async def test_any_other_code_is_passed_on(link: FakeLink, publisher: Publisher) -> None:
    """What the broker will refuse again is not tried for ever."""
    channel = await _channel(link)
    publisher.send(sent := publication())
    channel.refuse(406, "PRECONDITION_FAILED - invalid expiration '-1'")
    error = await _failed(sent)
    assert type(error) is PublishError
    assert str(error) == WHAT + (
        "broker amqp://user@mq.example:5672 closed a channel:"
        " 406 PRECONDITION_FAILED - invalid expiration '-1'"
    )


# -- before anything is sent --------------------------------------------------------


async def test_too_large_for_the_setting(link: FakeLink, publisher: Publisher) -> None:
    """Over max_message_size nothing is tried; at it all is well."""
    channel = await _channel(link)
    publisher.send(at := publication("at", body=b"x" * 1000))
    publisher.send(over := publication(body=b"x" * 1001))
    error = await _failed(over)
    assert isinstance(error, MessageTooLarge)
    assert str(error) == WHAT + "its body has 1001 bytes, max_message_size is 1000"
    assert error.hint == "store the data elsewhere and send a reference to it"
    assert (channel.published, at.done) == ([("x", "at")], False)


async def test_a_property_that_does_not_encode_costs_its_message_only(
    link: FakeLink, publisher: Publisher
) -> None:
    """Nothing of it reaches the wire, and its neighbours do."""
    channel = await _channel(link)
    bad = Publication(Message(b"", {"h": object()}, message_id="id-q"), "x", "q", task="t.add")
    sent = [publication("a"), bad, publication("b")]
    for each in sent:
        publisher.send(each)
    error = await _failed(bad)
    assert isinstance(error, EncodeError)
    assert str(error) == WHAT + "a header holds a value of type 'object'"
    assert channel.published == [("x", "a"), ("x", "b")]
    channel.ack(2, multiple=True)
    assert (sent[0].error, sent[2].error, publisher.pending) == (None, None, 0)


# -- limits -----------------------------------------------------------------------


async def test_the_window_bounds_what_is_unconfirmed(
    link: FakeLink, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow broker has a bounded number to confirm; each confirm lets the next one go."""
    monkeypatch.setattr(module, "WINDOW", 3)
    channel = await _channel(link)
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
    channel = await _channel(link)
    for number in range(5):
        publisher.send(publication(f"q{number}", body=b"x" * 1000))
    assert len(channel.published) == 2
    channel.ack(1)
    assert len(channel.published) == 3
    link.lose()
    again = await _channel(link)
    await aeventually(lambda: len(again.published) == 2)
    for tag in range(1, 5):
        again.ack(tag)
    assert publisher.pending == 0


async def test_nothing_is_sent_under_an_alarm(link: FakeLink, publisher: Publisher) -> None:
    """A blocked broker gets nothing until it says that it takes messages again."""
    channel = await _channel(link)
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
    channel = await _channel(link)
    channel.session.blocked = "low on memory"
    publisher.send(sent := publication(deadline=_soon()))
    error = await _failed(sent)
    assert isinstance(error, Blocked)
    assert (
        str(error) == WHAT + "broker amqp://user@mq.example:5672 takes no messages: low on memory"
    )
    assert error.hint == "free memory or disk on the broker, or raise its watermark"
    channel.session.unblock()
    assert channel.published == []


async def test_no_confirm_in_time(link: FakeLink, publisher: Publisher) -> None:
    """A message that went out and was not confirmed may still arrive, and that is said."""
    channel = await _channel(link)
    publisher.send(sent := publication(deadline=_soon()))
    error = await _failed(sent)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "no confirm before the deadline; it was sent and may still arrive"
    channel.ack(1)
    assert publisher.pending == 0


async def test_no_broker_in_time(link: FakeLink, publisher: Publisher) -> None:
    """Without a connection the reason is why there is none."""
    link.fail(BrokerUnreachable("broker amqp://mq does not answer: refused"))
    publisher.send(sent := publication(deadline=_soon()))
    error = await _failed(sent)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "broker amqp://mq does not answer: refused"
    channel = await _channel(link)
    assert (channel.published, publisher.pending) == ([], 0)


async def test_a_requirement_that_takes_too_long(link: FakeLink, publisher: Publisher) -> None:
    """What it waited for is named; when that is there at last, nothing is sent any more."""
    gate = asyncio.Event()

    async def wait(_: Session) -> None:
        await gate.wait()

    requirement, _ = _requirement(wait, "reply queue")
    channel = await _channel(link)
    publisher.send(sent := publication(requires=[requirement], deadline=_soon()))
    error = await _failed(sent)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "it waited for reply queue until its deadline"
    gate.set()
    assert await publisher.drain(5)
    assert channel.published == []


async def test_each_message_has_its_own_deadline(link: FakeLink, publisher: Publisher) -> None:
    """The patient one goes out after the impatient one gave up."""
    publisher.send(short := publication("short", deadline=_soon()))
    publisher.send(patient := publication("patient", deadline=None))
    await _failed(short)
    channel = await _channel(link)
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
    channel = await _channel(link)
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
    error = await _failed(waiting)
    assert isinstance(error, PublishTimeout)
    assert str(error) == WHAT + "the app was closed"
    assert link.on_change == []


async def test_a_caller_that_raises_does_not_stop_the_others(
    link: FakeLink, publisher: Publisher
) -> None:
    """What a callback raises is not the publisher's problem: tags and window stay right."""
    channel = await _channel(link)

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
    channel = await _channel(link)
    await publisher.close()
    publisher.send(late := publication())
    assert str(late.error) == WHAT + "the app was closed"
    assert (channel.published, publisher.pending) == ([], 0)
