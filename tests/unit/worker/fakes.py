"""Deliveries and messages without a broker behind them."""

from __future__ import annotations

import json
from typing import Any, cast

from amqtask.message.model import Message
from amqtask.transport import Delivery
from amqtask.transport.consumer import Lease


class FakeLease:
    """Notes how deliveries are settled; can end, as a lost channel does."""

    def __init__(self) -> None:
        self.is_valid = True
        self.settled: list[tuple[str, int]] = []

    def ack(self, tag: int) -> None:
        self.settled.append(("ack", tag))

    def nack(self, tag: int, *, requeue: bool) -> None:
        self.settled.append((f"nack {requeue}", tag))

    def reject(self, tag: int, *, requeue: bool) -> None:
        self.settled.append((f"reject {requeue}", tag))


def delivery(
    task: str = "t.task",
    *args: Any,
    lease: FakeLease | None = None,
    queue: str = "q",
    tag: int = 1,
    body: bytes | None = None,
    properties: dict[str, Any] | None = None,
    **headers: Any,
) -> Delivery:
    """Return a delivery of a call, as small as a Celery client may send it."""
    data = json.dumps([args, {}, {}]).encode() if body is None else body
    message = Message(
        data,
        {"task": task, "id": "A", **headers},
        **{"content_type": "application/json", "message_id": "A", **(properties or {})},
    )
    return Delivery(
        message, queue, "amqtask", "q.topic", False, tag, cast(Lease, lease or FakeLease())
    )
