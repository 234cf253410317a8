"""Waiting for what another thread, task or process brings about.

Tests wait for a condition until a deadline, never for a time: a slow machine makes them slower,
not red.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

#: Seconds; far more than anything here takes, so that it runs out only on a real failure.
TIMEOUT = 60.0
_PAUSE = 0.01


def eventually(
    condition: Callable[[], T], *, timeout: float = TIMEOUT, message: str | None = None
) -> T:
    """Call the condition until it returns something true, and return that.

    Args:
        condition: What has to become true; an exception it raises ends the wait.
        timeout: Seconds.
        message: What did not happen, for the failure.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            _fail(value, timeout, message)
        time.sleep(_PAUSE)
    return value


async def aeventually(
    condition: Callable[[], T], *, timeout: float = TIMEOUT, message: str | None = None
) -> T:
    """Do as `eventually` does, and let the event loop run meanwhile."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            _fail(value, timeout, message)
        await asyncio.sleep(_PAUSE)
    return value


def _fail(value: object, timeout: float, message: str | None) -> None:
    what = message or "the condition did not become true"
    pytest.fail(f"{what} within {timeout:g} s; it was {value!r} last")
