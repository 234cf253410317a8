"""What outlives the process: durable entities and persistent messages, in SQLite.

    changes --> pending --+--> a batch --> one commit, in a thread --> confirms
                  ^       |                       |
                  +-------+--- more meanwhile ----+

While one batch is being committed the next one gathers, so that the load
makes the batches: one message waits for one commit, ten thousand share it.
What was added and acked within a batch never reaches the disk.

A batch that cannot be written, as when the disk is full, is nacked and kept:
publishers are blocked, and it is tried again every second, before what came
after it, so that the disk catches up with memory once there is room.

The database is in WAL mode and synced at every commit, so what was confirmed
survives the process and the machine. Acks are part of the next batch: after a
crash those of the last commit window come again, as redelivered.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue as queues
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqtask.broker.database import DAMAGED, FILE, open_database, unusable
from amqtask.broker.fields import write_table
from amqtask.broker.ready import Entry
from amqtask.broker.restore import restore

if TYPE_CHECKING:
    import asyncio

    from amqtask.broker.clock import Clock
    from amqtask.broker.exchanges import Binding, Exchange
    from amqtask.broker.ports import Restorable
    from amqtask.broker.queues import Queue

_ADD = "INSERT OR REPLACE INTO messages VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
_REMOVE = "DELETE FROM messages WHERE id = ?"

#: Seconds until a batch that could not be written is tried again.
_AGAIN = 1.0
#: What blocked publishers are told; RabbitMQ says so too.
_LOW = "low on disk"
#: A statement and its values; None once it is needless.
_Change = tuple[str, tuple[Any, ...]]

log = logging.getLogger(__name__)


class Store:
    """Durable entities and persistent messages in a folder.

    Args:
        folder: Where; it is made when missing. One process at a time may use it.
        clock: The broker's.

    Attributes:
        added: How many messages were added.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._path = folder / FILE
        self._clock = clock
        self.added = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: list[_Change | Entry | None] = []
        #: Where in `_pending` a message is that was not handed to the thread yet.
        self._places: dict[int, int] = {}
        self._waiting: list[Callable[[bool], None]] = []
        self._broker: Restorable | None = None
        self._busy = False
        self._scheduled = False
        #: Set while the last batch could not be written.
        self._failing = False
        self._ids: dict[Queue, int] = {}
        self._next_id = 1
        self._delivered: dict[Queue, int] = {}
        self._batches: queues.SimpleQueue[tuple[list[Any], list[Any]] | None] = queues.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._database: sqlite3.Connection | None = None

    # -- life -----------------------------------------------------------------

    def open(self, loop: asyncio.AbstractEventLoop, broker: Restorable) -> None:
        """Open the folder, and bring back what it holds.

        Raises:
            ConfigurationError: It cannot be used, or another broker does.
        """
        self._loop, self._broker = loop, broker
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = open_database(self._path)
            self._ids = restore(self._database, broker)
            self._next_id = max(self._ids.values(), default=0) + 1
        except DAMAGED as error:
            if self._database is not None:
                self._database.close()
                self._database = None
            raise unusable(self._path.parent, error) from error
        self._thread = threading.Thread(target=self._work, name="amqtask-broker-store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Commit what is pending and close; confirms that are due are not sent any more."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._hand_over(watch=False)
        self._batches.put(None)
        thread.join()
        if self._database is not None:
            self._database.close()
            self._database = None
        self._loop = None

    # -- messages -------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Keep a message."""
        self.added += 1
        entry.kept = True
        self._places[entry.order] = len(self._pending)
        self._pending.append(entry)
        self._soon()

    def remove(self, entry: Entry) -> None:
        """Forget a message; harmless for one that was never kept."""
        if not entry.kept:
            return
        entry.kept = False
        place = self._places.pop(entry.order, None)
        if place is not None:
            self._pending[place] = None
        elif not entry.queue.deleted:
            self._change(_REMOVE, entry.order)

    def returned(self, entry: Entry) -> None:
        """Note how often a message came back."""
        if entry.kept and entry.order not in self._places:
            self._change("UPDATE messages SET returns = ? WHERE id = ?", entry.returns, entry.order)

    def handed_out(self, entry: Entry) -> None:
        """Note that a message, and those before it, may have been seen."""
        if entry.kept:
            seen = self._delivered.get(entry.queue, 0)
            self._delivered[entry.queue] = max(seen, entry.order)

    def when_saved(self, action: Callable[[bool], None]) -> None:
        """Call ``action(saved)`` once all changes so far are on disk, or could not be written."""
        if not self._pending and not self._busy and not self._failing:
            action(True)
            return
        self._waiting.append(action)
        self._soon()

    # -- entities -------------------------------------------------------------

    def vhost_made(self, name: str) -> None:
        """Keep a vhost."""
        self._change("INSERT OR IGNORE INTO vhosts VALUES (?)", name)

    def vhost_gone(self, name: str) -> None:
        """Forget a vhost."""
        self._change("DELETE FROM vhosts WHERE name = ?", name)

    def exchange_made(self, vhost: str, exchange: Exchange) -> None:
        """Keep an exchange."""
        self._change(
            "INSERT OR REPLACE INTO exchanges VALUES (?,?,?,?,?,?)",
            vhost, exchange.name, exchange.type, exchange.auto_delete, exchange.internal,
            write_table(exchange.arguments),
        )  # fmt: skip

    def exchange_gone(self, vhost: str, exchange: Exchange) -> None:
        """Forget an exchange."""
        self._change("DELETE FROM exchanges WHERE vhost = ? AND name = ?", vhost, exchange.name)

    def queue_made(self, vhost: str, queue: Queue) -> None:
        """Keep a queue."""
        self._ids[queue] = self._next_id
        self._next_id += 1
        self._change(
            "INSERT OR REPLACE INTO queues VALUES (?,?,?,?,?,0)",
            self._ids[queue], vhost, queue.name, queue.auto_delete, write_table(queue.arguments),
        )  # fmt: skip

    def queue_gone(self, vhost: str, queue: Queue) -> None:
        """Forget a queue and what it held."""
        ident = self._ids.pop(queue, None)
        self._delivered.pop(queue, None)
        if ident is None:
            return
        for order, place in list(self._places.items()):
            entry = self._pending[place]
            if isinstance(entry, Entry) and entry.queue is queue:
                self._pending[place] = None
                del self._places[order]
        self._change("DELETE FROM messages WHERE queue = ?", ident)
        self._change("DELETE FROM queues WHERE id = ?", ident)

    def bound(self, vhost: str, binding: Binding) -> None:
        """Keep a binding."""
        self._change(
            "INSERT OR REPLACE INTO bindings VALUES (?,?,?,?,?,?)", *_binding_row(vhost, binding)
        )

    def unbound(self, vhost: str, binding: Binding) -> None:
        """Forget a binding."""
        self._change(
            "DELETE FROM bindings WHERE vhost = ? AND source = ? AND kind = ? AND destination = ?"
            " AND key = ? AND arguments = ?",
            *_binding_row(vhost, binding),
        )

    # -- batches --------------------------------------------------------------

    def _change(self, statement: str, *values: Any) -> None:
        self._pending.append((statement, values))
        self._soon()

    def _soon(self) -> None:
        if self._scheduled or self._busy or self._failing:
            return
        if self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if not self._busy and (self._pending or self._waiting):
            self._hand_over(watch=True)

    def _hand_over(self, *, watch: bool) -> None:
        """Give the thread all that is pending."""
        pending, self._pending = self._pending, []
        waiting, self._waiting = self._waiting, []
        self._places.clear()
        changes: list[_Change] = []
        for each in pending:
            if isinstance(each, Entry):
                changes.append((_ADD, self._row(each)))
            elif each is not None:
                changes.append(each)
        for queue, order in self._delivered.items():
            changes.append(
                ("UPDATE queues SET delivered = ? WHERE id = ?", (order, self._ids[queue]))
            )
        self._delivered.clear()
        self._busy = watch
        self._batches.put((changes, waiting))

    def _row(self, entry: Entry) -> tuple[Any, ...]:
        message = entry.message
        dies = None
        if entry.expires is not None:
            dies = self._clock.wall() + entry.expires - self._clock.now()
        deaths = json.dumps([astuple(each) for each in message.deaths]) if message.deaths else None
        return (
            entry.order, self._ids.get(entry.queue, 0), message.exchange, json.dumps(message.keys),
            message.properties, message.body, message.persistent, message.priority, message.ttl,
            dies, entry.returns, deaths,
        )  # fmt: skip

    def _work(self) -> None:
        """Commit batches: the thread."""
        database = self._database
        assert database is not None
        changes: list[_Change] = []
        while (batch := self._batches.get()) is not None:
            more, waiting = batch
            changes += more
            error = _commit(database, changes)
            if error is None:
                changes.clear()
            loop = self._loop
            if loop is not None:
                # a loop that has ended has nobody left to tell
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._done, waiting, error)
        if changes:
            log.error("broker.lost changes=%d: they never got on disk", len(changes))

    def _done(self, waiting: list[Callable[[bool], None]], error: str | None) -> None:
        self._busy = False
        if self._thread is None:
            # it was closed meanwhile
            return
        self._judge(error)
        for action in waiting:
            action(error is None)
        if self._failing:
            assert self._broker is not None
            self._broker.call_later(_AGAIN, self._try_again)
        elif self._pending or self._waiting:
            self._hand_over(watch=True)

    def _judge(self, error: str | None) -> None:
        """Block publishers when writing begins to fail, and let them go on when it works again."""
        failing = error is not None
        if failing == self._failing:
            return
        self._failing = failing
        if failing:
            log.error(
                "broker.not_saved folder=%r error=%r: publishers get nacks and are blocked, it is "
                "tried again every second",
                str(self._path.parent), error,
            )  # fmt: skip
        else:
            log.warning("broker.saved_again: all is on disk, publishers go on")
        assert self._broker is not None
        self._broker.cannot_save(_LOW if failing else None)

    def _try_again(self) -> None:
        if self._thread is not None and not self._busy:
            self._hand_over(watch=True)


def _commit(database: sqlite3.Connection, changes: list[_Change]) -> str | None:
    """Write changes, all or none; returns what went wrong."""
    try:
        database.execute("BEGIN")
        for statement, values in changes:
            database.execute(statement, values)
        database.execute("COMMIT")
    except sqlite3.Error as error:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        return str(error)
    return None


def _binding_row(vhost: str, binding: Binding) -> tuple[Any, ...]:
    target = binding.destination
    arguments = write_table(dict(sorted(binding.arguments.items())))
    return vhost, binding.source.name, target.kind, target.name, binding.key, arguments
