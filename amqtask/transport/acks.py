"""Which acks one flush has to send.

Acking each delivery on its own costs a frame a message; acking with
``multiple`` settles everything up to a tag. Tasks end in any order, so only
what lies before the oldest open delivery may be acked as one.
"""

from __future__ import annotations


class AckWindow:
    """The unsettled deliveries of one channel.

    Holds the open tags only, so its size is bound by the prefetch, however
    long one slow task stays in front of a million quick ones.
    """

    __slots__ = ("_open", "_pending")

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # a dict, for its order: tags count up
        self._pending: list[int] = []  # acks that wait for the flush

    @property
    def outstanding(self) -> int:
        """How many deliveries are neither settled nor waiting for the flush."""
        return len(self._open)

    def delivered(self, tag: int) -> None:
        """Note that ``tag`` came in; tags come in rising order."""
        self._open[tag] = None

    def holds(self, tag: int) -> bool:
        """Return whether ``tag`` is still to be settled."""
        return tag in self._open

    def ack(self, tag: int) -> bool:
        """Have ``tag`` acked by the next flush.

        Returns:
            True when it is the first since the last flush.
        """
        del self._open[tag]
        self._pending.append(tag)
        return len(self._pending) == 1

    def settled(self, tag: int) -> None:
        """Note that ``tag`` was settled on its own (nack, reject)."""
        del self._open[tag]

    def flush(self) -> list[tuple[int, bool]]:
        """Return ``(tag, multiple)`` of each ack to send, in order, and forget them."""
        pending = self._pending
        if not pending:
            return []
        self._pending = []
        oldest = next(iter(self._open), None)
        if oldest is None:
            return [(max(pending), len(pending) > 1)]
        front = [tag for tag in pending if tag < oldest]
        acks = [(max(front), len(front) > 1)] if front else []
        acks.extend((tag, False) for tag in sorted(pending) if tag > oldest)
        return acks
