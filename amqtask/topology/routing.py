"""Where a call goes: from a task's name and options to exchange and routing key.

Routing is decided here, by the sender, and is pure: the same question always
has the same answer, which the router remembers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import TYPE_CHECKING, Any

from amqtask.errors import ConfigurationError, near
from amqtask.topology.entities import Binding, Exchange, Queue, check_name, check_queue_name
from amqtask.topology.plan import exchange_name

if TYPE_CHECKING:
    from amqtask.settings import Settings

#: Answers remembered; forgotten all at once when there are more.
_CACHE_SIZE = 4096
_RULE_KEYS = ("queue", "exchange", "routing_key", "priority")


def topic_match(pattern: str, key: str) -> bool:
    """Return whether a topic exchange would route ``key`` by ``pattern``.

    ``*`` stands for one word, ``#`` for any number of them; words may be empty.

    Source: AMQP 0-9-1, 3.1.3.3 "The Topic Exchange Type". RabbitMQ takes an
        empty key for no words at all, which only ``#`` matches, as ``""`` does.

    Example:
        >>> topic_match("email.*.#", "email.welcome")
        True
    """
    # the words matched so far are those of pattern[:p] and words[:w]; after a
    # "#", what is left is tried with ever fewer words, from the last "#" only
    wanted, words = _words(pattern), _words(key)
    p = w = 0
    hash_at = hash_word = -1
    while w < len(words):
        if p < len(wanted) and wanted[p] == "#":
            hash_at, hash_word = p, w
            p += 1
        elif p < len(wanted) and wanted[p] in ("*", words[w]):
            p += 1
            w += 1
        elif hash_at >= 0:
            hash_word += 1
            p, w = hash_at + 1, hash_word
        else:
            return False
    return all(word == "#" for word in wanted[p:])


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call is published.

    Attributes:
        queue: The queue it ends in, where exactly one known queue is meant.
        priority: What a rule says about it; None says nothing.
    """

    exchange: str
    routing_key: str
    queue: Queue | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    queue: str | Queue | None = None
    exchange: str | Exchange | None = None
    routing_key: str | None = None
    priority: int | None = None

    @property
    def names_a_place(self) -> bool:
        return not (self.queue is None and self.exchange is None and self.routing_key is None)


RouteFunction = Callable[[str, Sequence[Any], Mapping[str, Any]], Any]


class Router:
    """Answers where calls go, for one set of settings and known queues.

    Rules come from ``settings.routes``, each one of: a pair of a glob over
    task names and a target, a mapping of such, or a function of ``(name,
    args, kwargs)`` that returns a target or None. A target is a queue, its
    name, or a mapping with ``queue``, ``exchange``, ``routing_key`` and
    ``priority``. The first rule that matches decides.

    Args:
        queues: Known queues by name; later changes are not seen.

    Raises:
        ConfigurationError: A rule cannot be read.

    Threads:
        Safe to share.
    """

    def __init__(self, settings: Settings, queues: Mapping[str, Queue]) -> None:
        self._exchange = settings.exchange
        self._default_queue = settings.default_queue
        self._queues = dict(queues)
        self._rules = [rule for entry in settings.routes for rule in _compile(entry)]
        # what a function answers may depend on the arguments
        self._remember = not any(pattern is None for pattern, _ in self._rules)
        self._cache: dict[tuple[str, str | None], Route] = {}
        self._types: dict[str, str] = {settings.exchange: "topic"}
        self._bound: dict[str, list[tuple[Binding, Queue]]] = {}
        for queue in self._queues.values():
            self._index(queue)

    def _index(self, queue: Queue) -> None:
        for entry in queue.bindings or (f"{queue.name}.#",):
            binding = entry if isinstance(entry, Binding) else Binding(self._exchange, entry)
            if isinstance(binding.exchange, Exchange):
                self._types[binding.exchange.name] = binding.exchange.type
            self._bound.setdefault(exchange_name(binding.exchange), []).append((binding, queue))

    def route(
        self,
        task_name: str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        queue: str | Queue | None = None,
        exchange: str | Exchange | None = None,
        routing_key: str | None = None,
    ) -> Route:
        """Return where a call goes.

        Asked in turn: what the call or its task says, the rules, the default
        queue.

        Args:
            task_name: What the rules' globs are matched with.
            args: For rules that are functions.
            kwargs: For rules that are functions.
            queue: The call's or task's option; goes to the queue's exchange with its key.
            exchange: The call's option; without a key, the task's name is it.
            routing_key: The call's option; without an exchange, on the app's.

        Raises:
            ConfigurationError: A name or key cannot be carried, or a rule's
                function returned no target.
        """
        named = exchange is None and routing_key is None
        cached = named and (isinstance(queue, str) or (queue is None and self._remember))
        if not cached:
            call = _Target(queue, exchange, routing_key)
            return self._resolve(task_name, args, kwargs or {}, call)
        # the condition above leaves a name or nothing
        name = queue if isinstance(queue, str) else None
        found = self._cache.get((task_name, name))
        if found is None:
            found = self._resolve(task_name, args, kwargs or {}, _Target(name))
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[(task_name, name)] = found
        return found

    def destinations(self, exchange: str, routing_key: str) -> list[Queue]:
        """Return the known queues that a message published like this reaches.

        Bindings to a headers exchange are left out: a key says nothing there.
        """
        if not exchange:
            return [self._queues[routing_key]] if routing_key in self._queues else []
        found = {
            queue.name: queue
            for binding, queue in self._bound.get(exchange, ())
            if _reaches(self._types.get(exchange, "topic"), binding.routing_key, routing_key)
        }
        return list(found.values())

    def hint(self, name: str) -> str:
        """Return ``", did you mean 'x'?"`` where a known queue has a near name, else ``""``."""
        return near(name, list(self._queues))

    def _resolve(
        self,
        task_name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        call: _Target,
    ) -> Route:
        if call.names_a_place:
            return self._place(task_name, call)
        rule = self._by_rules(task_name, args, kwargs)
        if rule is not None and rule.names_a_place:
            return self._place(task_name, rule)
        route = self._by_name(self._to_queue(self._default_queue))
        return route if rule is None else replace(route, priority=rule.priority)

    def _by_rules(
        self, task_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> _Target | None:
        for pattern, target in self._rules:
            if pattern is None:
                answer = target(task_name, args, kwargs)
                if answer is not None:
                    return _target(answer, f"what {_function_name(target)} returned")
            elif pattern.match(task_name):
                found: _Target = target
                return found
        return None

    def _place(self, task_name: str, target: _Target) -> Route:
        if target.queue is not None:
            route = self._to_queue(target.queue)
            if target.exchange is not None:
                route = replace(route, exchange=exchange_name(target.exchange))
            if target.routing_key is not None:
                route = replace(route, routing_key=target.routing_key)
            if target.exchange is None and target.routing_key is None:
                route = self._by_name(route)
        else:
            exchange = self._exchange if target.exchange is None else exchange_name(target.exchange)
            key = task_name if target.routing_key is None else target.routing_key
            reached = self.destinations(exchange, key)
            route = Route(exchange, key, reached[0] if len(reached) == 1 else None)
        check_name("exchange name", route.exchange)
        check_name("routing key", route.routing_key)
        return replace(route, priority=target.priority)

    def _to_queue(self, queue: str | Queue) -> Route:
        known = queue if isinstance(queue, Queue) else self._queues.get(queue)
        if known is None:
            # someone else's queue, perhaps: the broker knows, and says so
            check_queue_name(str(queue))
            return Route(self._exchange, str(queue))
        exchange = self._exchange if known.exchange is None else known.exchange
        return Route(exchange, known.routing_key or known.name, known)

    def _by_name(self, route: Route) -> Route:
        """Take the default exchange where a queue's own bindings do not let it in by its name."""
        queue = route.queue
        if queue is None or not queue.bindings or not (queue.exchange is queue.routing_key is None):
            return route
        for entry in queue.bindings:
            binding = entry if isinstance(entry, Binding) else Binding(self._exchange, entry)
            if exchange_name(binding.exchange) == route.exchange and topic_match(
                binding.routing_key, route.routing_key
            ):
                return route
        return replace(route, exchange="")


def _reaches(exchange_type: str, pattern: str, key: str) -> bool:
    if exchange_type == "topic":
        return topic_match(pattern, key)
    return exchange_type == "fanout" or (exchange_type == "direct" and pattern == key)


def _function_name(function: Any) -> str:
    return repr(getattr(function, "__qualname__", function))


# -- rules --------------------------------------------------------------------

# a glob over task names with its target, or None with a function
_Rule = tuple[re.Pattern[str] | None, Any]


def _compile(entry: Any) -> Iterator[_Rule]:
    if isinstance(entry, Mapping):
        pairs = list(entry.items())
    elif callable(entry):
        yield None, entry
        return
    elif isinstance(entry, (tuple, list)) and len(entry) == 2:
        pairs = [(entry[0], entry[1])]
    else:
        pairs = [(None, None)]
    for glob, target in pairs:
        if not isinstance(glob, str):
            raise ConfigurationError(
                f"route rule {entry!r} cannot be read",
                hint='write ("email.*", "email"), {"email.*": "email"}, or a function',
            )
        yield re.compile(translate(glob)), _target(target, f"the route of {glob!r}")


def _target(value: Any, what: str) -> _Target:
    if isinstance(value, (str, Queue)):
        return _Target(_checked_queue(value))
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{what} is {value!r}",
            hint='give a queue name, or a mapping like {"queue": "email", "priority": 5}',
        )
    for key in value:
        if key not in _RULE_KEYS:
            raise ConfigurationError(
                f"{what} has an unknown key {key!r}{near(str(key), _RULE_KEYS)}",
                hint=f"accepted: {', '.join(_RULE_KEYS)}",
            )
    queue, exchange = value.get("queue"), value.get("exchange")
    key, priority = value.get("routing_key"), value.get("priority")
    for name, given, accepted in (
        ("queue", queue, (str, Queue)),
        ("exchange", exchange, (str, Exchange)),
        ("routing_key", key, (str,)),
    ):
        if given is not None and not isinstance(given, accepted):
            raise ConfigurationError(f"{name} of {what} is {given!r}", hint="accepted: a name")
    if priority is not None and not (type(priority) is int and 0 <= priority <= 255):
        raise ConfigurationError(
            f"priority of {what} is {priority!r}", hint="accepted: a whole number from 0 to 255"
        )
    return _Target(_checked_queue(queue), exchange, key, priority)


def _checked_queue(queue: Any) -> Any:
    if isinstance(queue, str):
        check_queue_name(queue)
    return queue
