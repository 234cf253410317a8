"""A Celery app whose workflows are shared with amqtask: results on Redis, two queues.

The tests start its worker on this module; `make` builds the client's app too. Nothing here knows
amqtask.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from kombu import entity

#: kombu's own is not annotated.
Queue: Any = entity.Queue


def make(broker: str, backend: str, theirs: str, ours: str, prefix: str) -> Any:
    """Return a Celery app.

    Args:
        theirs: The queue of Celery's workers.
        ours: The queue of amqtask's workers, which Celery sends to and does not declare.
        prefix: Start of all keys on Redis.
    """
    app = Celery("flow", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        task_default_queue=theirs,
        task_queues=[
            Queue(theirs),
            Queue(ours, exchange="", routing_key=ours, no_declare=True),
        ],
        task_create_missing_queues=False,
        result_backend_transport_options={"global_keyprefix": prefix},
        result_expires=600,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        event_exchange=f"{theirs}-events",
    )
    return app


def add_tasks(app: Any) -> None:
    """Register the tasks of the worker."""

    @app.task(name="theirs.add")
    def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="theirs.xsum")
    def xsum(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="theirs.same")
    def same(value: Any) -> Any:
        return value

    @app.task(name="theirs.fail")
    def fail(*_: Any) -> None:
        raise KeyError("theirs")

    @app.task(name="theirs.replaced", bind=True)
    def replaced(self: Any, a: int) -> Any:
        return self.replace(add.s(a, 1) | add.s(10))


if "FLOW_BROKER" in os.environ:
    app = make(
        *(os.environ[f"FLOW_{name}"] for name in ("BROKER", "BACKEND", "THEIRS", "OURS", "PREFIX"))
    )
    add_tasks(app)
