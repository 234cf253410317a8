"""Plans: the steps that make a topology, in an order in which each can be taken.

A plan is data, so that what a worker would declare can be merged, shown and
compared before a broker hears of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amqtask.errors import ConfigurationError, TopologyMismatch
from amqtask.topology.deadletter import (
    dead_letter_arguments,
    dead_queue_arguments,
    dead_queue_name,
)
from amqtask.topology.entities import Binding, Exchange, Queue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqtask.settings import Settings

# -- steps --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeclareExchange:
    """Make an exchange, or with ``passive`` only check that it is there."""

    name: str
    type: str = "topic"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    # tables have no hash; equality still looks at them
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    passive: bool = False


@dataclass(frozen=True, slots=True)
class DeclareQueue:
    """Make a queue, or with ``passive`` only check that it is there."""

    name: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    passive: bool = False


@dataclass(frozen=True, slots=True)
class BindQueue:
    """Bind a queue to an exchange."""

    queue: str
    exchange: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class BindExchange:
    """Bind an exchange to another: ``destination`` gets what ``source`` routes to it."""

    destination: str
    source: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)


Step = DeclareExchange | DeclareQueue | BindQueue | BindExchange


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps to take one after the other; each uses only what came before it or is given."""

    steps: tuple[Step, ...] = ()

    def merge(self, *plans: Plan) -> Plan:
        """Return one plan that does what this one and the others do.

        A step stands where it first came up, so each plan's order is kept;
        equal steps are taken once. Where one plan makes what another only
        checks, it is made.

        Raises:
            ConfigurationError: Two plans make the same exchange or queue differently.
        """
        place: dict[Step | str, int] = {}
        steps: list[Step] = []
        for step in (step for plan in (self, *plans) for step in plan.steps):
            # binds are told apart by all they say, declares by what they make
            declares = isinstance(step, (DeclareExchange, DeclareQueue))
            key = _entity(step) if declares else step
            if key not in place:
                place[key] = len(steps)
                steps.append(step)
            elif declares:
                steps[place[key]] = _one_of(steps[place[key]], step)
        return Plan(tuple(steps))


def _kind(step: Step) -> str:
    return "queue" if isinstance(step, (DeclareQueue, BindQueue)) else "exchange"


def _name(step: Step) -> str:
    if isinstance(step, BindQueue):
        return step.queue
    return step.destination if isinstance(step, BindExchange) else step.name


def _entity(step: Step) -> str:
    return f"{_kind(step)} {_name(step)!r}"


def _one_of(first: Step, second: Step) -> Step:
    binds = (BindQueue, BindExchange)
    if isinstance(first, binds) or isinstance(second, binds):
        return first
    if second.passive:
        return first
    if first.passive:
        return second
    wanted, other = _described(first), _described(second)
    for name in sorted(wanted.keys() | other.keys()):
        one, two = wanted.get(name), other.get(name)
        # True == 1 here, but not to a broker
        if one != two or type(one) is not type(two):
            raise ConfigurationError(
                f"{_entity(first)} is wanted twice with different {name}:"
                f" {_spelled(one)} and {_spelled(two)}",
                hint="give it the same value in both places, or two names",
            )
    return first


def _described(step: DeclareExchange | DeclareQueue) -> dict[str, Any]:
    names = [name for name in step.__slots__ if name not in ("name", "arguments", "passive")]
    return {name: getattr(step, name) for name in names} | dict(step.arguments)


def _spelled(value: object) -> str:
    return "none" if value is None else repr(value)


# -- what a queue needs -------------------------------------------------------


def queue_plan(queue: Queue, settings: Settings) -> Plan:
    """Return the steps that make a queue and all it needs.

    First the app's exchange, then the dead-letter exchange and queue, so that
    a place for dead letters exists before there can be any; then the queue,
    then its bindings. ``declare="passive"`` checks the same entities and binds
    nothing, ``"never"`` gives an empty plan.

    Raises:
        ConfigurationError: The queue asks for what its type does not have, or
            names the same exchange in two ways.
    """
    mode = queue.declare or settings.declare
    if mode == "never":
        return Plan()
    passive = mode == "passive"
    kind = queue_type(queue, settings)
    steps = [_exchange_step(Exchange(settings.exchange, declare=mode), mode)]
    if queue.dead_letter:
        dead = dead_queue_name(queue.name)
        exchange = Exchange(settings.dead_letter_exchange, "direct", declare=mode)
        steps.append(_exchange_step(exchange, mode))
        arguments = dead_queue_arguments(settings.queue_type)
        steps.append(DeclareQueue(dead, arguments=arguments, passive=passive))
        if not passive:
            steps.append(BindQueue(dead, settings.dead_letter_exchange, queue.name))
    bindings = _bindings(queue, settings.exchange)
    named = (binding.exchange for binding in bindings)
    exchanges = (exchange for exchange in named if isinstance(exchange, Exchange))
    steps += [_exchange_step(e, mode) for e in exchanges if e.declare != "never"]
    arguments = _queue_arguments(queue, kind, settings)
    steps.append(DeclareQueue(queue.name, arguments=arguments, passive=passive))
    if not passive:
        for binding in bindings:
            name = exchange_name(binding.exchange)
            steps.append(BindQueue(queue.name, name, binding.routing_key, binding.arguments))
    return Plan().merge(Plan(tuple(steps)))


def exchange_plan(exchange: Exchange, settings: Settings) -> Plan:
    """Return the step that makes, or checks, an exchange; empty for the broker's own."""
    mode = exchange.declare or settings.declare
    if mode == "never" or not exchange.name or exchange.name.startswith("amq."):
        return Plan()
    return Plan((_exchange_step(exchange, mode),))


def exchange_name(exchange: str | Exchange) -> str:
    """Return the name of an exchange that is given as itself or by name."""
    return exchange.name if isinstance(exchange, Exchange) else exchange


def _bindings(queue: Queue, app_exchange: str) -> tuple[Binding, ...]:
    if not queue.bindings and queue.exchange:
        # its calls are published there, so that is where it wants them from
        return (Binding(queue.exchange, queue.routing_key or queue.name),)
    wanted = queue.bindings or (f"{queue.name}.#",)
    return tuple(b if isinstance(b, Binding) else Binding(app_exchange, b) for b in wanted)


def _exchange_step(exchange: Exchange, mode: str) -> Step:
    return DeclareExchange(
        exchange.name,
        exchange.type,
        exchange.durable,
        exchange.auto_delete,
        exchange.internal,
        exchange.arguments,
        passive=(exchange.declare or mode) == "passive",
    )


def queue_type(queue: Queue, settings: Settings) -> str:
    """Return ``quorum`` or ``classic``.

    Raises:
        ConfigurationError: The queue asks for what its type does not have.
    """
    # classic and quorum queues each refuse the other's arguments with 406
    kind = queue.type or settings.queue_type
    wrong = "max_priority" if kind == "quorum" else "delivery_limit"
    if getattr(queue, wrong) is not None:
        other = "classic" if kind == "quorum" else "quorum"
        raise ConfigurationError(
            f"queue {queue.name!r} is {kind} and has {wrong} {getattr(queue, wrong)!r},"
            f" which only {other} queues know",
            hint=f'give it type="{other}", or leave {wrong} out',
        )
    return kind


def _queue_arguments(queue: Queue, kind: str, settings: Settings) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if kind == "quorum":
        limit = queue.delivery_limit
        arguments["x-delivery-limit"] = settings.delivery_limit if limit is None else limit
        # at-least-once dead-lettering needs it, and a length limit that a
        # policy brings must refuse messages, not discard them
        arguments["x-overflow"] = "reject-publish"
    if queue.dead_letter:
        exchange = settings.dead_letter_exchange
        arguments |= dead_letter_arguments(queue.name, exchange, kind)
    if queue.message_ttl is not None:
        arguments["x-message-ttl"] = math.ceil(round(queue.message_ttl * 1000, 6))
    if queue.consumer_timeout is not None:
        arguments["x-consumer-timeout"] = math.ceil(round(queue.consumer_timeout * 1000, 6))
    if queue.max_length is not None:
        arguments |= {"x-max-length": queue.max_length, "x-overflow": "reject-publish"}
    if queue.max_priority is not None:
        arguments["x-max-priority"] = queue.max_priority
    arguments |= queue.arguments
    # a classic queue that asks for nothing is declared as Celery and its
    # clients do, without arguments: equivalent to x-queue-type=classic on
    # 3.10 and 4.0, but other brokers compare the table
    if kind == "classic" and not arguments:
        return {}
    return {"x-queue-type": kind} | arguments


# -- showing ------------------------------------------------------------------

_LEVEL = re.compile(r"(?P<prefix>.+)\.(?P<level>level\d\d)(?:\.\d)?")
#: What delay levels have besides: where messages go when their time has come, or nobody took them.
_ENDS = ("ready", "lost")
_DIGITS = re.compile(r"(?:\*\.){8,}(?P<queue>.+)")


def render(plan: Plan) -> str:
    """Return the plan as text for people: the same text for the same topology.

    Delay levels, made of over a hundred steps, take one line.
    """
    prefixes = _delay_prefixes(plan)
    exchanges: list[list[str]] = []
    queues: list[list[str]] = []
    bindings: list[list[str]] = []
    delays: list[list[str]] = []
    for prefix, waits in sorted(prefixes.items()):
        days = sum(max(level) for level in waits.values()) / 86_400_000
        shortest = min(min(level) for level in waits.values())
        count = sum(len(level) for level in waits.values())
        delays.append([prefix, f"{count} queues from {shortest} ms, up to {days:.1f} days"])
    for step in plan.steps:
        if _belongs(step, prefixes):
            continue
        if isinstance(step, DeclareExchange):
            exchanges.append([step.name, step.type, _flags(step)])
        elif isinstance(step, DeclareQueue):
            kind = str(step.arguments.get("x-queue-type", "classic"))
            queues.append([step.name, "" if step.passive else kind, _flags(step)])
        else:
            bindings.append(_binding_row(step))
    groups = {"exchanges": exchanges, "queues": queues, "bindings": bindings, "delays": delays}
    blocks = [f"{title}\n{_aligned(rows)}" for title, rows in groups.items() if rows]
    return "\n\n".join(blocks) or "nothing to declare"


def _delay_prefixes(plan: Plan) -> dict[str, dict[str, list[int]]]:
    # prefix -> level -> milliseconds of each of its queues
    found: dict[str, dict[str, list[int]]] = {}
    for step in plan.steps:
        match = _LEVEL.fullmatch(step.name) if isinstance(step, DeclareQueue) else None
        if match and isinstance(step, DeclareQueue) and "x-message-ttl" in step.arguments:
            waits = found.setdefault(match["prefix"], {}).setdefault(match["level"], [])
            waits.append(int(step.arguments["x-message-ttl"]))
    return found


def _belongs(step: Step, prefixes: Mapping[str, object]) -> bool:
    name = _name(step)
    match = _LEVEL.fullmatch(name)
    prefix, _, last = name.rpartition(".")
    return match["prefix"] in prefixes if match else prefix in prefixes and last in _ENDS


def _binding_row(step: BindQueue | BindExchange) -> list[str]:
    digits = _DIGITS.fullmatch(step.routing_key)
    key = f"(any delay).{digits['queue']}" if digits else step.routing_key
    if isinstance(step, BindQueue):
        source, target = step.exchange, step.queue
    else:
        source, target = step.source, f"exchange {step.destination}"
    return [source, key, f"-> {target}", _pairs(step.arguments)]


def _flags(step: DeclareExchange | DeclareQueue) -> str:
    if step.passive:
        return "checked only"
    words = ["durable" if step.durable else "transient"]
    words += [
        word for word in ("exclusive", "auto_delete", "internal") if getattr(step, word, False)
    ]
    shown = {key: value for key, value in step.arguments.items() if key != "x-queue-type"}
    return " ".join(words) + (f"  {_pairs(shown)}" if shown else "")


def _pairs(arguments: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(arguments.items()))


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in sorted(rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


# -- what the broker says to it -----------------------------------------------

# Source: reply texts of RabbitMQ 3.10.8 and 4.0.5, pinned in the tests
_INEQUIVALENT = re.compile(
    r".*inequivalent arg '(?P<argument>.+?)' for (?P<kind>queue|exchange) '(?P<name>.*)'"
    r" in vhost '(?P<vhost>.*)': received (?P<wanted>.*) but current is (?P<found>.*)",
    re.DOTALL,
)
_INVALID = re.compile(
    r".*invalid arg '(?P<argument>.+?)' for (?P<kind>queue|exchange) '(?P<name>.*)'"
    r" in vhost '(?P<vhost>.*?)'(?:: (?P<why>.*)| of queue type (?P<type>.*))",
    re.DOTALL,
)
_VALUE = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '\w+')?", re.DOTALL)
_FIELDS = {
    "x-queue-type": "type",
    "x-delivery-limit": "delivery_limit",
    "x-max-priority": "max_priority",
    "x-message-ttl": "message_ttl",
    "x-max-length": "max_length",
    "x-consumer-timeout": "consumer_timeout",
    "x-dead-letter-exchange": "dead_letter",
    "x-dead-letter-routing-key": "dead_letter",
    "x-dead-letter-strategy": "dead_letter",
}


def mismatch(reply_text: str, plan_step: Step) -> TopologyMismatch:
    """Return the error for a declare that the broker closed the channel over (406).

    Args:
        reply_text: The broker's text, as it came in ``channel.close``.
        plan_step: The step that was refused; it names the entity where the text does not.
    """
    kind = _kind(plan_step)
    entity = _entity(plan_step)
    if match := _INEQUIVALENT.fullmatch(reply_text):
        argument, wanted, found = match["argument"], _value(match["wanted"]), _value(match["found"])
        same = ", of another type" if wanted == found else ""
        return TopologyMismatch(
            f"{entity} in vhost {match['vhost']!r} has another {argument} than wanted here:"
            f" wanted {wanted}, found {found}{same}",
            entity=entity,
            argument=argument,
            wanted=wanted,
            found=found,
            hint=_ways_out(kind, argument),
        )
    if match := _INVALID.fullmatch(reply_text):
        why = match["why"] or f"a {match['type']} does not know it"
        given = plan_step.arguments.get(match["argument"])
        return TopologyMismatch(
            f"{entity} in vhost {match['vhost']!r} cannot have {match['argument']}: {why}",
            entity=entity,
            argument=match["argument"],
            wanted=None if given is None else str(given),
            hint=f"change {_named(kind, match['argument'])} of the {kind}, or leave it out",
        )
    return TopologyMismatch(
        f"the broker refused {entity}: {reply_text}", entity=entity, hint=_ways_out(kind, None)
    )


def _value(text: str) -> str:
    match = _VALUE.fullmatch(text)
    return match["value"] if match else text


def _named(kind: str, argument: str | None) -> str:
    if argument is None:
        return "arguments"
    if not argument.startswith("x-") and argument != "alternate-exchange":
        return argument
    return _FIELDS.get(argument, "arguments") if kind == "queue" else "arguments"


def _ways_out(kind: str, argument: str | None) -> str:
    return (
        f"give the {kind} the same {_named(kind, argument)} here, or use it as it is with"
        f' declare="passive", or take another name, or delete the {kind} on the broker'
        " once it is empty, so that it is made anew"
    )
