"""systemd's notifications: datagrams to the socket that the environment names."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amqtask.worker.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def said(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


def test_each_word(manager: socket.socket):
    """The lines are those of sd_notify(3)."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready()
    assert said(manager) == "READY=1"
    notifier.stopping()
    assert said(manager) == "STOPPING=1"
    notifier.starting()
    assert said(manager) == "EXTEND_TIMEOUT_USEC=30000000"
    notifier.reloading()
    first, second = said(manager).splitlines()
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    notifier.status("2 of 2 processes consume")
    notifier.status("2 of 2 processes consume")
    notifier.ready()
    assert said(manager) == "STATUS=2 of 2 processes consume"
    assert said(manager) == "READY=1"


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux has abstract sockets")
def test_an_abstract_socket():
    """An address that begins with @ has no file."""
    name = f"amqtask-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert said(sock) == "READY=1"


def test_without_a_manager_nothing_is_said():
    """Nobody has to ask whether systemd is there."""
    notifier = Notifier({})
    notifier.ready()
    notifier.alive(0.0)
    assert notifier.watchdog is None


def test_children_do_not_speak_for_the_service():
    """The variables are taken out of the environment."""
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier(environ)
    assert environ == {"HOME": "/"}


def test_the_watchdog_is_fed_in_time(manager: socket.socket):
    """A sign of life after half of the time, not at each call."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "10000000"})
    assert notifier.watchdog == 10.0
    for now in (100.0, 101.0, 104.9, 105.0, 106.0):
        notifier.alive(now)
    notifier.ready()
    assert [said(manager) for _ in range(3)] == ["WATCHDOG=1", "WATCHDOG=1", "READY=1"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_that_is_not_ours(environ: dict[str, str]):
    """None, a broken one, or one meant for another process."""
    assert Notifier(dict(environ)).watchdog is None


def test_a_manager_that_is_gone(caplog):
    """The worker goes on; the log says that it was not heard."""
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready()
    assert "notify.failed said='READY=1'" in caplog.text
