"""The broker as a whole: its life, its vhosts and users."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from pamqp import commands, header

from amqtask.broker import Broker
from amqtask.errors import ConfigurationError
from tests.unit.broker.client import CAPABILITIES, Client


def _refused(broker: Broker, user: str, password: str, vhost: str) -> commands.Connection.Close:
    client = Client(broker)
    client.send_octets(header.ProtocolHeader().marshal())
    properties: Any = {"capabilities": {**CAPABILITIES, "authentication_failure_close": True}}
    client.send(commands.Connection.StartOk(properties, "PLAIN", f"\0{user}\0{password}"), 0)
    if not client.connection._closing:
        client.send(commands.Connection.TuneOk(2047, 131072, 0), 0)
        client.send(commands.Connection.Open(vhost), 0)
    close: commands.Connection.Close = client.drain()[-1]
    client.transport.close()
    return close


def test_vhosts_are_apart(broker: Broker, connect):
    broker.add_vhost("other")
    here, there = connect(), connect("other")
    here.declare("q")
    here.publish("q", "a")
    there.declare("q")
    assert (here.count("q"), there.count("q")) == (1, 0)
    broker.delete_vhost("other")
    assert there.transport.closed
    assert not here.transport.closed


def test_an_unknown_vhost_is_refused(broker: Broker):
    close = _refused(broker, "guest", "guest", "nowhere")
    assert (close.reply_code, close.reply_text) == (530, "NOT_ALLOWED - vhost nowhere not found")


async def test_an_unknown_vhost_is_made_on_demand():
    broker = Broker(vhosts_on_demand=True)
    await broker.start(host=None)
    client = Client(broker).login("new")
    client.declare("q")
    await broker.stop()
    assert client.transport.closed


def test_users(broker: Broker):
    broker.add_vhost("v")
    broker.add_user("ada", "secret", vhosts=["v"])
    assert isinstance(_refused(broker, "ada", "secret", "v"), commands.Connection.OpenOk)
    assert _refused(broker, "ada", "secret", "/").reply_code == 530
    assert _refused(broker, "ada", "wrong", "v").reply_code == 403


async def test_started_twice(broker: Broker):
    with pytest.raises(ConfigurationError, match="this broker runs already"):
        await broker.start(host=None)


async def test_stopped_it_can_start_again():
    broker = Broker()
    for _ in range(2):
        await broker.start(host=None)
        Client(broker).login().declare("q")
        await broker.stop()
    await broker.stop()


async def test_stopping_tells_clients(broker: Broker, client):
    await broker.stop()
    assert client.transport.closed
    (close,) = client.drain()
    assert close.reply_text == (
        "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
    )


async def test_a_port_that_is_taken():
    async with Broker() as broker:
        other = Broker()
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{broker.port}"):
            await other.start(port=broker.port)
        await other.start()
        await other.stop()


def test_in_a_thread():
    before = threading.active_count()
    with Broker().start_in_thread() as broker:
        assert broker.url == f"amqp://guest:guest@127.0.0.1:{broker.port}/"
        assert broker.url_of("a/b").endswith("/a%2Fb")
        broker.add_vhost("v")
        broker.advance(1)
        with pytest.raises(ConfigurationError, match="this broker runs already"):
            asyncio.run(broker.start())
    assert threading.active_count() == before


def test_a_thread_that_cannot_start(tmp_path: Path):
    taken = tmp_path / "file"
    taken.write_text("not a folder")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Broker(data=taken).start_in_thread()


async def test_a_unix_socket(tmp_path: Path):
    path = tmp_path / "broker.sock"
    broker = Broker()
    await broker.start(host=None, unix_socket=str(path))
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(header.ProtocolHeader().marshal())
    assert await asyncio.wait_for(reader.readexactly(1), 5) == b"\x01"
    writer.close()
    await broker.stop()
    assert not path.exists()
