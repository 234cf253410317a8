"""Publish or store something until it is safe, while the delivery behind it is ours.

trying --confirmed, stored--> then
   |--can never be sent-----> unsendable
   |--failed, still ours----> waiting (back-off) --> trying; a result result_retry_for at most
   `--failed, not ours------> lost: the broker delivers the message again
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf

from amqtask.app import App
from amqtask.backends import Backend
from amqtask.errors import (
    BackendError,
    BackendUnavailable,
    CallError,
    MessageTooLarge,
    ResultTooLarge,
)
from amqtask.message.model import Call
from amqtask.message.results import ResultMeta
from amqtask.transport import Publication
from amqtask.transport.backoff import Backoff
from amqtask.worker.job import Job

log = logging.getLogger("amqtask.task")

Step = Callable[[], object]
OnError = Callable[[Exception], object]
Done = Callable[[Exception | None], object]

#: What trying again cannot help.
_HOPELESS = (CallError, MessageTooLarge, ResultTooLarge)


class Keeper:
    """Makes what follows from a job safe.

    Args:
        lost: Called on the I/O loop with a job whose delivery is no longer ours.

    Threads: every method from any thread; the steps run on the I/O loop.
    """

    def __init__(self, app: App, lost: Callable[[Job], object]) -> None:
        self._transport = app.transport
        self._io = app.transport.io
        self._lost = lost
        self._retry_for = app.settings.result_retry_for

    def publish(
        self, job: Job, make: Callable[[], Publication], *, then: Step, unsendable: OnError
    ) -> None:
        """Publish what ``make`` returns until the broker confirms it."""

        def begin(done: Done) -> None:
            publication = make()
            publication.on_done = lambda sent: done(sent.error)
            self._transport.publish(publication)

        self.insist(job, "what follows it", begin, then=then, unsendable=unsendable)

    def insist(
        self,
        job: Job,
        what: str,
        begin: Callable[[Done], object],
        *,
        then: Step,
        unsendable: OnError,
        patience: float = inf,
    ) -> None:
        """Begin something that tells when it is safe, until it is.

        Args:
            what: Names it in logs.
            begin: Called with what it has to call once, on any thread: with None, or an error.
            patience: Seconds for which a store that fails is tried again.
        """
        _Effort(self, job, what, begin, then, unsendable, time.monotonic() + patience).begin()

    def save(
        self,
        job: Job,
        backend: Backend,
        meta: ResultMeta,
        *,
        call: Call | None = None,
        then: Step,
        unsendable: OnError,
    ) -> None:
        """Have the backend store ``meta`` until it has, for ``result_retry_for`` at most.

        Args:
            call: Whose outcome it is; the job's by default.

        Raises:
            EncodeError: The result does not serialise.
        """
        call = call or job.call
        assert call is not None
        reply_to, correlation_id = call.reply_to or "", call.correlation_id or call.id
        self.insist(
            job,
            "its result",
            lambda done: backend.save(
                meta, reply_to=reply_to, correlation_id=correlation_id, done=done
            ),
            then=then,
            unsendable=unsendable,
            patience=self._retry_for,
        )

    def run(self, step: Callable[..., object], *args: object) -> None:
        """Call a step on the I/O loop: at once there, soon from another thread."""
        if self._io.is_current:
            step(*args)
        else:
            self._io.post(step, *args)

    def later(self, job: Job, wait: float, again: Step) -> None:
        """Call ``again`` after ``wait`` seconds, if the job is ours; I/O loop only."""
        if job.delivery.is_valid:
            self._io.loop.call_later(wait, again)
        else:
            self._lost(job)


class _Effort:
    """One thing that is tried until it is safe.

    It knows the job, and the job does not know it: without a circle all of them are gone as soon
    as they are done with, and the garbage collector has nothing to look for.
    """

    __slots__ = (
        "_backoff",
        "_begin",
        "_deadline",
        "_job",
        "_keeper",
        "_then",
        "_unsendable",
        "_what",
    )

    def __init__(
        self,
        keeper: Keeper,
        job: Job,
        what: str,
        begin: Callable[[Done], object],
        then: Step,
        unsendable: OnError,
        deadline: float,
    ) -> None:
        self._keeper = keeper
        self._job = job
        self._what = what
        self._begin = begin
        self._then = then
        self._unsendable = unsendable
        self._deadline = deadline
        self._backoff: Backoff | None = None

    def begin(self) -> None:
        self._begin(self._done)

    def _done(self, error: Exception | None) -> None:
        if error is None:
            self._keeper.run(self._then)
        elif (
            isinstance(error, _HOPELESS)
            or _refused(error)
            or (time.monotonic() > self._deadline and isinstance(error, BackendError))
        ):
            self._keeper.run(self._unsendable, error)
        else:
            self._keeper.run(self._failed, error)

    def _failed(self, error: Exception) -> None:
        if self._backoff is None:
            self._backoff = Backoff(first=0.5, cap=30.0)
        job, wait = self._job, self._backoff.next()
        if job.delivery.is_valid:
            log.error(
                "task.not_safe id=%s error=%r: %s is tried again in %.1f s",
                job.id,
                str(error),
                self._what,
                wait,
            )
        self._keeper.later(job, wait, self.begin)


def _refused(error: Exception) -> bool:
    """Whether a store answered, and will not take it."""
    return isinstance(error, BackendError) and not isinstance(error, BackendUnavailable)
