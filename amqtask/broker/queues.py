"""A queue: messages in order, consumers, and the rules between them.

A message in a queue is an `Entry`:

    publish --> ready --------> handed out ----> acked: gone
                 |   ^              |   |
                 |   +-- requeued --+   +-- rejected, or came back too often --+
                 +-- expired, or pushed out by newer ones ---------------------+
                                                                               v
                                          gone, or off to the dead-letter exchange

With at-least-once dead-lettering a dead entry is stranded until its new queue
has it, and counts as being here until then.

Source:
    rabbit_amqqueue_process (classic) and rabbit_fifo (quorum) of RabbitMQ 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amqtask.broker.arguments import QueueRules
from amqtask.broker.consumers import Consumer, Roster
from amqtask.broker.ready import Entry, Fifo, Priorities, Returning
from amqtask.broker.refusals import resource

if TYPE_CHECKING:
    from amqtask.broker.clock import Timer
    from amqtask.broker.exchanges import Binding
    from amqtask.broker.fields import Table
    from amqtask.broker.message import Message, Reason
    from amqtask.broker.ports import Host, Ready

#: Deliveries that a queue makes in one go before other connections have their turn.
_TURN = 500


def _order(entry: Entry) -> int:
    return entry.order


class Queue:
    """A queue.

    Attributes:
        kind: ``"queue"``, as RabbitMQ's texts name it.
        owner: The connection that alone may use it.
        incoming: Bindings to it.
        unacked: Entries that consumers and getters have.
        deleted: Whether it is gone; entries of it may still be out.
        keeps: Whether it keeps every message beyond a restart (quorum), not only persistent ones.
    """

    kind = "queue"

    def __init__(
        self,
        name: str,
        host: Host,
        rules: QueueRules,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: object | None = None,
        arguments: Table | None = None,
    ) -> None:
        self.name = name
        self.rules = rules
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments = arguments or {}
        self.incoming: dict[Binding, None] = {}
        self.unacked = 0
        self.deleted = False
        self.quorum = rules.type == "quorum"
        self.keeps = self.quorum
        self.roster = Roster(single_active=rules.single_active, by_priority=self.quorum)
        self._host = host
        self._clock = host.clock
        self._ready = self._make_ready()
        self._bounded = rules.max_length is not None or rules.max_bytes is not None
        self._octets = 0
        self._refusing = False
        self._expiring = rules.ttl is not None
        self._expiry: Timer | None = None
        self._lease: Timer | None = None
        self._last_used = host.clock.now()
        self._pumping = False
        #: Dead entries that no queue has taken yet.
        self.stranded: dict[Entry, Reason] = {}
        self._renew()

    def _make_ready(self) -> Ready:
        if self.quorum:
            return Returning()
        if self.rules.max_priority:
            return Priorities(self.rules.max_priority)
        return Fifo()

    def shown(self) -> str:
        """Name it as RabbitMQ's texts do."""
        return resource(self.kind, self.name, self._host.name)

    def __len__(self) -> int:
        return len(self._ready)

    def waiting(self) -> list[Entry]:
        """Return what is ready, in order."""
        return list(self._ready)

    # an empty queue is a queue
    def __bool__(self) -> bool:
        return True

    # -- in -------------------------------------------------------------------

    def publish(self, message: Message) -> bool:
        """Take a message; False when the queue is full and refuses it."""
        if self._bounded and self._refuses(message):
            return False
        host = self._host
        expires = None
        if self._expiring or message.ttl is not None:
            expires = self._deadline(message)
        entry = Entry(self, message, host.next_order(), expires)
        if host.keeper is not None and self.durable and (message.persistent or self.keeps):
            host.keeper.add(entry)
        ready = self._ready
        if not len(ready) and (consumer := self.roster.next()) is not None:
            ready.passed_by()
            self._hand_out(consumer, entry)
            return True
        ready.push(entry)
        if self._bounded:
            self._octets += len(message.body)
            self._trim()
        if expires is not None:
            self._watch()
        return True

    def restore(self, entry: Entry) -> None:
        """Take an entry of an earlier run."""
        message = entry.message
        self._expiring = self._expiring or entry.expires is not None
        self._ready.push(entry)
        self._octets += len(message.body) if self._bounded else 0
        self._watch()

    def _deadline(self, message: Message) -> float | None:
        own, ttl = message.ttl, self.rules.ttl
        if own is not None and (ttl is None or own < ttl):
            ttl = own
        if ttl is None:
            return None
        self._expiring = True
        return self._clock.now() + ttl / 1000

    def _refuses(self, message: Message) -> bool:
        rules = self.rules
        if rules.overflow == "drop-head":
            return False
        if self.quorum:
            return self._refusing
        longest, largest = rules.max_length, rules.max_bytes
        full = (longest is not None and len(self._ready) + 1 > longest) or (
            largest is not None and self._octets + len(message.body) > largest
        )
        if full and rules.overflow == "reject-publish-dlx":
            self._host.bury(Entry(self, message, 0), "maxlen")
        return full

    def _over(self, share: float = 1.0) -> bool:
        longest, largest = self.rules.max_length, self.rules.max_bytes
        count = len(self._ready) + len(self.stranded)
        return (longest is not None and count > int(longest * share)) or (
            largest is not None and self._octets > int(largest * share)
        )

    def _trim(self) -> None:
        """Keep to the limits: drop the oldest, or refuse new ones from now on."""
        if self.rules.overflow != "drop-head":
            # a quorum queue notices after the fact, and takes messages again below four fifths
            self._refusing = self._over() or (self._refusing and self._over(0.8))
            return
        while len(self._ready) and self._over():
            self._die(self._take(), "maxlen")

    # -- out ------------------------------------------------------------------

    def _take(self) -> Entry:
        entry = self._ready.pop()
        if self._bounded:
            self._octets -= len(entry.message.body)
            if self._refusing:
                self._trim()
        return entry

    def pump(self) -> None:
        """Hand out what is ready to who has room."""
        if self._pumping or self.deleted:
            return
        self._pumping = True
        ready, roster = self._ready, self.roster
        left = _TURN
        try:
            if self._expiring:
                self._watch()
            while len(ready):
                if left == 0:
                    self._host.soon(self)
                    break
                consumer = roster.next()
                if consumer is None:
                    break
                left -= 1
                self._hand_out(consumer, self._take())
                if self._expiring:
                    self._watch()
        finally:
            self._pumping = False

    def _hand_out(self, consumer: Consumer, entry: Entry) -> None:
        keeper = self._host.keeper
        if consumer.no_ack:
            if keeper is not None:
                keeper.remove(entry)
        else:
            self.unacked += 1
            consumer.unacked += 1
            entry.consumer = consumer
            if keeper is not None:
                keeper.handed_out(entry)
        consumer.receiver.deliver(consumer, entry)
        if self._host.doubling and self._host.doubles(self):
            self._double(consumer, entry)

    def _double(self, consumer: Consumer, entry: Entry) -> None:
        twin = Entry(self, entry.message, self._host.next_order())
        twin.redelivered = entry.redelivered
        if not consumer.no_ack:
            self.unacked += 1
            consumer.unacked += 1
            twin.consumer = consumer
        consumer.receiver.deliver(consumer, twin)

    def get(self, *, no_ack: bool) -> Entry | None:
        """Hand out one message to a getter, None when there is none."""
        self.used()
        self._watch()
        if not len(self._ready):
            return None
        entry = self._take()
        keeper = self._host.keeper
        if no_ack:
            if keeper is not None:
                keeper.remove(entry)
        else:
            self.unacked += 1
            entry.consumer = None
            if keeper is not None:
                keeper.handed_out(entry)
        self._watch()
        return entry

    # -- back -----------------------------------------------------------------

    def ack(self, entry: Entry) -> None:
        """Forget an entry that was handed out."""
        self.unacked -= 1
        if self._host.keeper is not None:
            self._host.keeper.remove(entry)

    def reject(self, entries: Iterable[Entry]) -> None:
        """Let entries die that were handed out."""
        for entry in entries:
            self.unacked -= 1
            self._die(entry, "rejected")

    def requeue(self, entries: Iterable[Entry]) -> None:
        """Take entries back that were handed out."""
        if self.deleted:
            return
        if not self.quorum:
            # they take their old places: from the last to the first each is the new head
            entries = sorted(entries, key=_order, reverse=True)
        limit = self.rules.delivery_limit
        keeper = self._host.keeper
        for entry in entries:
            self.unacked -= 1
            entry.consumer = None
            entry.redelivered = True
            entry.returns += 1
            if limit is not None and entry.returns > limit:
                self._die(entry, "delivery_limit")
                continue
            self._ready.put_back(entry)
            if keeper is not None:
                keeper.returned(entry)
            if self._bounded:
                self._octets += len(entry.message.body)
        if self._bounded:
            self._trim()
        self.pump()
        self._watch()

    # -- death ----------------------------------------------------------------

    def _die(self, entry: Entry, reason: Reason) -> None:
        entry.consumer = None
        if self.rules.dead_exchange is None or self.deleted:
            self._forget(entry)
            return
        if self.rules.at_least_once:
            self.stranded[entry] = reason
        self._host.bury(entry, reason)

    def buried(self, entry: Entry, *, taken: bool) -> None:
        """Learn whether a dead entry has a new queue, or may be dropped."""
        if taken or not self.rules.at_least_once:
            self.stranded.pop(entry, None)
            self._forget(entry)
            if self._refusing:
                self._trim()

    def _forget(self, entry: Entry) -> None:
        if self._host.keeper is not None:
            self._host.keeper.remove(entry)

    def _watch(self) -> None:
        """See to it that the head dies in time."""
        if not self._expiring or not len(self._ready):
            return
        expires = self._ready.head().expires
        if expires is None:
            return
        if expires <= self._clock.now():
            self._expire()
        elif self._expiry is None or expires < self._expiry.when:
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry = self._clock.call_at(expires, self._ring)

    def _ring(self) -> None:
        self._expiry = None
        self._expire()

    def _expire(self) -> None:
        now = self._clock.now()
        ready = self._ready
        while len(ready):
            expires = ready.head().expires
            if expires is None:
                return
            if expires > now:
                self._watch()
                return
            self._die(self._take(), "expired")

    # -- consumers and life ---------------------------------------------------

    def consume(self, consumer: Consumer) -> None:
        """Take a consumer in, and let it have what is ready."""
        self.roster.add(consumer)
        self.pump()

    def cancel(self, consumer: Consumer) -> None:
        """Let a consumer go; what it has stays with its channel."""
        self.roster.remove(consumer)
        if not len(self.roster):
            self.used()
            if self.auto_delete:
                self._host.drop_queue(self)
                return
        self.pump()

    def resume(self, consumer: Consumer) -> None:
        """Hand out again to a consumer that may have room now."""
        if consumer.parked and consumer.has_room() and self.roster.unpark(consumer):
            self.pump()

    def used(self) -> None:
        """Learn that somebody uses the queue, which puts off its end."""
        self._last_used = self._clock.now()

    def _renew(self) -> None:
        if self.rules.expires is not None:
            at = self._last_used + self.rules.expires / 1000
            self._lease = self._clock.call_at(at, self._lapse)

    def _lapse(self) -> None:
        if len(self.roster):
            self._last_used = self._clock.now()
        if self._clock.now() >= self._last_used + (self.rules.expires or 0) / 1000:
            self._host.drop_queue(self)
        else:
            self._renew()

    def purge(self) -> int:
        """Forget what is ready; returns how much that was."""
        count = len(self._ready)
        keeper = self._host.keeper
        if keeper is not None:
            for entry in self._ready:
                keeper.remove(entry)
        self._ready.clear()
        self._octets = 0
        if self._refusing:
            self._trim()
        return count

    def close(self) -> None:
        """End: forget everything, tell consumers."""
        self.deleted = True
        for timer in (self._expiry, self._lease):
            if timer is not None:
                timer.cancel()
        self._ready.clear()
        self.stranded.clear()
        for consumer in self.roster:
            self.roster.remove(consumer)
            consumer.receiver.cancelled(consumer)
