"""Fit the broker's consumer timeout to the time limits of the tasks, and say where it does not fit."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from amqtask.app import App
from amqtask.policy.holding import consume_timeout, longest, too_short
from amqtask.topology.plan import queue_type
from amqtask.transport import Session

log = logging.getLogger(__name__)


class AckTime:
    """How long deliveries of an app's queues may be held.

    Threads: I/O loop only.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._told: set[str] = set()

    def arguments(self, name: str, session: Session) -> Mapping[str, Any]:
        """Return the arguments of ``basic.consume`` for a queue on this session's broker."""
        queue, settings = self._app.queue(name), self._app.settings
        if (queue.declare or settings.declare) != "auto" and queue.type is None:
            return {}  # of what type it is only its owner knows, and a classic one refuses them
        seconds = consume_timeout(session.rabbitmq, **self._said(name))
        return {} if seconds is None else {"x-consumer-timeout": math.ceil(seconds * 1000)}

    def warn(self, name: str, session: Session) -> None:
        """Say once when a task may run over the consumer timeout within its own limit."""
        said = self._said(name)
        allowed = too_short(session.rabbitmq, **said)
        if allowed is None or name in self._told:
            return
        self._told.add(name)
        log.warning(
            "consumer.timeout_short queue=%r seconds=%g limit=%g: a task may run for longer than "
            "the broker lets a worker hold its message, unless it is configured otherwise; it is "
            "then delivered again while it runs\n%s",
            name,
            allowed,
            said["limit"],
            "give the queue a Queue(consumer_timeout=...) above the limit (RabbitMQ 3.12 and "
            "later), or the broker a consumer_timeout in rabbitmq.conf",
        )

    def _said(self, name: str) -> dict[str, Any]:
        queue, settings = self._app.queue(name), self._app.settings
        limits = [
            task.defaults.time_limit or settings.time_limit for task in self._app.tasks.values()
        ]
        return {
            "quorum": queue_type(queue, settings) == "quorum",
            "limit": longest(limits),
            "said": queue.consumer_timeout,
        }
