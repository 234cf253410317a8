"""Run one delivery: one job through named steps.

    decode -> admit -> start -> run -> decide -> settle -> emit

Each step either leaves the job's outcome open, and the next one follows, or
sets it, and the job goes straight to settling. What a delivery can do to a
worker ends here: nothing raised in any step leaves `Executor`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from zoneinfo import ZoneInfo

from amqtask.app import App
from amqtask.clock import wall
from amqtask.context import Context, _current
from amqtask.errors import MessageError, TaskRevoked, UnsupportedMessage
from amqtask.message import accepted, decode
from amqtask.message.model import NO_EMBED, Call
from amqtask.policy.retry import RETRY_HEADER, RetryPolicy
from amqtask.task import Task
from amqtask.transport import Delivery
from amqtask.worker.outcome import Done, Failed, Outcome, decide, describe, early

log = logging.getLogger("amqtask.task")


class Job:
    """One delivery on its way through the steps.

    Attributes:
        call: What it decoded to; None while, or because, it did not.
        task: What runs it.
        policy: When it is retried.
        outcome: How it ended; None while that is open.
        started: `time.monotonic` when the task's code began, 0 before.
        ended: The same for its end.
        abandoned: True when a shutdown gave it back while it ran: its outcome
            no longer counts.
    """

    __slots__ = ("abandoned", "call", "delivery", "ended", "outcome", "policy", "started", "task")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.call: Call | None = None
        self.task: Task[..., object] | None = None
        self.policy: RetryPolicy | None = None
        self.outcome: Outcome | None = None
        self.started = 0.0
        self.ended = 0.0
        self.abandoned = False

    @property
    def name(self) -> str:
        """Name of the task, as far as it is known."""
        return self.call.task if self.call is not None else "?"

    @property
    def id(self) -> str:
        """Id of the call, as far as it is known."""
        return self.call.id if self.call is not None else str(self.delivery.message.message_id)

    @property
    def runtime(self) -> float:
        """Seconds that the task's code took."""
        return self.ended - self.started


class Executor:
    """Takes jobs through the steps, in a thread or on the event loop.

    Args:
        app: Whose tasks run.
        host: The worker's name.
        settle: Called with each job that has its outcome, in whatever thread it ran.

    Threads: `run_sync` from any thread, `run_async` on the user's loop.
    """

    def __init__(self, app: App, host: str, settle: Callable[[Job], None]) -> None:
        settings = app.settings
        self._app = app
        self._host = host
        self._settle = settle
        self._accepted = accepted(settings.accept_content)
        self._max_decoded_size = settings.max_decoded_size
        self._timezone = ZoneInfo(settings.timezone)
        #: Jobs whose task's code runs now.
        self.running: set[Job] = set()

    def run_sync(self, job: Job) -> None:
        """Take a job whose task is a plain function through all steps."""
        if self.admit(job):
            assert job.task is not None
            context = self._start(job)
            token = _current.set(context)
            try:
                job.outcome = Done(job.task.run(context))
            except BaseException as error:  # whatever user code raises is its outcome
                job.outcome = self._decide(job, error)
            finally:
                _current.reset(token)
                job.ended = time.monotonic()
                self.running.discard(job)
        self._settle(job)

    async def run_async(self, job: Job) -> None:
        """Take a job whose task is a coroutine function through all steps."""
        if self.admit(job):
            assert job.task is not None
            context = self._start(job)
            token = _current.set(context)
            try:
                job.outcome = Done(await job.task.run(context))
            except BaseException as error:  # whatever user code raises is its outcome
                job.outcome = self._decide(job, error)
            finally:
                _current.reset(token)
                job.ended = time.monotonic()
                self.running.discard(job)
        self._settle(job)

    def decode(self, job: Job) -> None:
        """Step 1: make a call of the message."""
        if job.call is not None:
            return
        try:
            job.call = decode(
                job.delivery.message,
                self._accepted,
                max_decoded_size=self._max_decoded_size,
                timezone=self._timezone,
            )
        except MessageError as error:
            job.outcome = Failed(error, error.reason)

    def admit(self, job: Job) -> bool:
        """Steps 1 and 2: decode, and see whether it may run here and now."""
        self.decode(job)
        call = job.call
        if call is None:
            return False
        try:
            job.task = self._app.tasks[call.task]
            job.policy = self._policy(job.task, call)
            _refuse_follow_ups(call)
        except MessageError as error:
            job.outcome = Failed(error, error.reason)
            return False
        if call.eta is None and call.expires is None:
            return True
        now = wall()
        if call.expires is not None and call.expires.timestamp() <= now:
            job.outcome = Failed(TaskRevoked("expired"), "expired", revoked=True)
        else:
            job.outcome = early(call, now)
        return job.outcome is None

    def _policy(self, task: Task[..., object], call: Call) -> RetryPolicy:
        if call.headers and RETRY_HEADER in call.headers:
            return RetryPolicy.from_header(call.headers[RETRY_HEADER])
        return task.retry_policy

    def _start(self, job: Job) -> Context:
        delivery, call = job.delivery, job.call
        assert call is not None
        job.started = time.monotonic()
        self.running.add(job)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("task.started task=%s id=%s attempt=%d", call.task, call.id, call.retries + 1)
        return Context(
            self._app,
            call,
            delivery.queue,
            delivery.exchange,
            delivery.routing_key,
            delivery.redelivered,
            self._host,
        )

    def _decide(self, job: Job, error: BaseException) -> Outcome:
        assert job.call is not None
        assert job.policy is not None
        if isinstance(error, asyncio.CancelledError) and job.abandoned:
            return Failed(error, "abandoned")
        try:
            return decide(error, job.call, job.policy, now=wall(), random=random.random)
        except Exception as wrong:  # such as a retry with a countdown that is no number
            return Failed(wrong, "failed", describe(wrong))


def _refuse_follow_ups(call: Call) -> None:
    """Keep a step of a workflow whole: run without what follows it, the rest would be lost."""
    if call.embed == NO_EMBED:
        return
    asked = [
        part for part in ("callbacks", "errbacks", "chain", "chord") if getattr(call.embed, part)
    ]
    if asked:
        raise UnsupportedMessage(
            f"task {call.task!r} (id {call.id}) is a step of a workflow: {', '.join(asked)} would "
            "have to follow it",
            hint="workflows are not supported yet; send its steps one by one",
        )
