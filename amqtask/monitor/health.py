"""``/live`` and ``/ready`` over plain HTTP, for Kubernetes, load balancers and people with curl.

    GET /live    200 while the supervisor and the loops of its processes tick, else 503
    GET /ready   200 while every process consumes every queue, else 503

The body is JSON: the worker's name, the reasons, its processes. It answers
from the supervisor, which runs no task, so it answers whatever tasks do. It is
meant for a network one trusts: it asks nobody who they are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from amqtask.errors import ConfigurationError
from amqtask.worker.status import Status

log = logging.getLogger(__name__)

#: Seconds a client has to send its request and take the answer.
TIMEOUT = 5.0
#: Bytes of the longest request head.
MOST = 8192
#: Clients at the same time; what comes beyond is hung up on.
CLIENTS = 64

_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1024}) HTTP/1\.[01]\r?\n")


class HealthServer:
    """Answers probes.

    Args:
        status: Asked at each request how the worker is.
        host: Address to listen on.
        port: Port to listen on; 0 takes any that is free.

    Attributes:
        port: The port it listens on, once it does.
    """

    def __init__(self, status: Callable[[], Status], host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._status = status
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: The address cannot be had.
        """
        try:
            self._server = await asyncio.start_server(self.serve, self.host, self.port, limit=MOST)
        except OSError as error:
            raise ConfigurationError(
                f"the health port cannot listen on {self.host!r}, port {self.port}: "
                f"{error.strerror or error}",
                hint="give another --health-port (0 takes any that is free) or --health-host",
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("health.listening host=%s port=%d: /live and /ready", self.host, self.port)

    async def stop(self) -> None:
        """Close the port and hang up on whoever is connected."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients)
        if self._server is not None:
            await self._server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client, once."""
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= CLIENTS:
                async with asyncio.timeout(TIMEOUT):
                    writer.write(self._answer(await _head(reader)))
                    await writer.drain()
        except (TimeoutError, OSError) as error:
            log.debug("health.client_lost error=%r", error)
        except asyncio.CancelledError:
            log.debug("health.hung_up: the worker ends")
        finally:
            self._clients.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes | HTTPStatus) -> bytes:
        if isinstance(head, HTTPStatus):
            return reply(head, {"error": head.phrase.lower()})
        match = _REQUEST.match(head)
        if match is None:
            return reply(HTTPStatus.BAD_REQUEST, {"error": "not an HTTP/1 request"})
        method, path = match[1].decode(), match[2].decode().partition("?")[0]
        whole = method != "HEAD"
        if path not in ("/live", "/ready"):
            said: dict[str, object] = {"error": f"no {path!r} here", "paths": ["/live", "/ready"]}
            return reply(HTTPStatus.NOT_FOUND, said, whole=whole)
        if method not in ("GET", "HEAD"):
            return reply(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"{path} takes GET"})
        status = self._status()
        good, reasons = (
            (status.live, status.dead) if path == "/live" else (status.ready, status.deaf)
        )
        return reply(
            HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
            {
                path[1:]: good,
                "reasons": list(reasons),
                "worker": status.name,
                "processes": list(status.children),
            },
            whole=whole,
        )


async def _head(reader: asyncio.StreamReader) -> bytes | HTTPStatus:
    """Read a request up to its empty line; what it sends beyond is left."""
    head = b""
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return HTTPStatus.BAD_REQUEST
        except asyncio.LimitOverrunError:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        head += line
        if len(head) > MOST:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if not _REQUEST.match(head):
            return HTTPStatus.BAD_REQUEST  # there is no use in waiting for more of it
    return head


def reply(status: HTTPStatus, said: dict[str, object], *, whole: bool = True) -> bytes:
    """Return an HTTP response.

    Args:
        status: Its status.
        said: Its JSON body.
        whole: False leaves the body out, as for HEAD.
    """
    body = json.dumps(said).encode() + b"\n"
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body if whole else b"")
