"""Run one delivery: one job through named steps.

    decode -> admit -> begin -> run -> conclude -> settle -> emit

Each step either leaves the job's outcome open, and the next one follows, or
sets it, and the job goes straight to settling. What a delivery can do to a
worker ends here: nothing raised in any step leaves `Executor`.

A job that runs is in `Executor.running`. Whoever takes it out of there, its
own thread at its end or a stop or a limit before that, decides its outcome;
nobody else does.
"""

from __future__ import annotations

import logging
import pickle
import random
import threading
import time
from collections.abc import Callable

from amqtask.app import App
from amqtask.clock import wall
from amqtask.context import Context, _current
from amqtask.errors import (
    AmqtaskError,
    MessageError,
    TaskRevoked,
    TimeLimitExceeded,
    WorkerLost,
)
from amqtask.message import accepted, decode
from amqtask.message.model import Message
from amqtask.options import Options
from amqtask.worker.board import Board
from amqtask.worker.job import Job, Run
from amqtask.worker.limits import Limits, limits_of
from amqtask.worker.outcome import (
    Done,
    Failed,
    GivenBack,
    Outcome,
    Verdict,
    conclude,
    crashed,
    early,
    judged,
    policy_of,
)
from amqtask.worker.pools import carry
from amqtask.worker.pools.handle import Death, RunnerDied
from amqtask.worker.pools.interrupt import Window
from amqtask.worker.pools.loop import Driver, LoopRun
from amqtask.worker.pools.process import Seat
from amqtask.worker.settle import unserialisable
from amqtask.workflow.advance import follows, heard

log = logging.getLogger("amqtask.task")

__all__ = ["Executor", "Job"]

#: Says what follows from a job before it begins; None lets it begin.
Check = Callable[[Job], Outcome | None]


class Executor:
    """Takes jobs through the steps, in a thread, on the event loop or in a runner.

    Args:
        app: Whose tasks run.
        host: The worker's name.
        settle: Called with each job that has its outcome, in whatever thread it ran.
        wants_result: Tells whether a job's value is sent or stored.
        on_give_up: See `Limits`.
        board: Where what runs is noted; None notes nothing.

    Attributes:
        running: Jobs that run now.
        checks: Asked in turn before a job begins.
        begun: Called with each job once it is among those that run.

    Threads: `run_sync` and `run_isolated` from any thread, `run_async` on the user's loop.
    """

    def __init__(
        self,
        app: App,
        host: str,
        settle: Callable[[Job], None],
        *,
        wants_result: Callable[[Job], bool] = lambda _: True,
        on_give_up: Callable[[str], None] = lambda _: None,
        board: Board | None = None,
    ) -> None:
        settings = app.settings
        self._app = app
        self._host = host
        self._settle = settle
        self._wants_result = wants_result
        self._board = board
        self._accepted = accepted(settings.accept_content)
        self._max_decoded_size = settings.max_decoded_size
        self._timezone = settings.zone
        self._own = threading.local()
        self._defaults = Options(
            time_limit=settings.time_limit, soft_time_limit=settings.soft_time_limit
        )
        self.running: set[Job] = set()
        self.limits = Limits(app.transport.io, self._take, on_give_up)
        self.checks: list[Check] = []
        self.begun: Callable[[Job], None] | None = None

    # -- the steps, in each pool -----------------------------------------------------

    def run_sync(self, job: Job) -> None:
        """Take a job whose task is a plain function through all steps, in this thread."""
        if not self.admit(job):
            self._settle(job)
            return
        assert job.task is not None
        window = self._window()
        context = self._begin(job, window.next())
        token = _current.set(context)
        value, error = window.call(job.task.run, context)
        _current.reset(token)
        self._end(job, value, error)

    async def run_async(self, job: Job) -> None:
        """Take a job whose task is a coroutine function through all steps, on this loop."""
        if not self.admit(job):
            self._settle(job)
            return
        assert job.task is not None
        run = LoopRun()
        context = self._begin(job, run)
        token = _current.set(context)
        value = error = None
        try:
            run.coroutine = coroutine = job.task.run(context)
            if job.soft:
                run.driver = coroutine = Driver(coroutine)
            value = await coroutine
        except BaseException as caught:  # whatever user code raises is its outcome
            error = caught
        finally:
            _current.reset(token)
        self._end(job, value, error)

    def run_isolated(self, job: Job, seat: Seat) -> None:
        """Take a job through all steps, its code in the runner of ``seat``."""
        if not self.admit(job):
            self._settle(job)
            return
        self.running.add(job)
        if self.begun is not None:
            self.begun(job)
        try:
            outcome = self._in_runner(job, seat)
        except AmqtaskError as error:  # the app cannot be found by another process, say
            outcome = Failed(error, "failed")
        self._close(job, outcome)

    # -- step by step ------------------------------------------------------------------

    def decode(self, job: Job) -> None:
        """Step 1: make a call of the message."""
        if job.call is not None:
            return
        try:
            job.call = heard(
                decode(
                    job.delivery.message,
                    self._accepted,
                    max_decoded_size=self._max_decoded_size,
                    timezone=self._timezone,
                )
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
            job.policy = policy_of(job.task, call)
        except MessageError as error:
            job.outcome = Failed(error, error.reason)
            return False
        job.hard, job.soft = limits_of(call, job.task.defaults, self._defaults)
        if job.verdict is not None or self.checks:
            job.outcome = self._checked(job)
            if job.outcome is not None:
                return False
        if call.eta is None and call.expires is None:
            return True
        now = wall()
        if call.expires is not None and call.expires.timestamp() <= now:
            job.outcome = Failed(TaskRevoked("expired"), "expired", revoked=True)
        else:
            job.outcome = early(call, now)
        return job.outcome is None

    def _checked(self, job: Job) -> Outcome | None:
        if job.verdict is not None:  # while it waited
            return judged(GivenBack(), job.verdict)
        for check in self.checks:
            outcome = check(job)
            if outcome is not None:
                return outcome
        return None

    def _begin(self, job: Job, run: Run) -> Context:
        """Step 3: from here on it runs."""
        call, board = job.call, self._board
        assert call is not None
        job.run = run
        job.started = time.monotonic()
        if board is not None and (slot := board.take()) is not None:
            job.slot = slot
            board.begin(slot, call.id, call.task, time.time() + job.hard if job.hard else None)
        self.running.add(job)
        if self.begun is not None:
            self.begun(job)
        if job.hard or job.soft:
            self.limits.begin(job)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("task.started task=%s id=%s attempt=%d", call.task, call.id, call.retries + 1)
        context = self._context(job)
        job.context = context
        return context

    def _context(self, job: Job) -> Context:
        delivery, call = job.delivery, job.call
        assert call is not None
        return Context(
            self._app,
            call,
            delivery.queue,
            delivery.exchange,
            delivery.routing_key,
            delivery.redelivered,
            self._host,
        )

    def _end(self, job: Job, value: object, error: BaseException | None) -> None:
        """Step 5: what follows from its end."""
        if error is None:
            self._close(job, Done(value))
        else:
            self._close(job, self._conclude(job, error))

    def _close(self, job: Job, outcome: Outcome) -> None:
        job.ended = time.monotonic()
        if job.hard or job.soft:
            self.limits.end(job)
        if job.slot is not None and self._board is not None:
            self._board.end(job.slot)
        if self.claim(job):
            job.outcome = outcome if job.verdict is None else self._judged(job, outcome)
            self._settle(job)

    def claim(self, job: Job) -> bool:
        """Take a running job for settling; True for the first who does."""
        try:
            self.running.remove(job)
        except KeyError:
            return False
        return True

    def timed_out(self, job: Job, text: str = "") -> Outcome:
        """Return what follows when a job is over its hard limit; ``text`` follows its name."""
        why = text or f"ran over its hard limit of {job.hard:g} s"
        return self._conclude(job, TimeLimitExceeded(f"task {job.name!r} (id {job.id}) {why}"))

    def _take(self, job: Job) -> bool:
        """Settle a job by its verdict while its code still runs."""
        if not self.claim(job):
            return False
        job.ended = time.monotonic()
        job.outcome = self._judged(job, GivenBack())
        self._settle(job)
        return True

    def _judged(self, job: Job, outcome: Outcome) -> Outcome:
        if job.verdict is Verdict.TIMEOUT:
            return self.timed_out(job)
        return judged(outcome, job.verdict)

    def _conclude(self, job: Job, error: BaseException) -> Outcome:
        assert job.call is not None
        assert job.policy is not None
        return conclude(error, job.call, job.policy, job.soft, wall(), random.random)

    # -- in a runner -------------------------------------------------------------------

    def _in_runner(self, job: Job, seat: Seat) -> Outcome:
        order = pickle.dumps(self._order(job))
        while True:
            runner = seat.runner()
            if runner is None or job.verdict is not None:
                return GivenBack()
            job.run = run = runner.next()
            try:
                data = runner.run(run, order, lambda: self._begun(job))
                carried = carry.unpack(data)
            except ValueError as error:  # whatever it is now, it is no runner of ours
                seat.kill()
                seat.lost(begun=True)
                return Failed(error, "failed")
            except RunnerDied as died:
                seat.lost(begun=died.death.begun)
                if died.death.begun or job.verdict is not None:
                    return self._crashed(job, died.death)
                log.warning(
                    "runner.died %s: before it began its task, which another one gets", died
                )
                continue
            seat.served(carried.memory)
            job.context = self._context(job)
            job.context.trail.children.extend(carried.children)
            job.context.trail.added.extend(carried.added)
            if isinstance(carried.outcome, carry.Unserialisable):
                return unserialisable(job, carried.outcome.error, carried.outcome.hint)
            return carried.outcome

    def _begun(self, job: Job) -> None:
        job.started = time.monotonic()
        if job.hard or job.soft:
            self.limits.begin(job)

    def _order(self, job: Job) -> tuple[object, ...]:
        delivery, message = job.delivery, job.delivery.message
        return (
            tuple(getattr(message, name) for name in Message.__slots__),
            delivery.queue,
            delivery.exchange,
            delivery.routing_key,
            delivery.redelivered,
            self._wants_result(job) or (job.call is not None and follows(job.call)),
            job.soft,
        )

    def _crashed(self, job: Job, death: Death) -> Outcome:
        call, crashes = job.call, job.crashes + 1
        assert call is not None
        error = WorkerLost(
            f"the process that ran task {job.name!r} (id {job.id}) died: {death}",
            signal=death.signal,
            exit_code=death.exit_code,
            peak_memory=death.peak_memory,
            runtime=job.runtime,
        )
        return crashed(error, call, crashes, self._app.settings.crash_limit, now=wall())

    def _window(self) -> Window:
        try:
            window: Window = self._own.window
        except AttributeError:
            window = self._own.window = Window()
        return window
