"""Log lines as `amqtask dev` shows them."""

from __future__ import annotations

import io

import pytest

from amqtask.cli.colours import Painter

LINE = "2026-11-23 13:46:26,816 13764 {:7} {}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def painted(stream: io.StringIO, level: str, message: str) -> str:
    Painter(stream).log(LINE.format(level, message))
    return stream.getvalue()


def test_a_line_without_colours_is_only_shorter() -> None:
    """In a file or a pipe there is nothing but the text: time, what is not usual, message."""
    assert (
        painted(io.StringIO(), "INFO", "task.succeeded task=t.add id=1 runtime=0.001")
        == "13:46:26 task.succeeded task=t.add id=1 runtime=0.001\n"
    )
    assert (
        painted(io.StringIO(), "ERROR", "task.failed task=t.add id=1")
        == "13:46:26 error task.failed task=t.add id=1\n"
    )


def test_a_terminal_gets_colours() -> None:
    """Green for what went well, red for what did not, the task's name in bold."""
    line = painted(Terminal(), "INFO", "task.succeeded task=t.add id=1")
    assert "\x1b[32mtask.succeeded\x1b[0m task=\x1b[1mt.add\x1b[0m id=1" in line
    assert "\x1b[31merror task.failed\x1b[0m" in painted(Terminal(), "ERROR", "task.failed task=t")


def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets NO_COLOR wants none anywhere."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in painted(Terminal(), "INFO", "worker.ready name=x")


def test_what_is_no_log_line_stays() -> None:
    """A traceback, a banner, or the lines of an app that logs in its own way."""
    stream = io.StringIO()
    Painter(stream).log("Traceback (most recent call last):")
    Painter(stream).own("changed: tasks.py")
    assert stream.getvalue() == "Traceback (most recent call last):\ndev  changed: tasks.py\n"
