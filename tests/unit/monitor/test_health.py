"""``/live`` and ``/ready``: what is answered to probes, to other requests and to rubbish."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError
from amqtask.monitor import health
from amqtask.monitor.health import MOST, HealthServer
from amqtask.worker.status import Status
from tests.helpers import aeventually

GOOD = Status("bee", children=({"pid": 7, "ready": True},))


class Office:
    """A health server on a Unix socket: unit tests use no network."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.status = GOOD
        self.health = HealthServer(lambda: self.status, "127.0.0.1", 0)

    async def send(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes and return all that comes back."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(data)
            if end:
                writer.write_eof()
            async with asyncio.timeout(60):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def ask(self, request: str) -> tuple[int, dict[str, str], bytes]:
        """Send a request line and return status, headers and body."""
        answer = await self.send(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        version, code, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        return int(code), dict(line.split(": ", 1) for line in lines), body


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(str(tmp_path / "health"))
    server = await asyncio.start_unix_server(made.health.serve, made.path, limit=MOST)
    yield made
    server.close()
    await made.health.stop()


@pytest.mark.parametrize("path", ["/live", "/ready", "/live?verbose=1"])
async def test_good(office: Office, path: str):
    """200, and JSON that says who answers."""
    code, headers, body = await office.ask(f"GET {path}")
    assert code == 200
    assert headers["Content-Type"] == "application/json"
    assert headers["Connection"] == "close"
    assert int(headers["Content-Length"]) == len(body)
    said = json.loads(body)
    word = path[1:].partition("?")[0]
    assert said == {
        word: True,
        "reasons": [],
        "worker": "bee",
        "processes": [{"pid": 7, "ready": True}],
    }


async def test_bad(office: Office):
    """503 with the reasons, each path its own."""
    office.status = Status("bee", dead=("process 0: silent",), deaf=("queue 'q': gone",))
    code, _, body = await office.ask("GET /live")
    assert (code, json.loads(body)["live"]) == (503, False)
    assert json.loads(body)["reasons"] == ["process 0: silent"]
    code, _, body = await office.ask("GET /ready")
    assert (code, json.loads(body)["reasons"]) == (503, ["queue 'q': gone"])


async def test_head_has_no_body(office: Office):
    """As GET, with the length of a body that is not sent."""
    code, headers, body = await office.ask("HEAD /ready")
    assert code == 200
    assert int(headers["Content-Length"]) > 0
    assert body == b""


@pytest.mark.parametrize(
    ("request_line", "code", "text"),
    [
        ("GET /", 404, "/live"),
        ("GET /metrics", 404, "/ready"),
        ("POST /live", 405, "GET"),
        ("DELETE /ready", 405, "GET"),
    ],
)
async def test_others(office: Office, request_line: str, code: int, text: str):
    """Unknown paths are told what there is; other methods are refused."""
    answered, headers, body = await office.ask(request_line)
    assert answered == code
    assert text in body.decode()
    assert ("Allow" in headers) == (code == 405)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET live HTTP/1.1\r\n\r\n", 400),
        (b"GET /live HTTP/2\r\n\r\n", 400),
        (b"GET /live\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
        (b"GET /live HTTP/1.1\r\nX: " + b"x" * MOST + b"\r\n\r\n", 431),
        (b"GET /live HTTP/1.1\r\n" + b"X: y\r\n" * MOST, 431),
    ],
)
async def test_rubbish(office: Office, data: bytes, code: int):
    """What is no HTTP/1 is refused at once; what is too long too."""
    answer = await office.send(data)
    # a client that still sends when it is hung up on may not see the answer
    assert answer.startswith(f"HTTP/1.1 {code} ".encode()) or (code == 431 and not answer)
    assert (await office.ask("GET /live"))[0] == 200


@given(data=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
async def test_any_bytes(office: Office, data: bytes):
    """Whatever comes, it is answered or hung up on, and the next client is served."""
    answer = await office.send(data, end=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


async def test_half_a_request(office: Office):
    """A client that goes away in the middle gets a 400, if it listens at all."""
    answer = await office.send(b"GET /live HTTP/1.1\r\nHost:", end=True)
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_slow_client_is_hung_up_on(office: Office, monkeypatch):
    """It has its time, and holds up nobody meanwhile."""
    monkeypatch.setattr(health, "TIMEOUT", 1.0)  # the other client is served in less
    reader, writer = await asyncio.open_unix_connection(office.path)
    with closing(writer):
        writer.write(b"GET /live HTTP/1.1\r\n")
        assert (await office.ask("GET /live"))[0] == 200
        async with asyncio.timeout(60):
            assert await reader.read() == b""


async def test_too_many_clients(office: Office, monkeypatch):
    """What comes beyond the bound is hung up on, not kept."""
    monkeypatch.setattr(health, "CLIENTS", 1)
    reader, writer = await asyncio.open_unix_connection(office.path)
    with closing(writer):
        await aeventually(lambda: len(office.health._clients) == 1)
        assert await office.send(b"GET /live HTTP/1.1\r\n\r\n") == b""
        writer.write(b"GET /live HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_a_port_that_is_taken():
    """The error names the port and what to do."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"'127.0.0.1', port {port}: ") as caught:
            await HealthServer(lambda: GOOD, "127.0.0.1", port).start()
    assert caught.value.hint is not None
    assert "--health-port" in caught.value.hint


async def test_the_port_it_chose():
    """0 takes any that is free, and it says which."""
    server = HealthServer(lambda: GOOD, "127.0.0.1", 0)
    await server.start()
    assert server.port > 0
    await server.stop()
