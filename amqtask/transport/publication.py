"""One message on its way to the broker: what it is, what it needs, and what became of it.

`amqtask.transport.publisher` and `amqtask.transport.fenced` send them, each by its own rule
of what a lost connection means.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pika.spec import Basic, BasicProperties

from amqtask.errors import (
    AmqtaskError,
    EncodeError,
    Nacked,
    PublishError,
    Unroutable,
)
from amqtask.message.model import Message
from amqtask.transport.frames import publish_frames
from amqtask.transport.session import Channel, Session

log = logging.getLogger(__name__)

#: Seconds before a queue that was deleted under us is made anew. RabbitMQ 3.10 never cancels the
#: consumers of a quorum queue that is there again at once, and gives them nothing (tried).
REDECLARE = 0.2


class Requirement:
    """Something a route needs on the broker before the first message goes there.

    Args:
        name: For logs.
        prepare: Makes it so; awaited once per session, on the I/O loop.
    """

    __slots__ = ("name", "prepare")

    def __init__(self, name: str, prepare: Callable[[Session], Awaitable[None]]) -> None:
        self.name = name
        self.prepare = prepare

    def __repr__(self) -> str:
        return f"<Requirement {self.name}>"


class Publication:
    """One message on its way.

    Args:
        message: What to send.
        exchange: ``""`` is the default exchange.
        address: Gives exchange and routing key anew whenever it is about to be sent,
            for a message whose route depends on the time.
        requires: What has to be there first, in this order.
        deadline: `time.monotonic` instant after which it fails; None waits for ever.
        on_done: Called once, in a turn of the I/O loop, when `error` is final.
        task: Name of the task, for error texts.
        hint: Remedy to add to an `Unroutable`.

    Attributes:
        done: True once confirmed or failed.
        error: Why it failed; None when it was confirmed.
    """

    __slots__ = (
        "address",
        "deadline",
        "done",
        "error",
        "exchange",
        "hint",
        "message",
        "on_done",
        "requires",
        "returned",
        "routing_key",
        "sends",
        "task",
        "waits_for",
    )

    def __init__(
        self,
        message: Message,
        exchange: str,
        routing_key: str,
        *,
        address: Callable[[], tuple[str, str]] | None = None,
        requires: Sequence[Requirement] = (),
        deadline: float | None = None,
        on_done: Callable[[Publication], object] | None = None,
        task: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.exchange = exchange
        self.routing_key = routing_key
        self.address = address
        self.requires = requires
        self.deadline = deadline
        self.on_done = on_done
        self.task = task
        self.hint = hint
        self.done = False
        self.error: AmqtaskError | None = None
        self.sends = 0
        self.waits_for: str | None = None
        self.returned: str | None = None

    def what(self) -> str:
        """Name task and route, for error texts."""
        who = f"task {self.task!r}" if self.task else "message"
        id_ = f" (id {self.message.message_id})" if self.message.message_id else ""
        exchange = f"exchange {self.exchange!r}" if self.exchange else "the default exchange"
        return f"{who}{id_} to {exchange} with routing key {self.routing_key!r}"

    def fail(self, kind: type[PublishError], reason: str, hint: str | None = None) -> PublishError:
        """Build the error of class ``kind`` that says why this was not published."""
        error = kind(f"{self.what()} was not published: {reason}", hint=hint)
        error.task, error.task_id = self.task, self.message.message_id
        error.exchange, error.routing_key = self.exchange, self.routing_key
        return error

    def finish(self, error: AmqtaskError | None) -> None:
        """Make ``error`` (None: confirmed) the outcome and tell whoever waits."""
        if not self.done:
            self.done = True
            self.error = error
            tell, self.on_done = self.on_done, None  # what it knows may know this
            if tell is not None:
                try:
                    tell(self)
                except Exception:  # one caller's bug must not cost the others their messages
                    log.exception("publication.caller_failed %s: going on", self.what())

    def frames(self, channel: Channel) -> list[bytes | memoryview] | None:
        """Return what is to be written to send it on ``channel``, and count it as sent.

        Returns:
            None when it cannot be written; it has failed then.
        """
        if self.address is not None:  # a route that depends on the time
            self.exchange, self.routing_key = self.address()
        try:
            pieces = publish_frames(
                channel.number, self.exchange, self.routing_key, self.message, channel.body_max
            )
        except ValueError as error:
            self.finish(EncodeError(f"{self.what()} was not published: {error}"))
            return None
        self.sends += 1
        self.returned = None
        return pieces

    def judge(self, *, nacked: bool) -> bool:
        """Finish it by what the broker said; False when it was returned and is worth another try.

        The queue was deleted since it was declared then: what it requires is to be made once more.
        """
        if nacked:
            self.finish(
                self.fail(
                    Nacked,
                    "the queue refused it",
                    hint="it is full (x-max-length with reject-publish) or its replicas "
                    "are down; see the broker's log",
                )
            )
        elif self.returned is None:
            self.finish(None)
        elif self.requires and self.sends < 2:
            return False
        else:
            self.finish(
                self.fail(Unroutable, f"no queue took it ({self.returned})", hint=self.hint)
            )
        return True


def note_return(
    unconfirmed: Iterable[Publication], method: Basic.Return, props: BasicProperties
) -> None:
    """Note with the publication that was meant that no queue took it.

    basic.return carries no tag; it precedes the ack of its message, so the oldest unconfirmed one
    with this id and route is meant.
    """
    for publication in unconfirmed:
        if (
            publication.returned is None
            and publication.message.message_id == props.message_id
            and publication.routing_key == method.routing_key
            and publication.exchange == method.exchange
        ):
            publication.returned = f"{method.reply_code} {method.reply_text}"
            return
