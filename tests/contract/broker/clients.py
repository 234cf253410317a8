"""pika, with waiting: what arrives is waited for with a deadline, and a refusal is a value."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pika.exceptions
import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.wire import Refused
from tests.helpers import TIMEOUT, eventually

#: Seconds in which something that must not come would have come. A broker that works never needs
#: it, so a slow machine can only miss a fault here, not report one.
QUIET = 0.05
NOT_FOUND = 404


class Delivery(NamedTuple):
    """A message with the method that carried it: deliver, get-ok or return."""

    method: Any
    properties: BasicProperties
    body: bytes

    @property
    def tag(self) -> int:
        tag: int = self.method.delivery_tag
        return tag

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.properties.headers or {})


def declare_dead_lettering(
    channel: BlockingChannel, name: str, dead: str, kind: str = "classic", **arguments: Any
) -> None:
    """Declare a durable queue whose dead letters go to the queue ``dead``.

    Args:
        arguments: More of the queue's, ``message_ttl`` for ``x-message-ttl``.
    """
    channel.queue_declare(
        name,
        durable=True,
        arguments={
            "x-queue-type": kind,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
            **{f"x-{key.replace('_', '-')}": value for key, value in arguments.items()},
        },
    )


def channel_closed(code: int, text: str) -> Refused:
    """What `refusal` returns when the broker closed the channel."""
    return Refused("channel", code, text)


def connection_closed(code: int, text: str) -> Refused:
    """What `refusal` returns when the broker closed the connection."""
    return Refused("connection", code, text)


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Refused:
    """Call, and return how the broker closed the channel or the connection over it."""
    try:
        answer = call(*args, **kwargs)
    except pika.exceptions.ChannelClosedByBroker as error:
        return Refused("channel", error.reply_code, error.reply_text)
    except pika.exceptions.ConnectionClosedByBroker as error:
        return Refused("connection", error.reply_code, error.reply_text)
    pytest.fail(f"the broker did not refuse, it answered {answer!r}")


def publish(
    channel: BlockingChannel,
    key: str,
    body: bytes | str = b"",
    *,
    exchange: str = "",
    mandatory: bool = False,
    **properties: Any,
) -> None:
    """Publish, to a queue by its name unless an exchange is given.

    On a channel with confirms the message is where it belongs when this returns.
    """
    octets = body.encode() if isinstance(body, str) else body
    channel.basic_publish(exchange, key, octets, BasicProperties(**properties), mandatory)


def depth(channel: BlockingChannel, queue: str) -> int:
    """Return how many messages the queue has ready."""
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count


def consumers(channel: BlockingChannel, queue: str) -> int:
    """Return how many consumers the queue has."""
    count: int = channel.queue_declare(queue, passive=True).method.consumer_count
    return count


def get(channel: BlockingChannel, queue: str, *, auto_ack: bool = True) -> Delivery | None:
    """Return the message at the head of the queue, or None when it is empty."""
    method, properties, body = channel.basic_get(queue, auto_ack)
    if method is None:
        return None
    assert properties is not None
    assert body is not None
    return Delivery(method, properties, body)


def fetch(channel: BlockingChannel, queue: str, *, auto_ack: bool = True) -> Delivery:
    """Return the next message of the queue, which may take its time to come."""
    found = eventually(
        lambda: get(channel, queue, auto_ack=auto_ack), message=f"no message came into {queue}"
    )
    assert found is not None
    return found


def drain(channel: BlockingChannel, queue: str) -> list[str]:
    """Take the bodies of all messages that are in the queue now."""
    bodies = []
    while (delivery := get(channel, queue)) is not None:
        bodies.append(delivery.body.decode())
    return bodies


def reject(channel: BlockingChannel, queue: str) -> None:
    """Take the next message of the queue and refuse it for good."""
    channel.basic_reject(fetch(channel, queue, auto_ack=False).tag, requeue=False)


def deaths(delivery: Delivery) -> list[dict[str, Any]]:
    """Return the message's past, without the times, which are checked here."""
    past: list[dict[str, Any]] = delivery.headers["x-death"]
    now = dt.datetime.now(dt.UTC)
    for death in past:
        assert abs(now - death.pop("time")) < dt.timedelta(minutes=1)
    return past


def exists(connection: pika.BlockingConnection, queue: str) -> bool:
    """Tell whether there is a queue of this name that this connection may use."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise
        return False
    channel.close()
    return True


class Inbox:
    """A consumer that keeps what it gets, in order.

    Args:
        channel: Where it consumes.
        queue: What it consumes.
        options: As for pika's `basic_consume`.
    """

    def __init__(self, channel: BlockingChannel, queue: str, **options: Any) -> None:
        self.deliveries: list[Delivery] = []
        self._channel = channel
        self.tag: str = channel.basic_consume(queue, self._add, **options)

    def _add(self, _: BlockingChannel, method: Any, head: BasicProperties, body: bytes) -> None:
        self.deliveries.append(Delivery(method, head, body))

    def wait(self, count: int = 1) -> list[Delivery]:
        """Return all that came, once it is this many."""
        deadline = time.monotonic() + TIMEOUT
        while len(self.deliveries) < count:
            if time.monotonic() > deadline:
                pytest.fail(f"{count} deliveries were to come, {self.deliveries!r} came")
            self._channel.connection.process_data_events(0.1)
        return list(self.deliveries)

    def take(self, count: int = 1) -> list[Delivery]:
        """Remove and return the first deliveries, once they have come."""
        taken = self.wait(count)[:count]
        del self.deliveries[:count]
        return taken

    def bodies(self, count: int) -> list[str]:
        """Remove and return the bodies of the first deliveries, once they have come."""
        return [delivery.body.decode() for delivery in self.take(count)]

    def silent(self) -> bool:
        """Tell whether nothing else comes."""
        self._channel.connection.process_data_events(QUIET)
        return not self.deliveries


def arrived(count: int, *inboxes: Inbox) -> list[int]:
    """Wait until these inboxes together have so many, and return how many each has then."""

    def enough() -> bool:
        inboxes[0].silent()
        return sum(len(inbox.deliveries) for inbox in inboxes) >= count

    eventually(enough, message=f"{count} deliveries were to come")
    return [len(inbox.deliveries) for inbox in inboxes]
