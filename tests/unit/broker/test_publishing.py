"""Confirms, returns and transactions, as a client sees them."""

from __future__ import annotations

from collections.abc import Callable

from pamqp import commands

from amqtask.broker import Broker
from tests.unit.broker.client import Client, contents


def _confirming(client: Client) -> Client:
    client.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    return client


def _confirms(client: Client) -> list[tuple[str, int, bool]]:
    return [
        (type(each).__name__, each.delivery_tag, each.multiple)
        for each in client.drain()
        if isinstance(each, commands.Basic.Ack | commands.Basic.Nack)
    ]


def test_one_message_one_confirm(client):
    client.declare("q")
    _confirming(client).publish("q", "a")
    assert _confirms(client) == [("Ack", 1, False)]


def test_confirms_that_are_due_together_are_sent_as_one(client):
    """What was read in one piece is confirmed in one frame."""
    client.declare("q")
    _confirming(client)
    with client.in_one_piece():
        for text in "abc":
            client.publish("q", text)
    assert _confirms(client) == [("Ack", 3, True)]


def test_nack_where_a_queue_is_full(client):
    client.declare("q", {"x-max-length": 1, "x-overflow": "reject-publish"})
    _confirming(client)
    client.publish("q", "a")
    client.publish("q", "b")
    assert _confirms(client) == [("Ack", 1, False), ("Nack", 2, True)]
    assert client.texts("q") == ["a"]


def test_a_message_nobody_takes_comes_back_before_its_confirm(client):
    _confirming(client).publish("nobody", "a", mandatory=True)
    returned, _, _, ack = client.drain()
    assert (returned.reply_code, returned.reply_text) == (312, "NO_ROUTE")
    assert isinstance(ack, commands.Basic.Ack)


def test_routes_follow_their_bindings(client):
    """Remembered routes are forgotten when a binding comes or goes."""
    client.declare("q")
    client.publish("k", "lost", exchange="amq.direct")
    bind = commands.Queue.Bind(queue="q", exchange="amq.direct", routing_key="k")
    client.call(bind, commands.Queue.BindOk)
    client.publish("k", "found", exchange="amq.direct")
    unbind = commands.Queue.Unbind(queue="q", exchange="amq.direct", routing_key="k")
    client.call(unbind, commands.Queue.UnbindOk)
    client.publish("k", "lost again", exchange="amq.direct")
    assert client.texts("q") == ["found"]


def test_a_transaction_is_carried_out_at_commit(client):
    client.declare("q")
    client.call(commands.Tx.Select(), commands.Tx.SelectOk)
    client.publish("q", "a")
    assert client.count("q") == 0
    client.call(commands.Tx.Commit(), commands.Tx.CommitOk)
    assert client.count("q") == 1


def test_a_transaction_rolled_back_leaves_deliveries_unacked(client):
    client.declare("q")
    client.publish("q", "a")
    method, _, _ = client.get("q", no_ack=False)
    client.call(commands.Tx.Select(), commands.Tx.SelectOk)
    client.send(commands.Basic.Ack(method.delivery_tag))
    client.publish("q", "b")
    client.call(commands.Tx.Rollback(), commands.Tx.RollbackOk)
    client.send(commands.Basic.Ack(method.delivery_tag))
    client.call(commands.Tx.Commit(), commands.Tx.CommitOk)
    assert client.count("q") == 0


def test_several_keys(client):
    """CC and BCC are further keys; only CC is seen by who gets the message."""
    for queue in "abc":
        client.declare(queue)
    client.publish("a", "x", headers={"CC": ["b"], "BCC": ["c"]})
    for queue in "abc":
        _, properties, text = client.get(queue)
        assert text == "x"
        assert properties.headers == {"CC": ["b"]}


def test_a_body_in_pieces(client, connect: Callable[[], Client]):
    """Bodies larger than a frame go out in frames that fit."""
    client.declare("q")
    client.connection.channels[1].most = 10
    client.publish("q", "x" * 25)
    client.send(commands.Basic.Get(queue="q", no_ack=True))
    frames = client.drain()
    assert [len(each.value) for each in frames[2:]] == [10, 10, 5]
    assert contents(frames)[0][2] == "x" * 25


def test_a_message_too_large_closes_the_channel(client):
    client.declare("q")
    size = 16 * 1024 * 1024 + 1
    client.publish("q", "x" * size)
    (close,) = client.drain()
    assert close.reply_code == 406
    assert close.reply_text == (
        "PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216"
    )
    assert (close.class_id, close.method_id) == (60, 40)


def test_direct_replies(broker: Broker, client, connect):
    asker, answerer = client, connect()
    asker.call(
        commands.Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True),
        commands.Basic.ConsumeOk,
    )
    asker.declare("q")
    asker.publish("q", "ask", reply_to="amq.rabbitmq.reply-to")
    _, properties, _ = answerer.get("q")
    answerer.publish(properties.reply_to, "answer")
    ((_, _, text),) = contents(asker.drain())
    assert text == "answer"
