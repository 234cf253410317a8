"""A channel: methods in, replies and deliveries out.

    opened --> open --> closing (the broker sent close) --> gone
                 |                                           ^
                 +---- the client sent close ----------------+

While closing, everything but the client's answer is ignored. What a channel
was given and never acked goes back to its queues when it ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pamqp import base, commands

from amqtask.broker.consumers import Consumer
from amqtask.broker.fields import Field, Malformed
from amqtask.broker.properties import with_headers
from amqtask.broker.publishing import Publishing
from amqtask.broker.refusals import Hangup, Refusal, cannot_decode
from amqtask.broker.wire import (
    HEADER,
    METHOD,
    OVERHEAD,
    Unknown,
    content_frames,
    deliver_frames,
    deliver_head,
    method,
    read_method,
    write_method,
)

if TYPE_CHECKING:
    from amqtask.broker.connection import Connection
    from amqtask.broker.message import Message
    from amqtask.broker.queues import Queue
    from amqtask.broker.ready import Entry
    from amqtask.broker.vhost import VHost

_TAG = struct.Struct(">QB")
_PUBLISH = commands.Basic.Publish.index


class Channel:
    """A channel.

    Attributes:
        number: Its number in its connection.
        open: Whether it is neither closing nor gone.
        expects: What content still lacks: 0, `HEADER` or `BODY`.
        most: Octets that a body frame's payload may have.
        unacked: What its client has, by delivery tag.
        consumers: By tag.
        last_queue: The queue that ``""`` stands for.
        limit: Messages a consumer that is made now may have.
        shared_limit: Messages that all consumers together may have, 0 for any number.
        acks: Settlements of a transaction, as (tag, entry, verdict).
        reply_suffix: What its direct-reply address ends with.
    """

    def __init__(self, connection: Connection, number: int, vhost: VHost) -> None:
        self.connection = connection
        self.number = number
        self.vhost = vhost
        self.broker = connection.broker
        self.user = connection.user
        self.most = connection.frame_max - OVERHEAD
        self.open = True
        self.expects = 0
        self.unacked: dict[int, Entry] = {}
        self.consumers: dict[str, Consumer] = {}
        self.last_queue = ""
        self.limit = 0
        self.shared_limit = 0
        self.acks: list[tuple[int, Entry, Verdict]] = []
        self.reply_suffix: str | None = None
        self.reply_head = b""
        self.reply_tag = ""
        self._tag = 0
        #: Entries that consumers have, those that were fetched not counted.
        self._held = 0
        self.publishing = Publishing(self)
        self._fast: dict[bytes, Callable[[bytes], None]] = {
            _PUBLISH.to_bytes(4, "big"): self.publishing.begin,
            commands.Basic.Ack.index.to_bytes(4, "big"): self._ack,
        }

    # -- in -------------------------------------------------------------------

    def frame(self, kind: int, payload: bytes) -> None:
        """Take a frame.

        Raises:
            Refusal: It is refused; the connection answers.
            Hangup: It is refused without a word.
        """
        if not self.open:
            self._frame_while_closing(kind, payload)
            return
        if not self.expects:
            if kind != METHOD:
                raise Refusal(505, "expected method frame, got non method frame instead")
            fast = self._fast.get(payload[:4])
            if fast is not None:
                fast(payload)
            else:
                self._call(payload)
            return
        if kind != self.expects:
            what = (
                "content header for class 60, got non content header"
                if self.expects == HEADER
                else "content body, got non content body"
            )
            raise Refusal(505, f"expected {what} frame instead", method=_PUBLISH)
        try:
            if kind == HEADER:
                self.publishing.header(payload)
            else:
                self.publishing.body(payload)
        except Refusal as refusal:
            refusal.method = refusal.method or _PUBLISH
            raise

    def _call(self, payload: bytes) -> None:
        handlers = self.broker.handlers
        try:
            call = read_method(payload)
        except Unknown as error:
            raise Hangup from error
        except Malformed as error:
            raise cannot_decode(payload) from error
        handler = handlers.get(type(call.method))
        if handler is None:
            raise Refusal(503, "unimplemented method", method=call.method.index)
        try:
            handler(self, call.method, call.table)
        except Refusal as refusal:
            refusal.method = refusal.method or call.method.index
            raise

    def _frame_while_closing(self, kind: int, payload: bytes) -> None:
        if kind != METHOD:
            return
        index = int.from_bytes(payload[:4], "big")
        if index == commands.Channel.CloseOk.index:
            self.connection.forget(self)
        elif index == commands.Channel.Close.index:
            self.send(write_method(commands.Channel.CloseOk(), self.number))

    # -- out ------------------------------------------------------------------

    def send(self, frames: bytes) -> None:
        """Send frames with the connection's next."""
        self.connection.send(frames)

    def reply(self, answer: base.Frame) -> None:
        """Answer a method; confirms that are due go first."""
        self.publishing.flush()
        self.connection.send(write_method(answer, self.number))

    def has_room(self) -> bool:
        """Tell whether it may be sent another message now."""
        return self.connection.writable and (
            not self.shared_limit or self._held < self.shared_limit
        )

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message to a consumer."""
        tag = self._tag = self._tag + 1
        if not consumer.no_ack:
            self.unacked[tag] = entry
            self._held += 1
        message = entry.message
        self.connection.send(
            deliver_frames(
                self.number, consumer.head, tag, entry.redelivered, message.route,
                self.properties_of(entry), message.body, self.most,
            )
        )  # fmt: skip

    def properties_of(self, entry: Entry) -> bytes:
        """Return a message's properties as a consumer gets them: quorum queues count returns."""
        if not entry.returns or not entry.queue.quorum:
            return entry.message.properties
        count = {"x-delivery-count": Field("l", entry.returns)}
        return with_headers(entry.message.properties, count)

    def deliver_reply(self, message: Message) -> None:
        """Send a direct reply."""
        if self.open:
            frames = deliver_frames(
                self.number, self.reply_head, self._tag + 1, False, message.route,
                message.properties, message.body, self.most,
            )  # fmt: skip
            self.connection.send(frames)

    def fetched(self, entry: Entry, *, no_ack: bool, left: int) -> None:
        """Send a message that was asked for."""
        tag = self._tag = self._tag + 1
        if not no_ack:
            self.unacked[tag] = entry
        message = entry.message
        answer = method(
            commands.Basic.GetOk, delivery_tag=tag, redelivered=entry.redelivered,
            exchange=message.exchange, routing_key=message.keys[0], message_count=left,
        )  # fmt: skip
        self.publishing.flush()
        head = write_method(answer, self.number)[7:-1]
        properties = self.properties_of(entry)
        self.send(content_frames(self.number, head, properties, message.body, self.most))

    # -- settling -------------------------------------------------------------

    def _ack(self, payload: bytes) -> None:
        if len(payload) != 13:
            raise cannot_decode(payload)
        tag, multiple = _TAG.unpack_from(payload, 4)
        if self.broker.faults.lost_acks and self.broker.faults.lose_ack(self):
            return
        try:
            self.settle(tag, bool(multiple & 1), ack)
        except Refusal as refusal:
            refusal.method = commands.Basic.Ack.index
            raise

    def settle(self, tag: int, multiple: bool, verdict: Verdict) -> None:
        """Ack, reject or requeue what has a tag, or all up to it.

        Raises:
            Refusal: 406, nothing has that tag.
        """
        unacked = self.unacked
        if not multiple:
            entry = unacked.pop(tag, None)
            if entry is None:
                raise Refusal(406, f"unknown delivery tag {tag}")
            settled = [(tag, entry)]
        elif tag == 0:
            settled = list(unacked.items())
            unacked.clear()
        else:
            if tag not in unacked:
                raise Refusal(406, f"unknown delivery tag {tag}")
            settled = []
            for each in list(unacked):
                settled.append((each, unacked.pop(each)))
                if each == tag:
                    break
        if self.publishing.kept is not None:
            self.acks += [(each, entry, verdict) for each, entry in settled]
        else:
            self.carry_out([entry for _, entry in settled], verdict)

    def carry_out(self, entries: list[Entry], verdict: Verdict) -> None:
        """Settle entries, and let their consumers have more."""
        freed = self._free(entries)
        if len(entries) == 1:
            verdict(entries[0].queue, entries)
        else:
            by_queue: dict[Queue, list[Entry]] = {}
            for entry in entries:
                by_queue.setdefault(entry.queue, []).append(entry)
            for queue, group in by_queue.items():
                verdict(queue, group)
        if self.shared_limit:
            self.resume()
        else:
            for consumer in freed:
                if consumer.parked:
                    consumer.queue.resume(consumer)

    def _free(self, entries: Iterable[Entry]) -> dict[Consumer, None]:
        freed: dict[Consumer, None] = {}
        for entry in entries:
            consumer = entry.consumer
            if consumer is not None:
                consumer.unacked -= 1
                self._held -= 1
                freed[consumer] = None
        return freed

    def resume(self) -> None:
        """Let all consumers have more."""
        for consumer in list(self.consumers.values()):
            consumer.queue.resume(consumer)

    # -- consumers ------------------------------------------------------------

    def set_reply_consumer(self, tag: str, suffix: str) -> None:
        """Make this the channel that gets direct replies sent to an address."""
        self.reply_suffix, self.reply_tag = suffix, tag
        self.reply_head = deliver_head(tag)
        self.vhost.repliers[suffix] = self

    def drop_reply_consumer(self) -> None:
        """Get no direct replies any more."""
        if self.reply_suffix is not None:
            self.vhost.repliers.pop(self.reply_suffix, None)
            self.reply_suffix, self.reply_tag = None, ""

    def cancelled(self, consumer: Consumer) -> None:
        """Learn that a consumer's queue is gone, and tell the client if it wants to know."""
        if self.consumers.get(consumer.tag) is not consumer:
            return
        del self.consumers[consumer.tag]
        if self.open and self.connection.capable("consumer_cancel_notify"):
            cancel = method(commands.Basic.Cancel, consumer_tag=consumer.tag, nowait=True)
            self.reply(cancel)

    # -- end ------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Close because of an error: the client's answer is all that is heard from now on."""
        self.publishing.flush()
        self.end()
        close = method(
            commands.Channel.Close,
            reply_code=refusal.code,
            reply_text=refusal.text,
            class_id=refusal.method >> 16,
            method_id=refusal.method & 0xFFFF,
        )
        self.connection.send(write_method(close, self.number))

    def end(self) -> None:
        """Give everything back."""
        if not self.open:
            return
        self.open = False
        self.expects = 0
        consumers, self.consumers = list(self.consumers.values()), {}
        # nobody of this channel is in line any more when its messages come back
        for consumer in consumers:
            consumer.queue.roster.remove(consumer)
        self.drop_reply_consumer()
        entries = [*self.unacked.values(), *(entry for _, entry, _ in self.acks)]
        self.unacked.clear()
        self.acks.clear()
        self._free(entries)
        by_queue: dict[Queue, list[Entry]] = {}
        for entry in entries:
            by_queue.setdefault(entry.queue, []).append(entry)
        for queue, group in by_queue.items():
            requeue(queue, group)
        for consumer in consumers:
            consumer.queue.cancel(consumer)


#: What settling does to the entries of one queue.
Verdict = Callable[["Queue", "list[Entry]"], None]


def ack(queue: Queue, entries: list[Entry]) -> None:
    """Forget entries."""
    for entry in entries:
        queue.ack(entry)


def reject(queue: Queue, entries: list[Entry]) -> None:
    """Let entries die."""
    queue.reject(entries)


def requeue(queue: Queue, entries: list[Entry]) -> None:
    """Give entries back."""
    queue.requeue(entries)
