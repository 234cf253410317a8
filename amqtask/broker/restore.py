"""Bringing back what a `Store` kept: entities first, then messages in their order."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

from amqtask.broker import arguments as rules
from amqtask.broker.exchanges import Binding, Exchange
from amqtask.broker.fields import read_table
from amqtask.broker.message import Death, Message
from amqtask.broker.queues import Queue
from amqtask.broker.ready import Entry

if TYPE_CHECKING:
    from amqtask.broker.ports import Restorable
    from amqtask.broker.vhost import VHost


def restore(database: sqlite3.Connection, broker: Restorable) -> dict[Queue, int]:
    """Put everything in a store back into a broker; returns the queues and their ids.

    Raises:
        Exception: One of `DAMAGED`, where it is not what was stored.
    """
    vhosts = {
        name: broker.restore_vhost(name)
        for (name,) in database.execute("SELECT '/' UNION SELECT name FROM vhosts")
    }
    for vhost, name, type_, auto_delete, internal, packed in database.execute(
        "SELECT * FROM exchanges"
    ):
        made = Exchange(
            name,
            type_,
            durable=True,
            auto_delete=bool(auto_delete),
            internal=bool(internal),
            arguments=read_table(packed)[0],
        )
        vhosts[vhost].add_exchange(made)
    queues: dict[int, tuple[Queue, int]] = {}
    for ident, vhost, name, auto_delete, packed, delivered in database.execute(
        "SELECT * FROM queues"
    ):
        queues[ident] = _queue(vhosts[vhost], name, bool(auto_delete), packed), delivered
    _restore_bindings(database, vhosts)
    broker.start_orders_after(_restore_messages(database, broker, queues))
    return {queue: ident for ident, (queue, _) in queues.items()}


def _queue(vhost: VHost, name: str, auto_delete: bool, packed: bytes) -> Queue:
    table = read_table(packed)[0]
    read = rules.read_rules(table["x-queue-type"].value, table)
    queue = Queue(name, vhost, read, durable=True, auto_delete=auto_delete, arguments=table)
    vhost.add_queue(queue)
    return queue


def _restore_bindings(database: sqlite3.Connection, vhosts: dict[str, VHost]) -> None:
    for vhost, source, kind, destination, key, packed in database.execute("SELECT * FROM bindings"):
        host = vhosts[vhost]
        target = (host.queues if kind == "queue" else host.exchanges)[destination]
        binding = Binding(host.exchanges[source], target, key, read_table(packed)[0])
        binding.source.bind(binding)


def _restore_messages(
    database: sqlite3.Connection, broker: Restorable, queues: dict[int, tuple[Queue, int]]
) -> int:
    """Put messages into their queues; returns the order of the last."""
    last = 0
    now, wall = broker.clock.now(), broker.clock.wall()
    for row in database.execute("SELECT * FROM messages ORDER BY id"):
        order, ident, *message, dies, returns, deaths = row
        last = order
        if ident not in queues:
            continue
        queue, delivered = queues[ident]
        entry = Entry(queue, _message(message, deaths), order)
        entry.expires = None if dies is None else now + dies - wall
        entry.redelivered = order <= delivered or returns > 0
        entry.returns = returns
        entry.kept = True
        queue.restore(entry)
    return max([last, *(delivered for _, delivered in queues.values())])


def _message(row: list[Any], deaths: str | None) -> Message:
    exchange, keys, properties, body, persistent, priority, ttl = row
    made = Message(
        exchange,
        tuple(json.loads(keys)),
        properties,
        body,
        persistent=bool(persistent),
        priority=priority,
        ttl=ttl,
    )
    if deaths:
        entries = [
            Death(queue, reason, count, time, where, tuple(names), expiration)
            for queue, reason, count, time, where, names, expiration in json.loads(deaths)
        ]
        made.deaths = tuple(entries)
        # of two in the same second the later entry in the list is the older one
        made.first_death = min(reversed(entries), key=lambda each: each.time)
    return made
