"""Consuming a real queue: settled is gone, given back is there, a deleted queue is made again."""

from __future__ import annotations

import asyncio
import random

from amqtask import Queue, Settings, TopologyMismatch
from amqtask.message.model import Message
from amqtask.topology.plan import queue_plan
from amqtask.transport import Consumer, Publication, Publisher, Session
from amqtask.transport.declare import declare
from tests.helpers import aeventually
from tests.integration.transport.conftest import MakeLink
from tests.integration.transport.peer import Peer
from tests.integration.transport.taker import Taker
from tests.servers import Names


async def test_acks_in_any_order(make_link: MakeLink, names: Names, peer: Peer) -> None:
    """A thousand deliveries acked out of order are all gone, and nothing else is."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    peer.publish(queue, *(str(number).encode() for number in range(1000)))
    async with Taker(make_link(), queue, prefetch=1000) as taker:
        deliveries = await taker.get(1000)
        kept = deliveries[::100]
        others = [each for each in deliveries if each not in kept]
        for start in range(7):  # interleaved, a part in each turn of the loop
            for each in reversed(others[start::7]):
                each.ack()
            await asyncio.sleep(0)
        lease = taker.consumer._lease
        assert lease is not None
        assert lease.outstanding == len(kept)
    assert sorted(peer.bodies(queue)) == sorted(each.message.body for each in kept)


async def test_bodies_of_any_size(make_link: MakeLink, names: Names, peer: Peer) -> None:
    """Sent at once and taken at once, in one frame or in many: each is as it was, and in order."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    link = make_link()
    publisher = Publisher(link, max_message_size=8 << 20)
    publisher.start()
    await aeventually(lambda: publisher._channel is not None)
    frame = (await link.up())._raw._body_max_length
    sizes = [0, 1, 5_000_000, 10_000, 70_000, frame - 1, frame, frame + 1, 0, 3 * frame, 1_000_000]
    bodies = [random.Random(size).randbytes(size) for size in sizes]
    sent = [Publication(Message(body), "", queue) for body in bodies]
    publisher.send(*sent)
    async with Taker(make_link(), queue) as taker:
        deliveries = await taker.get(len(bodies))
        assert [each.message.body for each in deliveries] == bodies
        for each in deliveries:
            each.ack()
    await aeventually(lambda: all(each.done for each in sent))
    assert [each.error for each in sent] == [None] * len(sent)
    await publisher.close()
    assert peer.ready(queue) == 0


async def test_given_back_and_rejected(make_link: MakeLink, names: Names, peer: Peer) -> None:
    """Given back comes again, marked; rejected is gone or, where asked, comes again too."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    peer.publish(queue, b"back", b"away", b"again")
    async with Taker(make_link(), queue) as taker:
        back, away, again = list(await taker.get(3))
        back.give_back()
        away.reject(requeue=False)
        again.reject(requeue=True)
        await taker.get(5)
        assert {each.message.body for each in taker.deliveries[3:]} == {b"back", b"again"}
        assert all(each.redelivered for each in taker.deliveries[3:])
        for each in taker.deliveries[3:]:
            each.ack()
    assert peer.ready(queue) == 0


async def test_prefetch_bounds_what_is_held(make_link: MakeLink, names: Names, peer: Peer) -> None:
    """No more than the prefetch is here unsettled; a new one takes effect with what is held kept."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    peer.publish(queue, *[b"x"] * 20)
    async with Taker(make_link(), queue, prefetch=3) as taker:
        await taker.get(3)
        assert peer.ready(queue) == 17
        taker.deliveries[0].ack()
        await taker.get(4)
        assert peer.ready(queue) == 16
        taker.consumer.set_prefetch(10)
        await aeventually(lambda: peer.ready(queue) <= 16 - 7)
        # what has left the queue is here
        await aeventually(lambda: peer.ready(queue) + len(taker.deliveries) == 20)
        held = len(taker.deliveries) - 1
        assert 10 <= held <= 3 + 10  # what the old consumer holds is not counted to the new one
        assert taker.consumer.consuming
        for each in taker.deliveries[1:]:
            assert each.is_valid
            each.ack()
        await aeventually(lambda: len(taker.deliveries) == 20)


async def test_stop_takes_no_more_and_settles_what_is_here(
    make_link: MakeLink, names: Names, peer: Peer
) -> None:
    """After stop the queue keeps the rest; acks work until close; what is open goes back."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    peer.publish(queue, *(str(number).encode() for number in range(10)))
    async with Taker(make_link(), queue, prefetch=4) as taker:
        done, open_, *_ = await taker.get(4)
        await taker.consumer.stop()
        await aeventually(lambda: peer.consumers(queue) == 0)
        taken = len(taker.deliveries)
        done.ack()
        assert open_.is_valid
    assert len(taker.deliveries) == taken == 4
    assert sorted(peer.bodies(queue)) == [str(number).encode() for number in range(1, 10)]


async def test_a_deleted_queue_is_made_and_consumed_again(
    make_link: MakeLink, names: Names, peer: Peer
) -> None:
    """The broker cancels the consumer: the queue is declared and consumed on the same channel."""
    settings = Settings(exchange=names.exchange("x"), dead_letter_exchange=names.exchange("dead"))
    queue = names.queue("q")
    plan = queue_plan(Queue(queue), settings)

    async def prepare(session: Session) -> None:
        await declare(session, plan)

    link = make_link()
    async with Taker(link, queue, prepare=prepare) as taker:
        peer.publish(queue, b"one")
        (one,) = await taker.get(1)
        peer.delete_queue(queue)
        await aeventually(lambda: peer.exists(queue) and peer.consumers(queue) == 1)
        await aeventually(lambda: taker.consumer.consuming)
        one.ack()  # its queue is gone, its channel is not: no harm
        peer.publish(queue, b"two")
        _, two = await taker.get(2)
        assert (two.message.body, two.redelivered) == (b"two", False)
        two.ack()
        assert link.session is not None
        assert link.session.epoch == 1
    assert peer.ready(queue) == 0


async def test_a_queue_that_is_not_made_is_waited_for(
    make_link: MakeLink, names: Names, peer: Peer
) -> None:
    """Somebody else's queue that is missing: it says so, tries on, and consumes when it is there."""
    queue = names.queue("theirs")
    consumer = Consumer(make_link(), queue, prefetch=1, on_delivery=print)
    consumer.start()
    await aeventually(lambda: "no queue" in str(consumer.error))
    assert str(consumer.error) == (
        f"broker {consumer._link.urls[0]} closed a channel: 404 NOT_FOUND - no queue {queue!r}"
        " in vhost '/'"
    )
    assert not consumer.consuming
    peer.channel.queue_declare(queue, durable=True)
    await aeventually(lambda: consumer.consuming)
    peer.delete_queue(queue)
    await aeventually(lambda: not consumer.consuming)
    peer.channel.queue_declare(queue, durable=True)
    await aeventually(lambda: consumer.consuming)
    await consumer.close()


async def test_a_queue_of_another_kind_is_shown_as_the_error(
    make_link: MakeLink, names: Names, peer: Peer
) -> None:
    """A mismatch keeps the consumer from consuming, and is there to be seen, until it is mended."""
    settings = Settings(exchange=names.exchange("x"), dead_letter_exchange=names.exchange("dead"))
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    plan = queue_plan(Queue(queue), settings)

    async def prepare(session: Session) -> None:
        await declare(session, plan)

    consumer = Consumer(make_link(), queue, prefetch=1, on_delivery=print, prepare=prepare)
    consumer.start()
    await aeventually(lambda: isinstance(consumer.error, TopologyMismatch))
    peer.delete_queue(queue)
    await aeventually(lambda: consumer.consuming)
    await consumer.close()


async def test_one_connection_for_many_queues(
    make_link: MakeLink, names: Names, peer: Peer
) -> None:
    """Consumers share a link and have a channel each, so one's fault is not the others'."""
    queues = [names.queue(f"q{number}") for number in range(5)]
    for queue in queues:
        peer.channel.queue_declare(queue, durable=True)
        peer.publish(queue, queue.encode())
    link = make_link()
    takers = [Taker(link, queue) for queue in queues]
    for taker in takers:
        await taker.__aenter__()
    for taker, queue in zip(takers, queues, strict=True):
        (delivery,) = await taker.get(1)
        assert delivery.message.body == queue.encode()
        assert delivery.queue == queue
        delivery.ack()
    assert link.session is not None
    assert link.session.epoch == 1
    for taker in takers:
        await taker.__aexit__()
    assert [peer.ready(queue) for queue in queues] == [0] * 5
