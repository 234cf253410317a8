"""Misfortunes on command: what a real broker does to its clients once a month, in a test.

Each is armed by a call of `Broker.faults` and takes effect from then on, for
so many times or until it is taken back. All may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amqtask.broker.refusals import Refusal

if TYPE_CHECKING:
    from amqtask.broker.channel import Channel
    from amqtask.broker.connection import Connection
    from amqtask.broker.publishing import Publishing
    from amqtask.broker.queues import Queue
    from amqtask.broker.server import Broker


class Faults:
    """What a test can make go wrong.

    Wherever a ``vhost`` is asked for, None means all of them.

    Attributes:
        confirms: Whether confirms are tampered with.
        blocked: Why publishers are kept waiting, None when they are not.
        lost_acks: Acks that still get lost.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.confirms = False
        self.blocked: str | None = None
        self.lost_acks = 0
        self._delay: float | None = None
        self._hold = False
        self._nacks = 0
        self._held: list[tuple[Publishing, int, bool]] = []
        self._doubles: dict[str, int] = {}

    # -- connections ----------------------------------------------------------

    def cut_connections(self, vhost: str | None = None, *, name: str | None = None) -> int:
        """End connections at once and without a word, as when a cable is pulled.

        Args:
            vhost: Only those to this one.
            name: Only those whose client calls itself so (``connection_name``).

        Returns:
            How many.
        """
        return self._each_connection(vhost, name, lambda each: each.cut())

    def close_connections(
        self,
        vhost: str | None = None,
        *,
        name: str | None = None,
        code: int = 320,
        text: str = "broker forced connection closure with reason 'shutdown'",
    ) -> int:
        """Close connections with a reply code, as when an operator does it; returns how many."""
        return self._each_connection(vhost, name, lambda each: each.refuse(Refusal(code, text)))

    def _each_connection(
        self, vhost: str | None, name: str | None, action: Callable[[Connection], None]
    ) -> int:
        def act() -> int:
            chosen = [
                each
                for each in self._broker.connections
                if each.vhost is not None
                and (vhost is None or each.vhost.name == vhost)
                and (name is None or each.name == name)
            ]
            for each in chosen:
                action(each)
            return len(chosen)

        return self._broker.run(act)

    # -- publishing -----------------------------------------------------------

    def delay_confirms(self, seconds: float) -> None:
        """Confirm everything so much later; 0 ends it. The broker's clock counts."""

        def act() -> None:
            self._delay = seconds or None
            self._update()

        self._broker.run(act)

    def hold_confirms(self) -> None:
        """Confirm nothing until `release_confirms`."""

        def act() -> None:
            self._hold = True
            self._update()

        self._broker.run(act)

    def release_confirms(self) -> int:
        """Send the confirms that were held, and hold no more; returns how many there were."""

        def act() -> int:
            self._hold = False
            self._update()
            held, self._held = self._held, []
            for publishing, number, taken in held:
                publishing.release(number, taken=taken)
            return len(held)

        return self._broker.run(act)

    def nack_confirms(self, count: int = 1) -> None:
        """Nack the next messages, although queues have them, as a failing queue may."""

        def act() -> None:
            self._nacks += count
            self._update()

        self._broker.run(act)

    def _update(self) -> None:
        self.confirms = self._hold or self._delay is not None or self._nacks > 0

    def hold_confirm(self, publishing: Publishing, number: int, *, taken: bool) -> bool:
        """Tell whether a confirm is not to go out as it is; for the broker itself."""
        if self._nacks:
            self._nacks -= 1
            self._update()
            taken = False
        if self._hold:
            self._held.append((publishing, number, taken))
        elif self._delay is not None:
            self._broker.clock.call_later(
                self._delay, lambda: publishing.release(number, taken=taken)
            )
        else:
            publishing.release(number, taken=taken)
        return True

    def block(self, reason: str = "low on memory") -> None:
        """Take no more messages: clients are told, and what they publish is not read."""

        def act() -> None:
            self.blocked = reason
            for each in self._broker.connections:
                each.told_blocked(reason)

        self._broker.run(act)

    def unblock(self) -> None:
        """Take messages again."""

        def act() -> None:
            self.blocked = None
            for each in self._broker.connections:
                each.told_blocked(None)

        self._broker.run(act)

    def connected(self, connection: Connection) -> None:
        """Tell a new connection that publishing is blocked; for the broker itself."""
        if self.blocked is not None:
            connection.told_blocked(self.blocked)

    # -- consuming ------------------------------------------------------------

    def cancel_consumers(self, queue: str, vhost: str = "/") -> int:
        """Cancel a queue's consumers, as when its leader is lost; returns how many."""

        def act() -> int:
            found = self._broker.vhost(vhost).queues.get(queue)
            consumers = list(found.roster) if found is not None else []
            for consumer in consumers:
                consumer.queue.roster.remove(consumer)
                consumer.receiver.cancelled(consumer)
                consumer.queue.cancel(consumer)
            return len(consumers)

        return self._broker.run(act)

    def close_channels(
        self, code: int = 406, text: str = "closed by a test", *, queue: str | None = None,
        vhost: str | None = None,
    ) -> int:  # fmt: skip
        """Close channels with a reply code.

        Args:
            code: A code that ends channels, not connections, such as 404 or 406.
            text: What follows the code's name.
            queue: Only channels that consume from it.
            vhost: Only channels of this one.

        Returns:
            How many.
        """

        def act() -> int:
            chosen = [
                channel
                for connection in self._broker.connections
                for channel in connection.channels.values()
                if channel.open
                and (vhost is None or channel.vhost.name == vhost)
                and (queue is None or _consumes(channel, queue))
            ]
            for channel in chosen:
                channel.refuse(Refusal(code, text))
            return len(chosen)

        return self._broker.run(act)

    def double_deliveries(self, queue: str, count: int = 1, *, vhost: str = "/") -> None:
        """Deliver the next messages of a queue twice, as happens when an ack gets lost."""

        def act() -> None:
            self._doubles[queue] = self._doubles.get(queue, 0) + count
            self._broker.vhost(vhost).doubling = True

        self._broker.run(act)

    def doubles(self, queue: Queue) -> bool:
        """Tell whether this delivery is one to be doubled; for the broker itself."""
        left = self._doubles.get(queue.name, 0)
        if left <= 0:
            return False
        self._doubles[queue.name] = left - 1
        return True

    def lose_acks(self, count: int = 1) -> None:
        """Lose the next acks: the messages come again when their channel ends."""

        def act() -> None:
            self.lost_acks += count

        self._broker.run(act)

    def lose_ack(self, channel: Channel) -> bool:
        """Tell whether this ack gets lost; for the broker itself."""
        if not self.lost_acks:
            return False
        self.lost_acks -= 1
        return channel.open

    # -- all ------------------------------------------------------------------

    def clear(self) -> None:
        """Take everything back that was armed."""

        def act() -> None:
            self._delay, self._nacks, self.lost_acks = None, 0, 0
            self._doubles.clear()

        self._broker.run(act)
        self.release_confirms()
        if self.blocked is not None:
            self.unblock()


def _consumes(channel: Channel, queue: str) -> bool:
    return any(each.queue.name == queue for each in channel.consumers.values())
