"""Losing connections and channels: what was under way is confirmed later, consumers come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflow

from amqtask import App, BrokerUnreachable, ConnectionLost
from amqtask.errors import ChannelClosed
from amqtask.message.model import Message
from amqtask.transport import Consumer, Publication, Publisher
from tests.helpers import aeventually, eventually
from tests.integration.transport.conftest import ONE_BROKER, RABBITMQ_4, MakeApp, MakeLink
from tests.integration.transport.peer import Peer
from tests.integration.transport.taker import Taker
from tests.proxy import Proxy
from tests.servers import Names


def _sending(function: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def _pipeline(app: App, count: int) -> None:
    with app.pipeline():
        for number in range(count):
            app.send_task("t", (number,), task_id=str(number))


# -- publishing -------------------------------------------------------------------


def test_confirms_lost_with_the_connection(
    make_app: MakeApp, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """Received by the broker, confirms lost: sent again, so each is there once or twice, never not."""
    queue = names.queue("email")
    app = make_app(queue, url=proxy.url)
    app.send_task("t", (-1,), task_id="first")
    proxy.black_hole(requests=False)
    thread, failures = _sending(lambda: _pipeline(app, 50))
    eventually(lambda: peer.ready(queue) == 51, message="the broker did not get them all")
    assert thread.is_alive()
    proxy.cut()
    proxy.forward()
    thread.join(60)
    assert failures == []
    ids = [id_ for id_, _ in peer.take(queue)]
    assert set(ids) == {"first", *map(str, range(50))}
    assert all(ids.count(id_) <= 2 for id_ in ids)


def test_messages_lost_with_the_connection(
    make_app: MakeApp, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """Lost on the way to the broker: sent again, each is there exactly once and in order."""
    queue = names.queue("email")
    app = make_app(queue, url=proxy.url)
    app.send_task("t", (-1,), task_id="first")
    proxy.black_hole(answers=False)
    thread, failures = _sending(lambda: _pipeline(app, 50))
    publisher = app.transport.publisher
    eventually(lambda: publisher.pending == 50)
    proxy.cut()
    proxy.forward()
    thread.join(60)
    assert failures == []
    assert [id_ for id_, _ in peer.take(queue)] == ["first", *map(str, range(50))]


def test_cut_again_and_again(make_app: MakeApp, names: Names, peer: Peer, proxy: Proxy) -> None:
    """However often the connection is cut while thousands are on their way, every one arrives."""
    queue = names.queue("email")
    app = make_app(queue, url=proxy.url, publish_timeout=60)
    app.send_task("t", (-1,), task_id="first")
    thread, failures = _sending(lambda: _pipeline(app, 4000))
    for cut in range(4):
        accepted = proxy.accepted
        eventually(lambda: proxy.connections, message=f"no connection before cut {cut}")
        proxy.cut()
        if not thread.is_alive():
            break
        eventually(lambda before=accepted: proxy.accepted > before or not thread.is_alive())  # type: ignore[misc]
    thread.join(60)
    assert failures == []
    assert {id_ for id_, _ in peer.take(queue)} == {"first", *map(str, range(4000))}


def test_a_call_made_while_the_broker_is_away(
    make_app: MakeApp, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """It waits for the broker within its deadline, and is confirmed when that is back."""
    queue = names.queue("email")
    app = make_app(queue, url=proxy.url)
    app.send_task("t", (1,))
    proxy.down()
    thread, failures = _sending(lambda: app.send_task("t", (2,)))
    refused = proxy.accepted
    eventually(lambda: proxy.accepted > refused + 1, message="it did not try again")
    assert thread.is_alive()
    proxy.up()
    thread.join(60)
    assert failures == []
    assert [args for _, args in peer.take(queue)] == [[1], [2]]


def test_a_slow_network_is_only_slow(make_app: MakeApp, names: Names, proxy: Proxy) -> None:
    """Latency costs one round trip for a whole pipeline, not one a message."""
    app = make_app(names.queue("email"), url=proxy.url)
    app.send_task("t")
    proxy.delay(0.2)
    began = time.monotonic()
    _pipeline(app, 1000)
    assert 0.4 <= time.monotonic() - began < 200  # one for each message would be 400 at least


async def test_a_closed_channel_costs_no_message(
    make_link: MakeLink, names: Names, peer: Peer
) -> None:
    """The broker closes the publisher's channel, not its connection: the next one takes over."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue)
    link = make_link()
    publisher = Publisher(link, max_message_size=1 << 20)
    publisher.start()
    await aeventually(lambda: publisher._channel is not None)
    channel = publisher._channel
    assert channel is not None
    # a tag nobody delivered: the broker answers with 406 and channel.close
    sent = [Publication(Message(b"[[1],{},{}]", message_id=str(n)), "", queue) for n in range(20)]
    for number, publication in enumerate(sent):
        publisher.send(publication)
        if number == 10:
            channel.raw.basic_ack(99)
    await aeventually(lambda: channel.closed.done())
    # whose fault it was cannot be told from a 406 like this, so those unconfirmed say so
    await aeventually(lambda: all(publication.done for publication in sent))
    lost = [publication for publication in sent if publication.error is not None]
    assert all("unknown delivery tag 99" in str(publication.error) for publication in lost)
    later = Publication(Message(b"[[1],{},{}]", message_id="later"), "", queue)
    publisher.send(later)
    await aeventually(lambda: later.done)
    assert later.error is None
    assert link.session is not None
    assert link.session.epoch == 1
    await publisher.close()
    ids = {id_ for id_, _ in peer.take(queue)}
    confirmed = {p.message.message_id for p in [*sent, later] if p.error is None}
    assert confirmed <= ids


# -- consuming --------------------------------------------------------------------


async def test_a_cut_consumer_consumes_again(
    make_link: MakeLink, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """What was not acked comes again, marked as such; the old delivery settles nothing any more."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    peer.publish(queue, b"one", b"two")
    async with Taker(make_link(proxy.url), queue) as taker:
        old = list(await taker.get(2))
        await asyncio.to_thread(proxy.cut)
        await taker.get(4)
        again = taker.deliveries[2:]
        assert [each.message.body for each in again] == [b"one", b"two"]
        assert [each.redelivered for each in again] == [True, True]
        assert [each.is_valid for each in old + again] == [False, False, True, True]
        for each in old:
            each.ack()  # its tags mean the new deliveries, were they sent
        again[0].ack()
        await aeventually(lambda: taker.consumer._lease is not None)
        assert taker.consumer._lease is not None
        assert taker.consumer._lease.outstanding == 1
    # given back when the broker has seen the connection's end
    assert await aeventually(lambda: peer.channel.basic_get(queue)[2]) == b"two"
    assert peer.channel.basic_get(queue)[2] is None


async def test_the_states_of_a_cut_consumer(
    make_link: MakeLink, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """Not consuming, with the reason, from the cut until it consumes again."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    states: list[tuple[bool, str]] = []
    link = make_link(proxy.url)
    consumer = Consumer(
        link,
        queue,
        prefetch=1,
        on_delivery=print,
        on_change=lambda each: states.append((each.consuming, str(each.error))),
    )
    consumer.start()
    await aeventually(lambda: consumer.consuming)
    await asyncio.to_thread(proxy.down)
    await aeventually(lambda: not consumer.consuming)
    # that it was lost, or that the first try to come back has failed by now
    assert isinstance(consumer.error, ConnectionLost | BrokerUnreachable)
    await asyncio.to_thread(proxy.up)
    await aeventually(lambda: consumer.consuming)
    await aeventually(lambda: peer.consumers(queue) == 1)
    await consumer.close()
    lost = f"connection to broker {link.urls[0]} was lost"
    assert states == [(True, "None"), (False, lost), (True, "None"), (False, "stopped")]


async def test_a_consumer_whose_channel_the_broker_closes(
    make_link: MakeLink, names: Names, peer: Peer
) -> None:
    """Only the channel is replaced; the connection, its epoch and the others stay."""
    queue, other = names.queue("q"), names.queue("other")
    for each in (queue, other):
        peer.channel.queue_declare(each, durable=True)
    peer.publish(queue, b"one")
    link = make_link()
    async with Taker(link, queue) as taker, Taker(link, other) as bystander:
        (old,) = await taker.get(1)
        channel = taker.consumer._channel
        assert channel is not None
        channel.raw.basic_ack(99)
        _, again = await taker.get(2)
        assert (old.is_valid, again.is_valid, again.redelivered) == (False, True, True)
        error = channel.closed.result()
        assert isinstance(error, ChannelClosed)
        assert (error.code, error.text) == (406, "PRECONDITION_FAILED - unknown delivery tag 99")
        assert bystander.consumer.consuming
        assert link.session is not None
        assert link.session.epoch == 1
        again.ack()
    assert peer.ready(queue) == 0


@ONE_BROKER
async def test_a_silent_connection_is_noticed(
    make_link: MakeLink, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """No heartbeat for a while is a lost connection: never alive but deaf."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    link = make_link(f"{proxy.url}?heartbeat=1")
    async with Taker(link, queue) as taker:
        await asyncio.to_thread(proxy.black_hole)
        # pika looks every heartbeat + 5 seconds, and must find two looks without a byte
        await aeventually(lambda: not taker.consumer.consuming)
        assert str(taker.consumer.error) == f"broker {link.urls[0]} sent no heartbeat in time"
        await asyncio.to_thread(proxy.forward)
        peer.publish(queue, b"after")
        (delivery,) = await taker.get(1)
        assert delivery.message.body == b"after"
        delivery.ack()


@RABBITMQ_4
async def test_an_idle_connection_stays(
    make_link: MakeLink, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """Heartbeats go both ways by themselves: nothing to do is no reason to be lost."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    link = make_link(f"{proxy.url}?heartbeat=3")
    async with Taker(link, queue):
        # RabbitMQ closes a connection that says nothing for two heartbeats
        session = link.session
        assert session is not None
        done, _ = await asyncio.wait([session.closed], timeout=8)
        assert not done


async def test_closing_while_connecting(make_link: MakeLink, proxy: Proxy) -> None:
    """A link that hangs in the handshake closes at once and leaves no error behind."""
    await asyncio.to_thread(proxy.black_hole)
    link = make_link(proxy.url, connect_timeout=600)
    link.start()
    await aeventually(lambda: proxy.connections == 1)
    async with asyncio.timeout(60):  # the handshake may take ten times as long
        await link.close()
    assert link.session is None


async def test_closing_while_the_name_is_resolved(
    make_link: MakeLink, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that arrives after the link was closed is not connected to, and is no error."""
    resolved: list[Callable[[], None]] = []
    go_on = AMQPConnectionWorkflow._on_getaddrinfo_async_done

    def later(self: AMQPConnectionWorkflow, result: Any) -> None:
        resolved.append(partial(go_on, self, result))

    monkeypatch.setattr(AMQPConnectionWorkflow, "_on_getaddrinfo_async_done", later)
    link = make_link(proxy.url)
    link.start()
    await aeventually(lambda: resolved)
    await link.close()
    resolved[0]()
    monkeypatch.undo()
    another = make_link(proxy.url)
    another.start()
    await aeventually(lambda: another.session is not None)
    assert proxy.accepted == 1
