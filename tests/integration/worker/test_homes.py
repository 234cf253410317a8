"""Where a worker sends what follows a call, when nobody has said."""

from __future__ import annotations

import json
from typing import Any

import pika

from tests.integration.worker.conftest import MakeApp, Running
from tests.integration.worker.inprocess import Line
from tests.servers import Names


def test_a_foreign_step_goes_where_its_task_says(
    make_app: MakeApp, names: Names, running: Running, line: Line
):
    """Celery's clients leave the queue of a later step to the worker that sends it."""
    here, there = names.queue("here"), names.queue("there")
    app = make_app(here, there)

    @app.task(name="t.first")
    def first() -> int:
        return 1

    @app.task(name="t.next", queue=there)
    def follow(value: int) -> int:
        return value

    running(app, there).stop()  # makes the queue
    running(app, here)
    step: dict[str, Any] = {
        "task": "t.next",
        "args": [],
        "kwargs": {},
        "options": {"task_id": "N"},
        "subtask_type": None,
        "immutable": False,
    }
    embed = {"callbacks": None, "errbacks": None, "chain": [step], "chord": None}
    line.channel.basic_publish(
        "",
        here,
        json.dumps([[], {}, embed]).encode(),
        pika.BasicProperties(
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": "t.first", "id": "F"},
        ),
    )
    properties, _ = line.take(there)
    assert (properties.headers or {})["id"] == "N"
