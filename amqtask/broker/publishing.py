"""The publishing half of a channel: content put together, routed, confirmed.

    method frame --> header frame --> body frames --> routed --> confirmed
                                                        |
                     in a transaction: kept until commit, or forgotten

Confirms are collected while frames are read and sent together, with
``multiple`` where nothing older is open. What must be on disk first is open
until the store says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pamqp import commands

from amqtask.broker.arguments import LONGEST_MS
from amqtask.broker.exchanges import Exchange
from amqtask.broker.fields import TYPE_NAMES, Malformed, text
from amqtask.broker.message import Message
from amqtask.broker.properties import Facts, facts, with_headers, with_reply_to
from amqtask.broker.refusals import Refusal, cannot_decode
from amqtask.broker.wire import (
    BODY,
    CONTENT,
    HEADER,
    confirm_frame,
    content_frames,
    method,
    write_method,
)

if TYPE_CHECKING:
    from amqtask.broker.channel import Channel
    from amqtask.broker.queues import Queue

#: The queue that stands for the consumer of direct replies.
REPLY_TO = "amq.rabbitmq.reply-to"
#: Octets of the largest message, RabbitMQ 4.0's default.
LARGEST = 16 * 1024 * 1024
#: Routes that a vhost's channels remember; more are not worth the memory.
_CACHED = 4096
_INTEGER = re.compile(r"[+-]?[0-9]+")


class Route(NamedTuple):
    """Where a publish method's arguments lead.

    Attributes:
        exchange: The exchange.
        key: The routing key.
        mandatory: Whether it comes back when no queue takes it.
        packed: Exchange and key as in a deliver method.
        queues: The queues; None where they depend on headers.
    """

    exchange: Exchange
    key: str
    mandatory: bool
    packed: bytes
    queues: tuple[Queue, ...] | None


class Publishing:
    """What a channel publishes.

    Attributes:
        confirming: Whether the channel confirms.
        kept: Messages of a transaction; None outside.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._vhost = channel.vhost
        self._broker = channel.broker
        self._routes: dict[bytes, Route] = {}
        self._epoch = -1
        self._arguments = b""
        self._properties = b""
        self._parts: list[bytes] = []
        self._missing = 0
        self._size = 0
        self.confirming = False
        self.kept: list[tuple[Route, Message]] | None = None
        self._number = 0
        self._open: set[int] = set()
        self._done: list[int] = []
        self._failed: list[int] = []

    # -- content --------------------------------------------------------------

    def begin(self, payload: bytes) -> None:
        """Take a publish method; its content follows."""
        self._arguments = payload
        self._channel.expects = HEADER

    def header(self, payload: bytes) -> None:
        """Take a content header."""
        if len(payload) < 14:
            raise Refusal(501, "a content header is cut off")
        kind, weight, size = CONTENT.unpack_from(payload)
        if kind != 60 or weight:
            raise Refusal(
                505, f"expected content header for class 60, got one for class {kind} instead"
            )
        self._properties = payload[12:]
        self._size = self._missing = size
        self._parts.clear()
        if size:
            self._channel.expects = BODY
        else:
            self._complete(b"")

    def body(self, payload: bytes) -> None:
        """Take a piece of a body."""
        left = self._missing = self._missing - len(payload)
        if left > 0:
            # of what is refused anyway only the end is waited for
            if self._size <= LARGEST:
                self._parts.append(payload)
            return
        if left < 0:
            raise Refusal(501, "a body is longer than its header says")
        if self._parts:
            self._parts.append(payload)
            payload = b"".join(self._parts)
            self._parts.clear()
        self._complete(payload)

    def _complete(self, body: bytes) -> None:
        self._channel.expects = 0
        if self._size > LARGEST:
            size = self._size
            raise Refusal(406, f"message size {size} is larger than configured max size {LARGEST}")
        if self._epoch != self._vhost.epoch:
            self._routes.clear()
            self._epoch = self._vhost.epoch
        route = self._routes.get(self._arguments)
        if route is None:
            route = self._resolve(self._arguments)
        try:
            known = facts(self._properties)
        except Malformed as error:
            raise Refusal(541, None) from error
        message = Message(
            route.exchange.name, (route.key,), self._properties, body,
            persistent=known.persistent, priority=known.priority, route=route.packed,
        )  # fmt: skip
        if not self._heed(message, known):
            route = route._replace(queues=None)
        if self.kept is not None:
            self.kept.append((route, message))
        else:
            self.send(route, message)

    def _resolve(self, arguments: bytes) -> Route:
        """Read a publish method and find where it leads."""
        try:
            exchange_end = 7 + arguments[6]
            key_end = exchange_end + 1 + arguments[exchange_end]
            flags = arguments[key_end]
        except IndexError as error:
            raise cannot_decode(arguments) from error
        self._channel.connection.published = True
        if flags & 2:
            raise Refusal(540, "immediate=true")
        exchange = self._vhost.exchange(text(arguments[7:exchange_end]))
        if exchange.internal:
            shown = exchange.shown(self._vhost.name)
            raise Refusal(403, f"cannot publish to internal {shown}")
        key = text(arguments[exchange_end + 1 : key_end])
        packed = arguments[6:key_end]
        probe = Message(exchange.name, (key,), b"\x00\x00", b"", route=packed)
        queues, cacheable = self._vhost.route(exchange, probe)
        if not exchange.name and key.startswith(REPLY_TO):
            cacheable = False
        made = Route(exchange, key, bool(flags & 1), packed, tuple(queues) if cacheable else None)
        if len(self._routes) >= _CACHED:
            self._routes.clear()
        self._routes[arguments] = made
        return made

    def _heed(self, message: Message, known: Facts) -> bool:
        """Heed the properties that matter here; False when they decide the route."""
        # in RabbitMQ's order: of several faults it tells the same one
        if known.reply_to == REPLY_TO:
            suffix = self._channel.reply_suffix
            if suffix is None:
                raise Refusal(406, "fast reply consumer does not exist")
            message.properties = with_reply_to(message.properties, f"{REPLY_TO}.{suffix}")
        if known.expiration is not None:
            message.ttl = _milliseconds(known.expiration)
        only_key = known.headers is None or not _more_keys(message, known.headers)
        user = self._channel.user
        if known.user_id is not None and known.user_id != user:
            raise Refusal(
                406,
                f"user_id property set to '{known.user_id}' but authenticated user was '{user}'",
            )
        return only_key

    # -- routing --------------------------------------------------------------

    def send(self, route: Route, message: Message) -> bool:
        """Hand a message to its queues, and confirm or return it; False when one refused it."""
        if self._broker.faults.blocked:
            self._channel.connection.hold_back(held=True)
        queues = route.queues
        if queues is None:
            queues = tuple(self._vhost.route(route.exchange, message)[0])
            if not route.exchange.name:
                self._reply(message)
        if not queues and route.mandatory:
            self._return(message)
        keeper = self._broker.keeper
        saved = keeper.added if keeper is not None else 0
        taken = True
        for queue in queues:
            if not queue.publish(message):
                taken = False
        if not self.confirming:
            return taken
        number = self._number = self._number + 1
        if keeper is not None and taken and keeper.added != saved:
            self._open.add(number)
            keeper.when_saved(partial(self._saved, number))
        else:
            self.settle(number, taken=taken)
        return taken

    def _saved(self, number: int, saved: bool) -> None:
        self.settle(number, taken=saved)

    def send_kept(self) -> bool:
        """Send a transaction's messages; False when a queue refused one."""
        kept, self.kept = self.kept or [], []
        # queues and bindings may have changed since
        sent = [self.send(route._replace(queues=None), message) for route, message in kept]
        return all(sent)

    def when_saved(self, action: Callable[[bool], None]) -> None:
        """Call ``action(saved)`` once all that was published is safe, or could not be saved."""
        keeper = self._broker.keeper
        if keeper is None:
            action(True)
        else:
            keeper.when_saved(action)

    def _reply(self, message: Message) -> None:
        for key in message.keys:
            if key.startswith(REPLY_TO):
                receiver = self._vhost.repliers.get(key[len(REPLY_TO) + 1 :])
                if receiver is not None:
                    receiver.deliver_reply(message)

    def _return(self, message: Message) -> None:
        returned = method(
            commands.Basic.Return,
            reply_code=312,
            reply_text="NO_ROUTE",
            exchange=message.exchange,
            routing_key=message.keys[0],
        )
        channel = self._channel
        head = write_method(returned, channel.number)[7:-1]
        channel.send(
            content_frames(channel.number, head, message.properties, message.body, channel.most)
        )

    # -- confirms -------------------------------------------------------------

    def settle(self, number: int, *, taken: bool = True) -> None:
        """Let a message's confirm go out with the next ones."""
        faults = self._broker.faults
        if faults.confirms and faults.hold_confirm(self, number, taken=taken):
            self._open.add(number)
            return
        self.release(number, taken=taken)

    def release(self, number: int, *, taken: bool) -> None:
        """Let a confirm go out that a test may have held."""
        self._open.discard(number)
        if not self._done and not self._failed:
            self._channel.connection.confirms_soon(self)
        (self._done if taken else self._failed).append(number)

    def flush(self) -> None:
        """Send the confirms that are due."""
        done, failed = self._done, self._failed
        if not done and not failed:
            return
        self._done, self._failed = [], []
        channel = self._channel
        if not channel.open:
            return
        if len(done) == 1:
            channel.send(confirm_frame(channel.number, done[0], False))
        else:
            self._send_together(sorted(done), failed, nack=False)
        self._send_together(sorted(failed), done, nack=True)

    def _send_together(self, numbers: list[int], others: list[int], *, nack: bool) -> None:
        if not numbers:
            return
        channel = self._channel
        oldest = min([*self._open, *others], default=numbers[-1] + 1)
        together = [each for each in numbers if each < oldest]
        if together:
            channel.send(confirm_frame(channel.number, together[-1], True, nack=nack))
        for each in numbers[len(together) :]:
            channel.send(confirm_frame(channel.number, each, False, nack=nack))


def _milliseconds(expiration: str) -> int:
    """Read an expiration, or refuse it in Erlang's words."""
    found = _INTEGER.match(expiration)
    if found is None:
        raise Refusal(406, f"invalid expiration '{expiration}': no_integer")
    rest = expiration[found.end() :]
    if rest:
        raise Refusal(406, f"invalid expiration '{expiration}': {{leftover_string,\"{rest}\"}}")
    value = int(expiration)
    if value < 0:
        raise Refusal(406, f"invalid expiration '{expiration}': {{value_negative,{value}}}")
    if value > LONGEST_MS:
        raise Refusal(406, f"invalid expiration '{expiration}': {{value_too_large,{value}}}")
    return value


def _more_keys(message: Message, place: tuple[int, int]) -> bool:
    """Add the keys in CC and BCC, and take BCC out; tells whether there were any."""
    # a look at the octets first: hardly any message has them
    find = message.properties.find
    if find(b"\x02CC", *place) < 0 and find(b"\x03BCC", *place) < 0:
        return False
    headers = message.headers()
    keys: list[str] = []
    for name in ("CC", "BCC"):
        field = headers.get(name)
        if field is None:
            continue
        if field.tag != "A":
            kind = TYPE_NAMES[field.tag]
            raise Refusal(406, f'invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}')
        found = [each.value for each in field.value if each.tag == "S"]
        keys += found
        if name == "BCC":
            message.hidden = tuple(found)
            message.properties = with_headers(message.properties, {}, without=("BCC",))
    message.keys = (*message.keys, *keys)
    return bool(keys)
