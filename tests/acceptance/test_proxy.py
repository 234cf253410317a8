"""What the proxy does to a connection, seen from both of its ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.helpers import eventually
from tests.proxy import Proxy, proxied

Ends = tuple[Proxy, socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A proxy, and both ends of a connection through it."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        proxy = stack.enter_context(proxied(f"amqp://127.0.0.1:{listener.getsockname()[1]}/"))
        client = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0))
        stack.enter_context(client)
        server, _ = listener.accept()
        stack.enter_context(server)
        for end in (client, server):
            end.settimeout(60)
        client.sendall(b"hello")
        assert server.recv(5) == b"hello"
        yield proxy, client, server


def test_half_open_tells_the_server_and_not_the_client(ends: Ends) -> None:
    """The server is reset; what the client sends is swallowed, and nothing comes back."""
    proxy, client, server = ends
    assert proxy.half_open() == 1
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    client.sendall(b"x" * 1_000_000)  # far more than any buffer holds
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert proxy.connections == 1
    client.close()
    eventually(lambda: proxy.connections == 0)


def test_a_half_open_connection_can_be_cut(ends: Ends) -> None:
    """A reset ends it for the client, too."""
    proxy, client, _ = ends
    proxy.half_open()
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
