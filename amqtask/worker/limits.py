"""Time limits and cancelling: what is done to a job that shall not go on.

    running --soft limit--> SoftTimeLimitExceeded in the task, which goes on or ends
       |----hard limit, cancel--> asked to end
       |                            |-- runner: killed and replaced
       |                            |-- coroutine: cancelled; not ended after `GRACE`: give up
       |                            `-- thread: give up
       `----ends--> settled as what it was asked to end for

Giving up: a thread cannot be ended from outside, nor a coroutine that does not
want to. The job is settled as if it had ended, and once that is safe the
process is given up: whoever runs the node ends it, and starts another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from amqtask.message.model import Call
from amqtask.options import Options
from amqtask.transport import IOThread
from amqtask.worker.job import Job, Kind
from amqtask.worker.outcome import Verdict

log = logging.getLogger("amqtask.task")

#: Seconds a cancelled coroutine has to end.
GRACE = 1.0
#: Seconds in which the outcome of a job has to be safe before its process is given up regardless.
SETTLE_TIMEOUT = 10.0


def limits_of(call: Call, task: Options, settings: Options) -> tuple[float, float]:
    """Return the hard and the soft limit in force, in seconds, 0 for none.

    The call's word goes before the task's, that before the settings. A soft limit
    that is not below the hard one would never be seen, and is none.
    """
    hard = call.hard_limit or task.time_limit or settings.time_limit or 0.0
    soft = call.soft_limit or task.soft_time_limit or settings.soft_time_limit or 0.0
    return hard, soft if not hard or soft < hard else 0.0


class Limits:
    """Watches the time of running jobs, and ends those that are to end.

    Args:
        io: Where the timers are: the thread that user code never holds up, but
            by keeping the GIL.
        take: Takes a running job from whoever runs it and settles it by its verdict;
            False when it has just ended by itself.
        on_give_up: Called on the I/O loop with the reason for which the process is given up.

    Threads: `begin`, `end`, `stop` and `terminate` from any.
    """

    def __init__(
        self, io: IOThread, take: Callable[[Job], bool], on_give_up: Callable[[str], None]
    ) -> None:
        self._io = io
        self._take = take
        self._on_give_up = on_give_up

    def begin(self, job: Job) -> None:
        """Watch a job that has begun and has limits."""
        self._io.post(self._arm, job)

    def end(self, job: Job) -> None:
        """Watch it no more."""
        self._io.post(self._disarm, job)

    def stop(self, job: Job, verdict: Verdict) -> None:
        """Ask a job to end."""
        if job.verdict is None:
            job.verdict = verdict
        if job.run is not None:
            job.run.cancel()

    def terminate(self, job: Job, verdict: Verdict) -> None:
        """Ask a job to end, and end it when it does not."""
        job.verdict = verdict
        self._io.post(self._end, job, f"task {job.name!r} (id {job.id}) is {verdict.value}")

    # -- on the I/O loop ----------------------------------------------------------------

    def _arm(self, job: Job) -> None:
        if job.ended:
            return
        left, loop = job.started - time.monotonic(), self._io.loop
        job.timers = []
        if job.soft:
            job.timers.append(loop.call_later(left + job.soft, self._soft, job))
        if job.hard:
            job.timers.append(loop.call_later(left + job.hard, self._hard, job))

    def _disarm(self, job: Job) -> None:
        for timer in job.timers or ():
            timer.cancel()
        job.timers = None

    def _soft(self, job: Job) -> None:
        if job.ended or job.verdict is not None or job.run is None:
            return
        log.warning(
            "task.soft_limit task=%s id=%s limit=%g: it is asked to end", job.name, job.id, job.soft
        )
        job.run.soft()

    def _hard(self, job: Job) -> None:
        if job.ended:
            return
        if job.verdict is not Verdict.CANCELLED:
            job.verdict = Verdict.TIMEOUT
        where = job.run.stack() if job.run is not None and job.kind is not Kind.PROCESS else ""
        log.error(
            "task.hard_limit task=%s id=%s limit=%g: it is ended%s",
            job.name,
            job.id,
            job.hard,
            f"; it was at\n{where}" if where else "",
        )
        self._end(job, f"task {job.name!r} (id {job.id}) is over its hard limit of {job.hard:g} s")

    def _end(self, job: Job, why: str) -> None:
        if job.run is None:  # it waits for its runner, and will be asked before it begins
            return
        if job.run.kill():
            return
        job.run.cancel()
        give_up = partial(self._give_up, job, why)
        if job.kind is Kind.LOOP or job.verdict is not Verdict.TIMEOUT:
            self._io.loop.call_later(GRACE, give_up)
        else:
            give_up()

    def _give_up(self, job: Job, why: str) -> None:
        said = False

        def go() -> None:
            nonlocal said
            if not said:
                said = True
                log.error("node.given_up: %s, and only the end of its process ends it", why)
                self._on_give_up(why)

        job.after = go
        if self._take(job):
            self._io.loop.call_later(SETTLE_TIMEOUT, go)
        else:
            job.after = None  # it has just ended by itself
