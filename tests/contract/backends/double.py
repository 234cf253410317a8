"""What the stand-ins for servers share: a port on the loopback, and a thread for each connection."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self


class Double:
    """A server in memory, listening from the moment it is made.

    Args:
        connection: What talks to one client.

    Attributes:
        port: Where it listens, on the loopback.
    """

    def __init__(self, connection: type[Connection]) -> None:
        handler = type("Handler", (connection,), {"server_": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve for as long as the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Connection(socketserver.BaseRequestHandler):
    """One connection: what comes is answered, until the client leaves."""

    server_: Any

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            self.serve()

    def serve(self) -> None:
        """Answer until `read` gives nothing."""
        raise NotImplementedError

    def read(self, size: int) -> bytes:
        """Return so many bytes; none once the client has left."""
        found = b""
        while len(found) < size:
            more: bytes = self.request.recv(size - len(found))
            if not more:
                return b""
            found += more
        return found


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
