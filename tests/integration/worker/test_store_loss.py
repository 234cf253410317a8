"""Results survive what happens to the store, and to the caller."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amqtask import App
from amqtask.errors import BackendUnavailable
from tests.helpers import eventually
from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line

#: Seconds for all results to be there again: the store's start, and a worker's back-off.
BACK = 60.0


class PrivateRedis:
    """A Redis of one test's own, that keeps what it confirmed and can be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port)) as link:
                link.sendall(b"PING\r\n")
                return link.recv(5) == b"+PONG"
        except OSError:
            return False


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A private Redis that runs."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed: this test needs one that it can kill")
    made = PrivateRedis(tmp_path)
    made.start()
    yield made
    made.kill()


def test_a_store_that_is_killed_and_comes_back(
    make_app: MakeApp,
    queue: str,
    running: Running,
    store: PrivateRedis,
    caplog: pytest.LogCaptureFixture,
):
    """Every result is there afterwards, and whoever waited for it gets it."""
    caplog.set_level(logging.INFO, "amqtask")
    app = make_app(queue, backend=store.url)
    count = int(os.environ.get("AMQTASK_TEST_STORE_LOSS_TASKS", "2000"))
    ran: list[int] = []

    @app.task(name="t.number")
    def number(value: int) -> int:
        ran.append(value)
        return value

    caller = make_app(queue, backend=store.url)
    with caller.pipeline():
        results = [caller.send_task("t.number", (value,)) for value in range(count)]
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.extend(r.get(BACK) for r in results))
    waiting.start()
    running(app)
    eventually(lambda: len(ran) > count // 4)
    store.kill()
    eventually(lambda: "task.not_safe" in caplog.text)
    store.start()
    waiting.join(BACK)
    assert got == list(range(count))
    again = make_app(queue, backend=store.url)
    assert [again.result(each.id).get(BACK) for each in results] == list(range(count))


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
        app = make_app(queue, backend=url, result_retry_for=0.2, result_fallback=fallback)
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
