"""A job: one delivery on its way through the worker.

waiting --begin--> running --end--> settling --> settled
   |                  |--verdict (a limit, a cancel, a stop)--> asked to end
   `--take back-------+--claim (hard limit, quick stop)--> settled by others
"""

from __future__ import annotations

import time
from asyncio import TimerHandle
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from amqtask.context import Context
from amqtask.message.headers import CRASHES_HEADER
from amqtask.message.model import Call, Message
from amqtask.policy.retry import RetryPolicy
from amqtask.task import Task
from amqtask.transport import Delivery
from amqtask.worker.outcome import Outcome, Verdict


class Kind(Enum):
    """Where a job runs."""

    THREAD = "thread"
    LOOP = "loop"
    PROCESS = "process"


class Run(Protocol):
    """What can be done to a job that runs; every verb from any thread."""

    def soft(self) -> None:
        """Raise `SoftTimeLimitExceeded` in it."""

    def cancel(self) -> None:
        """Ask it to end."""

    def kill(self) -> bool:
        """End it for certain; False where only the end of the whole process does that."""

    def stack(self) -> str:
        """Return where its code is, as text."""


class Job:
    """One delivery.

    Attributes:
        group: Index of the slot group that its queue belongs to.
        kind: Where it runs.
        call: What it decoded to; None while, or because, it did not.
        task: What runs it.
        policy: When it is retried.
        hard: Seconds of its hard time limit, 0 for none.
        soft: The same of its soft time limit.
        outcome: How it ended; None while that is open.
        started: `time.monotonic` when the task's code began, 0 before.
        ended: The same for its end.
        context: What its code sees of itself; None before that began.
        run: The way to what runs it, while that runs.
        verdict: Why it was asked to end, if it was.
        abandoned: True when a shutdown gave it back while it ran: its outcome
            no longer counts.
        after: Called on the I/O loop once it is settled.
    """

    __slots__ = (
        "abandoned",
        "after",
        "call",
        "context",
        "delivery",
        "ended",
        "group",
        "hard",
        "kind",
        "outcome",
        "policy",
        "run",
        "slot",
        "soft",
        "started",
        "task",
        "timers",
        "verdict",
    )

    def __init__(self, delivery: Delivery, group: int = 0, kind: Kind = Kind.THREAD) -> None:
        self.delivery = delivery
        self.group = group
        self.kind = kind
        self.call: Call | None = None
        self.task: Task[..., object] | None = None
        self.policy: RetryPolicy | None = None
        self.hard = 0.0
        self.soft = 0.0
        self.outcome: Outcome | None = None
        self.context: Context | None = None
        self.started = 0.0
        self.ended = 0.0
        self.run: Run | None = None
        self.verdict: Verdict | None = None
        self.abandoned = False
        self.after: Callable[[], object] | None = None
        self.slot: int | None = None
        self.timers: list[TimerHandle] | None = None

    @property
    def name(self) -> str:
        """Name of the task, as far as it is known."""
        return self.call.task if self.call is not None else "?"

    @property
    def id(self) -> str:
        """Id of the call, as far as it is known."""
        return self.call.id if self.call is not None else header_id(self.delivery.message)

    @property
    def runtime(self) -> float:
        """Seconds that the task's code has taken; 0 before it began."""
        if not self.started:
            return 0.0
        return (self.ended or time.monotonic()) - self.started

    @property
    def crashes(self) -> int:
        """How often a process has died under this attempt."""
        count = self.delivery.message.headers.get(CRASHES_HEADER)
        return int(count) if isinstance(count, int) and count > 0 else 0


def header_id(message: Message) -> str:
    """Return the id a message has in its headers, without decoding it."""
    id_ = message.headers.get("id") if message.headers else None
    return id_ if isinstance(id_, str) else str(message.message_id)
