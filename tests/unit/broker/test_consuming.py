"""Deliveries, and what becomes of those that a client keeps."""

from __future__ import annotations

from pamqp import commands

from amqtask.broker import Broker
from tests.unit.broker.client import Client, contents


def _consume(client: Client, queue: str, *, prefetch: int = 0, **values) -> str | None:
    client.call(commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.QosOk)
    return client.call(
        commands.Basic.Consume(queue=queue, **values), commands.Basic.ConsumeOk
    ).consumer_tag


def _texts(client: Client) -> list[str]:
    return [text for _, _, text in contents(client.drain())]


def test_no_more_than_prefetch(client):
    client.declare("q")
    _consume(client, "q", prefetch=2)
    for text in "abcd":
        client.publish("q", text)
    assert _texts(client) == ["a", "b"]
    client.send(commands.Basic.Ack(2, multiple=True))
    assert _texts(client) == ["c", "d"]


def test_a_client_that_does_not_read_gets_nothing_more(client, connect):
    """Its messages go to who reads."""
    slow, quick = client, connect()
    slow.declare("q")
    _consume(slow, "q", no_ack=True)
    slow.connection.pause_writing()
    quick.publish("q", "a")
    assert _texts(slow) == []
    _consume(quick, "q", no_ack=True)
    quick.publish("q", "b")
    assert _texts(quick) == ["b"]
    slow.connection.resume_writing()
    quick.publish("q", "c")
    quick.publish("q", "d")
    assert sorted(_texts(slow) + _texts(quick)) == ["c", "d"]


def test_a_connection_that_ends_gives_back(client, connect):
    """In the old order, as redelivered; queues of its own go."""
    gone = connect()
    client.declare("q")
    gone.declare("own", exclusive=True)
    for text in "abc":
        client.publish("q", text)
    _consume(gone, "q", prefetch=2)
    gone.transport.close()
    found = [client.get("q") for _ in range(3)]
    assert [(text, method.redelivered) for method, _, text in found] == [
        ("a", True), ("b", True), ("c", False),
    ]  # fmt: skip
    client.send(commands.Queue.Declare(queue="own", passive=True))
    (close,) = client.drain()
    assert close.reply_text == "NOT_FOUND - no queue 'own' in vhost '/'"


def test_a_quorum_queue_counts_returns(client):
    client.declare("q", {"x-queue-type": "quorum", "x-delivery-limit": 2})
    client.publish("q", "a")
    counts = []
    while (got := client.get("q", no_ack=False)) is not None:
        method, properties, _ = got
        counts.append((properties.headers or {}).get("x-delivery-count"))
        client.send(commands.Basic.Reject(method.delivery_tag, requeue=True))
    assert counts == [None, 1, 2]


def test_a_deleted_queue_cancels(client, connect):
    client.declare("q")
    tag = _consume(client, "q")
    connect().call(commands.Queue.Delete(queue="q"), commands.Queue.DeleteOk)
    (cancel,) = client.drain()
    assert isinstance(cancel, commands.Basic.Cancel)
    assert cancel.consumer_tag == tag


def test_acks_for_a_deleted_queue_do_no_harm(client, connect):
    client.declare("q")
    client.publish("q", "a")
    method, _, _ = client.get("q", no_ack=False)
    connect().call(commands.Queue.Delete(queue="q"), commands.Queue.DeleteOk)
    client.send(commands.Basic.Nack(method.delivery_tag, requeue=True))
    client.declare("q")
    assert client.count("q") == 0


def test_an_expired_message_is_dead_lettered_when_time_comes(broker: Broker, client):
    client.declare("dead")
    client.declare("q", {"x-message-ttl": 60_000, "x-dead-letter-exchange": "",
                         "x-dead-letter-routing-key": "dead"})  # fmt: skip
    client.publish("q", "a")
    broker.advance(59)
    assert (client.count("q"), client.count("dead")) == (1, 0)
    broker.advance(2)
    assert (client.count("q"), client.count("dead")) == (0, 1)


def test_an_unused_queue_expires(broker: Broker, client):
    client.declare("q", {"x-expires": 60_000})
    broker.advance(40)
    client.get("q")
    broker.advance(40)
    assert client.count("q") == 0
    broker.advance(61)
    assert "q" not in broker.vhost("/").queues


def test_at_least_once_keeps_what_has_no_new_queue(broker: Broker, client):
    """It is tried again until there is one, and counts as being here until then."""
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": 1000,
        "x-dead-letter-exchange": "amq.direct",
        "x-dead-letter-routing-key": "later",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    client.declare("q", arguments)
    client.publish("q", "a")
    broker.advance(2)
    queue = broker.vhost("/").queues["q"]
    assert len(queue.stranded) == 1
    client.declare("later")
    bind = commands.Queue.Bind(queue="later", exchange="amq.direct", routing_key="later")
    client.call(bind, commands.Queue.BindOk)
    broker.vhost("/")._retry()
    assert client.texts("later") == ["a"]
    assert not queue.stranded


def test_a_long_chain_of_full_queues(client):
    """Deaths that cause deaths are worked off one after the other, not one inside the other."""
    length = 300
    for number in range(length):
        client.declare(
            f"q{number}",
            {"x-max-length": 0, "x-dead-letter-exchange": "",
             "x-dead-letter-routing-key": f"q{number + 1}"},
        )  # fmt: skip
    client.declare(f"q{length}")
    client.publish("q0", "a")
    assert client.texts(f"q{length}") == ["a"]
