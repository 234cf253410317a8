"""Who gets a queue's messages next.

    free ---- has as many as it may, or its socket is full ----> parked
      ^                                                            |
      +------- acked some, or the socket drained ------------------+

Free consumers stand in line by priority, and whoever got a message goes to
the end of its line. With a single active consumer only that one is in line,
and parked when another one is to follow it, until it has settled what it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from amqtask.broker.wire import deliver_head

if TYPE_CHECKING:
    from amqtask.broker.ports import Receiver
    from amqtask.broker.queues import Queue


class Consumer:
    """A consumer.

    Attributes:
        tag: Its tag, unique in its channel.
        receiver: Its channel.
        queue: Its queue.
        no_ack: Whether what it gets counts as acked.
        exclusive: Whether it wants to be the only one.
        limit: Messages it may have unacked, 0 for any number.
        priority: Its ``x-priority``.
        unacked: Messages it has.
        parked: Whether it waits for room.
        head: How its deliver methods begin.
    """

    __slots__ = (
        "exclusive",
        "head",
        "limit",
        "no_ack",
        "parked",
        "priority",
        "queue",
        "receiver",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        tag: str,
        receiver: Receiver,
        queue: Queue,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        limit: int = 0,
        priority: int = 0,
    ) -> None:
        self.tag = tag
        self.receiver = receiver
        self.queue = queue
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.limit = 0 if no_ack else limit
        self.priority = priority
        self.unacked = 0
        self.parked = False
        self.head = deliver_head(tag)

    def has_room(self) -> bool:
        """Tell whether it may get another message now."""
        return (not self.limit or self.unacked < self.limit) and self.receiver.has_room()


class Roster:
    """The consumers of one queue.

    Args:
        single_active: Whether one of them gets all.
        by_priority: Whether the highest priority is the active one, as in quorum queues.
    """

    def __init__(self, *, single_active: bool = False, by_priority: bool = False) -> None:
        self._single = single_active
        self._by_priority = by_priority
        self._all: dict[Consumer, None] = {}
        #: Free consumers by priority, the highest first.
        self._lines: list[tuple[int, deque[Consumer]]] = []
        self.active: Consumer | None = None
        #: The consumer that asked to be the only one.
        self.exclusive: Consumer | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(list(self._all))

    @property
    def counted(self) -> int:
        """How many a client is told of: of a quorum queue only those that get something."""
        return min(len(self._all), 1) if self._single and self._by_priority else len(self._all)

    def add(self, consumer: Consumer) -> None:
        """Take a consumer in."""
        self._all[consumer] = None
        if consumer.exclusive:
            self.exclusive = consumer
        if not self._single:
            self._stand(consumer)
        elif self.active is None:
            self._activate(consumer)
        elif self._by_priority and consumer.priority > self.active.priority:
            self._challenge(self.active)

    def remove(self, consumer: Consumer) -> None:
        """Let a consumer go; the next one becomes active."""
        self._all.pop(consumer, None)
        self._leave(consumer)
        if self.exclusive is consumer:
            self.exclusive = None
        if self.active is consumer:
            self.active = None
            if self._all:
                self._activate(self._best())

    def _best(self) -> Consumer:
        if self._by_priority:
            return max(self._all, key=lambda each: each.priority)
        return next(iter(self._all))

    def _challenge(self, active: Consumer) -> bool:
        """Pass the place on, or let its holder settle what it has first."""
        self._leave(active)
        if active.unacked:
            active.parked = True
            return False
        # it waits behind the others now
        del self._all[active]
        self._all[active] = None
        self._activate(self._best())
        return True

    def _activate(self, consumer: Consumer) -> None:
        self.active = consumer
        self._stand(consumer)

    def _stand(self, consumer: Consumer) -> None:
        consumer.parked = False
        for index, (priority, line) in enumerate(self._lines):
            if priority == consumer.priority:
                line.append(consumer)
                return
            if priority < consumer.priority:
                self._lines.insert(index, (consumer.priority, deque([consumer])))
                return
        self._lines.append((consumer.priority, deque([consumer])))

    def _leave(self, consumer: Consumer) -> None:
        consumer.parked = False
        for index, (priority, line) in enumerate(self._lines):
            if priority == consumer.priority and consumer in line:
                line.remove(consumer)
                if not line:
                    del self._lines[index]
                return

    def next(self) -> Consumer | None:
        """Return who gets the next message, None when nobody has room; parks who has none."""
        lines = self._lines
        while lines:
            line = lines[0][1]
            consumer = line[0]
            if consumer.has_room():
                if len(line) > 1:
                    line.rotate(-1)
                return consumer
            line.popleft()
            consumer.parked = True
            if not line:
                del lines[0]
        return None

    def unpark(self, consumer: Consumer) -> bool:
        """Put a consumer back in line; False when it was not parked."""
        if not consumer.parked:
            return False
        if self._single and self._by_priority and self._best().priority > consumer.priority:
            return self._challenge(consumer)
        self._stand(consumer)
        return True
