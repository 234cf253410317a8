"""Whatever comes in, the broker goes on: only the connection it came on may end."""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import pytest
from pamqp import body, commands, frame, header

from amqtask.broker import Broker
from tests.unit.broker.client import Client

#: How many inputs; the full check is 100,000.
_INPUTS = int(os.environ.get("AMQTASK_FUZZ", "1500"))


def _valid(rng: random.Random) -> list[bytes]:
    """Return frames of a client that does a bit of everything."""
    queue = rng.choice(["a", "b", "c", ""])
    table: Any = {
        rng.choice(["x-message-ttl", "x-max-length", "x-expires", "x-queue-type", "x-max-priority",
                    "x-dead-letter-exchange", "x-match", "CC", "n"]):
        rng.choice([0, 1, 10, "quorum", "classic", "a", True, None, ["a", "b"], {"t": 1}, 2.5, -1])
    }  # fmt: skip
    properties = commands.Basic.Properties(
        headers=table,
        delivery_mode=rng.choice([None, 1, 2]),
        expiration=rng.choice([None, "0", "10", "x"]),
        reply_to=rng.choice([None, "amq.rabbitmq.reply-to", "a"]),
        priority=rng.choice([None, 0, 5, 255]),
    )
    text = b"x" * rng.choice([0, 1, 10, 5000])
    exchange = rng.choice(["", "amq.topic", "amq.fanout", "amq.headers", "e"])
    tag = rng.choice([0, 1, 2, 3])
    methods = [
        commands.Queue.Declare(
            queue=queue, durable=rng.random() < 0.7, exclusive=rng.random() < 0.1,
            auto_delete=rng.random() < 0.2, arguments=table if rng.random() < 0.5 else {},
        ),
        commands.Queue.Bind(queue=queue, exchange=exchange, routing_key="#", arguments=table),
        commands.Queue.Unbind(queue=queue, exchange=exchange, routing_key="#", arguments=table),
        commands.Queue.Delete(queue=queue),
        commands.Queue.Purge(queue=queue),
        commands.Exchange.Declare(exchange="e", exchange_type=rng.choice(["topic", "headers"])),
        commands.Exchange.Bind(destination="e", source="amq.topic", routing_key="a.#"),
        commands.Exchange.Delete(exchange="e"),
        commands.Basic.Qos(prefetch_count=rng.choice([0, 1, 5]), global_=rng.random() < 0.3),
        commands.Basic.Consume(queue=queue, no_ack=rng.random() < 0.5, arguments={}),
        commands.Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True),
        commands.Basic.Cancel(consumer_tag="t"),
        commands.Basic.Get(queue=queue, no_ack=rng.random() < 0.5),
        commands.Basic.Ack(tag, multiple=rng.random() < 0.5),
        commands.Basic.Nack(tag, requeue=rng.random() < 0.5),
        commands.Basic.Reject(tag, requeue=rng.random() < 0.5),
        commands.Basic.Recover(requeue=True),
        commands.Confirm.Select(),
        commands.Tx.Select(),
        commands.Tx.Commit(),
        commands.Tx.Rollback(),
        commands.Channel.Open(),
        commands.Channel.Close(200, "", 0, 0),
    ]  # fmt: skip
    channel = rng.choice([1, 1, 1, 2])
    publish = [
        frame.marshal(commands.Basic.Publish(0, exchange, queue, rng.random() < 0.5), channel),
        frame.marshal(header.ContentHeader(0, len(text), properties), channel),
        *([frame.marshal(body.ContentBody(text), channel)] if text else []),
    ]
    if rng.random() < 0.3:
        return publish
    return [frame.marshal(rng.choice(methods), channel)]


def _mutated(rng: random.Random, octets: bytes) -> bytes:
    changed = bytearray(octets)
    for _ in range(rng.choice([1, 1, 2, 8])):
        kind = rng.random()
        place = rng.randrange(len(changed)) if changed else 0
        if kind < 0.5 and changed:
            changed[place] = rng.randrange(256)
        elif kind < 0.7:
            del changed[place : place + rng.randrange(1, 5)]
        elif kind < 0.9:
            changed[place:place] = rng.randbytes(rng.randrange(1, 5))
        elif changed:
            changed = changed[:place]
    return bytes(changed)


@pytest.mark.parametrize("how", ["random", "valid", "mutated"])
async def test_goes_on(broker: Broker, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Random octets, random calls, and calls with a few octets changed."""
    caplog.set_level(logging.ERROR)
    rng = random.Random(int(os.environ.get("AMQTASK_FUZZ_SEED", "20")))
    clients: list[Client] = []
    for number in range(_INPUTS // 3):
        clients = [each for each in clients if not each.transport.closed]
        if how == "random":
            client = Client(broker)
            if number % 2:
                client.login()
            client.send_octets(rng.randbytes(rng.randrange(1, 200)))
            client.transport.close()
            continue
        if len(clients) < 3:
            clients.append(Client(broker).login())
        client = rng.choice(clients)
        for octets in _valid(rng):
            sent = octets if how == "valid" or rng.random() < 0.7 else _mutated(rng, octets)
            while sent:
                # pieces of any size, as sockets give them
                size = rng.choice([len(sent), len(sent), rng.randrange(1, 20)])
                client.send_octets(sent[:size])
                sent = sent[size:]
        client.connection.flush()
        client.transport.written.clear()
        if rng.random() < 0.02 or client.connection._closing:
            client.transport.close()
        if number % 50 == 0:
            broker.advance(1)
    for each in clients:
        each.transport.close()
    assert not caplog.records, caplog.text
    assert not broker.connections
    after = Client(broker).login()
    after.declare("still-here", auto_delete=True)
    after.transport.close()
