"""The consumer timeout that a worker asks for, and what it says where it cannot have it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from amqtask import App, Queue
from amqtask.transport import Session
from amqtask.worker.acktime import AckTime
from tests.unit.transport.fakes import FakeSession


def _app(*limits: float | None, **queue: Any) -> App:
    app = App("acktime", queues=[Queue("q", **queue)], default_queue="q", environ={})
    for number, limit in enumerate(limits):

        def task() -> None: ...

        app.task(name=f"t.{number}", time_limit=limit)(task)
    return app


async def _session(version: tuple[int, int] | None) -> Session:
    session = FakeSession()
    session.rabbitmq = version
    return cast(Session, session)


async def test_the_longest_limit_decides() -> None:
    """On a RabbitMQ that takes it with the consume."""
    acktime = AckTime(_app(10.0, 3600.0, None))
    arguments = acktime.arguments("q", await _session((4, 3)))
    assert arguments == {"x-consumer-timeout": 7_500_000}
    assert acktime.arguments("q", await _session((4, 2))) == {}


@pytest.mark.parametrize(
    ("queue", "asked"),
    [
        ({"declare": "never"}, False),
        ({"declare": "passive"}, False),
        ({"declare": "never", "type": "quorum"}, True),
        ({"type": "classic"}, False),
        ({"consumer_timeout": 9000.0}, False),
    ],
)
async def test_somebody_elses_queue_may_refuse_it(queue: dict[str, Any], asked: bool) -> None:
    """A classic queue closes the channel over it, so it is asked for only where the type is known."""
    arguments = AckTime(_app(3600.0, **queue)).arguments("q", await _session((4, 3)))
    assert bool(arguments) is asked


async def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """At each connect it would be noise."""
    acktime = AckTime(_app(3600.0))
    for _ in range(3):
        acktime.warn("q", await _session((4, 0)))
    assert caplog.text.count("consumer.timeout_short") == 1
    assert "queue='q' seconds=1800 limit=3600" in caplog.text


async def test_nothing_is_said_without_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    """How long such a task runs nobody knows."""
    AckTime(_app(None)).warn("q", await _session((4, 0)))
    assert caplog.records == []
