"""Publishing without a socket: one outcome for each message, and the right one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtask.errors import (
    ChannelClosed,
    ConnectionLost,
    EncodeError,
    MessageTooLarge,
    Nacked,
    PublishError,
    TopologyMismatch,
    Unroutable,
)
from amqtask.message.model import Message
from amqtask.transport import Publication, Publisher, Requirement, Session
from amqtask.transport.publisher import WINDOW
from tests.helpers import aeventually
from tests.unit.transport.fakes import FakeLink, as_link, publication
from tests.unit.transport.publishing import WHAT, channel_of, failure_of, requirement

# -- confirms ---------------------------------------------------------------------


async def test_a_confirm_is_the_only_success(link: FakeLink, publisher: Publisher) -> None:
    """Writing is not enough: it is done when the broker says so, and told once."""
    told: list[Publication] = []
    sent = publication(on_done=told.append)
    channel = await channel_of(link)
    publisher.send(sent)
    assert channel.published == [("x", "q")]
    assert (sent.done, publisher.pending) == (False, 1)
    channel.ack(1)
    assert (sent.done, sent.error, told, publisher.pending) == (True, None, [sent], 0)
    channel.ack(1)
    assert told == [sent]


async def test_multiple_covers_what_came_before(link: FakeLink, publisher: Publisher) -> None:
    """An ack with multiple confirms up to its tag and nothing behind it."""
    channel = await channel_of(link)
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
        channel = await channel_of(link)
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
    channel = await channel_of(link)
    sent = publication()
    publisher.send(sent)
    channel.nack(1)
    error = await failure_of(sent)
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
    channel = await channel_of(link)
    sent = publication(hint="no queue of this app takes it")
    publisher.send(sent)
    channel.give_back(sent)
    assert not sent.done
    channel.ack(1)
    error = await failure_of(sent)
    assert isinstance(error, Unroutable)
    assert str(error) == WHAT + "no queue took it (312 NO_ROUTE)"
    assert error.hint == "no queue of this app takes it"


async def test_a_return_finds_its_own_message(link: FakeLink, publisher: Publisher) -> None:
    """A return has no tag: id and route decide, and twins of one id are told apart by route."""
    channel = await channel_of(link)
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
    channel = await channel_of(link)
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
    needed, met = requirement()
    channel = await channel_of(link)
    sent = publication(requires=[needed])
    publisher.send(sent)
    await aeventually(lambda: len(channel.published) == 1)
    channel.give_back(sent)
    channel.ack(1)
    await aeventually(lambda: len(channel.published) == 2)
    assert (sent.done, len(met)) == (False, 2)
    channel.give_back(sent)
    channel.ack(2)
    assert isinstance(await failure_of(sent), Unroutable)
    assert len(channel.published) == 2


async def test_declaring_anew_is_enough(link: FakeLink, publisher: Publisher) -> None:
    """The second try that a queue takes is a success like any other."""
    needed, _ = requirement()
    channel = await channel_of(link)
    sent = publication(requires=[needed])
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

    needed, met = requirement(wait)
    channel = await channel_of(link)
    sent = [publication(f"q{n}", requires=[needed]) for n in range(3)]
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
    again = await channel_of(link)
    await aeventually(lambda: len(again.published) == 4)
    assert len(met) == 2


async def test_requirements_are_met_in_order(link: FakeLink, publisher: Publisher) -> None:
    """The reply queue before the queue, the queue before the message."""
    order: list[str] = []

    def named(name: str) -> Requirement:
        async def prepare(_: Session) -> None:
            order.append(name)

        return Requirement(name, prepare)

    channel = await channel_of(link)
    publisher.send(publication(requires=[named("first"), named("second")]))
    await aeventually(lambda: channel.published)
    assert order == ["first", "second"]


async def test_a_failed_requirement_fails_what_waits_for_it(
    link: FakeLink, publisher: Publisher
) -> None:
    """All that wait get the reason, named with task and route; later ones try again."""

    async def refuse(_: Session) -> None:
        raise ChannelClosed("broker mq closed a channel: 404 no", code=404, text="no")

    needed, met = requirement(refuse)
    await channel_of(link)
    sent = [publication(requires=[needed]), publication("other", requires=[needed])]
    for each in sent:
        publisher.send(each)
    first, second = [await failure_of(each) for each in sent]
    assert isinstance(first, PublishError)
    assert str(first) == WHAT + "broker mq closed a channel: 404 no"
    assert "routing key 'other'" in str(second)
    publisher.send(later := publication(requires=[needed]))
    await failure_of(later)
    assert len(met) == 2


async def test_a_mismatch_keeps_its_class(link: FakeLink, publisher: Publisher) -> None:
    """TopologyMismatch speaks for itself."""
    mismatch = TopologyMismatch("queue 'q' has another x-queue-type", entity="queue 'q'")

    async def refuse(_: Session) -> None:
        raise mismatch

    needed, _ = requirement(refuse)
    await channel_of(link)
    publisher.send(sent := publication(requires=[needed]))
    assert await failure_of(sent) is mismatch


async def test_a_session_lost_while_declaring_is_no_failure(
    link: FakeLink, publisher: Publisher
) -> None:
    """The message goes out with the next session, after declaring there."""

    async def lose_first(_: Session) -> None:
        if len(met) == 1:
            link.lose()
            raise ConnectionLost("lost while declaring")

    needed, met = requirement(lose_first)
    await channel_of(link)
    publisher.send(sent := publication(requires=[needed]))
    await aeventually(lambda: met)
    again = await channel_of(link)
    await aeventually(lambda: again.published)
    again.ack(1)
    assert (sent.done, sent.error, len(met)) == (True, None, 2)


# -- before anything is sent --------------------------------------------------------


async def test_too_large_for_the_setting(link: FakeLink, publisher: Publisher) -> None:
    """Over max_message_size nothing is tried; at it all is well."""
    channel = await channel_of(link)
    publisher.send(at := publication("at", body=b"x" * 1000))
    publisher.send(over := publication(body=b"x" * 1001))
    error = await failure_of(over)
    assert isinstance(error, MessageTooLarge)
    assert str(error) == WHAT + "its body has 1001 bytes, max_message_size is 1000"
    assert error.hint == "store the data elsewhere and send a reference to it"
    assert (channel.published, at.done) == ([("x", "at")], False)


async def test_a_property_that_does_not_encode_costs_its_message_only(
    link: FakeLink, publisher: Publisher
) -> None:
    """Nothing of it reaches the wire, and its neighbours do."""
    channel = await channel_of(link)
    bad = Publication(Message(b"", {"h": object()}, message_id="id-q"), "x", "q", task="t.add")
    sent = [publication("a"), bad, publication("b")]
    for each in sent:
        publisher.send(each)
    error = await failure_of(bad)
    assert isinstance(error, EncodeError)
    assert str(error) == WHAT + "a header holds a value of type 'object'"
    assert channel.published == [("x", "a"), ("x", "b")]
    channel.ack(2, multiple=True)
    assert (sent[0].error, sent[2].error, publisher.pending) == (None, None, 0)


# -- from another thread ----------------------------------------------------------


async def test_what_can_go_out_at_once_does(link: FakeLink, publisher: Publisher) -> None:
    """In a turn of the loop that another thread has taken: no task, no timer, only the frames."""
    channel = await channel_of(link)
    publisher.send(first := publication())
    assert publisher.try_send(second := publication("now"))
    assert channel.published == [("x", "q"), ("x", "now")]
    channel.ack(2, multiple=True)
    assert (first.error, second.done, second.error) == (None, True, None)


async def test_what_has_to_wait_is_left_to_the_loop(link: FakeLink, publisher: Publisher) -> None:
    """No channel, nobody who looks at deadlines, a requirement, an alarm, a body too large."""
    needed, met = requirement()
    assert not publisher.try_send(publication())
    channel = await channel_of(link)
    assert not publisher.try_send(publication())  # nothing was under way: no timer is set
    publisher.send(publication())
    assert not publisher.try_send(publication(requires=[needed]))
    assert not publisher.try_send(too_large := publication(body=b"x" * 1001))
    channel.session.blocked = "disk"
    assert not publisher.try_send(publication())
    channel.session.blocked = None
    assert (channel.published, met, too_large.done) == ([("x", "q")], [], False)
    assert publisher.try_send(publication())


async def test_nothing_overtakes_what_waits(link: FakeLink, publisher: Publisher) -> None:
    """Behind a full window one is in line like all others."""
    channel = await channel_of(link)
    for number in range(WINDOW):
        publisher.send(publication(f"q{number}"))
    assert not publisher.try_send(publication())
    publisher.send(publication("waits"))
    assert not publisher.try_send(publication())
    assert len(channel.published) == WINDOW


async def test_what_is_thrown_into_a_send_costs_the_connection_alone(
    link: FakeLink, publisher: Publisher
) -> None:
    """A time limit or ctrl-c may strike anywhere: what has no confirm is sent once more."""
    channel = await channel_of(link)
    publisher.send(first := publication("first"))

    def struck(pieces: object) -> None:
        raise KeyboardInterrupt

    channel.write = struck  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        publisher.try_send(publication("struck"))
    assert not publisher.try_send(publication("later"))
    await aeventually(lambda: link.session is None)
    again = await channel_of(link)
    assert again.published == [("x", "first"), ("x", "struck")]
    again.ack(1)
    assert (first.done, first.error) == (True, None)
