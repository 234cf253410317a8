"""Exchanges: who gets a message.

Each type is a matcher from routing keys and headers to destinations, which
are queues or further exchanges. `route` follows exchanges to exchanges, each
once, and falls back on an alternate exchange where an exchange has nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from amqtask.broker.fields import TYPE_NAMES, Table, plain, write_table
from amqtask.broker.refusals import Refusal, resource
from amqtask.broker.topics import TopicTree

if TYPE_CHECKING:
    from amqtask.broker.message import Message
    from amqtask.broker.ports import Matcher
    from amqtask.broker.queues import Queue

#: What tells a binding from the others of its exchange: destination, key, arguments.
BindingKey: TypeAlias = tuple[str, str, str, bytes]


class Binding:
    """That messages of an exchange go to a queue or another exchange."""

    __slots__ = ("arguments", "destination", "key", "source")

    def __init__(
        self, source: Exchange, destination: Queue | Exchange, key: str, arguments: Table
    ) -> None:
        self.source = source
        self.destination = destination
        self.key = key
        self.arguments = arguments

    @property
    def ident(self) -> BindingKey:
        """Return what tells it from the others of its exchange."""
        return binding_key(self.destination, self.key, self.arguments)


def binding_key(destination: Queue | Exchange, key: str, arguments: Table) -> BindingKey:
    """Return what tells a binding from the others of its exchange."""
    packed = write_table(dict(sorted(arguments.items()))) if arguments else b""
    return destination.kind, destination.name, key, packed


class _Direct:
    """Keys that are equal."""

    def __init__(self) -> None:
        self._bindings: dict[str, list[Binding]] = {}

    def add(self, binding: Binding) -> None:
        self._bindings.setdefault(binding.key, []).append(binding)

    def remove(self, binding: Binding) -> None:
        bindings = self._bindings[binding.key]
        bindings.remove(binding)
        if not bindings:
            del self._bindings[binding.key]

    def match(self, message: Message) -> Iterable[Binding]:
        if len(message.keys) == 1:
            return self._bindings.get(message.keys[0], ())
        return [each for key in message.keys for each in self._bindings.get(key, ())]


class _Fanout:
    """Everybody."""

    def __init__(self) -> None:
        self._bindings: list[Binding] = []

    def add(self, binding: Binding) -> None:
        self._bindings.append(binding)

    def remove(self, binding: Binding) -> None:
        self._bindings.remove(binding)

    def match(self, message: Message) -> Iterable[Binding]:
        return self._bindings


class _Topic:
    """Keys that match a pattern."""

    def __init__(self) -> None:
        self._tree: TopicTree[Binding] = TopicTree()

    def add(self, binding: Binding) -> None:
        self._tree.add(binding.key, binding)

    def remove(self, binding: Binding) -> None:
        self._tree.remove(binding.key, binding)

    def match(self, message: Message) -> Iterable[Binding]:
        if len(message.keys) == 1:
            return self._tree.match(message.keys[0])
        return [each for key in message.keys for each in self._tree.match(key)]


class _Headers(_Fanout):
    """Headers that have the binding's arguments, all or any of them."""

    def match(self, message: Message) -> Iterable[Binding]:
        headers = message.headers()
        return [each for each in self._bindings if _headers_match(each.arguments, headers)]


def _headers_match(wanted: Table, headers: Table) -> bool:
    mode = wanted["x-match"].value if "x-match" in wanted else "all"
    with_x = mode.endswith("-with-x")
    tests = (
        # a value of no type asks only for the header to be there
        name in headers and (field.tag == "V" or _same(field.value, headers[name].value))
        for name, field in wanted.items()
        if name != "x-match" and (with_x or not name.startswith("x-"))
    )
    return any(tests) if mode.startswith("any") else all(tests)


def _same(first: object, second: object) -> bool:
    # to Python True is 1 and 1 is 1.0, to RabbitMQ not
    return type(first) is type(second) and first == second


_MATCHERS: dict[str, Callable[[], Matcher]] = {
    "direct": _Direct,
    "fanout": _Fanout,
    "topic": _Topic,
    "headers": _Headers,
}


def check_type(name: str) -> None:
    """Refuse an exchange type that there is none of."""
    if name not in _MATCHERS:
        raise Refusal(406, f"unknown exchange type '{name}'")


class Exchange:
    """An exchange and what is bound to it.

    Attributes:
        kind: ``"exchange"``, as RabbitMQ's texts name it.
        bindings: From it.
        incoming: Bindings to it.
        alternate: Name of the exchange that gets what nobody here does.
        cacheable: Whether routes depend on keys alone.
    """

    kind = "exchange"

    def __init__(
        self,
        name: str,
        type_: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
    ) -> None:
        self.name = name
        self.type = type_
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments or {}
        alternate = self.arguments.get("alternate-exchange")
        self.alternate: str | None = alternate.value if alternate else None
        self.cacheable = type_ != "headers"
        self.bindings: dict[BindingKey, Binding] = {}
        self.incoming: dict[Binding, None] = {}
        self._matcher = _MATCHERS[type_]()

    def check_binding(self, arguments: Table) -> None:
        """Refuse arguments that a binding of this type cannot have."""
        field = arguments.get("x-match")
        if self.type != "headers" or field is None:
            return
        if field.tag != "S":
            raise Refusal(
                406,
                f"Invalid x-match field type {TYPE_NAMES[field.tag]} (value {plain(field.value)}); "
                "expected longstr",
            )
        if field.value not in {"all", "any", "all-with-x", "any-with-x"}:
            raise Refusal(
                406,
                f'Invalid x-match field value <<"{field.value}">>; expected all, any, '
                "all-with-x, or any-with-x",
            )

    def bind(self, binding: Binding) -> bool:
        """Add a binding; False when it is there already."""
        ident = binding.ident
        if ident in self.bindings:
            return False
        self.bindings[ident] = binding
        binding.destination.incoming[binding] = None
        self._matcher.add(binding)
        return True

    def unbind(self, binding: Binding) -> None:
        """Take a binding away."""
        del self.bindings[binding.ident]
        del binding.destination.incoming[binding]
        self._matcher.remove(binding)

    def match(self, message: Message) -> Iterable[Binding]:
        """Return the bindings that take a message."""
        return self._matcher.match(message)

    def shown(self, vhost: str) -> str:
        """Name it as RabbitMQ's texts do."""
        return resource(self.kind, self.name, vhost)


class Router:
    """Finds the queues of a message.

    Args:
        exchanges: All of a vhost, by name; they may change.
        queues: All of a vhost, by name; they may change.
    """

    def __init__(self, exchanges: dict[str, Exchange], queues: dict[str, Queue]) -> None:
        self._exchanges = exchanges
        self._queues = queues

    def route(self, start: Exchange, message: Message) -> tuple[list[Queue], bool]:
        """Return a message's queues, and whether every message with its keys has the same."""
        found: dict[Queue, None] = {}
        seen = {start.name}
        work = [start]
        cacheable = True
        while work:
            exchange = work.pop()
            cacheable = cacheable and exchange.cacheable
            if not exchange.name:
                self._by_name(message, found)
                continue
            bindings = exchange.match(message)
            destinations: list[Queue | Exchange] = [each.destination for each in bindings]
            if not destinations and exchange.alternate is not None:
                alternate = self._exchanges.get(exchange.alternate)
                destinations = [] if alternate is None else [alternate]
            for each in destinations:
                if not isinstance(each, Exchange):
                    found[each] = None
                elif each.name not in seen:
                    seen.add(each.name)
                    work.append(each)
        return list(found), cacheable

    def _by_name(self, message: Message, found: dict[Queue, None]) -> None:
        # the default exchange binds every queue by its name
        for key in message.keys:
            queue = self._queues.get(key)
            if queue is not None:
                found[queue] = None
