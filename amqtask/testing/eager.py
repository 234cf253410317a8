"""Eager mode: a call runs where it is made, by way of the wire.

    call --encoded, framed--> bytes --decoded--> run --value--> encoded, decoded --> result
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
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo

from pamqp import body, frame, header

from amqtask.app import App
from amqtask.backends import Can, Pending
from amqtask.clock import wall
from amqtask.context import Context, _current
from amqtask.errors import EncodeError, MessageTooLarge, TaskRevoked, UnsupportedMessage
from amqtask.message import (
    NO_EMBED,
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
from amqtask.policy.retry import RETRY_HEADER, RetryPolicy
from amqtask.send import Outgoing
from amqtask.task import Task
from amqtask.testing.letters import unpacked
from amqtask.testing.outbox import Outbox
from amqtask.transport import Publication, Requirement
from amqtask.transport.frames import publish_frames
from amqtask.worker.outcome import Again, Done, Failed, Outcome, decide, describe

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
        """Run a call, and its retries, in this thread."""
        attempt: _Attempt | None = self._first(outgoing)
        while attempt is not None:
            token = _current.set(self._context(attempt))
            try:
                value = attempt.task.run(self._context(attempt))
                outcome: Outcome = Done(_run(value) if attempt.task.is_async else value)
            except BaseException as error:  # whatever user code raises is its outcome
                outcome = self._decide(attempt, error)
            finally:
                _current.reset(token)
            attempt = self._settle(attempt, outcome)

    async def adeliver(self, outgoing: Outgoing) -> None:
        """Run a call, and its retries, on this event loop."""
        attempt: _Attempt | None = self._first(outgoing)
        while attempt is not None:
            token = _current.set(self._context(attempt))
            try:
                value = attempt.task.run(self._context(attempt))
                outcome: Outcome = Done(await value if attempt.task.is_async else value)
            except BaseException as error:  # whatever user code raises is its outcome
                outcome = self._decide(attempt, error)
            finally:
                _current.reset(token)
            attempt = self._settle(attempt, outcome)

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
            timezone=ZoneInfo(settings.timezone),
        )
        task = self._app.tasks[call.task]
        if call.embed != NO_EMBED:
            raise UnsupportedMessage(
                f"task {call.task!r} (id {call.id}) is a step of a workflow, which does not run "
                "in eager mode",
                hint="use a worker: the fixture amqtask_worker",
            )
        if call.expires is not None and call.expires.timestamp() <= wall() + after:
            raise TaskRevoked(f"task {call.task!r} (id {call.id}) expires before it would start")
        policy = task.retry_policy
        if RETRY_HEADER in (call.headers or {}):
            policy = RetryPolicy.from_header(call.headers[RETRY_HEADER])
        return _Attempt(outgoing, message, call, task, policy, queue, after)

    def _context(self, attempt: _Attempt) -> Context:
        route = attempt.outgoing.route
        return Context(
            self._app,
            attempt.call,
            attempt.queue,
            route.exchange,
            route.routing_key,
            False,
            "eager",
        )

    @staticmethod
    def _decide(attempt: _Attempt, error: BaseException) -> Outcome:
        now = wall() + attempt.after
        try:
            return decide(error, attempt.call, attempt.policy, now=now, random=random.random)
        except Exception as wrong:  # such as a retry with a countdown that is no number
            return Failed(wrong, "failed", describe(wrong))

    # -- what follows from it -------------------------------------------------

    def _settle(self, attempt: _Attempt, outcome: Outcome) -> _Attempt | None:
        """Do what follows from an outcome; returns the next attempt."""
        match outcome:
            case Done():
                self._save(attempt, "SUCCESS", outcome.value)
            case Again():
                return self._again(attempt, outcome)
            case Failed():
                self._failed(attempt, outcome)
        return None

    def _again(self, attempt: _Attempt, outcome: Again) -> _Attempt:
        if outcome.retries > _MOST:
            raise AssertionError(
                f"task {attempt.call.task!r} asks for one more attempt after {_MOST}"
            ) from outcome.error
        message = resend(attempt.message, attempt.call, retries=outcome.retries, eta=outcome.eta)
        message = over_the_wire(Publication(message, "", attempt.queue))
        after = attempt.after + outcome.delay
        return self._attempt(attempt.outgoing, message, attempt.queue, after)

    def _failed(self, attempt: _Attempt, outcome: Failed) -> None:
        error = outcome.error
        self._save(attempt, "FAILURE", encode_exception(error), outcome.traceback)
        if not self._propagate:
            return
        if (pending := attempt.outgoing.pending) is not None:
            pending.raised = True
        call = attempt.call
        error.add_note(
            f"raised by task {call.task!r} (id {call.id}, attempt {call.retries + 1}), in eager mode"
        )
        raise error

    def _save(
        self, attempt: _Attempt, status: str, value: Any, traceback: str | None = None
    ) -> None:
        pending, call = attempt.outgoing.pending, attempt.call
        if pending is None:
            return
        meta = ResultMeta(
            task_id=call.id,
            status=status,
            result=value,
            traceback=traceback,
            date_done=datetime.fromtimestamp(wall(), UTC),
            group_id=call.group,
            parent_id=call.parent_id,
        )
        try:
            data = encode_meta(meta)
        except EncodeError as error:
            raise EncodeError(
                f"result of task {call.task!r} (id {call.id}): {error}",
                hint=error.hint or "return plain data, or set ignore_result=True",
            ) from error
        pending.resolve(decode_meta(data, "application/json", accepted(("json",))))


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
    before = app.stand_in, app._backend
    app.stand_in = made
    if app._backend is not None:
        app._backend = _Here()
    app._made = None  # it holds the backend
    try:
        yield made
    finally:
        app.stand_in, app._backend = before
        app._made = None


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
