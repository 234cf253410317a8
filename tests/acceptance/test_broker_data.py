"""``amqtask broker --data``: what it says is on disk is on disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.acceptance.broker_kills import data_broker, killed, kills
from tests.acceptance.program import TIMEOUT
from tests.helpers import eventually

_QUEUE = "full"
_PERSISTENT = pika.BasicProperties(delivery_mode=2)
#: Octets that a file of the broker may have, where its disk is to be full soon.
_SMALL = 1 << 20


def test_kill_9_at_any_moment_loses_nothing_confirmed(tmp_path: Path) -> None:
    """No confirmed message is lost, and none whose ack was committed comes again."""
    seed = int(os.environ.get("AMQTASK_KILLS_SEED", "7"))
    with data_broker(tmp_path / "data") as broker:
        account = killed(broker, kills(), seed)
    print(
        f"{kills()} kills: {account.published} published, {len(account.confirmed)} confirmed, "
        f"{len(account.safe)} acks committed, {account.again} came again that were acked after it"
    )
    assert account.confirmed
    assert account.safe
    account.check()


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit, which Linux has")
def test_a_full_disk(tmp_path: Path) -> None:
    """What is confirmed is on disk; publishers get nacks and are blocked until there is room."""
    with data_broker(tmp_path / "data") as broker:
        broker.start(largest=_SMALL)
        with broker.pika() as connection:
            told: list[str] = []
            connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
            connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
            channel, confirmed = _filled(connection)
            _eventually(connection, lambda: told == ["blocked"])
            assert "broker.not_saved" in broker.log
            broker.make_room()
            _eventually(connection, lambda: told == ["blocked", "unblocked"])
            channel.basic_publish("", _QUEUE, b"last", _PERSISTENT)
        assert "broker.saved_again" in broker.log
        broker.kill()
        broker.start()
        with broker.pika() as connection:
            assert {*confirmed, b"last"} <= _bodies(connection)


def test_killed_with_a_full_disk(tmp_path: Path) -> None:
    """What was confirmed before it was full comes back."""
    with data_broker(tmp_path / "data") as broker:
        broker.start(largest=_SMALL)
        with broker.pika() as connection:
            _, confirmed = _filled(connection)
            broker.kill()
            with contextlib.suppress(pika.exceptions.AMQPError):
                connection.close()
        broker.start()
        with broker.pika() as connection:
            assert confirmed <= _bodies(connection)


def _filled(connection: pika.BlockingConnection) -> tuple[BlockingChannel, set[bytes]]:
    """Publish until a message is nacked; returns those that were confirmed."""
    channel = connection.channel()
    channel.queue_declare(_QUEUE, durable=True)
    channel.confirm_delivery()
    confirmed: set[bytes] = set()
    for number in range(1000):
        body = b"%d %s" % (number, b"x" * 20_000)
        try:
            channel.basic_publish("", _QUEUE, body, _PERSISTENT)
        except pika.exceptions.NackError:
            assert confirmed
            return channel, confirmed
        confirmed.add(body)
    pytest.fail("its disk never was full")


def _bodies(connection: pika.BlockingConnection) -> set[bytes]:
    """Take all messages."""
    channel = connection.channel()
    found = set()
    while (body := channel.basic_get(_QUEUE, auto_ack=True)[2]) is not None:
        found.add(body)
    return found


def _eventually(connection: pika.BlockingConnection, condition: Callable[[], bool]) -> None:
    """Wait for a condition while the connection hears what it is told."""

    def look() -> bool:
        connection.process_data_events(0.05)
        return condition()

    eventually(look, timeout=TIMEOUT)
