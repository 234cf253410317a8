"""Ask what runs to do something, and wait for its reply."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from amqtask import errors
from amqtask.errors import AmqtaskError, ControlError, NoAnswer, PublishTimeout, Unroutable
from amqtask.message.control import Refusal, Request, decode_reply, encode_request
from amqtask.message.model import Message
from amqtask.settings import Settings
from amqtask.topology.plan import DeclareExchange, Plan
from amqtask.transport import Publication, Requirement, Session, Transport
from amqtask.transport.declare import declare
from amqtask.transport.direct import REPLY_TO

#: Seconds that a reply is waited for.
PATIENCE = 10.0
#: Seconds between tries while nobody is there to answer.
_AGAIN = 0.25


class Asker:
    """Sends requests and takes their replies.

    Threads: safe from any thread and any loop, and after a fork.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._lock = threading.Lock()
        self._waiting: dict[str, Future[Any]] = {}
        self._replies: tuple[int, Requirement] | None = None
        exchange = settings.control_exchange
        self._exchange = Requirement(f"exchange {exchange!r}", partial(_prepare, settings))

    def ask(
        self,
        key: str,
        method: str,
        arguments: Mapping[str, Any],
        *,
        whom: str,
        timeout: float = PATIENCE,
    ) -> Any:
        """Ask whoever listens to ``key``, and wait for the reply.

        Args:
            key: Routing key on the control exchange.
            method: What to do.
            arguments: With what; JSON types.
            whom: What listens there, for texts.
            timeout: Seconds; who is not there yet may come meanwhile.

        Raises:
            NoAnswer: Nobody was there, or no reply came in time; in that case it may have been
                done all the same.
            ControlError: It was refused, for a reason that is no error of amqtask's own.
            AmqtaskError: It was refused, for the reason that this says.
        """
        future = self._send(key, method, arguments, whom, timeout)
        try:
            return future.result(timeout + _AGAIN)
        except TimeoutError:
            raise _late(method, whom, timeout) from None

    async def aask(
        self,
        key: str,
        method: str,
        arguments: Mapping[str, Any],
        *,
        whom: str,
        timeout: float = PATIENCE,
    ) -> Any:
        """As `ask`, awaited."""
        future = self._send(key, method, arguments, whom, timeout)
        try:
            async with asyncio.timeout(timeout + _AGAIN):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise _late(method, whom, timeout) from None

    # -- sending ------------------------------------------------------------------

    def _send(
        self, key: str, method: str, arguments: Mapping[str, Any], whom: str, timeout: float
    ) -> Future[Any]:
        request = Request(method, arguments, uuid.uuid4().hex, REPLY_TO)
        future: Future[Any] = Future()
        requires = (self._exchange, self._take_replies())
        with self._lock:
            self._waiting[request.id] = future
        future.add_done_callback(partial(self._forget, request.id))
        deadline = time.monotonic() + timeout
        publication = Publication(
            encode_request(request, timeout),
            self._settings.control_exchange,
            key,
            requires=requires,
            deadline=deadline,
            on_done=partial(self._sent, future, whom),
        )
        self._transport.publish(publication)
        return future

    def _sent(self, future: Future[Any], whom: str, publication: Publication) -> None:
        """Try again while nobody is there, until there is no time left; on the I/O loop."""
        error = publication.error
        if error is None or future.done():
            return
        left = (publication.deadline or 0.0) - time.monotonic()
        if isinstance(error, PublishTimeout):
            _fail(future, NoAnswer(f"nobody answers: {whom} was not reached ({error})"))
        elif not isinstance(error, Unroutable):
            _fail(future, error)
        elif left <= _AGAIN:
            _fail(future, NoAnswer(f"nobody answers: {whom} is not there"))
        else:
            again = Publication(
                replace(publication.message, expiration=str(max(1, round(left * 1000)))),
                publication.exchange,
                publication.routing_key,
                requires=publication.requires,
                deadline=publication.deadline,
                on_done=publication.on_done,
            )
            asyncio.get_running_loop().call_later(_AGAIN, self._transport.publish, again)

    # -- replies ------------------------------------------------------------------

    def _take_replies(self) -> Requirement:
        with self._lock:
            generation = self._transport.generation
            if self._replies is None or self._replies[0] != generation:
                self._waiting.clear()  # of a process that forked this one
                made = self._transport.direct_replies(self._on_reply, self._on_lost)
                self._replies = (generation, made)
            return self._replies[1]

    def _on_reply(self, message: Message) -> None:
        with self._lock:
            future = self._waiting.get(message.correlation_id or "")
        if future is None or future.done():
            return
        try:
            value, refusal = decode_reply(message)
        except AmqtaskError as error:
            _fail(future, ControlError(f"the reply makes no sense: {error}"))
            return
        if refusal is None:
            future.set_result(value)
        else:
            _fail(future, _rebuilt(refusal))

    def _on_lost(self, on_their_way: Collection[str]) -> None:
        with self._lock:
            lost = [each for id_, each in self._waiting.items() if id_ not in on_their_way]
        for future in lost:
            _fail(
                future,
                NoAnswer(
                    "the connection that the reply was to come over ended; it may have been done",
                    hint="look, and ask again",
                ),
            )

    def _forget(self, id_: str, _: Future[Any]) -> None:
        with self._lock:
            self._waiting.pop(id_, None)


def _fail(future: Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _late(method: str, whom: str, timeout: float) -> NoAnswer:
    return NoAnswer(
        f"{whom} did not answer {method!r} within {timeout:g} s; it may have been done",
        hint="look whether it was, and ask again",
    )


def _rebuilt(refusal: Refusal) -> AmqtaskError:
    """Return the error that the other side raised, where it is one of ours."""
    kind = getattr(errors, refusal.kind, None)
    # those that are made with more than a text and a hint would miss it
    if (
        isinstance(kind, type)
        and issubclass(kind, AmqtaskError)
        and kind.__init__ is AmqtaskError.__init__
    ):
        return kind(refusal.text, hint=refusal.hint)
    return ControlError(f"{refusal.kind}: {refusal.text}", hint=refusal.hint)


async def _prepare(settings: Settings, session: Session) -> None:
    if settings.declare != "never":
        passive = settings.declare == "passive"
        await declare(session, Plan((DeclareExchange(settings.control_exchange, passive=passive),)))
