"""How much waits: what a supervisor asks the broker before it starts more processes."""

from __future__ import annotations

import asyncio

from amqtask import App
from amqtask.worker.prepare import Backlog, declare_topology
from tests.helpers import eventually
from tests.integration.worker.conftest import MakeApp
from tests.integration.worker.inprocess import Line
from tests.servers import Names


def test_messages_of_all_queues(make_app: MakeApp, names: Names, line: Line) -> None:
    """The sum over the queues; one that is not there counts as empty, and spoils nothing."""
    first, second, missing = names.queue("a"), names.queue("b"), names.queue("missing")
    app = make_app(first, second)

    async def count() -> int | None:
        await declare_topology(app, [first, second], lambda _: None)
        backlog = Backlog(app, [first, missing, second])
        try:
            assert await backlog.count() == 0
            for queue in (first, second, second):
                line.call(queue, "t.task")
            eventually(lambda: line.size(second) == 2)
            eventually(lambda: line.size(first) == 1)
            await backlog.count()
            return await backlog.count()
        finally:
            await backlog.close()

    assert asyncio.run(count()) == 3


def test_a_broker_that_does_not_answer() -> None:
    """Nobody knows then, which is not the same as nothing."""
    app = App("away", broker="amqp://guest:guest@127.0.0.1:1/", environ={}, connect_timeout=0.5)
    assert asyncio.run(Backlog(app, ["q"]).count()) is None
