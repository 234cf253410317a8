"""What a data folder brings back, and what it does not."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pamqp import commands

from amqtask.broker import Broker
from amqtask.errors import ConfigurationError
from tests.unit.broker.client import Client


@asynccontextmanager
async def _running(data: Path) -> AsyncIterator[tuple[Broker, Client]]:
    broker = Broker(data=data)
    await broker.start(host=None)
    try:
        yield broker, Client(broker).login()
    finally:
        await broker.stop()


async def _saved(client: Client) -> list[str]:
    """Return the confirms that came once all is on disk."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5
    names: list[str] = []
    while not names and loop.time() < deadline:
        await asyncio.sleep(0.001)
        names = [type(each).__name__ for each in client.drain()]
    return names


async def test_durable_things_come_back(tmp_path: Path):
    async with _running(tmp_path) as (broker, client):
        broker.add_vhost("v")
        client.declare("q", {"x-max-priority": 3})
        client.declare("gone")
        client.declare("passing", durable=False)
        client.call(
            commands.Exchange.Declare(exchange="e", exchange_type="topic", durable=True),
            commands.Exchange.DeclareOk,
        )
        client.call(
            commands.Queue.Bind(queue="q", exchange="e", routing_key="a.#"), commands.Queue.BindOk
        )
        client.call(commands.Queue.Delete(queue="gone"), commands.Queue.DeleteOk)
        client.publish("a.b", "kept", exchange="e", delivery_mode=2, priority=1, headers={"h": 1})
        client.publish("a.b", "first", exchange="e", delivery_mode=2, priority=2)
        client.publish("a.b", "lost", exchange="e", delivery_mode=1)
    async with _running(tmp_path) as (broker, client):
        assert set(broker.vhost("/").queues) == {"q"}
        assert broker.vhost("v").name == "v"
        client.declare("q", {"x-max-priority": 3})
        client.publish("a.c", "new", exchange="e", delivery_mode=2)
        found = [client.get("q") for _ in range(3)]
        assert [text for _, _, text in found] == ["first", "kept", "new"]
        assert found[1][1].headers == {"h": 1}


async def test_a_confirm_waits_for_the_disk(tmp_path: Path):
    async with _running(tmp_path) as (_, client):
        client.declare("q")
        client.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        client.publish("q", "a", delivery_mode=2)
        assert client.drain() == []
        assert await _saved(client) == ["Ack"]


async def test_what_need_not_be_kept_is_confirmed_at_once(tmp_path: Path):
    async with _running(tmp_path) as (_, client):
        client.declare("q")
        client.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        client.publish("q", "a", delivery_mode=1)
        assert [type(each).__name__ for each in client.drain()] == ["Ack"]


async def test_acked_does_not_come_back_and_unacked_is_redelivered(tmp_path: Path):
    async with _running(tmp_path) as (_, client):
        client.declare("q", {"x-queue-type": "quorum"})
        for text in "abcd":
            client.publish("q", text)
        method, _, _ = client.get("q", no_ack=False)
        client.send(commands.Basic.Ack(method.delivery_tag))
        method, _, _ = client.get("q", no_ack=False)
        client.send(commands.Basic.Reject(method.delivery_tag, requeue=True))
        client.get("q", no_ack=False)
        client.get("q", no_ack=False)
    async with _running(tmp_path) as (_, client):
        found = [client.get("q") for _ in range(3)]
        assert [(text, method.redelivered) for method, _, text in found] == [
            ("b", True), ("c", True), ("d", False),
        ]  # fmt: skip
        assert found[0][1].headers["x-delivery-count"] >= 1


async def test_time_goes_on_while_it_is_stopped(tmp_path: Path):
    async with _running(tmp_path) as (broker, client):
        client.declare("dead")
        client.declare("q", {"x-message-ttl": 60_000, "x-dead-letter-exchange": "",
                             "x-dead-letter-routing-key": "dead"})  # fmt: skip
        client.publish("q", "a", delivery_mode=2)
    async with _running(tmp_path) as (broker, client):
        assert client.count("q") == 1
        broker.advance(61)
    async with _running(tmp_path) as (_, client):
        assert client.count("q") == 0
        _, properties, text = client.get("dead")
        assert text == "a"
        assert properties.headers["x-death"][0]["reason"] == "expired"


async def test_one_broker_at_a_time(tmp_path: Path):
    async with _running(tmp_path):
        other = Broker(data=tmp_path)
        with pytest.raises(ConfigurationError, match="cannot be used: database is locked"):
            await other.start(host=None)


def _limit(broker: Broker, pages: int) -> None:
    """Let the database hold so many pages, as a disk does that is full."""
    store = broker._store
    assert store is not None
    assert store._database is not None
    store._database.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_confirms_nothing_and_is_caught_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Publishers get nacks and are blocked; once there is room all is saved, queues included."""
    monkeypatch.setattr("amqtask.broker.store._AGAIN", 0.01)
    async with _running(tmp_path) as (broker, client):
        client.declare("q")
        client.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        client.publish("q", "first", delivery_mode=2)
        assert await _saved(client) == ["Ack"]
        _limit(broker, 1)
        client.declare("late")
        client.publish("q", "x" * 50_000, delivery_mode=2)
        client.publish("late", "x" * 50_000, delivery_mode=2)
        assert await _saved(client) == ["Blocked", "Nack"]
        reading = [client.transport.reading]
        assert "publishers get nacks and are blocked" in caplog.text
        _limit(broker, 10_000)
        assert await _saved(client) == ["Unblocked"]
        reading.append(client.transport.reading)
        assert reading == [False, True]
        client.publish("late", "last", delivery_mode=2)
        assert await _saved(client) == ["Ack"]
    async with _running(tmp_path) as (_, client):
        assert [len(text) for text in client.texts("q")] == [5, 50_000]
        assert [len(text) for text in client.texts("late")] == [50_000, 4]


async def test_stopped_while_the_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """What never got on disk is counted in the log, and nothing else goes wrong."""
    async with _running(tmp_path) as (broker, client):
        client.declare("q")
        client.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        client.publish("q", "first", delivery_mode=2)
        assert await _saved(client) == ["Ack"]
        _limit(broker, 1)
        client.publish("q", "x" * 50_000, delivery_mode=2)
        assert "Nack" in await _saved(client)
    await asyncio.sleep(0)
    events = [each.getMessage().split()[0] for each in caplog.records if each.levelname == "ERROR"]
    assert events == ["broker.not_saved", "broker.lost"]
    async with _running(tmp_path) as (_, client):
        assert client.texts("q") == ["first"]


async def test_a_damaged_file_is_refused(tmp_path: Path):
    """Whatever octets are wrong: it says what is wrong and what to do, or starts with what is left."""
    async with _running(tmp_path) as (_, client):
        client.declare("q", {"x-queue-type": "quorum"})
        client.call(
            commands.Queue.Bind(queue="q", exchange="amq.topic", routing_key="a.#"),
            commands.Queue.BindOk,
        )
        for _ in range(20):
            client.publish("q", "x" * 300, headers={"h": 1})
    path = tmp_path / "broker.sqlite3"
    whole = path.read_bytes()
    refused: list[ConfigurationError] = []
    for seed in range(60):
        rng = random.Random(seed)
        octets = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.choice([1, 5, 500]) if octets else 0):
            octets[rng.randrange(len(octets))] = rng.randrange(256)
        path.write_bytes(octets)
        broker = Broker(data=tmp_path)
        try:
            await broker.start(host=None)
        except ConfigurationError as error:
            refused.append(error)
        await broker.stop()
    assert len(refused) > 10
    for each in refused:
        assert "cannot be used: " in str(each)
        assert each.hint


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path):
    async with _running(tmp_path):
        pass
    database = sqlite3.connect(tmp_path / "broker.sqlite3")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigurationError, match="of version 99, and this broker knows 1"):
        await Broker(data=tmp_path).start(host=None)
