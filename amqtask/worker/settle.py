"""Settle a job: first make its outcome safe, then ack the delivery. Never the other way.

    Done      result saved, then what follows    -> ack
    Again     successor published and confirmed  -> ack
    Failed    parked, result saved, what follows -> ack
    Revoked   result saved, then what follows    -> ack
    Ignored   what follows                       -> ack
    Replaced  what runs in its place confirmed   -> ack
    Returned                                        reject, back to the queue
    GivenBack                                       nack, back to the queue

A crash between the two repeats work and loses none. What cannot be made safe
now (no disk on the broker, say) is tried again while the delivery is ours,
and the broker delivers it again once it is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from amqtask.app import App
from amqtask.backends import Backend
from amqtask.clock import wall
from amqtask.errors import (
    AmqtaskError,
    BackendError,
    EncodeError,
    MessageTooLarge,
    ResultTooLarge,
    TaskRevoked,
)
from amqtask.message import encode_exception, park, resend
from amqtask.message.headers import OWN_PREFIX
from amqtask.message.model import Message
from amqtask.message.results import ResultMeta
from amqtask.message.signature import parse
from amqtask.topology.deadletter import dead_queue_name
from amqtask.transport import Publication
from amqtask.worker.emit import emit
from amqtask.worker.follow import Followers, Ready
from amqtask.worker.job import Job
from amqtask.worker.keep import Keeper, OnError, Step
from amqtask.worker.outcome import (
    Again,
    Done,
    Failed,
    GivenBack,
    Ignored,
    Outcome,
    Replaced,
    Returned,
    Revoked,
)
from amqtask.worker.record import extended_record
from amqtask.workflow.advance import Advance, failed, follows, stopped, succeeded
from amqtask.workflow.launch import launch
from amqtask.workflow.ports import Part

log = logging.getLogger("amqtask.task")

#: Characters kept of an exception's text and traceback when the whole is too large to send.
_SHORT = 2000


class Settler:
    """Settles jobs; one for all threads of a worker process.

    Attributes:
        counts: Jobs settled, by the name of their outcome.

    Threads: `settle` from any thread; outcomes arrive on the I/O loop.
    """

    def __init__(self, app: App, host: str) -> None:
        self._app = app
        self._host = host
        self._io = app.transport.io
        self._keeper = Keeper(app, self._lost)
        self._followers = Followers(app, self._keeper)
        self.counts: Counter[str] = Counter()
        self._open: set[Job] = set()
        self._idle = asyncio.Event()

    @property
    def pending(self) -> int:
        """Jobs whose outcome is not safe yet."""
        return len(self._open)

    async def drain(self) -> None:
        """Wait until every outcome is safe; I/O loop only."""
        while self._open:
            self._idle.clear()
            await self._idle.wait()

    def settle(self, job: Job) -> None:
        """Make the outcome safe, then ack; see the module's table."""
        if job.abandoned:
            return  # given back while it ran
        if job.context is not None and (reporter := job.context.trail.reporter) is not None:
            reporter.close()
        outcome, followed = job.outcome, job.call is not None and follows(job.call)
        if isinstance(outcome, Done) and not followed and not self.wants_result(job):
            self._io.post(self._ack, job)
            return
        self._open.add(job)
        if (followed or not isinstance(outcome, Done)) and not job.delivery.is_valid:
            # the broker has given it to somebody else: a successor of ours would be a second copy
            self._io.post(self._lost, job)
            return
        try:
            self._make_safe(job, outcome)
        except Exception as error:  # a bug here must cost neither the message nor the worker
            log.exception("task.settle_failed id=%s: parking it", job.id)
            self._park(job, Failed(error, "settle_failed"))

    # -- outcome by outcome -------------------------------------------------------

    def _make_safe(self, job: Job, outcome: Outcome | None) -> None:
        match outcome:
            case Done():
                self._done(job, outcome)
            case Again():
                self._send_again(job, outcome)
            case Failed():
                self._park(job, outcome)
            case Ignored():
                self._io.post(self._stopped, job, "ended without an outcome")
            case Replaced():
                self._replace(job, outcome)
            case Revoked():
                self._save_revoked(job, outcome)
            case Returned():
                self._io.post(self._reject, job)
            case GivenBack():
                self._io.post(self._nack, job)
            case None:
                raise AssertionError("a job without outcome reached the settler")

    def _done(self, job: Job, outcome: Done) -> None:
        """Save the value, then send what follows it; both are encoded before either goes out."""
        call, anywhere = job.call, False
        then: Step = partial(self._ack, job)
        assert call is not None
        if follows(call):
            added = () if job.context is None else job.context.trail.added
            try:
                ready = self._followers.ready(call, succeeded(call, outcome.value, added))
            except AmqtaskError as error:
                self._park(job, Failed(error, "unsendable"))
                return
            then = self._then_follow(job, ready)
            if anywhere := ready.is_part:
                then = partial(self._then_part, job, ready.parts[0])
        if self.wants_result(job):
            self._save_value(job, outcome, then, anywhere)
        else:
            self._io.post(then)

    def _then_follow(self, job: Job, ready: Ready) -> Step:
        """Return the step that sends what follows, and acks."""
        if job.context is not None:
            for id_ in ready.ids:
                job.context.sent(id_)
        return partial(
            self._followers.act,
            job,
            ready,
            then=partial(self._ack, job),
            unsendable=lambda error: self._park(job, Failed(error, "unsendable")),
        )

    def _then_part(self, job: Job, part: Part) -> None:
        """Send what the job has for its chord, and ack; from any thread, where that saves a way."""
        try:
            self._followers.part(job, part, partial(self._ack, job))
        except Exception as error:  # as in `settle`; and the thread is not ours
            log.exception("task.settle_failed id=%s: parking it", job.id)
            self._io.post(self._park, job, Failed(error, "settle_failed"))

    def _replace(self, job: Job, outcome: Replaced) -> None:
        call = job.call
        assert call is not None
        try:
            begins = Advance(launch=launch(parse(outcome.signature)))
            ready = self._followers.ready(call, begins)
        except AmqtaskError as error:
            self._park(job, Failed(error, "unsendable"))
            return
        self._io.post(self._then_follow(job, ready))

    def _save_value(self, job: Job, outcome: Done, then: Step, anywhere: bool) -> None:
        def unsendable(error: Exception) -> None:
            if isinstance(error, MessageTooLarge | ResultTooLarge):
                self._park(job, Failed(error, "result_too_large"))
            elif not isinstance(error, BackendError):
                self._park(job, Failed(error, "result_unsendable"))
            elif self._app.settings.result_fallback == "redeliver":
                log.error("task.result_not_stored id=%s error=%r: it runs again", job.id, error)
                job.outcome = Returned()
                self._reject(job)
            else:
                self._park(job, Failed(error, "result_not_stored"))

        try:
            self._save(
                job,
                self._meta(job, "SUCCESS", outcome.value),
                then=then,
                unsendable=unsendable,
                anywhere=anywhere,
            )
        except EncodeError as error:
            self._park(job, unserialisable(job, str(error), error.hint))

    def _send_again(self, job: Job, outcome: Again) -> None:
        call, delivery = job.call, job.delivery
        assert call is not None
        try:
            message = resend(
                delivery.message,
                call,
                retries=outcome.retries,
                eta=outcome.eta,
                # one that only came early keeps what is counted
                crashes=outcome.crashes if outcome.error is not None else job.crashes,
            )
        except EncodeError as error:  # a protocol 1 body that cannot be written anew
            self._park(job, Failed(error, "unsendable"))
            return
        address = self._app.sender.delayed(self._app.queue(delivery.queue), outcome.eta)
        if outcome.error is not None and self.wants_result(job):
            # a passing state: nobody's ack waits for it, and nobody misses it
            meta = self._meta(job, "RETRY", encode_exception(outcome.error))
            self._save(job, meta, then=_nothing, unsendable=_nothing)
        self._keeper.publish(
            job,
            lambda: Publication(
                message,
                address.exchange,
                address.routing_key,
                address=address.anew,
                requires=address.requires,
                task=call.task,
            ),
            then=partial(self._ack, job),
            unsendable=lambda error: self._park(job, Failed(error, "unsendable")),
        )

    def _park(self, job: Job, outcome: Failed) -> None:
        """Publish to the dead-letter queue, then save the failure, then ack."""
        delivery = job.delivery
        job.outcome = outcome
        then = partial(self._save_failure, job, outcome)
        if not self._app.queue(delivery.queue).dead_letter:
            self._io.post(then)
            return
        message = park(
            delivery.message,
            reason=outcome.reason,
            queue=delivery.queue,
            exception=outcome.error,
            traceback=outcome.traceback,
            attempts=job.call.retries + 1 if job.call is not None and job.started else 0,
            host=self._host,
            now=wall(),
            details=outcome.details,
        )

        def without_properties(error: Exception) -> None:
            # some property came in a form that no client can write: what counts is the body
            log.warning("task.parked_bare id=%s error=%r: without its properties", job.id, error)
            own = {k: v for k, v in message.headers.items() if k.startswith(OWN_PREFIX)}
            bare = Message(message.body, own)
            self._keeper.publish(
                job,
                lambda: self._dead_letter(job, bare),
                then=then,
                unsendable=lambda error: self._give_back(job, error),
            )

        self._keeper.publish(
            job,
            lambda: self._dead_letter(job, message),
            then=then,
            unsendable=without_properties,
        )

    def _dead_letter(self, job: Job, message: Message) -> Publication:
        queue = self._app.queue(job.delivery.queue)
        return Publication(
            message,
            self._app.settings.dead_letter_exchange,
            queue.name,
            requires=(self._app.sender.queue_requirement(queue),),
            task=job.call.task if job.call is not None else None,
            hint=f"declare queue {dead_queue_name(queue.name)!r}; `amqtask topology` shows how",
        )

    def _save_failure(self, job: Job, outcome: Failed) -> None:
        ack = partial(self._after_failure, job, outcome)
        if not self.wants_result(job):
            ack()
            return
        state = "REVOKED" if outcome.revoked else "FAILURE"
        meta = self._meta(job, state, encode_exception(outcome.error), outcome.traceback)

        def lost(error: Exception) -> None:
            log.error("task.failure_not_stored id=%s error=%r: acked", job.id, str(error))
            ack()

        def shorter(error: Exception) -> None:
            if isinstance(error, BackendError) and isinstance(job.outcome, Failed):
                lost(error)  # it was offered long enough, and shorter would not help
                return
            log.warning("task.failure_shortened id=%s error=%r", job.id, str(error))
            self._save(job, _shortened(meta), then=ack, unsendable=lost)

        self._save(job, meta, then=ack, unsendable=shorter)

    def _after_failure(self, job: Job, outcome: Failed) -> None:
        """Send errbacks, and end what was to follow."""
        ack, call = partial(self._ack, job), job.call
        if call is None or not follows(call):
            ack()
            return
        error, traceback = outcome.error, outcome.traceback
        self._followers.end(
            job, partial(failed, call, error, traceback, self._followers.takes), then=ack
        )

    def _stopped(self, job: Job, why: str) -> None:
        """End what was to follow a call that has no outcome of its own."""
        ack, call = partial(self._ack, job), job.call
        if call is None or not follows(call):
            ack()
        else:
            self._followers.end(job, partial(stopped, call, why), then=ack)

    def _save_revoked(self, job: Job, outcome: Revoked) -> None:
        ack = partial(self._stopped, job, f"was {outcome.why}")
        if not self.wants_result(job):
            self._io.post(ack)
            return
        error = TaskRevoked(f"task {job.name!r} (id {job.id}) was {outcome.why}")
        meta = self._meta(job, "REVOKED", encode_exception(error))
        self._save(job, meta, then=ack, unsendable=lambda _: ack())

    # -- results ----------------------------------------------------------------------

    def wants_result(self, job: Job) -> bool:
        """Tell whether what becomes of a job is sent or stored."""
        return self._backend_of(job) is not None

    def _backend_of(self, job: Job) -> Backend | None:
        """Return what keeps the job's outcome; None when nobody wants it."""
        return None if job.call is None else self._app.backend_for(job.call, job.task)

    def _save(
        self,
        job: Job,
        meta: ResultMeta,
        *,
        then: Step,
        unsendable: OnError,
        anywhere: bool = False,
    ) -> None:
        backend = self._backend_of(job)
        assert backend is not None
        self._keeper.save(job, backend, meta, then=then, unsendable=unsendable, anywhere=anywhere)

    def _meta(self, job: Job, state: str, value: Any, traceback: str | None = None) -> ResultMeta:
        call = job.call
        assert call is not None
        return ResultMeta(
            task_id=call.id,
            status=state,
            result=value,
            traceback=traceback,
            date_done=None if state == "RETRY" else datetime.fromtimestamp(wall(), UTC),
            children=() if job.context is None else job.context.trail.children,
            group_id=call.group,
            parent_id=call.parent_id,
            extended=extended_record(job, self._host, self._app.settings),
        )

    # -- settling, on the I/O loop ----------------------------------------------------

    def _ack(self, job: Job) -> None:
        job.delivery.ack()
        self._close(job, type(job.outcome).__name__.lower())

    def _reject(self, job: Job) -> None:
        job.delivery.reject(requeue=True)
        self._close(job, "returned")

    def _nack(self, job: Job) -> None:
        job.delivery.give_back()
        self._forget(job, "given_back")

    def _give_back(self, job: Job, error: Exception) -> None:
        queue = self._app.queue(job.delivery.queue)
        # a queue as we make it parks what is rejected; whether another one does is not known
        parks = (queue.declare or self._app.settings.declare) == "auto"
        where = "the broker parks it" if parks else "back to its queue"
        log.error("task.not_parked id=%s error=%r: %s", job.id, str(error), where)
        job.delivery.reject(requeue=not parks)
        self._forget(job, "returned")

    def _lost(self, job: Job) -> None:
        if job not in self._open:
            return  # another message of the same job has found out
        log.warning("task.lost id=%s: its channel is gone, the broker delivers it again", job.id)
        self._forget(job, "lost")

    def _close(self, job: Job, word: str) -> None:
        self._forget(job, word)
        emit(job, self._dead_queue(job) if isinstance(job.outcome, Failed) else None)

    def _dead_queue(self, job: Job) -> str | None:
        queue = self._app.queue(job.delivery.queue)
        return dead_queue_name(queue.name) if queue.dead_letter else None

    def _forget(self, job: Job, word: str) -> None:
        self.counts[word] += 1
        self._open.discard(job)
        if not self._open:
            self._idle.set()
        if job.after is not None:
            job.after()


def unserialisable(job: Job, error: str, hint: str | None) -> Failed:
    """Return the outcome of a task whose result does not serialise."""
    named = EncodeError(
        f"result of task {job.name!r} (id {job.id}): {error}",
        hint=hint or "return plain data, or set ignore_result=True",
    )
    return Failed(named, "result_unserialisable")


def _nothing(*_: object) -> None:
    """Follow up on nothing."""


def _shortened(meta: ResultMeta) -> ResultMeta:
    """Return a failure of which no part is long."""
    text = str(meta.result.get("exc_message"))[:_SHORT]
    traceback = meta.traceback[-_SHORT:] if meta.traceback else None
    result = {**meta.result, "exc_message": [text]}
    return replace(meta, result=result, traceback=traceback, children=(), extended={})
