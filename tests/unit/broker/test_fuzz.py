"""Whatever comes in, the broker goes on: only the connection it came on may end.

Here octets go straight into connections; tests/integration/broker sends the like over sockets.
"""

from __future__ import annotations

import logging
import random

import pytest

from amqtask.broker import Broker
from tests.unit.broker.client import Client
from tests.unit.broker.fuzz import INPUTS, SEED, SPOILT, Courtesy, truncated, valid


@pytest.mark.parametrize("how", SPOILT)
async def test_goes_on(broker: Broker, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Calls of all kinds, whole and spoilt: no error of the broker's own, and nothing is left."""
    caplog.set_level(logging.ERROR)
    rng, spoil = random.Random(SEED), SPOILT[how]
    clients: list[Client] = []
    courtesies: dict[Client, Courtesy] = {}
    for number in range(INPUTS // len(SPOILT)):
        clients = [each for each in clients if not each.transport.closed]
        if len(clients) < 3:
            clients.append(Client(broker) if rng.random() < 0.02 else Client(broker).login())
        client = rng.choice(clients)
        for octets in valid(rng):
            spoilt = rng.random() < 0.3
            sent = spoil(rng, octets) if spoilt else octets
            while sent:
                # pieces of any size, as sockets give them
                size = rng.choice([len(sent), len(sent), rng.randrange(1, 20)])
                client.send_octets(sent[:size])
                sent = sent[size:]
            if spoilt and spoil is truncated:
                client.transport.close()
        client.connection.flush()
        came = bytes(client.transport.written)
        client.transport.written.clear()
        client.send_octets(courtesies.setdefault(client, Courtesy()).answer(came))
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
