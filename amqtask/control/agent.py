"""Answer requests, one after the other, for as long as one session lasts.

    client --> exchange amqtask.control (topic) --key--> a queue of this agent's own --> handler
    client <-- its reply address <--------------------------------------------- reply

The queue is exclusive, so it is gone with the connection, and a request that nobody
answers is returned to whoever asks instead of waiting for somebody who is not there.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from amqtask.errors import AmqtaskError, ControlError, MalformedMessage
from amqtask.message.control import Request, decode_request, encode_reply
from amqtask.message.model import Message
from amqtask.topology.plan import DeclareExchange, Plan
from amqtask.transport import Channel, Session
from amqtask.transport.declare import declare
from amqtask.transport.frames import publish_frames

log = logging.getLogger(__name__)

#: Requests that wait at most; more are refused at once.
MOST = 1000

Handler = Callable[[Request], Awaitable[Any]]


class Agent:
    """Answers what comes with one routing key.

    Args:
        exchange: The control exchange.
        key: Routing key of the requests that are for this one.
        handle: Does what a request asks; what it returns is the reply, JSON types. An
            `AmqtaskError` it raises goes back to whoever asked.
        declares: Whether the exchange is made; else it has to be there.
    """

    def __init__(self, exchange: str, key: str, handle: Handler, *, declares: bool = True) -> None:
        self._exchange = exchange
        self._key = key
        self._handle = handle
        self._declares = declares
        self._waiting: asyncio.Queue[Request] = asyncio.Queue(MOST)

    async def serve(self, session: Session) -> None:
        """Answer until cancelled.

        Raises:
            TransportError: The session ended, or the broker refuses what this needs.
        """
        if self._declares:
            await declare(session, Plan((DeclareExchange(self._exchange),)))
        channel = await session.channel()
        working = asyncio.create_task(self._work(channel), name="amqtask agent")
        try:
            queue = f"{self._exchange}.{uuid.uuid4()}"
            await channel.declare_queue(queue, exclusive=True, auto_delete=True)
            await channel.bind_queue(queue, self._exchange, self._key)
            await channel.consume_unacked(queue, self._on_message)
            log.debug("control.serving exchange=%r key=%r", self._exchange, self._key)
            raise await asyncio.shield(channel.closed)
        finally:
            working.cancel()
            await channel.close()

    def _on_message(self, _: int, __: bool, ___: str, ____: str, message: Message) -> None:
        try:
            self._waiting.put_nowait(decode_request(message))
        except MalformedMessage as error:
            log.warning("control.malformed error=%r: it is passed over", str(error))
        except asyncio.QueueFull:
            log.warning("control.overrun: %d requests wait, one more is passed over", MOST)

    async def _work(self, channel: Channel) -> None:
        while True:
            request = await self._waiting.get()
            reply = await self._answer(request)
            if request.reply_to and channel.is_open:
                channel.write(
                    publish_frames(channel.number, "", request.reply_to, reply, channel.body_max)
                )

    async def _answer(self, request: Request) -> Message:
        try:
            return encode_reply(request, await self._handle(request))
        except AmqtaskError as error:
            log.info("control.refused method=%r error=%r", request.method, str(error))
            return encode_reply(request, error=error)
        except Exception as error:  # a request must not end what answers the others
            log.exception("control.failed method=%r: the next request follows", request.method)
            said = f"{request.method!r} failed: {type(error).__name__}: {error}"
            return encode_reply(request, error=ControlError(said, hint="see the log of the beat"))
