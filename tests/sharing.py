"""How a run of tests is shared out among pytest-xdist's processes.

Whoever takes a unit runs all of its tests one after the other:

    unit                                for
    a test                              tests/acceptance: few, slow, each with processes of its own
    a broker                            tests/interop: one Celery worker a broker serves all tests
    a file's tests on one broker        the others: what a module shares is made once

Slow units go first, so that no process is left with one while the others have nothing to do.
"""

from __future__ import annotations

import os
import time

import pytest
from xdist.scheduler import LoadScopeScheduling

#: By the seconds that a unit takes, the slowest first. All other rooms come after them.
_SLOW_FIRST = ("acceptance", "interop", "integration", "contract")
#: Processes a core: tests wait for brokers and processes four fifths of their time.
_PER_CORE = 2
#: Processes at most: brokers and databases are the same few, however many ask them.
_MOST = 12
_BROKERS = {"embedded", "rabbitmq", "rabbitmq4"}


def unit_of(nodeid: str) -> str:
    """Return the name of the unit that a test belongs to."""
    file, _, rest = nodeid.partition("::")
    room = _room(nodeid)
    if room == "acceptance":
        return nodeid
    parameters = rest.partition("[")[2].rstrip("]").split("-")
    brokers = [each for each in parameters if each in _BROKERS]
    on = f" on {brokers[0]}" if brokers else ""
    return f"interop{on}" if room == "interop" else f"{file}{on}"


def _room(nodeid: str) -> str:
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ""


class _Units(LoadScopeScheduling):  # type: ignore[misc]  # it has no annotations
    """Hands out units, in the order of their first tests."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Say what ``-n auto`` is, unless pytest-xdist's own variable does."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return min(_PER_CORE * (os.cpu_count() or 1), _MOST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Units | None:
    """Share out by units where the command line asks for no other way."""
    if config.getoption("dist") != "load":
        return None
    config.option.loadscopereorder = False
    return _Units(config, log)


_running: dict[str, float] = {}


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note what runs."""
    _running[nodeid] = time.monotonic()


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Note that it has ended."""
    _running.pop(nodeid, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was running when the run was ended from outside: one of them may have hung."""
    for nodeid, began in _running.items():
        terminalreporter.write_line(f"STILL RUNNING for {time.monotonic() - began:.0f} s {nodeid}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the slow rooms first in a run of several processes."""
    if not hasattr(config, "workerinput"):
        return
    rank = {room: number for number, room in enumerate(_SLOW_FIRST)}
    items.sort(key=lambda item: rank.get(_room(item.nodeid), len(rank)))
