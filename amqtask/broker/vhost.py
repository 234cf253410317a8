"""A virtual host: exchanges, queues and bindings under their names, and what may be done to them.

Declaring is idempotent: what is there with the same properties stays, a
difference is refused. Everything else here is looking up, and keeping the two
ends of a binding in step when one of them goes.
"""

from __future__ import annotations

import base64
import os
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from amqtask.broker import arguments as rules
from amqtask.broker.exchanges import Binding, Exchange, Router, binding_key, check_type
from amqtask.broker.fields import TYPE_NAMES, Field, Table, shown
from amqtask.broker.queues import Queue
from amqtask.broker.ready import Entry
from amqtask.broker.refusals import Refusal, not_found, resource

if TYPE_CHECKING:
    from amqtask.broker.channel import Channel
    from amqtask.broker.message import Message, Reason
    from amqtask.broker.ports import Surroundings

_BUILT_IN = (
    ("", "direct"),
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
    ("amq.topic", "topic"),
)
#: Seconds after which stranded entries are tried again, and how many of each queue.
_RETRY = 0.5
_RETRIED = 100


class VHost:
    """A virtual host.

    Attributes:
        epoch: Grows with every change of exchanges, queues and bindings.
        doubling: Whether a test wants deliveries twice.
    """

    def __init__(self, name: str, broker: Surroundings) -> None:
        self.name = name
        self.clock = broker.clock
        self.keeper = broker.keeper
        self.archive = broker.archive
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self.epoch = 0
        self.doubling = False
        #: Channels that get direct replies, by what their address ends with.
        self.repliers: dict[str, Channel] = {}
        self._broker = broker
        self.next_order = broker.next_order
        self.doubles = broker.doubles
        self._router = Router(self.exchanges, self.queues)
        self.route = self._router.route
        self._dead: deque[tuple[Entry, Reason]] = deque()
        self._burying = False
        self._retrying = False
        for exchange, type_ in _BUILT_IN:
            self.exchanges[exchange] = Exchange(exchange, type_, durable=True)

    # -- looking up -----------------------------------------------------------

    def exchange(self, name: str) -> Exchange:
        """Return an exchange; 404 when there is none."""
        found = self.exchanges.get(name)
        if found is None:
            raise not_found("exchange", name, self.name)
        return found

    def queue(self, name: str, user: object) -> Queue:
        """Return a queue that ``user``, a connection, may use; 404 or 405 when there is none."""
        found = self.queues.get(name)
        if found is None:
            raise not_found("queue", name, self.name)
        if found.owner is not None and found.owner is not user:
            raise self._locked(name)
        return found

    def _locked(self, name: str) -> Refusal:
        return Refusal(
            405,
            f"cannot obtain exclusive access to locked {resource('queue', name, self.name)}. It "
            "could be originally declared on another connection or the exclusive property value "
            "does not match that of the original declaration.",
        )

    # -- exchanges ------------------------------------------------------------

    def declare_exchange(
        self, name: str, type_: str, *, durable: bool, auto_delete: bool, internal: bool,
        arguments: Table,
    ) -> None:  # fmt: skip
        """Make an exchange, or check that the one of that name is the same."""
        check_type(type_)
        refuse_default(name)
        current = self.exchanges.get(name)
        shown_ = resource("exchange", name, self.name)
        if current is None:
            _check_name("exchange", name)
            _check_string("alternate-exchange", arguments, shown_)
            made = Exchange(
                name, type_, durable=durable, auto_delete=auto_delete, internal=internal,
                arguments=arguments,
            )  # fmt: skip
            self.add_exchange(made)
            if durable and self.archive is not None:
                self.archive.exchange_made(self.name, made)
            return
        for what, old, new in (
            ("type", current.type, type_),
            ("durable", current.durable, durable),
            ("auto_delete", current.auto_delete, auto_delete),
            ("internal", current.internal, internal),
        ):
            if old != new:
                rules.unequal(shown_, what, shown(old), shown(new))
        rules.check_fields(shown_, current.arguments, arguments, ("alternate-exchange",))

    def add_exchange(self, exchange: Exchange) -> None:
        """Put an exchange in its place."""
        self.exchanges[exchange.name] = exchange
        self.epoch += 1

    def delete_exchange(self, name: str, *, if_unused: bool) -> None:
        """Delete an exchange and its bindings; one that is not there is fine."""
        refuse_default(name)
        if name.startswith("amq."):
            raise Refusal(
                403, f"deletion of system {resource('exchange', name, self.name)} not allowed"
            )
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise Refusal(406, f"{exchange.shown(self.name)} in use")
        self._drop_exchange(exchange)

    def _drop_exchange(self, exchange: Exchange) -> None:
        if self.exchanges.pop(exchange.name, None) is None:
            return
        for binding in [*exchange.bindings.values(), *exchange.incoming]:
            self._unbind(binding)
        self.epoch += 1
        if exchange.durable and self.archive is not None:
            self.archive.exchange_gone(self.name, exchange)

    # -- queues ---------------------------------------------------------------

    def declare_queue(
        self, name: str, *, durable: bool, exclusive: bool, auto_delete: bool, arguments: Table,
        user: object,
    ) -> Queue:  # fmt: skip
        """Make a queue, or check that the one of that name is the same; ``""`` gets a name."""
        owner = user if exclusive else None
        durable = durable and not exclusive
        given = arguments
        if "x-queue-type" not in given:
            arguments = {**given, "x-queue-type": Field("S", "classic")}
        if not name:
            if arguments["x-queue-type"].value in ("quorum", "stream"):
                module = f"rabbit_{arguments['x-queue-type'].value}_queue"
                raise Refusal(406, f"Cannot declare a server-named queue for type {module}")
            name = f"amq.gen-{random_name()}"
        else:
            _check_name("queue", name)
        current = self.queues.get(name)
        shown_ = resource("queue", name, self.name)
        if current is not None:
            self._check_same(current, shown_, durable, auto_delete, arguments, owner)
            if not current.quorum:
                current.used()
            return current
        _check_string("x-dead-letter-exchange", arguments, shown_)
        type_ = rules.check_queue(shown_, arguments)
        if type_ == "quorum":
            _check_quorum(shown_, durable, owner is not None, auto_delete)
        queue = Queue(
            name, self, rules.read_rules(type_, arguments), durable=durable,
            auto_delete=auto_delete, owner=owner, arguments=arguments,
        )  # fmt: skip
        self.add_queue(queue)
        if durable and self.archive is not None:
            self.archive.queue_made(self.name, queue)
        return queue

    def add_queue(self, queue: Queue) -> None:
        """Put a queue in its place."""
        self.queues[queue.name] = queue
        self.epoch += 1

    def _check_same(
        self, queue: Queue, shown_: str, durable: bool, auto_delete: bool, arguments: Table,
        owner: object | None,
    ) -> None:  # fmt: skip
        if queue.owner is not owner:
            raise self._locked(queue.name)
        for what, old, new in (
            ("durable", queue.durable, durable),
            ("auto_delete", queue.auto_delete, auto_delete),
        ):
            if old != new:
                rules.unequal(shown_, what, shown(old), shown(new))
        rules.check_equivalent(shown_, queue.rules.type, queue.arguments, arguments)

    def delete_queue(self, name: str, user: object, *, if_unused: bool, if_empty: bool) -> int:
        """Delete a queue; returns how many messages went with it, 0 when it was not there."""
        if name not in self.queues:
            return 0
        queue = self.queue(name, user)
        if queue.quorum and (if_unused or if_empty):
            flag = "unused" if if_unused else "empty"
            raise Refusal(
                540,
                f"cannot delete {queue.shown()}. queue.delete operations with if-{flag} flag set "
                "are not supported by quorum queues",
            )
        if if_unused and len(queue.roster):
            raise Refusal(406, f"{queue.shown()} in use")
        if if_empty and len(queue):
            raise Refusal(406, f"{queue.shown()} not empty")
        count = len(queue)
        self.drop_queue(queue)
        return count

    def drop_queue(self, queue: Queue) -> None:
        """Delete a queue, whatever it holds."""
        if self.queues.get(queue.name) is not queue:
            return
        del self.queues[queue.name]
        self.epoch += 1
        for binding in list(queue.incoming):
            self._unbind(binding)
        if queue.durable and self.archive is not None:
            self.archive.queue_gone(self.name, queue)
        queue.close()

    # -- bindings -------------------------------------------------------------

    def bind(self, source: str, destination: Queue | Exchange, key: str, arguments: Table) -> None:
        """Bind a queue or an exchange to an exchange; bound already is fine."""
        exchange = self.exchange(source)
        exchange.check_binding(arguments)
        binding = Binding(exchange, destination, key, arguments)
        if not exchange.bind(binding):
            return
        self.epoch += 1
        if exchange.durable and destination.durable and self.archive is not None:
            self.archive.bound(self.name, binding)

    def unbind(
        self, source: str, destination: Queue | Exchange, key: str, arguments: Table
    ) -> None:
        """Take a binding away; one that is not there is fine."""
        exchange = self.exchange(source)
        binding = exchange.bindings.get(binding_key(destination, key, arguments))
        if binding is not None:
            self._unbind(binding)

    def _unbind(self, binding: Binding) -> None:
        exchange = binding.source
        if binding.ident not in exchange.bindings:
            return
        exchange.unbind(binding)
        self.epoch += 1
        if exchange.durable and binding.destination.durable and self.archive is not None:
            self.archive.unbound(self.name, binding)
        if exchange.auto_delete and not exchange.bindings:
            self._drop_exchange(exchange)

    # -- what queues ask for --------------------------------------------------

    def soon(self, queue: Queue) -> None:
        """Let a queue hand out once other work had its turn."""
        self._broker.call_soon(queue.pump)

    def bury(self, entry: Entry, reason: Reason) -> None:
        """Send a dead entry on; one after the other, as deaths may cause deaths."""
        self._dead.append((entry, reason))
        if self._burying:
            return
        self._burying = True
        try:
            while self._dead:
                dead, why = self._dead.popleft()
                taken = self._publish_dead(dead, why)
                dead.queue.buried(dead, taken=taken)
                if dead in dead.queue.stranded and not self._retrying:
                    self._retrying = True
                    self._broker.call_later(_RETRY, self._retry)
        finally:
            self._burying = False

    def _publish_dead(self, entry: Entry, reason: Reason) -> bool:
        queue = entry.queue
        name = queue.rules.dead_exchange
        exchange = None if name is None else self.exchanges.get(name)
        if exchange is None:
            return False
        message: Message = entry.message.died(
            queue.name, reason, exchange=exchange.name, key=queue.rules.dead_key,
            wall=self.clock.wall(),
        )  # fmt: skip
        targets, _ = self.route(exchange, message)
        if reason != "rejected":
            targets = [each for each in targets if not message.cycles_in(each.name)]
        taken = [target.publish(message) for target in targets]
        return bool(taken) and all(taken)

    def _retry(self) -> None:
        self._retrying = False
        for queue in list(self.queues.values()):
            for entry, reason in list(islice(queue.stranded.items(), _RETRIED)):
                self.bury(entry, reason)

    # -- end ------------------------------------------------------------------

    def disown(self, user: object) -> None:
        """Delete the queues that only ``user``, a connection, could use."""
        for queue in [each for each in self.queues.values() if each.owner is user]:
            self.drop_queue(queue)

    def empty(self) -> None:
        """Delete everything."""
        for queue in list(self.queues.values()):
            self.drop_queue(queue)
        for exchange in list(self.exchanges.values()):
            self._drop_exchange(exchange)

    def close(self) -> None:
        """Let go of all queues, without deleting what is remembered."""
        for queue in self.queues.values():
            queue.close()


def refuse_default(name: str) -> None:
    """Refuse the default exchange."""
    if not name:
        raise Refusal(403, "operation not permitted on the default exchange")


def _check_name(kind: str, name: str) -> None:
    if name.startswith("amq."):
        raise Refusal(403, f"{kind} name '{name}' contains reserved prefix 'amq.*'")


def _check_string(name: str, arguments: Table, shown_: str) -> None:
    field = arguments.get(name)
    if field is not None and field.tag != "S":
        raise Refusal(406, f"invalid type '{TYPE_NAMES[field.tag]}' for arg '{name}' in {shown_}")


def _check_quorum(shown_: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    for what, wrong in (
        ("auto-delete", auto_delete),
        ("exclusive-owner", exclusive),
        ("non-durable", not durable),
    ):
        if wrong:
            raise Refusal(406, f"invalid property '{what}' for {shown_}")


def random_name() -> str:
    """Return 22 letters that nobody guesses."""
    return base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
