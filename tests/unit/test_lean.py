"""What a program does not pay for: the code of what it does not use is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers import TIMEOUT

#: What schedules, joins and named steps need, by the beginnings of modules' names.
_RARE = (
    "amqtask.asking",
    "amqtask.beat",
    "amqtask.control",
    "amqtask.entries",
    "amqtask.policy.entry",
    "amqtask.policy.schedule",
    "amqtask.schedules",
    "amqtask.workflow.builder",
    "amqtask.workflow.join",
    "cronsim",
    "importlib.metadata",
)


def imported(code: str) -> set[str]:
    """Return the names of the modules that a fresh Python has after this code."""
    shown = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", shown], capture_output=True, text=True, check=True, timeout=TIMEOUT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("import amqtask; app = amqtask.App('a'); app.task(lambda: 1, name='t')", ("amqtask.cli",)),
        ("import amqtask.worker.template", ("amqtask.cli", "click", "rich", "zoneinfo")),
        ("import amqtask.cli.main", ("amqtask.broker", "amqtask.monitor", "rich")),
    ],
    ids=["client", "child", "command"],
)
def test_what_is_rare_is_late(code: str, more: tuple[str, ...]) -> None:
    """Client, worker process and command line hold nothing of schedules, joins and brokers."""
    found = {name for name in imported(code) if name.startswith((*_RARE, *more))}
    assert not found
