"""What the broker's parts need of each other.

A queue knows its vhost, and a vhost its broker, only as far as written here:
so each can be tested with a stand-in, and modules do not import in circles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from amqtask.broker.clock import Clock
    from amqtask.broker.consumers import Consumer
    from amqtask.broker.exchanges import Binding, Exchange
    from amqtask.broker.message import Message, Reason
    from amqtask.broker.queues import Queue
    from amqtask.broker.ready import Entry
    from amqtask.broker.vhost import VHost


class Matcher(Protocol):
    """The heart of an exchange type."""

    def add(self, binding: Binding) -> None:
        """Take a binding in."""

    def remove(self, binding: Binding) -> None:
        """Forget a binding."""

    def match(self, message: Message) -> Iterable[Binding]:
        """Return the bindings that take a message."""


class Ready(Protocol):
    """The messages that wait in a queue."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...

    def push(self, entry: Entry) -> None:
        """Take a new message."""

    def passed_by(self) -> None:
        """Note a message that went to a consumer without waiting here."""

    def put_back(self, entry: Entry) -> None:
        """Take a message that was handed out."""

    def head(self) -> Entry:
        """Return the next one; there must be one."""

    def pop(self) -> Entry:
        """Take the next one out; there must be one."""

    def clear(self) -> None:
        """Forget all."""


class Receiver(Protocol):
    """The channel of a consumer, as queues know it."""

    def has_room(self) -> bool:
        """Tell whether it may be sent another message now, whichever consumer it is for."""

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message."""

    def cancelled(self, consumer: Consumer) -> None:
        """Learn that the consumer has no queue any more."""


class Keeper(Protocol):
    """What remembers messages beyond the process."""

    #: How many were added.
    added: int

    def add(self, entry: Entry) -> None:
        """Keep a message."""

    def remove(self, entry: Entry) -> None:
        """Forget a message; harmless for one that was never kept."""

    def returned(self, entry: Entry) -> None:
        """Note how often a message came back."""

    def handed_out(self, entry: Entry) -> None:
        """Note that a message, and those before it, may have been seen."""

    def when_saved(self, action: Callable[[bool], None]) -> None:
        """Call ``action(saved)`` once all changes so far are safe, or could not be saved."""


class Archive(Protocol):
    """What remembers durable entities beyond the process."""

    def vhost_made(self, name: str) -> None:
        """Keep a vhost."""

    def vhost_gone(self, name: str) -> None:
        """Forget a vhost."""

    def exchange_made(self, vhost: str, exchange: Exchange) -> None:
        """Keep an exchange."""

    def exchange_gone(self, vhost: str, exchange: Exchange) -> None:
        """Forget an exchange."""

    def queue_made(self, vhost: str, queue: Queue) -> None:
        """Keep a queue."""

    def queue_gone(self, vhost: str, queue: Queue) -> None:
        """Forget a queue and what it held."""

    def bound(self, vhost: str, binding: Binding) -> None:
        """Keep a binding."""

    def unbound(self, vhost: str, binding: Binding) -> None:
        """Forget a binding."""


class Host(Protocol):
    """The vhost of a queue, as the queue knows it."""

    name: str
    clock: Clock
    keeper: Keeper | None
    #: Whether `doubles` has to be asked.
    doubling: bool

    def next_order(self) -> int:
        """Return a number that is higher than those before."""

    def soon(self, queue: Queue) -> None:
        """Call the queue's `pump` once other work had its turn."""

    def bury(self, entry: Entry, reason: Reason) -> None:
        """Send a dead entry to the dead-letter exchange; it calls `Queue.buried`."""

    def drop_queue(self, queue: Queue) -> None:
        """Delete the queue, as it asks for itself."""

    def doubles(self, queue: Queue) -> bool:
        """Tell whether a test wants this delivery twice."""


class Surroundings(Protocol):
    """The broker of a vhost, as the vhost knows it."""

    clock: Clock
    keeper: Keeper | None
    archive: Archive | None

    def next_order(self) -> int:
        """Return a number that is higher than those before."""

    def call_soon(self, action: Callable[[], object]) -> None:
        """Do something in the loop's next turn."""

    def call_later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something after so many seconds of real time."""

    def doubles(self, queue: Queue) -> bool:
        """Tell whether a test wants a delivery of this queue twice."""


class Restorable(Protocol):
    """The broker, as what restores it knows it."""

    clock: Clock

    def restore_vhost(self, name: str) -> VHost:
        """Return a vhost of an earlier run, which is made."""

    def start_orders_after(self, order: int) -> None:
        """Count on from an earlier run."""

    def call_later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something after so many seconds of real time."""

    def cannot_save(self, reason: str | None) -> None:
        """Learn why nothing can be saved, or that it can be again."""
