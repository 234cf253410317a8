"""The order in which a queue hands its messages out, by kind of queue.

    Fifo            classic: who comes back takes its old place
    Priorities      classic with x-max-priority: one Fifo for each priority
    Returning       quorum: who came back goes first, then two of high
                    priority (5 and more) for one of low

Source:
    rabbit_priority_queue, rabbit_fifo and rabbit_fifo_q of RabbitMQ 4.0.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqtask.broker.consumers import Consumer
    from amqtask.broker.message import Message
    from amqtask.broker.queues import Queue

#: What RabbitMQ 4.0 counts as low priority in a quorum queue.
_LOW = 4


class Entry:
    """A message in one queue.

    Attributes:
        queue: The queue.
        message: The message; several queues may share it.
        order: Its place: grows with every message that any queue gets.
        expires: The clock's instant at which it dies.
        redelivered: Whether it was handed out before.
        returns: How often it came back.
        consumer: Who has it now; None while it waits, or when it was fetched by get.
        kept: Whether a store has it.
    """

    __slots__ = (
        "consumer",
        "expires",
        "kept",
        "message",
        "order",
        "queue",
        "redelivered",
        "returns",
    )

    def __init__(
        self, queue: Queue, message: Message, order: int, expires: float | None = None
    ) -> None:
        self.queue = queue
        self.message = message
        self.order = order
        self.expires = expires
        self.redelivered = False
        self.returns = 0
        self.consumer: Consumer | None = None
        self.kept = False


def _order(entry: Entry) -> int:
    return entry.order


class Fifo:
    """First in, first out."""

    __slots__ = ("_entries", "clear", "pop", "push")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        # the deque's own methods save a call for every message
        self.push = self._entries.append
        self.pop = self._entries.popleft
        self.clear = self._entries.clear

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def head(self) -> Entry:
        """Return the next one; there must be one."""
        return self._entries[0]

    def passed_by(self) -> None:
        """Note a message that went to a consumer without waiting here."""

    def put_back(self, entry: Entry) -> None:
        """Take a message that was handed out."""
        entries = self._entries
        if not entries or entry.order < entries[0].order:
            entries.appendleft(entry)
        elif entry.order > entries[-1].order:
            entries.append(entry)
        else:
            insort(entries, entry, key=_order)


class Priorities:
    """Higher priorities first, each in order."""

    def __init__(self, highest: int) -> None:
        self._levels = [Fifo() for _ in range(highest + 1)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return (entry for level in reversed(self._levels) for entry in level)

    def _level(self, entry: Entry) -> Fifo:
        return self._levels[min(entry.message.priority or 0, len(self._levels) - 1)]

    def push(self, entry: Entry) -> None:
        """Take a new message."""
        self._level(entry).push(entry)
        self._count += 1

    def passed_by(self) -> None:
        """Note a message that went to a consumer without waiting here."""

    def put_back(self, entry: Entry) -> None:
        """Take a message that was handed out."""
        self._level(entry).put_back(entry)
        self._count += 1

    def _first(self) -> Fifo:
        return next(level for level in reversed(self._levels) if len(level))

    def head(self) -> Entry:
        """Return the next one; there must be one."""
        return self._first().head()

    def pop(self) -> Entry:
        """Take the next one out; there must be one."""
        entry = self._first().pop()
        self._count -= 1
        return entry

    def clear(self) -> None:
        """Forget all."""
        for level in self._levels:
            level.clear()
        self._count = 0


class Returning:
    """Who came back first, then high and low priority two to one."""

    def __init__(self) -> None:
        self._returned: deque[Entry] = deque()
        self._high: deque[Entry] = deque()
        self._low: deque[Entry] = deque()
        self._count = 0

    def __len__(self) -> int:
        return len(self._returned) + len(self._high) + len(self._low)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._returned
        yield from self._high
        yield from self._low

    def push(self, entry: Entry) -> None:
        """Take a new message."""
        priority = entry.message.priority
        if priority is not None and priority > _LOW:
            self._high.append(entry)
        else:
            self._low.append(entry)

    def passed_by(self) -> None:
        """Count a message that went to a consumer without waiting here: it had its turn too."""
        self._count = (self._count + 1) % 3

    def put_back(self, entry: Entry) -> None:
        """Take a message that was handed out."""
        self._returned.append(entry)

    def _next(self) -> deque[Entry]:
        if self._returned:
            return self._returned
        high, low = self._high, self._low
        if not high or not low:
            return high or low
        return low if self._count == 2 and low[0].order < high[0].order else high

    def head(self) -> Entry:
        """Return the next one; there must be one."""
        return self._next()[0]

    def pop(self) -> Entry:
        """Take the next one out; there must be one."""
        chosen = self._next()
        if chosen is not self._returned:
            # every third one is counted, whatever class it and those before had
            self._count = (self._count + 1) % 3
        return chosen.popleft()

    def clear(self) -> None:
        """Forget all."""
        self._returned.clear()
        self._high.clear()
        self._low.clear()
