"""Where log lines go, and that an app's own set-up is left alone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from amqtask.worker.logs import set_up_logging


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger without pytest's handlers, which come back afterwards."""
    root, ours = logging.root, logging.getLogger("amqtask")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    root.handlers.clear()
    try:
        yield root
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        ours.setLevel(our_level)


def test_to_standard_error():
    """Without a set-up of the app's, lines from the level up go to standard error."""
    with bare_root() as root:
        set_up_logging("info")
        (handler,) = root.handlers
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is sys.stderr
        assert logging.getLogger("amqtask.task").isEnabledFor(logging.INFO)
        assert not logging.getLogger("amqtask.task").isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("pika").isEnabledFor(logging.INFO)
        assert logging.getLogger("somebody.elses").isEnabledFor(logging.WARNING)


def test_the_apps_own_set_up_stays():
    """Handlers that are there already are kept, and none is added; only our level is set."""
    with bare_root() as root:
        own = logging.NullHandler()
        root.addHandler(own)
        root.setLevel(logging.ERROR)
        set_up_logging("debug")
        assert root.handlers == [own]
        assert root.level == logging.ERROR
        assert logging.getLogger("amqtask").level == logging.DEBUG


def test_twice_is_once():
    """A second call adds no second handler."""
    with bare_root() as root:
        set_up_logging("warning")
        set_up_logging("warning")
        assert len(root.handlers) == 1


def test_a_line_says_who_and_when(capsys):
    """Time, process and level come first."""
    with bare_root() as root:
        set_up_logging("info")
        (handler,) = root.handlers
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(sys.stderr)
        logging.getLogger("amqtask.task").info("task.succeeded id=%s", "A")
        line = capsys.readouterr().err
        assert line.endswith("task.succeeded id=A\n")
        assert " INFO " in line
