"""A Celery worker runs what our beat fires, from a schedule in Celery's own forms."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from amqtask import App
from tests.helpers import eventually
from tests.integration.beat.conftest import RunningBeat
from tests.integration.worker.inprocess import line_to
from tests.interop.conftest import MakeApp
from tests.interop.sides import CeleryWorker
from tests.servers import Names

schedules = pytest.importorskip(
    "celery.schedules", reason='Celery is not installed: pip install "amqtask[interop]"'
)


@pytest.fixture
def told(names: Names, broker: str) -> str:
    """The queue in which the Celery worker says what it ran."""
    name = names.queue("told")
    with line_to(broker) as line:
        line.channel.queue_declare(name, durable=True)
    return name


@pytest.fixture
def app(make_app: MakeApp, celery_worker: CeleryWorker, names: Names, told: str) -> App:
    """An app with the schedule of a Celery app."""
    return make_app(
        celery_worker.queue,
        beat_queue=names.beat_queue(),
        control_exchange=names.exchange("control"),
        cancel_exchange=names.cancel_exchange(),
        beat_schedule={
            "each second": {
                "task": "celery.tell",
                "schedule": timedelta(seconds=1),
                "args": (told,),
                "options": {"expires": 60},
            },
            "in a while": {
                "task": "celery.tell",
                "schedule": schedules.crontab(minute=0, hour=0, day_of_month=29, month_of_year=2),
                "kwargs": {"queue": told},
            },
        },
    )


@pytest.fixture
def beat(app: App) -> Iterator[RunningBeat]:
    """A beat of that app in this process."""
    running = RunningBeat(app, "interop")
    yield running
    running.stop()


def test_celery_runs_what_our_beat_fires(
    app: App, beat: RunningBeat, celery_worker: CeleryWorker, broker: str, told: str
) -> None:
    """Under the ids of their instants, each once, and with headers that say what they are for."""
    entry = app.entries.get("each second")
    assert entry is not None
    with line_to(broker) as line:
        requests = [_request(line.take(told)) for _ in range(3)]
    assert celery_worker.errors() == []
    instants = set()
    for request in requests:
        headers = request["headers"]
        assert headers["periodic_task_name"] == headers["x-amqtask-entry"] == "each second"
        instant = datetime.fromisoformat(headers["x-amqtask-instant"])
        assert instant.microsecond == 0
        assert request["id"] == entry.fire_id(app.name, instant)
        assert request["expires"] is not None
        instants.add(instant)
    assert len(instants) == 3
    # the leader counts a fire once its confirm has come, and Celery may be quicker
    eventually(lambda: app.schedules.get("each second").fires >= 3)
    assert app.schedules.get("in a while").next is not None


def _request(delivery: Any) -> dict[str, Any]:
    _, body = delivery
    request: dict[str, Any] = orjson.loads(body)[0][0]
    return request
