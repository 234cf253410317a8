"""One message, and what dead-lettering makes of it.

A message is never changed: the queues it was routed to share it. Dying makes
another one, with another exchange, its history in ``x-death`` and its
expiration taken off.

Source:
    mc:record_death and mc_amqpl:death_table of RabbitMQ 4.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from amqtask.broker.fields import Field, Malformed, Table, read_table, short
from amqtask.broker.properties import HEADERS, split, with_headers

#: Why a queue gave a message up.
Reason = Literal["rejected", "expired", "maxlen", "delivery_limit"]


@dataclass(frozen=True, slots=True)
class Death:
    """That a message died in a queue for a reason, however often.

    Attributes:
        queue: The queue.
        reason: Why.
        count: How often.
        time: When first, in seconds since 1970.
        exchange: To which exchange it had been published then.
        keys: By which routing keys.
        expiration: Its own expiration in milliseconds, which it lost.
    """

    queue: str
    reason: Reason
    count: int
    time: int
    exchange: str
    keys: tuple[str, ...]
    expiration: int | None = None

    def field(self) -> Field:
        """Return its entry in ``x-death``."""
        table: Table = {
            "count": Field("l", self.count),
            "reason": Field("S", self.reason),
            "queue": Field("S", self.queue),
            "time": Field("T", self.time),
            "exchange": Field("S", self.exchange),
            "routing-keys": Field("A", [Field("S", key) for key in self.keys]),
        }
        if self.expiration is not None:
            table = {"original-expiration": Field("S", str(self.expiration)), **table}
        return Field("F", table)


class Message:
    """A message as the broker holds it.

    Attributes:
        exchange: Where it was published to.
        keys: Its routing key, and those in CC and BCC after it.
        properties: Flags and values, as in the header frame.
        body: Its body.
        persistent: Whether delivery mode is 2.
        priority: None when it has none.
        ttl: Its own expiration in milliseconds.
        deaths: Its history, newest first.
        first_death: The first entry that the history had.
        hidden: Keys that came in BCC.
        route: Exchange and routing key as in a deliver method.
    """

    __slots__ = (
        "body",
        "deaths",
        "exchange",
        "first_death",
        "hidden",
        "keys",
        "persistent",
        "priority",
        "properties",
        "route",
        "ttl",
    )

    def __init__(
        self,
        exchange: str,
        keys: tuple[str, ...],
        properties: bytes,
        body: bytes,
        *,
        persistent: bool = False,
        priority: int | None = None,
        ttl: int | None = None,
        route: bytes | None = None,
    ) -> None:
        self.exchange = exchange
        self.keys = keys
        self.properties = properties
        self.body = body
        self.persistent = persistent
        self.priority = priority
        self.ttl = ttl
        self.deaths: tuple[Death, ...] = ()
        self.first_death: Death | None = None
        self.hidden: tuple[str, ...] = ()
        self.route = short(exchange) + short(keys[0]) if route is None else route

    def headers(self) -> Table:
        """Return its headers, ``{}`` when it has none or they are broken inside."""
        values = split(self.properties)
        if HEADERS not in values:
            return {}
        try:
            return read_table(values[HEADERS])[0]
        except (Malformed, IndexError):
            return {}

    def died(
        self, queue: str, reason: Reason, *, exchange: str, key: str | None, wall: float
    ) -> Message:
        """Return what a dead-letter exchange gets.

        Args:
            queue: Where it died.
            reason: Why.
            exchange: The dead-letter exchange.
            key: The dead-letter routing key; None keeps its own.
            wall: Now, in seconds since 1970.
        """
        seen = tuple(each for each in self.keys if each not in self.hidden)
        death = Death(queue, reason, 1, int(wall), self.exchange, seen, self.ttl)
        others: list[Death] = []
        for old in self.deaths:
            if (old.queue, old.reason) == (queue, reason):
                death = Death(
                    queue, reason, old.count + 1, old.time, old.exchange, old.keys, old.expiration
                )
            else:
                others.append(old)
        deaths = (death, *others)
        first = self.first_death or death
        headers = {"x-death": Field("A", [each.field() for each in deaths])}
        for word, each, where in (
            ("first", first, first.exchange),
            # the exchange of this death, which a counted entry does not tell
            ("last", death, self.exchange),
        ):
            headers[f"x-{word}-death-reason"] = Field("S", each.reason)
            headers[f"x-{word}-death-queue"] = Field("S", each.queue)
            headers[f"x-{word}-death-exchange"] = Field("S", where)
        made = Message(
            exchange,
            self.keys if key is None else (key,),
            with_headers(self.properties, headers, expires=False),
            self.body,
            persistent=self.persistent,
            priority=self.priority,
        )
        made.deaths = deaths
        made.first_death = first
        made.hidden = self.hidden
        return made

    def cycles_in(self, queue: str) -> bool:
        """Tell whether it came round to a queue without a client ever rejecting it on the way.

        Such a message is dropped, or it would go round for ever.
        """
        for death in self.deaths:
            if death.reason == "rejected":
                return False
            if death.queue == queue:
                return True
        return False
