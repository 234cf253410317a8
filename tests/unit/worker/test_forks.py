"""Copies of a template as the supervisor sees them; the template itself is in tests/acceptance."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any, cast

import pytest

from amqtask.worker import forks
from amqtask.worker.forks import Copy, Forks, Template
from amqtask.worker.starting import Starter
from tests.unit.worker.children import SPEC

linux = pytest.mark.skipif(sys.platform != "linux", reason="there are templates on Linux only")


def _program(code: str) -> Copy:
    return Copy(os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", code], {}))


def test_an_exit_code():
    """As `subprocess.Popen` has it, and as often as it is asked for."""
    copy = _program("raise SystemExit(7)")
    copy.wait()
    assert (copy.poll(), copy.poll()) == (7, 7)


def test_a_signal():
    """One that has ended gets no more: its id may be another's."""
    copy = _program("import time; time.sleep(600)")
    assert copy.poll() is None
    copy.kill()
    copy.wait()
    assert copy.poll() == -signal.SIGKILL
    copy.send_signal(signal.SIGTERM)


def test_an_end_that_another_has_seen():
    """Nobody knows how it ended, so it did not end well."""
    copy = _program("")
    os.waitpid(copy.pid, 0)
    assert copy.poll() == 1


class FakeTemplate:
    """Makes children of nothing, until it fails."""

    pid = 77

    def __init__(self) -> None:
        self.made: list[bool] = []
        self.fails = self.closed = self.ended = False

    def spawn(self, spec: Any, board: int, *, last: bool = False) -> tuple[Any, socket.socket]:
        if self.fails:
            raise OSError("it is gone")
        self.made.append(last)
        return object(), socket.socket()

    def has_ended(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> FakeTemplate:
    monkeypatch.setattr(forks, "adopt", lambda: True)
    monkeypatch.setattr(forks, "start_python", lambda *_: ("a fresh one", socket.socket()))
    return FakeTemplate()


def _start(starter: Starter) -> Any:
    process, sock = starter(SPEC, 3)
    sock.close()
    return process


def test_it_becomes_the_last_one_wanted(template: FakeTemplate):
    """What follows after that is a fresh Python."""
    starter = Forks(cast(Template, template), most=2)
    assert (starter.adopts, starter.pids) == (True, {77})
    assert "a fresh one" not in (_start(starter), _start(starter))
    assert (template.made, template.closed, starter.pids) == ([False, True], False, set())
    assert _start(starter) == "a fresh one"


def test_it_stays_where_more_may_be_wanted(template: FakeTemplate):
    """And is closed at the end."""
    starter = Forks(cast(Template, template))
    for _ in range(5):
        assert _start(starter) != "a fresh one"
    assert template.made == [False] * 5
    starter.close()
    assert (template.closed, starter.pids) == (True, set())


def test_one_that_fails_is_not_asked_again(template: FakeTemplate, caplog):
    """The child is made all the same."""
    starter = Forks(cast(Template, template))
    template.fails = True
    assert _start(starter) == "a fresh one"
    assert (template.closed, starter.pids) == (True, set())
    assert "template.failed error='it is gone': processes start by themselves" in caplog.text


def test_one_that_dies_is_missed(template: FakeTemplate, caplog):
    """Once."""
    starter = Forks(cast(Template, template))
    starter.look()
    assert starter.pids == {77}
    template.ended = True
    starter.look()
    starter.look()
    assert starter.pids == set()
    assert caplog.text.count("template.died pid=77") == 1


def test_without_a_way_to_adopt_there_is_none(template: FakeTemplate, monkeypatch):
    """A copy's end would be seen by nobody."""
    monkeypatch.setattr(forks, "adopt", lambda: False)
    starter = Forks(cast(Template, template))
    assert (template.closed, starter.adopts, _start(starter)) == (True, False, "a fresh one")


@linux
async def test_a_new_one_that_cannot_start(template: FakeTemplate, monkeypatch, caplog):
    """Its app does not exist any more: that is said, and fresh Pythons say it better."""
    starter = Forks(cast(Template, template), app="no_such_module:app")
    await starter.renew(SPEC)
    assert (template.closed, starter.pids) == (True, set())
    assert "template.not_started: processes start by themselves" in caplog.text
    assert _start(starter) == "a fresh one"
