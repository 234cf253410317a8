"""The Celery side: an app as a team that uses Celery has it, for the worker and for the client.

The tests start the worker on this module; `make` builds the client's app too. Nothing here knows
amqtask.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from kombu import entity

#: kombu's own is not annotated.
Queue: Any = entity.Queue


def make(broker: str, queue: str, events: str) -> Any:
    """Return a Celery app with one queue and the rpc backend.

    Args:
        queue: Its default queue, declared as Celery declares it.
        events: Name of the exchange for events, so that no shared one is left on the broker.
    """
    app = Celery("interop", broker=broker, backend="rpc://", set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        # other queues are somebody else's: they are there, and declared differently
        task_queues=[Queue(queue)],
        task_create_missing_queues=False,
        accept_content=["json", "msgpack"],
        result_accept_content=["json"],
        # seconds after which the broker deletes a reply queue that nobody consumed
        result_expires=60,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        event_exchange=events,
    )

    return app


def add_tasks(app: Any) -> None:
    """Register the tasks of the worker."""

    @app.task(name="celery.echo")
    def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
        types = [type(value).__name__ for value in args]
        return {"args": args, "kwargs": kwargs, "types": types}

    @app.task(name="celery.fail")
    def fail(importable: bool) -> None:
        if importable:
            raise KeyError("no such user", 7)
        # the client of the tests imports this module, but never that one
        from tests.interop.celery_only import Bounced

        raise Bounced("mail", 550)

    @app.task(bind=True, name="celery.request")
    def request(self: Any) -> dict[str, Any]:
        return described(self.request)

    @app.task(bind=True, name="celery.reporting")
    def reporting(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"current": 1, "total": 4})
        return "end"

    @app.task(bind=True, name="celery.retrying")
    def retrying(self: Any, times: int, countdown: float) -> dict[str, Any]:
        if self.request.retries < times:
            raise self.retry(countdown=countdown, max_retries=times)
        return described(self.request)

    @app.task(bind=True, name="celery.hopeless")
    def hopeless(self: Any) -> None:
        raise self.retry(countdown=0, max_retries=1)

    @app.task(name="celery.forward")
    def forward(name: str, queue: str, args: list[Any]) -> str:
        target = Queue(queue, exchange="", routing_key=queue, no_declare=True)
        return str(app.send_task(name, args, queue=target).id)

    @app.task(bind=True, name="celery.tell")
    def tell(self: Any, queue: str) -> None:
        target = Queue(queue, exchange="", routing_key=queue, no_declare=True)
        app.send_task("told", [described(self.request)], queue=target)


def described(request: Any) -> dict[str, Any]:
    """Return what a Celery task knows about its call."""
    names = ("id", "root_id", "parent_id", "retries", "eta", "expires", "timelimit")
    more = ("headers", "argsrepr", "kwargsrepr", "correlation_id", "shadow", "ignore_result")
    known = {name: getattr(request, name) for name in (*names, *more)}
    return {
        **known,
        "priority": request.delivery_info["priority"],
        "started": time.time(),
        "now": datetime.now(UTC).isoformat(),
    }


if "INTEROP_BROKER" in os.environ:
    app = make(
        os.environ["INTEROP_BROKER"], os.environ["INTEROP_QUEUE"], os.environ["INTEROP_EVENTS"]
    )
    add_tasks(app)
