"""pika's slips while a connection opens, and that they are outcomes like others here."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from amqtask.transport.connection import _Services
from tests.helpers import aeventually


async def test_a_peer_that_is_gone_at_once_is_reported() -> None:
    """Reset between connect and transport: whoever waits is told, and nothing reaches the loop."""
    raised: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(context))
    outcomes: list[Any] = []
    with socket.socket() as unconnected:
        unconnected.setblocking(False)
        _Services(loop).create_streaming_connection(lambda: None, unconnected, outcomes.append)
        assert outcomes == []  # never before the caller has its reference
        await aeventually(lambda: outcomes)
    (error,) = outcomes
    assert isinstance(error, ConnectionResetError)
    assert str(error) == "the connection was reset as soon as it was made"
    assert raised == []
