"""Results survive what happens to the store, and to the caller."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pytest

from amqtask import App, ResultSet
from amqtask.errors import BackendUnavailable, ConfigurationError
from amqtask.testing import stores
from amqtask.testing.probes import probe_redis
from tests.helpers import eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line
from tests.proxy import closed_port

#: Seconds for all results to be there again: the store's start, and a worker's back-off.
BACK = 120.0

Probe = Callable[[io.BufferedRWPair, SplitResult], object]


class PrivateStore:
    """A server of one test's own, that keeps what it confirmed and can be killed.

    Args:
        url: Of the backend, with its port left out.
        probe: Asks whether it answers.
    """

    def __init__(self, port: int, url: str, command: Sequence[str], probe: Probe) -> None:
        self.url = url.format(port=port)
        self._port = port
        self._command = command
        self._probe = probe
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again while what was killed is not yet gone."""
        eventually(self._up, timeout=BACK)

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _up(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            with (
                socket.create_connection(("127.0.0.1", self._port), 5.0) as link,
                link.makefile("rwb") as stream,
            ):
                self._probe(stream, urlsplit("postgresql://postgres@127.0.0.1/postgres"))
        except OSError:
            return False
        return True


def _redis(port: int, folder: Path) -> PrivateStore:
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
    if shutil.which(command[0]) is None:
        pytest.skip("no redis-server is installed: this test needs one that it can kill")
    return PrivateStore(port, "redis://127.0.0.1:{port}/0", command, probe_redis)


def _postgresql(port: int, folder: Path) -> PrivateStore:
    try:
        command = stores.postgresql_command(port, folder)
    except ConfigurationError as error:
        pytest.skip(f"no PostgreSQL is installed that this test can kill: {error}")
    url = "db+postgresql://postgres@127.0.0.1:{port}/postgres"
    return PrivateStore(port, url, command, stores.probe_postgresql)


def _mysql(port: int, folder: Path) -> PrivateStore:
    try:
        command = stores.mysql_command(port, folder)
    except ConfigurationError as error:
        pytest.skip(f"no MariaDB is installed that this test can kill: {error}")
    url = "db+mysql://root@127.0.0.1:{port}/test"
    return PrivateStore(port, url, command, stores.probe_mysql)


@pytest.fixture(params=[_redis, _postgresql, _mysql], ids=["redis", "postgresql", "mysql"])
def store(request: pytest.FixtureRequest) -> Iterator[PrivateStore]:
    """A private server that runs."""
    port = closed_port()
    # a folder that the server's own user can reach
    with tempfile.TemporaryDirectory(prefix="amqtask-store-") as folder:
        made: PrivateStore = request.param(port, Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.kill()


@pytest.fixture
def not_safe() -> Iterator[threading.Event]:
    """Set once a worker has said that a task's outcome is not safe yet."""
    said = threading.Event()

    class Hear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("task.not_safe"):
                said.set()

    logger, handler = logging.getLogger("amqtask"), Hear()
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def test_a_store_that_is_killed_and_comes_back(
    make_app: MakeApp,
    queue: str,
    running: Running,
    store: PrivateStore,
    not_safe: threading.Event,
):
    """Every result is there afterwards, and whoever waited for it gets it."""
    app = make_app(queue, backend=store.url)
    count = int(os.environ.get("AMQTASK_TEST_STORE_LOSS_TASKS", "2000"))
    ran: list[int] = []
    killed = threading.Event()

    @app.task(name="t.number")
    def number(value: int) -> int:
        ran.append(value)
        # however fast the worker is, some results come when the store is gone
        if value > count // 2:
            assert killed.wait(BACK)
        return value

    caller = make_app(queue, backend=store.url)
    with caller.pipeline():
        results = [caller.send_task("t.number", (value,)) for value in range(count)]
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.extend(ResultSet(results).join(BACK)))
    waiting.start()
    running(app)
    eventually(lambda: len(ran) > count // 4)
    store.kill()
    killed.set()
    assert not_safe.wait(BACK)
    store.start()
    waiting.join(BACK)
    assert got == list(range(count))
    again = make_app(queue, backend=store.url)
    assert ResultSet(again.result(each.id) for each in results).join(BACK) == list(range(count))


class AwayStore:
    """Stands for a store that does not come back."""

    def __init__(self, app: App) -> None:
        store = app.backend.store  # type: ignore[union-attr]
        self.tries = 0

        def save(_: object) -> None:
            self.tries += 1
            raise BackendUnavailable("it is gone")

        store.save = save


@pytest.fixture
def away(make_app: MakeApp, queue: str) -> Any:
    """Makes an app whose store takes nothing, and gives up on it soon."""

    def make(fallback: str) -> tuple[App, AwayStore]:
        url = f"memory://{uuid.uuid4().hex}"
        app = make_app(queue, backend=url, result_retry_for=1.0, result_fallback=fallback)
        return app, AwayStore(app)

    return make


def test_a_store_that_stays_away_parks_the_message(
    away: Any, queue: str, running: Running, line: Line, caplog: pytest.LogCaptureFixture
):
    """After result_retry_for the message is kept in the dead-letter queue, with the reason."""
    app, gone = away("dead_letter")

    @app.task(name="t.one")
    def one() -> int:
        return 1

    app.send_task("t.one")
    running(app)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers is not None
    assert properties.headers["amqtask-reason"] == "result_not_stored"
    assert gone.tries >= 2
    assert "it is gone" in properties.headers["amqtask-exception"]
    eventually(lambda: "task.failure_not_stored" in caplog.text)


def test_a_store_that_stays_away_sends_the_message_back(
    away: Any, queue: str, running: Running, caplog: pytest.LogCaptureFixture
):
    """With result_fallback="redeliver" the task runs again, and its result is stored then."""
    app, gone = away("redeliver")
    runs: list[float] = []

    @app.task(name="t.one")
    def one() -> int:
        runs.append(time.monotonic())
        if len(runs) == 2:
            del app.backend.store.save  # it is back
        return len(runs)

    result = app.send_task("t.one")
    running(app)
    assert result.get(BACK) == 2
    assert "task.result_not_stored" in caplog.text
    assert gone.tries >= 2


def test_a_caller_that_reconnects_reads_what_came_meanwhile(
    make_app: MakeApp, queue: str, running: Running
):
    """Results that are sent while the caller's connection is down wait in its reply queue."""
    worker, caller = make_app(queue), make_app(queue)
    gate = threading.Event()
    ended: list[int] = []

    @worker.task(name="t.gated")
    def gated(value: int) -> int:
        gate.wait(BACK)
        ended.append(value)
        return value

    running(worker)
    with caller.pipeline():
        results = [caller.send_task("t.gated", (value,)) for value in range(50)]
    link = caller.transport.link("consume")
    held = threading.Event()

    async def cut() -> None:
        session, urls = link.session, link.urls
        assert session is not None
        link.urls = []  # nowhere to connect to, until the results have been sent
        await session.close()
        held_urls.append(urls)
        held.set()

    held_urls: list[Any] = []
    caller.transport.io.run(cut())
    gate.set()
    eventually(lambda: len(ended) == 50)
    assert not any(result.ready() for result in results)
    link.urls = held_urls[0]
    assert [result.get(BACK) for result in results] == list(range(50))
