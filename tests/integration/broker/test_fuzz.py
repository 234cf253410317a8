"""Octets of all kinds over real sockets: the broker goes on, and nothing of them is left."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import psutil
import pytest
from pamqp import commands

from tests.contract.broker.wire import Gone, Wire
from tests.embedded import BrokerProcess, broker_process
from tests.helpers import eventually
from tests.unit.broker.fuzz import INPUTS, SEED, SPOILT, Courtesy, truncated, valid


@pytest.fixture(scope="module")
def target() -> Iterator[BrokerProcess]:
    """A broker of its own; at the end it must not have logged an error."""
    with broker_process() as broker:
        yield broker


@pytest.mark.parametrize("how", SPOILT)
def test_goes_on(target: BrokerProcess, how: str) -> None:
    """Three connections at once send calls, whole and spoilt, and others take their places."""
    process = psutil.Process(target.pid)
    open_before = process.num_fds()
    rng, spoil = random.Random(SEED), SPOILT[how]
    wires: list[Wire] = []
    courtesies: dict[Wire, Courtesy] = {}
    for _ in range(INPUTS // len(SPOILT)):
        if len(wires) < 3:
            wires.append(_connected(target.url, rng))
        wire = rng.choice(wires)
        courtesy = courtesies.setdefault(wire, Courtesy())
        for octets in valid(rng):
            spoilt = rng.random() < 0.3
            ended = not _sent(wire, spoil(rng, octets) if spoilt else octets, courtesy)
            if ended or (spoilt and spoil is truncated) or rng.random() < 0.01:
                wires.remove(wire)
                wire.abandon()
                break
    for wire in wires:
        wire.abandon()
    eventually(lambda: process.num_fds() <= open_before, message="it kept sockets")
    with Wire(target.url).login().open_channel() as after:
        for queue in ("a", "b", "c"):
            after.call(commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk)
        after.call(commands.Exchange.Delete(exchange="e"), commands.Exchange.DeleteOk)
        after.close()


def _connected(url: str, rng: random.Random) -> Wire:
    wire = Wire(url)
    return wire if rng.random() < 0.02 else wire.login().open_channel()


def _sent(wire: Wire, octets: bytes, courtesy: Courtesy) -> bool:
    """Send octets and take what came back; False when the broker has ended the connection."""
    try:
        wire.write(octets)
        with contextlib.suppress(TimeoutError):
            wire.write(courtesy.answer(wire.read(0)))
    except (Gone, OSError):
        return False
    return True
