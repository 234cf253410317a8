"""A client on pika's blocking adapter: looks at the broker from outside, and does it harm."""

from __future__ import annotations

from typing import Any

import orjson
import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

#: Messages above which getting one after the other takes too long.
_MANY = 200


class Peer:
    """Another client of the same broker."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel: BlockingChannel | None = None

    @property
    def channel(self) -> BlockingChannel:
        """An open channel; a new one after the broker closed the last."""
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
        return self._channel

    def exists(self, queue: str) -> bool:
        """Whether there is such a queue."""
        try:
            self.channel.queue_declare(queue, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            return False
        return True

    def ready(self, queue: str) -> int:
        """How many messages wait in it."""
        count: int = self.channel.queue_declare(queue, passive=True).method.message_count
        return count

    def consumers(self, queue: str) -> int:
        """How many consumers it has."""
        count: int = self.channel.queue_declare(queue, passive=True).method.consumer_count
        return count

    def take(self, queue: str) -> list[tuple[str, list[Any]]]:
        """Take everything out of it: id and positional arguments of each call."""
        return [(id_, orjson.loads(body)[0]) for id_, body in self._drain(queue)]

    def bodies(self, queue: str) -> list[bytes]:
        """Take everything out of it: the bodies as they are."""
        return [body for _, body in self._drain(queue)]

    def _drain(self, queue: str) -> list[tuple[str, bytes]]:
        taken: list[tuple[str, bytes]] = []
        if (many := self.ready(queue)) > _MANY:
            for _, properties, body in self.channel.consume(queue, auto_ack=True):
                taken.append((str(getattr(properties, "message_id", "")), body or b""))
                if len(taken) >= many:
                    break
            self.channel.cancel()
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None or properties is None:
                return taken
            taken.append((str(properties.message_id), body or b""))

    def publish(self, queue: str, *bodies: bytes) -> None:
        """Put messages into it, confirmed."""
        with self._connection.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", queue, body, mandatory=True)

    def delete_queue(self, queue: str) -> None:
        self.channel.queue_delete(queue)

    def delete_exchange(self, exchange: str) -> None:
        self.channel.exchange_delete(exchange)

    def close(self) -> None:
        self._connection.close()
