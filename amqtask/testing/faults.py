"""`amqtask.broker.Faults` for one test's vhost: other tests' connections are left alone."""

from __future__ import annotations

from amqtask.broker import Broker


class Faults:
    """Misfortunes to happen on command; all are taken back when the test ends.

    Threads: safe from any thread.
    """

    def __init__(self, broker: Broker, vhost: str) -> None:
        self._faults = broker.faults
        self._vhost = vhost

    def cut_connections(self) -> int:
        """End all connections at once and without a word; returns how many."""
        return self._faults.cut_connections(self._vhost)

    def close_connections(self, *, code: int = 320, text: str = "closed by a test") -> int:
        """Close all connections with a reply code; returns how many."""
        return self._faults.close_connections(self._vhost, code=code, text=text)

    def close_channels(
        self, code: int = 406, text: str = "closed by a test", *, queue: str | None = None
    ) -> int:
        """Close channels, or only those that consume from a queue, with a reply code."""
        return self._faults.close_channels(code, text, queue=queue, vhost=self._vhost)

    def cancel_consumers(self, queue: str) -> int:
        """Cancel a queue's consumers, as when its leader is lost; returns how many."""
        return self._faults.cancel_consumers(queue, self._vhost)

    def double_deliveries(self, queue: str, count: int = 1) -> None:
        """Deliver the next messages of a queue twice, as happens when an ack gets lost."""
        self._faults.double_deliveries(queue, count, vhost=self._vhost)

    def nack_confirms(self, count: int = 1) -> None:
        """Nack the next messages, although queues have them, as a failing queue may."""
        self._faults.nack_confirms(count)

    def hold_confirms(self) -> None:
        """Confirm nothing until `release_confirms`."""
        self._faults.hold_confirms()

    def release_confirms(self) -> int:
        """Send the confirms that were held, and hold no more; returns how many there were."""
        return self._faults.release_confirms()

    def block(self, reason: str = "low on memory") -> None:
        """Take no more messages: senders are told, and wait."""
        self._faults.block(reason)

    def unblock(self) -> None:
        """Take messages again."""
        self._faults.unblock()

    def lose_acks(self, count: int = 1) -> None:
        """Lose the next acks: the messages come again when their channel ends."""
        self._faults.lose_acks(count)

    def clear(self) -> None:
        """Take everything back that was armed."""
        self._faults.clear()
