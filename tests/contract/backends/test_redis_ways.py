"""The ways to a Redis other than a plain port: TLS, a socket, Sentinel, a cluster; Valkey's names."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from amqtask import ConfigurationError
from tests.contract.backends.conftest import Ends, MakeApp
from tests.contract.backends.test_own import CONTRACT
from tests.helpers import eventually

SERVER = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(
    SERVER is None, reason="no redis-server is installed, and these tests start their own"
)


class Servers:
    """Private servers, on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, port: int = 0) -> None:
        folder = self.folder / str(len(self._running))
        folder.mkdir()
        command = ["redis-server", *options, "--bind", "127.0.0.1", "--dir", str(folder)]
        self._running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        if port:
            eventually(lambda: _answers(port))

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    # a cluster's node listens at its port plus 10000, too
    return [port if port < 55_000 else port - 20_000 for port in ports]


def _tls(servers: Servers) -> str:
    (port,) = _ports(1)
    key, certificate = servers.folder / "key.pem", servers.folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    more = ["--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", "--port", "0"]
    servers.start("--tls-port", str(port), *files, *more, port=port)
    # Celery's word for it
    return f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}&ssl_cert_reqs=CERT_REQUIRED"


def _socket(servers: Servers) -> str:
    path = servers.folder / "s"
    servers.start("--port", "0", "--unixsocket", str(path))
    eventually(path.exists)
    return f"redis+socket://{path}"


def _sentinel(servers: Servers) -> str:
    port, sentinel = _ports(2)
    servers.start("--port", str(port), "--save", "", port=port)
    config = servers.folder / "sentinel.conf"
    config.write_text(f"port {sentinel}\nsentinel monitor shop 127.0.0.1 {port} 1\n")
    servers.start(str(config), "--sentinel", port=sentinel)
    return f"redis+sentinel://127.0.0.1:{sentinel}/0?service=shop"


def _cluster(servers: Servers) -> str:
    (port,) = _ports(1)
    servers.start("--port", str(port), "--cluster-enabled", "yes", "--save", "", port=port)
    with redis.Redis(port=port) as client:
        node: Any = client
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: b"cluster_state:ok" in node.execute_command("CLUSTER", "INFO"))
    return f"redis+cluster://127.0.0.1:{port}"


def _valkey(servers: Servers) -> str:
    (port,) = _ports(1)
    servers.start("--port", str(port), "--save", "", port=port)
    return f"valkey://127.0.0.1:{port}/0"


WAYS: dict[str, Callable[[Servers], str]] = {
    "tls": _tls,
    "socket": _socket,
    "sentinel": _sentinel,
    "cluster": _cluster,
    "valkey": _valkey,
}


@pytest.fixture(scope="module", params=list(WAYS))
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of each way."""
    servers = Servers(tmp_path_factory.mktemp("redis"))
    try:
        yield WAYS[request.param](servers)
    finally:
        servers.stop()


@pytest.mark.parametrize("holds", CONTRACT, ids=lambda test: test.__name__.removeprefix("test_"))
def test_every_way(holds: Any, url: str, open_app: MakeApp):
    """The backends' contract holds over each of them."""
    holds(Ends(open_app(url), open_app(url), lambda _: ""))


@pytest.mark.parametrize(
    "url",
    ["redis://:s3cret@localhost:port/0", "redis+sentinel://:s3cret@localhost:port/0"],
)
def test_a_url_that_cannot_be_understood(url: str, open_app: MakeApp):
    """The error says how to write it, and keeps the password."""
    with pytest.raises(ConfigurationError, match="backend URL cannot be understood") as caught:
        open_app(url)
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__} {caught.value.hint}"
