"""Every misfortune that can be ordered happens, and nothing else."""

from __future__ import annotations

import pytest
from pamqp import commands

from amqtask.broker import Broker
from tests.unit.broker.client import Client, contents


@pytest.fixture
def confirming(client: Client) -> Client:
    client.declare("q")
    client.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    return client


def _names(client: Client) -> list[str]:
    return [type(each).__name__ for each in client.drain()]


def test_connections_are_cut(broker: Broker, connect):
    one, other = connect(connection_name="one"), connect()
    assert broker.faults.cut_connections(name="one") == 1
    assert (one.transport.closed, other.transport.closed) == (True, False)
    assert not one.drain()


def test_connections_are_closed_with_a_code(broker: Broker, client):
    assert broker.faults.close_connections() == 1
    (close,) = client.drain()
    assert close.reply_code == 320
    client.send(commands.Connection.CloseOk(), 0)
    assert client.transport.closed


def test_confirms_are_late(broker: Broker, confirming):
    broker.faults.delay_confirms(30)
    confirming.publish("q", "a")
    assert _names(confirming) == []
    broker.advance(31)
    assert _names(confirming) == ["Ack"]


def test_confirms_are_held(broker: Broker, confirming):
    broker.faults.hold_confirms()
    confirming.publish("q", "a")
    confirming.publish("q", "b")
    assert _names(confirming) == []
    assert broker.faults.release_confirms() == 2
    (ack,) = confirming.drain()
    assert (ack.delivery_tag, ack.multiple) == (2, True)
    confirming.publish("q", "c")
    assert _names(confirming) == ["Ack"]


def test_confirms_are_nacks(broker: Broker, confirming):
    broker.faults.nack_confirms(1)
    confirming.publish("q", "a")
    confirming.publish("q", "b")
    assert _names(confirming) == ["Nack", "Ack"]
    assert confirming.count("q") == 2


def test_publishing_is_blocked(broker: Broker, confirming, connect):
    """Who publishes is not read from until it is over; who only consumes is."""
    consuming = connect()
    confirming.publish("q", "a")
    confirming.drain()
    broker.faults.block("no disk left")
    (blocked,) = confirming.drain()
    assert blocked.reason == "no disk left"
    assert _names(consuming) == ["Blocked"]
    assert (confirming.transport.reading, consuming.transport.reading) == (False, True)
    assert _names(connect()) == []
    broker.faults.unblock()
    assert _names(confirming) == ["Unblocked"]
    assert confirming.transport.reading


def test_consumers_are_cancelled(broker: Broker, client):
    client.declare("q")
    client.call(commands.Basic.Consume(queue="q"), commands.Basic.ConsumeOk)
    assert broker.faults.cancel_consumers("q") == 1
    assert _names(client) == ["Cancel"]
    client.publish("q", "a")
    assert client.texts("q") == ["a"]


def test_channels_are_closed(broker: Broker, client):
    assert broker.faults.close_channels(406, "PRECONDITION by a test") == 1
    (close,) = client.drain()
    assert close.reply_code == 406
    client.send(commands.Channel.CloseOk())
    client.open(1)
    assert _names(client) == ["OpenOk"]


def test_deliveries_come_twice(broker: Broker, client):
    client.declare("q")
    client.call(commands.Basic.Consume(queue="q"), commands.Basic.ConsumeOk)
    broker.faults.double_deliveries("q", 1)
    client.publish("q", "a")
    client.publish("q", "b")
    assert [text for _, _, text in contents(client.drain())] == ["a", "a", "b"]
    client.send(commands.Basic.Ack(3, multiple=True))
    assert broker.vhost("/").queues["q"].unacked == 0


def test_acks_get_lost(broker: Broker, client, connect):
    client.declare("q")
    client.publish("q", "a")
    method, _, _ = client.get("q", no_ack=False)
    broker.faults.lose_acks(1)
    client.send(commands.Basic.Ack(method.delivery_tag))
    other = connect()
    assert other.count("q") == 0
    client.transport.close()
    method, _, text = other.get("q")
    assert (text, method.redelivered) == ("a", True)


def test_everything_is_taken_back(broker: Broker, confirming):
    faults = broker.faults
    faults.hold_confirms()
    faults.nack_confirms(5)
    faults.block()
    confirming.publish("q", "a")
    faults.clear()
    confirming.drain()
    confirming.publish("q", "b")
    assert _names(confirming) == ["Ack"]
