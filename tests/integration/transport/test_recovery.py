"""Coming back: what ends a connection, and what must not; one line each way, and never deaf."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from amqtask.broker import Broker
from amqtask.transport import BrokerURL, Link, watch
from amqtask.transport.backoff import Backoff
from amqtask.transport.consumer import Consumer
from tests.helpers import aeventually
from tests.integration.transport.conftest import RABBITMQ_4, MakeLink
from tests.integration.transport.peer import Peer
from tests.integration.transport.taker import Taker
from tests.proxy import Proxy, proxied
from tests.servers import Names

#: A broker that never cancels the consumers of a queue that is there again at once.
RABBITMQ_3 = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    with Broker().start_in_thread() as broker:
        yield broker


def _hang_up(broker: Broker) -> None:
    for connection in broker.connections:
        if connection._transport is not None:
            connection._transport.close()


def _said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    records = [r for r in caplog.records if r.name.startswith("amqtask") and r.levelno >= level]
    return [record.getMessage().split(" ", 1)[0] for record in records]


# -- silence --------------------------------------------------------------------------


@RABBITMQ_4
@pytest.mark.parametrize("half", [{"requests": False}, {"answers": False}, {}])
async def test_a_half_open_link_is_noticed(
    make_link: MakeLink, names: Names, peer: Peer, proxy: Proxy, half: dict[str, bool]
) -> None:
    """Whichever direction is dead: given up here or by the broker, and consumed anew."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    link = make_link(f"{proxy.url}?heartbeat=2")
    async with Taker(link, queue) as taker:
        session = link.session
        assert session is not None
        await asyncio.to_thread(proxy.black_hole, **half)
        await aeventually(lambda: not taker.consumer.consuming)
        assert not session.is_open
        await asyncio.to_thread(proxy.forward)
        await aeventually(lambda: taker.consumer.consuming)
        peer.publish(queue, b"after")
        (delivery,) = await taker.get(1)
        delivery.ack()


# -- how a connection ends ------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset", "closed by the operator"])
async def test_one_line_each_way(
    own_broker: Broker, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However the connection ends, one line says that it did and one that it is back."""
    link = Link([BrokerURL.parse(own_broker.url)], name="t", heartbeat=30, connect_timeout=5)
    channel = Peer(own_broker.url)
    for queue in ("one", "two", "three"):
        channel.channel.queue_declare(queue, durable=True)
    channel.close()
    async with Taker(link, "one") as one, Taker(link, "two") as two, Taker(link, "three") as three:
        takers = (one, two, three)
        with caplog.at_level(logging.INFO):
            if how == "fin":
                await asyncio.to_thread(own_broker.run, partial(_hang_up, own_broker))
            elif how == "reset":
                await asyncio.to_thread(own_broker.faults.cut_connections)
            else:
                await asyncio.to_thread(own_broker.faults.close_connections)
            await aeventually(lambda: link._epoch > 1)
            await aeventually(lambda: all(taker.consumer.consuming for taker in takers))
        assert _said(caplog) == ["broker.lost"]
        assert _said(caplog, logging.INFO).count("broker.connected") == 1
    await link.close()


async def test_a_wrong_password_after_a_restart(
    own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Tried again and again, said once, known to whoever asks; good again once it is right."""
    wrong = BrokerURL.parse(own_broker.url.replace("guest:guest@", "guest:wrong@"))
    right = BrokerURL.parse(own_broker.url)
    peer = Peer(own_broker.url)
    peer.channel.queue_declare("q", durable=True)
    peer.close()
    link = Link(
        [right], name="t", heartbeat=30, connect_timeout=5, backoff=Backoff(first=0.01, cap=0.02)
    )
    async with Taker(link, "q") as taker:
        link.urls = [wrong]  # as when the broker came back with another password
        await asyncio.to_thread(own_broker.faults.cut_connections)
        await aeventually(lambda: link.refused)
        epoch = link._epoch
        await aeventually(lambda: link._epoch > epoch + 5)
        assert not taker.consumer.consuming
        assert "ACCESS_REFUSED" in str(taker.consumer.error)
        assert _said(caplog) == ["broker.lost", "broker.unreachable"]
        link.urls = [right]
        await aeventually(lambda: taker.consumer.consuming)
    await link.close()


async def test_a_name_is_resolved_at_each_connect(
    broker: str, names: Names, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has moved to another address is found there."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    resolve = socket.getaddrinfo
    port = 0

    def getaddrinfo(host: Any, service: Any = None, *rest: Any, **more: Any) -> Any:
        if host == "moving.test":
            host, service = "127.0.0.1", port
        elif "port" in more:
            return resolve(host, *rest, **more)
        return resolve(host, service, *rest, **more)

    with proxied(broker) as old, proxied(broker) as new:
        url = BrokerURL.parse(old.url.replace("127.0.0.1", "moving.test"))
        ports = {each: BrokerURL.parse(each.url).port for each in (old, new)}
        port = ports[old]
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        link = Link([url], name="t", heartbeat=30, connect_timeout=5)
        async with Taker(link, queue) as taker:
            port = ports[new]
            await asyncio.to_thread(old.down)
            await aeventually(lambda: new.connections == 1)
            await aeventually(lambda: taker.consumer.consuming)
        await link.close()


# -- alarms ---------------------------------------------------------------------------


async def test_consuming_goes_on_under_an_alarm(
    own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker short of memory stops publishers; deliveries and acks go on, and it is said."""
    peer = Peer(own_broker.url)
    peer.channel.queue_declare("q", durable=True)
    peer.publish("q", *[b"x"] * 5)
    link = Link([BrokerURL.parse(own_broker.url)], name="t", heartbeat=30, connect_timeout=5)
    async with Taker(link, "q", prefetch=1) as taker:
        await taker.get(1)
        await asyncio.to_thread(own_broker.faults.block, "low on memory")
        await aeventually(lambda: link.session is not None and link.session.blocked)
        for count in range(1, 6):
            (*_, last) = await taker.get(count)
            last.ack()
        assert taker.consumer.consuming
        await asyncio.to_thread(own_broker.faults.unblock)
        await aeventually(lambda: link.session is not None and link.session.blocked is None)
    assert _said(caplog) == ["broker.blocked"]
    await link.close()
    peer.close()


# -- deafness -------------------------------------------------------------------------


@pytest.fixture
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"LOOK": 0.2, "AGAIN": 0.1, "RENEW": 1.0}.items():
        monkeypatch.setattr(watch, name, seconds)


@RABBITMQ_3
@pytest.mark.usefixtures("_quick_looks")
@pytest.mark.parametrize("waiting", [1, 50])
async def test_a_quorum_queue_that_is_there_again_at_once(
    make_link: MakeLink, names: Names, peer: Peer, waiting: int
) -> None:
    """RabbitMQ 3.10 may forget the consumers of the old one: few messages vanish into them, many wait."""
    link = make_link()
    for attempt in range(4):
        queue = names.queue(f"q{attempt}")

        def declare(queue: str = queue) -> None:
            peer.channel.queue_declare(
                queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 20}
            )

        declare()
        async with Taker(link, queue, prefetch=10) as taker:
            peer.delete_queue(queue)
            declare()
            peer.publish(queue, *[b"x"] * waiting)
            acked = 0
            while acked < waiting:
                for delivery in (await taker.get(acked + 1))[acked:]:
                    delivery.ack()
                    acked += 1


@pytest.mark.usefixtures("_quick_looks")
async def test_an_idle_consumer_stays_as_it_is(
    make_link: MakeLink, names: Names, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """Looked at many times, and consuming all the while."""
    queue = names.queue("q")
    peer.channel.queue_declare(queue, durable=True)
    states: list[bool] = []
    consumer = Consumer(
        make_link(),
        queue,
        prefetch=1,
        on_delivery=lambda delivery: delivery.ack(),
        on_change=lambda each: states.append(each.consuming),
    )
    consumer.start()
    await aeventually(lambda: consumer.consuming)
    await asyncio.sleep(2)
    peer.publish(queue, b"one")
    await aeventually(lambda: peer.ready(queue) == 0)
    assert states == [True]
    assert _said(caplog) == []
    await consumer.close()
