"""Eager mode: a call runs where it is made, by way of the wire.

    call --encoded, framed--> bytes --decoded--> run --value--> encoded, decoded --> result
                                                  |     `--> what follows it, in turn
                                                  |--error, retries left--> next attempt, at once
                                                  `--error---------------> raised

No broker and no worker, yet what would fail between them fails here: arguments
and results go through the serializer and the AMQP frames, limits of size hold,
protocol headers, options and attempt counts are those of a real message. Only
time does not count: a delayed call and a retry run at once.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

from pamqp import body, frame, header

from amqtask.app import App
from amqtask.backends import Can, Pending
from amqtask.clock import wall
from amqtask.context import Context, _current
from amqtask.errors import EncodeError, MessageTooLarge, TaskRevoked
from amqtask.message import (
    Call,
    Message,
    ResultMeta,
    accepted,
    decode,
    decode_meta,
    encode_exception,
    encode_meta,
    resend,
)
from amqtask.message.signature import parse
from amqtask.policy.retry import RETRY_HEADER, RetryPolicy
from amqtask.send import Outgoing
from amqtask.task import Task
from amqtask.testing.following import Following, JoinsHere
from amqtask.testing.letters import unpacked
from amqtask.testing.outbox import Outbox
from amqtask.transport import Publication, Requirement
from amqtask.transport.frames import publish_frames
from amqtask.worker.outcome import (
    Again,
    Done,
    Failed,
    Ignored,
    Outcome,
    Replaced,
    decide,
    describe,
)
from amqtask.workflow.advance import Advance, Ended, failed, heard, stopped, succeeded
from amqtask.workflow.launch import launch

#: Bytes of a frame's payload, as RabbitMQ negotiates.
_FRAME = 131_072 - 8
#: Attempts after which a task that always asks for one more is given up.
_MOST = 1000


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One run of a call.

    Attributes:
        message: As it came off the wire.
        queue: Where it would have been taken from.
        after: Seconds that it would have waited, all attempts together.
    """

    outgoing: Outgoing
    message: Message
    call: Call
    task: Task[..., Any]
    policy: RetryPolicy
    queue: str
    after: float
    context: Context


class Eager(Outbox):
    """Runs an app's calls in place, and remembers them; made by `eager`.

    Args:
        app: The app.
        propagate: Whether a call raises what its task raises; else only its result does.
    """

    def __init__(self, app: App, *, propagate: bool) -> None:
        super().__init__()
        self._app = app
        self._propagate = propagate
        self._accepted = accepted(app.settings.accept_content)

    # -- as the app's stand-in ------------------------------------------------

    def deliver(self, outgoing: Outgoing) -> None:
        """Run a call, its retries and what follows it, in this thread."""
        line, failures = deque([self._first(outgoing)]), _Failures(self._propagate)
        while line:
            attempt = line.popleft()
            token = _current.set(attempt.context)
            try:
                value = attempt.task.run(attempt.context)
                outcome: Outcome = Done(_run(value) if attempt.task.is_async else value)
            except BaseException as error:  # whatever user code raises is its outcome
                outcome = self._decide(attempt, error)
            finally:
                _current.reset(token)
            self._settle(attempt, outcome, line)
            failures.note(attempt, outcome)
        failures.raise_first()

    async def adeliver(self, outgoing: Outgoing) -> None:
        """Run a call, its retries and what follows it, on this event loop."""
        line, failures = deque([self._first(outgoing)]), _Failures(self._propagate)
        while line:
            attempt = line.popleft()
            token = _current.set(attempt.context)
            try:
                value = attempt.task.run(attempt.context)
                outcome: Outcome = Done(await value if attempt.task.is_async else value)
            except BaseException as error:  # whatever user code raises is its outcome
                outcome = self._decide(attempt, error)
            finally:
                _current.reset(token)
            self._settle(attempt, outcome, line)
            failures.note(attempt, outcome)
        failures.raise_first()

    # -- an attempt -----------------------------------------------------------

    def _first(self, outgoing: Outgoing) -> _Attempt:
        """Take a call off the wire.

        Raises:
            AmqtaskError: It would not have been sent, or not have been run.
        """
        self.record(self._app, outgoing)
        publication = outgoing.publications[0]
        route = outgoing.route
        queue = route.queue.name if route.queue is not None else route.routing_key
        return self._attempt(outgoing, self._carried(publication), queue, outgoing.delay)

    def _carried(self, publication: Publication) -> Message:
        size, most = len(publication.message.body), self._app.settings.max_message_size
        if size > most:
            raise publication.fail(
                MessageTooLarge, f"its body has {size} bytes, max_message_size is {most}"
            )
        try:
            return over_the_wire(publication)
        except ValueError as error:
            raise EncodeError(f"{publication.what()} was not published: {error}") from error

    def _attempt(self, outgoing: Outgoing, message: Message, queue: str, after: float) -> _Attempt:
        settings = self._app.settings
        call = decode(
            message,
            self._accepted,
            max_decoded_size=settings.max_decoded_size,
            timezone=settings.zone,
        )
        call = heard(call)
        task = self._app.tasks[call.task]
        if call.expires is not None and call.expires.timestamp() <= wall() + after:
            raise TaskRevoked(f"task {call.task!r} (id {call.id}) expires before it would start")
        policy = task.retry_policy
        if RETRY_HEADER in (call.headers or {}):
            policy = RetryPolicy.from_header(call.headers[RETRY_HEADER])
        route = outgoing.route
        context = Context(self._app, call, queue, route.exchange, route.routing_key, False, "eager")
        return _Attempt(outgoing, message, call, task, policy, queue, after, context)

    @staticmethod
    def _decide(attempt: _Attempt, error: BaseException) -> Outcome:
        now = wall() + attempt.after
        try:
            return decide(error, attempt.call, attempt.policy, now=now, random=random.random)
        except Exception as wrong:  # such as a retry with a countdown that is no number
            return Failed(wrong, "failed", describe(wrong))

    # -- what follows from it -------------------------------------------------

    def _settle(self, attempt: _Attempt, outcome: Outcome, line: deque[_Attempt]) -> None:
        """Do what follows from an outcome; what runs next is added to ``line``."""
        call, follow = attempt.call, Following(self._app, attempt.call, self._ended)
        match outcome:
            case Done():
                self._save(attempt, "SUCCESS", outcome.value)
                follow.act(succeeded(call, outcome.value, attempt.context.trail.added))
            case Again():
                line.append(self._again(attempt, outcome))
            case Replaced():
                follow.act(Advance(launch=launch(parse(outcome.signature))))
            case Ignored():
                follow.act(stopped(call, "ended without an outcome"))
            case Failed():
                self._save(attempt, "FAILURE", encode_exception(outcome.error), outcome.traceback)
                follow.act(failed(call, outcome.error, outcome.traceback, follow.takes))
        line.extend(self._first(each) for each in follow.outgoing)

    def _again(self, attempt: _Attempt, outcome: Again) -> _Attempt:
        if outcome.retries > _MOST:
            raise AssertionError(
                f"task {attempt.call.task!r} asks for one more attempt after {_MOST}"
            ) from outcome.error
        message = resend(attempt.message, attempt.call, retries=outcome.retries, eta=outcome.eta)
        message = over_the_wire(Publication(message, "", attempt.queue))
        after = attempt.after + outcome.delay
        return self._attempt(attempt.outgoing, message, attempt.queue, after)

    def _save(
        self, attempt: _Attempt, status: str, value: Any, traceback: str | None = None
    ) -> None:
        call = attempt.call
        meta = ResultMeta(
            task_id=call.id,
            status=status,
            result=value,
            traceback=traceback,
            date_done=datetime.fromtimestamp(wall(), UTC),
            group_id=call.group,
            parent_id=call.parent_id,
        )
        if attempt.outgoing.pending is not None:
            self._resolve(attempt.outgoing.pending, meta, call.task)

    def _ended(self, before: Call, ended: Ended) -> None:
        """Resolve a call that never runs."""
        if self._app.backend is None:
            return
        meta = ResultMeta(
            task_id=str(ended.step.options["task_id"]),
            status=ended.state,
            result=encode_exception(ended.error),
            date_done=datetime.fromtimestamp(wall(), UTC),
            parent_id=before.id,
        )
        self._resolve(self._app.backend.watch(meta.task_id), meta, ended.step.task)

    @staticmethod
    def _resolve(pending: Pending, meta: ResultMeta, task: str) -> None:
        try:
            data = encode_meta(meta)
        except EncodeError as error:
            raise EncodeError(
                f"result of task {task!r} (id {meta.task_id}): {error}",
                hint=error.hint or "return plain data, or set ignore_result=True",
            ) from error
        pending.resolve(decode_meta(data, "application/json", accepted(("json",))))


class _Failures:
    """What failed while one call and all that follows it ran."""

    def __init__(self, propagate: bool) -> None:
        self._propagate = propagate
        self._first: tuple[_Attempt, BaseException] | None = None

    def note(self, attempt: _Attempt, outcome: Outcome) -> None:
        """Remember the first one."""
        if isinstance(outcome, Failed) and self._first is None:
            self._first = attempt, outcome.error

    def raise_first(self) -> None:
        """Raise it, if failures are to be raised; all that can run has run."""
        if self._first is None or not self._propagate:
            return
        attempt, error = self._first
        if (pending := attempt.outgoing.pending) is not None:
            pending.raised = True
        call = attempt.call
        error.add_note(
            f"raised by task {call.task!r} (id {call.id}, attempt {call.retries + 1}), in eager mode"
        )
        raise error


class _Here:
    """A result backend that keeps no outcomes: they are resolved where calls run."""

    can = Can(groups=True, stores=False)

    def __init__(self) -> None:
        self._groups: dict[str, object] = {}
        self._waiting: WeakValueDictionary[str, Pending] = WeakValueDictionary()

    def watch(self, task_id: str) -> Pending:
        return self._waiting.setdefault(task_id, Pending(task_id))

    def reply_to(self) -> str:
        return "amqtask.reply.eager"

    def requirements(self) -> Sequence[Requirement]:
        return ()

    def save(
        self,
        meta: ResultMeta,
        *,
        reply_to: str,
        correlation_id: str,
        done: Callable[[Exception | None], object],
    ) -> None:
        done(None)

    def refresh(self, pending: Pending) -> None:
        """Know no more than was resolved."""

    async def arefresh(self, pending: Pending) -> None:
        """Do as `refresh`."""

    def forget(self, task_id: str) -> None:
        self._waiting.pop(task_id, None)

    async def aforget(self, task_id: str) -> None:
        self.forget(task_id)

    def save_group(self, group_id: str, members: object) -> None:
        self._groups[group_id] = members

    def load_group(self, group_id: str) -> object | None:
        return self._groups.get(group_id)

    def forget_group(self, group_id: str) -> None:
        self._groups.pop(group_id, None)

    def close(self, timeout: float) -> None:
        """Have nothing to close."""


@contextmanager
def eager(app: App, *, propagate: bool = True) -> Iterator[Eager]:
    """Run an app's calls where they are made, for as long as the block runs.

    Args:
        app: The app. It connects to nothing.
        propagate: Whether ``delay`` raises what the task raises, once no retry is left;
            otherwise only ``result.get()`` does.

    Threads: it holds for calls from all threads.
    """
    made = Eager(app, propagate=propagate)
    producer = app.producer
    before = producer.stand_in, producer.backend, app._joins
    producer.stand_in, app._joins = made, JoinsHere()
    if producer.backend is not None:
        producer.backend = _Here()
    try:
        yield made
    finally:
        producer.stand_in, producer.backend, app._joins = before


def over_the_wire(publication: Publication) -> Message:
    """Return a message as it is after it was written into frames and read from them.

    Raises:
        ValueError: A property or header cannot be written.
    """
    data = b"".join(
        publish_frames(
            1, publication.exchange, publication.routing_key, publication.message, _FRAME
        )
    )
    content: header.ContentHeader | None = None
    parts = []
    while data:
        size, _, part = frame.unmarshal(data)
        data = data[size:]
        if isinstance(part, header.ContentHeader):
            content = part
        elif isinstance(part, body.ContentBody):
            parts.append(part.value or b"")
    assert content is not None
    return unpacked(content, b"".join(parts))


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, although a loop may be running in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, coroutine).result()
