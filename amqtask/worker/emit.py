"""Say how a job ended: one log line each, and what happens next."""

from __future__ import annotations

import logging

from amqtask.message.republish import exception_text
from amqtask.worker.job import Job
from amqtask.worker.outcome import Again, Done, Failed, Ignored, Replaced, Returned, Revoked

log = logging.getLogger("amqtask.task")


def emit(job: Job, dead_queue: str | None) -> None:
    """Step 7: one log line that says how it ended and what happens next.

    Args:
        dead_queue: Where a failure was parked; None when it was not.
    """
    match job.outcome:
        case Done():
            if log.isEnabledFor(logging.INFO):
                log.info("task.succeeded task=%s id=%s runtime=%.3f", job.name, job.id, job.runtime)
        case Again(error=None, delay=delay):
            log.info(
                "task.early task=%s id=%s: it waits %.1f s in the broker", job.name, job.id, delay
            )
        case Again(crashes=crashes) as again if crashes:
            log.error(
                "task.crashed task=%s id=%s error=%r: crash %d, it runs again in %.1f s",
                job.name,
                job.id,
                str(again.error),
                crashes,
                again.delay,
            )
        case Again(error=BaseException() as error) as again:
            log.warning(
                "task.retry task=%s id=%s error=%s: attempt %d in %.1f s",
                job.name,
                job.id,
                _shown(error),
                again.retries + 1,
                again.delay,
            )
        case Failed() as failed:
            log.error(
                "task.failed task=%s id=%s reason=%s error=%s: %s%s",
                job.name,
                job.id,
                failed.reason,
                _shown(failed.error),
                f"parked in {dead_queue!r}"
                if dead_queue
                else "gone, its queue keeps no dead letters",
                f"\n{failed.traceback}" if failed.traceback else "",
            )
        case Revoked(why=why):
            log.info(
                "task.cancelled task=%s id=%s: %s",
                job.name,
                job.id,
                f"{why} after {job.runtime:.3f} s" if job.started else "it does not run",
            )
        case Ignored():
            log.info("task.ignored task=%s id=%s", job.name, job.id)
        case Replaced():
            log.info("task.replaced task=%s id=%s: another one runs in its place", job.name, job.id)
        case Returned():
            log.warning("task.returned task=%s id=%s: back to its queue", job.name, job.id)


def _shown(error: BaseException) -> str:
    """Return its repr; one that raises would cost the line, and a strict handler's caller the rest."""
    try:
        return repr(error)
    except Exception:  # user code
        return exception_text(error)
