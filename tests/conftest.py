"""Rules that hold for all tests: unit tests open no connection, and no test leaves things behind.

A thread, asyncio task or connection left by one test makes another one fail at random, so the
test that left it fails instead.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

# how long one example takes says how loaded the machine is; `make bench` judges speed
hypothesis.settings.register_profile("amqtask", deadline=None)
hypothesis.settings.load_profile("amqtask")

pytest_plugins = ("pytester", "tests.depot", "tests.servers", "tests.sharing")

_TESTS = Path(__file__).parent
#: Seconds that what a test stopped has to end.
_GRACE = 30.0


def _room(request: pytest.FixtureRequest) -> str:
    return request.path.relative_to(_TESTS).parts[0]


@pytest.fixture(autouse=True)
def _no_connections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests/unit, fail at a connection: it would make the test depend on a server."""
    if _room(request) != "unit":
        return

    def refusing(real: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in {socket.AF_INET, socket.AF_INET6}:
                self.close()
                pytest.fail(f"a unit test connects to {address!r}; tests/integration may do that")
            return real(self, address)

        return connect

    for method in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, refusing(getattr(socket.socket, method)))


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves non-daemon threads, asyncio tasks or connections behind.

    What fixtures of a wider scope hold was there before, and does not count.
    """
    room = _room(request)
    if room not in {"unit", "contract", "integration"} or request.node.get_closest_marker("keeps"):
        yield
        return
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_pending_tasks")
    with_connections = room != "unit"
    before = _threads() | (_connections() if with_connections else set())
    yield
    deadline = time.monotonic() + _GRACE
    while left := (_threads() | (_connections() if with_connections else set())) - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {', '.join(sorted(map(str, left)))}", pytrace=False)
        gc.collect()
        time.sleep(0.01)


@pytest.fixture
async def _no_pending_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=_GRACE)
    if pending := [task.get_name() for task in left if not task.done()]:
        pytest.fail(f"tasks left behind: {', '.join(sorted(pending))}", pytrace=False)


def _threads() -> set[object]:
    # those of asyncio.to_thread end with the test's event loop, which ends after this check
    return {
        thread
        for thread in threading.enumerate()
        if not thread.daemon and not thread.name.startswith("asyncio_")
    }


def _connections() -> set[object]:
    return {
        f"connection to {each.raddr.ip}:{each.raddr.port} (descriptor {each.fd}, {each.laddr.port})"
        for each in psutil.Process().net_connections("inet")
        if each.raddr and each.status == psutil.CONN_ESTABLISHED
    }
