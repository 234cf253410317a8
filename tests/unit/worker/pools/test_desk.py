"""What a runner does with one call after the other, without the process around it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from amqtask import App, current_task
from amqtask.message.model import Message
from amqtask.worker.outcome import Done
from amqtask.worker.pools import carry
from amqtask.worker.pools.runner import Desk
from amqtask.worker.pools.signals import POKE
from tests.unit.worker.fakes import delivery


@pytest.fixture
def app() -> App:
    """An app with a task of each kind, which tells who it thinks it is."""
    app = App("desk", environ={})

    @app.task(name="plain")
    def plain() -> str:
        return current_task.id

    @app.task(name="coroutine")
    async def coroutine() -> str:
        return current_task.id

    return app


@pytest.fixture
def desk(app: App) -> Iterator[Desk]:
    """A desk; its signal's handler goes with it."""
    before = signal.getsignal(POKE)
    made = Desk(app, "host")
    yield made
    made.close()
    signal.signal(POKE, before)


def order(task: str, id: str) -> tuple[Any, ...]:
    message = delivery(task=task, id=id).message
    fields = tuple(getattr(message, name) for name in Message.__slots__)
    return (fields, "queue", "exchange", "key", False, True, None)


@pytest.mark.parametrize("task", ["plain", "coroutine"])
def test_each_call_has_its_own_current_task(desk: Desk, task: str) -> None:
    """The second call on a runner's event loop does not get the context of the first."""
    for number, each in enumerate(["first", "second"]):
        carried = carry.unpack(desk.run(number, order(task, each)))
        assert carried.outcome == Done(each)
