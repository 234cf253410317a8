"""Settle a job: first make its outcome safe, then ack the delivery. Never the other way.

    Done      result saved                       -> ack
    Again     successor published and confirmed  -> ack
    Failed    parked, result saved               -> ack
    Ignored                                         ack
    Returned                                        reject, back to the queue

A crash between the two repeats work and loses none. What cannot be made safe
now (no disk on the broker, say) is tried again while the delivery is ours,
and the broker delivers it again once it is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from amqtask.app import App
from amqtask.errors import EncodeError, MessageTooLarge
from amqtask.message import encode_exception, park, resend
from amqtask.message.model import Message
from amqtask.message.results import ResultMeta
from amqtask.topology.deadletter import dead_queue_name
from amqtask.transport import Publication, Requirement
from amqtask.transport.backoff import Backoff
from amqtask.worker.execute import Job
from amqtask.worker.outcome import Again, Done, Failed, Ignored, Outcome, Returned

log = logging.getLogger("amqtask.task")

Step = Callable[[], None]


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
        self._backend = app.backend
        self._requires: dict[str, tuple[Requirement, ...]] = {}
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
        outcome = job.outcome
        if isinstance(outcome, Done) and not self._wants_result(job):
            self._io.post(self._ack, job)
            return
        self._open.add(job)
        if not isinstance(outcome, Done) and not job.delivery.is_valid:
            # the broker has given it to somebody else: a successor of ours would be a second copy
            self._io.post(self._unsettled, job)
            return
        try:
            self._make_safe(job, outcome)
        except Exception as error:  # a bug here must cost neither the message nor the worker
            log.exception("task.settle_failed id=%s: parking it", _id(job))
            self._park(job, Failed(error, "settle_failed"))

    # -- outcome by outcome -------------------------------------------------------

    def _make_safe(self, job: Job, outcome: Outcome | None) -> None:
        match outcome:
            case Done():
                self._save_value(job, outcome)
            case Again():
                self._send_again(job, outcome)
            case Failed():
                self._park(job, outcome)
            case Ignored():
                self._io.post(self._ack, job)
            case Returned():
                self._io.post(self._reject, job)
            case None:
                raise AssertionError("a job without outcome reached the settler")

    def _save_value(self, job: Job, outcome: Done) -> None:
        try:
            self._save(job, "SUCCESS", outcome.value, None, lambda: self._ack(job))
        except EncodeError as error:
            call = job.call
            named = EncodeError(
                f"result of task {call.task if call else '?'!r} (id {_id(job)}): {error}",
                hint=error.hint or "return plain data, or set ignore_result=True",
            )
            self._park(job, Failed(named, "result_unserialisable"))

    def _send_again(self, job: Job, outcome: Again) -> None:
        call, delivery = job.call, job.delivery
        assert call is not None
        message = resend(delivery.message, call, retries=outcome.retries, eta=outcome.eta)
        exchange, routing_key, requires = self._app.sender.delayed(
            self._app.queue(delivery.queue), outcome.delay
        )
        if outcome.error is not None and self._wants_result(job):
            # a passing state: nobody's ack waits for it
            self._save(job, "RETRY", encode_exception(outcome.error), None, lambda: None)
        self._publish(
            job,
            lambda: Publication(message, exchange, routing_key, requires=requires, task=call.task),
            lambda: self._ack(job),
        )

    def _park(self, job: Job, outcome: Failed) -> None:
        """Publish to the dead-letter queue, then save the failure, then ack."""
        delivery = job.delivery
        then = partial(self._save_failure, job, outcome)
        queue = self._app.queue(delivery.queue)
        if not queue.dead_letter:
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
            now=time.time(),
        )
        self._publish(job, lambda: self._dead_letter(job, message), then)

    def _dead_letter(self, job: Job, message: Message) -> Publication:
        queue = self._app.queue(job.delivery.queue)
        return Publication(
            message,
            self._app.settings.dead_letter_exchange,
            queue.name,
            requires=self._requirements(queue.name),
            task=job.call.task if job.call is not None else None,
            hint=f"declare queue {dead_queue_name(queue.name)!r}; `amqtask topology` shows how",
        )

    def _save_failure(self, job: Job, outcome: Failed) -> None:
        if job.call is None or not self._wants_result(job):
            self._ack(job)
            return
        state = "REVOKED" if outcome.revoked else "FAILURE"
        value = encode_exception(outcome.error)
        self._save(job, state, value, outcome.traceback, lambda: self._ack(job))

    # -- making safe ----------------------------------------------------------------

    def _wants_result(self, job: Job) -> bool:
        call, task = job.call, job.task
        if self._backend is None or call is None:
            return False
        ignore = call.ignore_result
        if ignore is None and task is not None:
            ignore = task.defaults.ignore_result
        return not (self._app.settings.ignore_result if ignore is None else ignore)

    def _save(self, job: Job, state: str, value: Any, traceback: str | None, then: Step) -> None:
        """Store a state; ``then`` runs on the I/O loop once it is safe."""
        call, backend = job.call, self._backend
        assert call is not None
        assert backend is not None
        meta = ResultMeta(
            task_id=call.id,
            status=state,
            result=value,
            traceback=traceback,
            date_done=None if state == "RETRY" else datetime.now(UTC),
            group_id=call.group,
            parent_id=call.parent_id,
        )

        def save() -> None:
            backend.save(
                meta,
                reply_to=call.reply_to or "",
                correlation_id=call.correlation_id or call.id,
                done=done,
            )

        backoff = Backoff(first=0.5, cap=30.0)

        def done(error: Exception | None) -> None:
            if error is None:
                self._io.post(then)
            elif isinstance(error, MessageTooLarge) and state == "SUCCESS":
                self._io.post(self._park, job, Failed(error, "result_too_large"))
            elif isinstance(error, MessageTooLarge) and traceback:
                short = replace(meta, traceback=traceback[-2000:], result=_short(value))
                backend.save(
                    short,
                    reply_to=call.reply_to or "",
                    correlation_id=call.correlation_id or call.id,
                    done=lambda _: self._io.post(then),
                )
            else:
                self._io.post(self._later, job, "its result", error, backoff, save)

        save()

    def _publish(self, job: Job, make: Callable[[], Publication], then: Step) -> None:
        """Publish until it is confirmed; ``then`` runs on the I/O loop."""
        backoff = Backoff(first=0.5, cap=30.0)

        def send() -> None:
            publication = make()
            publication.on_done = done
            self._app.transport.publish(publication)

        def done(publication: Publication) -> None:
            if publication.error is None:
                then()
            else:
                self._later(job, "what follows it", publication.error, backoff, send)

        send()

    def _later(self, job: Job, what: str, error: Exception, backoff: Backoff, again: Step) -> None:
        """Try again while the delivery is ours; the broker delivers it again otherwise."""
        if not job.delivery.is_valid:
            self._unsettled(job)
            return
        wait = backoff.next()
        log.error(
            "task.settle_retry id=%s error=%r: %s is not safe yet, next try in %.1f s",
            _id(job),
            str(error),
            what,
            wait,
        )
        self._io.loop.call_later(wait, again)

    def _requirements(self, name: str) -> tuple[Requirement, ...]:
        return (self._app.sender.queue_requirement(self._app.queue(name)),)

    # -- settling, on the I/O loop ----------------------------------------------------

    def _ack(self, job: Job) -> None:
        job.delivery.ack()
        self._close(job, type(job.outcome).__name__.lower())

    def _reject(self, job: Job) -> None:
        job.delivery.reject(requeue=True)
        self._close(job, "returned")

    def _unsettled(self, job: Job) -> None:
        log.warning(
            "task.unsettled id=%s: its channel is gone, the broker delivers it again", _id(job)
        )
        self._forget(job, "unsettled")

    def _close(self, job: Job, word: str) -> None:
        self._forget(job, word)
        emit(job)

    def _forget(self, job: Job, word: str) -> None:
        self.counts[word] += 1
        self._open.discard(job)
        if not self._open:
            self._idle.set()


def emit(job: Job) -> None:
    """Step 7: one log line that says how it ended and what happens next."""
    call, outcome = job.call, job.outcome
    name = call.task if call is not None else "?"
    match outcome:
        case Done():
            if log.isEnabledFor(logging.INFO):
                log.info("task.succeeded task=%s id=%s runtime=%.3f", name, _id(job), job.runtime)
        case Again(error=None):
            log.info(
                "task.early task=%s id=%s: it waits %.1f s in the broker",
                name,
                _id(job),
                outcome.delay,
            )
        case Again():
            log.warning(
                "task.retry task=%s id=%s error=%r: attempt %d in %.1f s",
                name,
                _id(job),
                outcome.error,
                outcome.retries + 1,
                outcome.delay,
            )
        case Failed():
            log.error(
                "task.failed task=%s id=%s reason=%s error=%r: parked in %r%s",
                name,
                _id(job),
                outcome.reason,
                outcome.error,
                dead_queue_name(job.delivery.queue),
                f"\n{outcome.traceback}" if outcome.traceback else "",
            )
        case Ignored():
            log.info("task.ignored task=%s id=%s", name, _id(job))
        case Returned():
            log.warning("task.returned task=%s id=%s: back to its queue", name, _id(job))


def _id(job: Job) -> str:
    return job.call.id if job.call is not None else str(job.delivery.message.message_id)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, "exc_message": [str(value.get("exc_message"))[:2000]]}
    return value
