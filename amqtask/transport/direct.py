"""Direct replies: what RabbitMQ answers to the channel that a call was published on.

    off --a call wants them--> consuming --channel ends--> lost --next call--> consuming

The broker keeps nothing on the way, so a channel that ends takes every reply
along that was still to come to it.

Source: RabbitMQ's guide on direct reply-to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from amqtask.errors import AccessRefused, ChannelClosed, ConfigurationError
from amqtask.message.model import Message
from amqtask.transport.frames import DIRECT_REPLIES
from amqtask.transport.session import Channel

#: The queue that stands for the channel that consumes it, and the address to put into a call.
REPLY_TO = "amq.rabbitmq.reply-to"


def is_direct(reply_to: object) -> bool:
    """Whether an address is one that a broker gave for a direct reply."""
    return isinstance(reply_to, str) and reply_to.startswith(DIRECT_REPLIES)


class DirectReplies:
    """The direct replies of one publisher, for those who asked for them.

    Threads: I/O loop only.
    """

    def __init__(self) -> None:
        self._takers: list[Callable[[Message], None]] = []
        self._on_lost: list[Callable[[Collection[str]], None]] = []
        self._channel: Channel | None = None

    @property
    def consuming(self) -> bool:
        """Whether a channel takes replies."""
        return self._channel is not None

    def take(
        self,
        on_reply: Callable[[Message], None],
        on_lost: Callable[[Collection[str]], None],
    ) -> None:
        """Have each reply given to ``on_reply``.

        Args:
            on_lost: Called when a channel that took replies ended, with the ids of
                what is still to be sent; replies to all else cannot come any more.
        """
        self._takers.append(on_reply)
        self._on_lost.append(on_lost)

    async def consume(self, channel: Channel) -> None:
        """Take replies on ``channel``, before the first call goes out on it.

        Raises:
            ConfigurationError: The broker gives no direct replies.
        """
        if channel is self._channel:
            return
        try:
            await channel.consume_unacked(REPLY_TO, self._on_message)
        except (AccessRefused, ChannelClosed) as error:
            if REPLY_TO not in str(error):
                raise  # another message had the channel closed
            raise ConfigurationError(
                f"the broker gives no direct replies: {error}",
                hint="use rpc://, which needs nothing but a queue",
            ) from error
        self._channel = channel

    def lost(self, on_their_way: Collection[str]) -> None:
        """Tell everybody that the channel is gone."""
        self._channel = None
        for on_lost in self._on_lost:
            on_lost(on_their_way)

    def _on_message(self, _: int, __: bool, ___: str, ____: str, message: Message) -> None:
        for take in self._takers:
            take(message)
