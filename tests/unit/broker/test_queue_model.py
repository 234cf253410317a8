"""A queue against a model: random operations, and after each one both must agree.

The model is the plainest thing that can be right: a list of what is ready in
the order in which it has to go out, and a dict of what is out.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from amqtask.broker.arguments import QueueRules
from amqtask.broker.clock import Clock
from amqtask.broker.consumers import Consumer
from amqtask.broker.message import Message, Reason
from amqtask.broker.ports import Keeper
from amqtask.broker.queues import Queue
from amqtask.broker.ready import Entry


class StoodStill(Clock):
    """Moves only when it is advanced."""

    def __init__(self) -> None:
        super().__init__()
        self._still = 1000.0

    def now(self) -> float:
        return self._still if self._instant is None else self._instant

    def advance(self, seconds: float) -> None:
        self._fire(self._still + seconds)
        self._still += seconds


class Host:
    """A vhost that writes down what becomes of entries."""

    def __init__(self) -> None:
        self.name = "/"
        self.keeper: Keeper | None = None
        self.doubling = False
        self.clock: Clock = StoodStill()
        self.died: list[tuple[Entry, Reason]] = []
        self._order = 0

    def next_order(self) -> int:
        self._order += 1
        return self._order

    def soon(self, queue: Queue) -> None:
        queue.pump()

    def bury(self, entry: Entry, reason: Reason) -> None:
        self.died.append((entry, reason))
        entry.queue.buried(entry, taken=True)

    def drop_queue(self, queue: Queue) -> None:
        queue.close()

    def doubles(self, queue: Queue) -> bool:
        return False


class Receiver:
    """A channel that keeps what it is sent."""

    def __init__(self, delivered: Callable[[Consumer, Entry], None]) -> None:
        self.room = True
        self._delivered = delivered

    def has_room(self) -> bool:
        return self.room

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        self._delivered(consumer, entry)

    def cancelled(self, consumer: Consumer) -> None:
        pass


class QueueMachine(RuleBasedStateMachine):
    """Operations on one queue."""

    @initialize(
        kind=st.sampled_from(["classic", "quorum"]),
        priorities=st.sampled_from([None, None, 3]),
        ttl=st.sampled_from([None, None, 1000]),
        longest=st.sampled_from([None, None, 4]),
        limit=st.sampled_from([None, 2]),
    )
    def make(self, kind, priorities, ttl, longest, limit):
        classic = kind == "classic"
        self.limits = QueueRules(
            kind,
            ttl=ttl,
            max_length=longest,
            max_priority=priorities if classic else None,
            delivery_limit=None if classic else limit,
            dead_exchange="dlx",
        )
        self.host = Host()
        self.queue = Queue("q", self.host, self.limits)
        self.consumers: list[Consumer] = []
        self.ready: list[Entry] = []
        self.out: dict[Entry, Consumer | None] = {}
        self.lost: list[tuple[Entry, str]] = []
        self.fates = 0
        self.published = 0

    # -- the model ------------------------------------------------------------

    def _place(self, entry: Entry) -> tuple[int, ...]:
        """Return what ready entries are sorted by."""
        if self.limits.type == "quorum":
            # who came back goes first, in the order of coming back
            return (0, self.back.index(entry)) if entry in self.back else (1, entry.order)
        highest = self.limits.max_priority or 0
        return -min(entry.message.priority or 0, highest), entry.order

    back: list[Entry] = []  # noqa: RUF012 - replaced by each machine that needs it

    def _sort(self) -> None:
        self.ready.sort(key=self._place)

    def _died(self) -> None:
        """Take over what the queue let die since, and check that it had to."""
        for entry, reason in self.host.died[self.fates :]:
            if reason == "expired":
                assert entry is self.ready[0]
                assert entry.expires is not None
                assert entry.expires <= self.host.clock.now()
            if reason == "maxlen":
                assert entry is self.ready[0]
            if entry in self.ready:
                self.ready.remove(entry)
            self.lost.append((entry, reason))
        self.fates = len(self.host.died)

    def _delivered(self, consumer: Consumer, entry: Entry) -> None:
        self._died()
        if entry not in self.ready:
            # published a moment ago and handed out at once
            assert not self.ready
            self.ready.append(entry)
        assert entry is self.ready[0], "another one is next"
        assert entry.redelivered == (entry.returns > 0)
        self.ready.pop(0)
        if entry in self.back:
            self.back.remove(entry)
        if consumer.no_ack:
            self.lost.append((entry, "no_ack"))
        else:
            self.out[entry] = consumer
            assert not consumer.limit or consumer.unacked <= consumer.limit

    # -- operations -----------------------------------------------------------

    @rule(priority=st.sampled_from([None, 0, 1, 2, 9]), ttl=st.sampled_from([None, None, 0, 500]))
    def publish(self, priority, ttl):
        if self.limits.type == "quorum":
            # two to one between high and low is tested by itself
            priority = None
        message = Message("", ("q",), b"\x00\x00", b"x", priority=priority, ttl=ttl)
        before = set(self.ready) | set(self.out)
        died, gone = len(self.host.died), len(self.lost)
        push = self.queue._ready.push
        taken: list[Entry] = []

        def note(entry: Entry) -> None:
            taken.append(entry)
            self.ready.append(entry)
            self._sort()
            push(entry)

        self.queue._ready.push = note  # type: ignore[method-assign]
        try:
            assert self.queue.publish(message)
        finally:
            self.queue._ready.push = push  # type: ignore[method-assign]
        self._died()
        new = (set(self.ready) | set(self.out)) - before
        assert len(new) + len(self.lost) - gone >= 1
        assert died <= len(self.host.died)
        self.published += 1

    @rule(limit=st.sampled_from([0, 1, 2]), no_ack=st.booleans(), priority=st.integers(0, 2))
    def consume(self, limit, no_ack, priority):
        consumer = Consumer(
            f"c{len(self.consumers)}",
            Receiver(self._delivered),
            self.queue,
            limit=limit,
            no_ack=no_ack,
            priority=priority,
        )
        self.consumers.append(consumer)
        self.queue.consume(consumer)
        self._died()

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def cancel(self, data):
        consumer = data.draw(st.sampled_from(self.consumers))
        self.consumers.remove(consumer)
        self.queue.cancel(consumer)
        self._died()

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), room=st.booleans())
    def socket(self, data, room):
        consumer = data.draw(st.sampled_from(self.consumers))
        assert isinstance(consumer.receiver, Receiver)
        consumer.receiver.room = room
        self.queue.resume(consumer)
        self._died()

    @rule(no_ack=st.booleans())
    def get(self, no_ack):
        now = self.host.clock.now()
        alive = [each for each in self.ready if each.expires is None or each.expires > now]
        entry = self.queue.get(no_ack=no_ack)
        assert entry is (alive[0] if alive else None)
        if entry is not None:
            self.ready.remove(entry)
            if entry in self.back:
                self.back.remove(entry)
            if no_ack:
                self.lost.append((entry, "no_ack"))
            else:
                self.out[entry] = None
        self._died()

    def _settle(self, data, verdict: Callable[[list[Entry]], None]) -> None:
        entries = sorted(
            data.draw(st.sets(st.sampled_from(list(self.out)), min_size=1)),
            key=lambda entry: entry.order,
        )
        freed = [self.out.pop(entry) for entry in entries]
        for consumer in freed:
            if consumer is not None:
                consumer.unacked -= 1
        verdict(entries)
        for consumer in freed:
            if consumer is not None:
                self.queue.resume(consumer)
        self._died()

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def ack(self, data):
        def verdict(entries: list[Entry]) -> None:
            for entry in entries:
                self.queue.ack(entry)
                self.lost.append((entry, "acked"))

        self._settle(data, verdict)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def reject(self, data):
        self._settle(data, self.queue.reject)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def requeue(self, data):
        def verdict(entries: list[Entry]) -> None:
            limit = self.limits.delivery_limit
            back = [each for each in entries if limit is None or each.returns < limit]
            self.back = [*self.back, *back] if self.limits.type == "quorum" else []
            self.ready += back
            self._sort()
            self.queue.requeue(entries)

        self._settle(data, verdict)

    @rule(seconds=st.sampled_from([0.1, 0.6, 2.0]))
    def wait(self, seconds):
        self.host.clock.advance(seconds)
        self._died()

    @rule()
    def purge(self):
        assert self.queue.purge() == len(self.ready)
        self.lost += [(entry, "purged") for entry in self.ready]
        self.ready.clear()
        self.back = []

    # -- what always holds ----------------------------------------------------

    @invariant()
    def both_agree(self):
        if not hasattr(self, "queue"):
            return
        assert list(self.queue._ready) == self.ready
        assert self.queue.unacked == len(self.out)
        assert len(self.lost) + len(self.ready) + len(self.out) == self.published
        for consumer in self.consumers:
            held = sum(each is consumer for each in self.out.values())
            assert consumer.unacked == held

    @invariant()
    def nothing_waits_in_vain(self):
        """Where a message is ready, nobody has room."""
        if hasattr(self, "queue") and self.ready:
            assert not any(consumer.has_room() for consumer in self.consumers)

    @invariant()
    def limits_are_kept(self):
        if hasattr(self, "queue") and self.limits.max_length is not None:
            assert len(self.ready) <= self.limits.max_length


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
