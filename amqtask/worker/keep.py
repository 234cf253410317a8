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
from amqtask.transport import IOThread, Publication
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

        def begin(done: Done) -> None:
            publication = make()
            publication.on_done = lambda publication: done(publication.error)
            self._transport.publish(publication)

        _Publishing(self._io, self._lost, job, "what follows it", begin, then, unsendable).begin()

    def insist(
        self,
        job: Job,
        what: str,
        begin: Callable[[Done], object],
        *,
        then: Step,
        unsendable: OnError,
    ) -> None:
        """Begin something that tells when it is safe, until it is.

        Args:
            what: Names it in logs.
            begin: Called with what it has to call once, on any thread: with None, or an error.
        """
        then = partial(self._io.post, then)
        _Trying(self._io, self._lost, job, what, begin, then, unsendable).begin()

    def save(
        self,
        job: Job,
        backend: Backend,
        meta: ResultMeta,
        *,
        call: Call | None = None,
        then: Step,
        unsendable: OnError,
        anywhere: bool = False,
    ) -> None:
        """Have the backend store ``meta`` until it has, for ``result_retry_for`` at most.

        Args:
            call: Whose outcome it is; the job's by default.
            anywhere: ``then`` may be called in any thread, and must not raise.

        Raises:
            EncodeError: The result does not serialise.
        """
        call = call or job.call
        assert call is not None
        reply_to, correlation_id = call.reply_to or "", call.correlation_id or call.id

        def begin(done: Done) -> None:
            backend.save(meta, reply_to=reply_to, correlation_id=correlation_id, done=done)

        deadline = time.monotonic() + self._retry_for
        if not anywhere:
            then = partial(self._io.post, then)
        _Trying(self._io, self._lost, job, "its result", begin, then, unsendable, deadline).begin()


class _Trying:
    """One thing that is tried until it is safe.

    No functions that name each other: such a circle, one for each task, is freed by Python's
    garbage collector only, which took half of a busy worker's time.
    """

    __slots__ = (
        *("_backoff", "_begin", "_deadline", "_io", "_job", "_lost", "_then"),
        *("_unsendable", "_what"),
    )

    def __init__(
        self,
        io: IOThread,
        lost: Callable[[Job], object],
        job: Job,
        what: str,
        begin: Callable[[Done], object],
        then: Step,
        unsendable: OnError,
        deadline: float | None = None,
    ) -> None:
        self._io = io
        self._lost = lost
        self._job = job
        self._what = what
        self._begin = begin
        self._then = then
        self._unsendable = unsendable
        self._deadline = deadline
        self._backoff: Backoff | None = None

    def begin(self) -> None:
        """Try it, once more or for the first time."""
        self._begin(self.done)

    def done(self, error: Exception | None) -> None:
        """Go on, from any thread."""
        if error is None:
            self._then()
        elif isinstance(error, _HOPELESS) or _refused(error) or self._is_late(error):
            self._io.post(self._unsendable, error)
        else:
            self._io.post(self._later, error)

    def _is_late(self, error: Exception) -> bool:
        deadline = self._deadline
        return (
            deadline is not None and time.monotonic() > deadline and isinstance(error, BackendError)
        )

    def _later(self, error: Exception) -> None:
        if not self._job.delivery.is_valid:
            self._lost(self._job)
            return
        if self._backoff is None:
            self._backoff = Backoff(first=0.5, cap=30.0)
        wait = self._backoff.next()
        log.error(
            "task.not_safe id=%s error=%r: %s is tried again in %.1f s",
            self._job.id,
            str(error),
            self._what,
            wait,
        )
        self._io.loop.call_later(wait, self.begin)


class _Publishing(_Trying):
    """A message; the broker's confirm comes on the I/O loop."""

    __slots__ = ()

    def done(self, error: Exception | None) -> None:
        if error is None:
            self._then()
        elif isinstance(error, _HOPELESS):
            self._unsendable(error)
        else:
            self._later(error)


def _refused(error: Exception) -> bool:
    """Whether a store answered, and will not take it."""
    return isinstance(error, BackendError) and not isinstance(error, BackendUnavailable)
