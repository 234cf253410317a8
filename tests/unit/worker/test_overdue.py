"""Who looks for overdue chords: where a store keeps chords, and can tell which they are."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from amqtask import App
from amqtask.backends.memory import MemoryStore
from amqtask.worker.overdue import EVERY, Overdue


def _app(backend: str | None, **settings: Any) -> App:
    return App("overdue", backend=backend, environ={}, **settings)


async def _starts(app: App) -> bool:
    looking = Overdue(app, "work")
    looking.start()
    looking.start()
    started = looking._task is not None
    await looking.close()
    return started


@pytest.mark.parametrize(
    ("backend", "starts"), [(None, False), ("rpc://", False), ("memory://overdue", True)]
)
def test_only_stores_are_looked_after(backend: str | None, starts: bool) -> None:
    """Where the broker joins, it keeps the time itself."""
    assert asyncio.run(_starts(_app(backend))) is starts


def test_a_store_that_cannot_tell_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, when a worker starts: its chords expire unseen."""
    caplog.set_level("INFO", "amqtask.chord")
    monkeypatch.setattr(MemoryStore, "register", lambda _: None)
    assert not asyncio.run(_starts(_app(f"memory://{uuid.uuid4()}")))
    assert "chord.unwatched" in caplog.text


@pytest.mark.parametrize(("wait", "every"), [(86400.0, EVERY), (20.0, 10.0), (0.5, 1.0)])
def test_who_waits_for_less_is_looked_at_more_often(wait: float, every: float) -> None:
    """About once a minute at the longest, and not more than once a second."""
    assert Overdue(_app(None, join_expires=wait), "work")._every == every
