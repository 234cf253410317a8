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
from functools import partial

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

#: What trying again cannot help.
_HOPELESS = (CallError, MessageTooLarge, ResultTooLarge)


class Keeper:
    """Makes what follows from a job safe.

    Args:
        lost: Called on the I/O loop with a job whose delivery is no longer ours.

    Threads: `publish` and `save` from any thread; the steps run on the I/O loop.
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
        backoff = _backoff()

        def send() -> None:
            publication = make()
            publication.on_done = done
            self._transport.publish(publication)

        def done(publication: Publication) -> None:
            error = publication.error
            if error is None:
                then()
            elif isinstance(error, _HOPELESS):
                unsendable(error)
            else:
                self._later(job, "what follows it", error, backoff, send)

        send()

    def insist(
        self,
        job: Job,
        what: str,
        begin: Callable[[Callable[[Exception | None], object]], object],
        *,
        then: Step,
        unsendable: OnError,
    ) -> None:
        """Begin something that tells when it is safe, until it is.

        Args:
            what: Names it in logs.
            begin: Called with what it has to call once, on any thread: with None, or an error.
        """
        backoff = _backoff()

        def try_it() -> None:
            begin(done)

        def done(error: Exception | None) -> None:
            if error is None:
                self._io.post(then)
            elif isinstance(error, _HOPELESS) or _refused(error):
                self._io.post(unsendable, error)
            else:
                self._io.post(self._later, job, what, error, backoff, try_it)

        try_it()

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
        backoff = _backoff()
        deadline = time.monotonic() + self._retry_for

        def save() -> None:
            backend.save(
                meta,
                reply_to=call.reply_to or "",
                correlation_id=call.correlation_id or call.id,
                done=done,
            )

        def done(error: Exception | None) -> None:
            if error is None:
                self._io.post(then)
            elif (
                isinstance(error, _HOPELESS)
                or _refused(error)
                or (time.monotonic() > deadline and isinstance(error, BackendError))
            ):
                self._io.post(unsendable, error)
            else:
                self._io.post(self._later, job, "its result", error, backoff, save)

        save()

    def _later(self, job: Job, what: str, error: Exception, backoff: Backoff, again: Step) -> None:
        if not job.delivery.is_valid:
            self._lost(job)
            return
        wait = backoff.next()
        log.error(
            "task.not_safe id=%s error=%r: %s is tried again in %.1f s",
            job.id,
            str(error),
            what,
            wait,
        )
        self._io.loop.call_later(wait, again)


def _refused(error: Exception) -> bool:
    """Whether a store answered, and will not take it."""
    return isinstance(error, BackendError) and not isinstance(error, BackendUnavailable)


_backoff = partial(Backoff, first=0.5, cap=30.0)
