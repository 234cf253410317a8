"""Arguments of queues and consumers: what each type takes, refuses, and means.

Source:
    rabbit_amqqueue:check_declare_arguments, and the capabilities of the
    classic and quorum queue types, of RabbitMQ 4.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amqtask.broker.fields import INTEGERS, TYPE_NAMES, Field, Table, described, equivalent, shown
from amqtask.broker.refusals import Refusal

#: Milliseconds, ten years: the longest TTL.
LONGEST_MS = 315_360_000_000
#: How often a quorum queue's message may come back when no limit was declared (RabbitMQ 4.0).
DELIVERY_LIMIT = 20

_CLASSIC = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
)
_QUORUM = (
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
)
_STREAM_ONLY = {
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
    "x-initial-cluster-size",
}
_BY_TYPE = {"classic": _CLASSIC, "quorum": _QUORUM}
_KNOWN = {*_CLASSIC, *_QUORUM, *_STREAM_ONLY}


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What a queue's arguments mean.

    Attributes:
        type: ``"classic"`` or ``"quorum"``.
        ttl: Milliseconds a message may wait.
        expires: Milliseconds the queue may be unused.
        max_length: Ready messages it holds.
        max_bytes: Octets of ready bodies it holds.
        overflow: ``"drop-head"``, ``"reject-publish"`` or ``"reject-publish-dlx"``.
        dead_exchange: Where its dead messages go.
        dead_key: By which key, their own when None.
        at_least_once: Whether a dead message stays until its new queue has it.
        max_priority: The highest priority of a classic queue that has them.
        delivery_limit: How often a message may come back, None for ever.
        single_active: Whether one consumer gets all.
    """

    type: str
    ttl: int | None = None
    expires: int | None = None
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = "drop-head"
    dead_exchange: str | None = None
    dead_key: str | None = None
    at_least_once: bool = False
    max_priority: int | None = None
    delivery_limit: int | None = None
    single_active: bool = False


def _integer(field: Field, _: Table) -> str | None:
    return None if field.tag in INTEGERS else f'"expected integer, got {TYPE_NAMES[field.tag]}"'


def _count(field: Field, table: Table) -> str | None:
    if (error := _integer(field, table)) is not None:
        return error
    return None if field.value >= 0 else f"{{value_negative,{field.value}}}"


def _ttl(field: Field, table: Table) -> str | None:
    if (error := _integer(field, table)) is not None:
        return error
    if field.value < 0:
        return f"{{value_negative,{field.value}}}"
    return None if field.value <= LONGEST_MS else f"{{value_too_large,{field.value}}}"


def _expires(field: Field, table: Table) -> str | None:
    if field.tag in INTEGERS and field.value == 0:
        return "{value_zero,0}"
    return _ttl(field, table)


def _priority(field: Field, table: Table) -> str | None:
    if (error := _count(field, table)) is not None:
        return error
    return None if field.value <= 255 else f"{{max_value_exceeded,{field.value}}}"


def _boolean(field: Field, _: Table) -> str | None:
    return None if field.tag == "t" else f"{{unacceptable_type,{TYPE_NAMES[field.tag]}}}"


def _string(field: Field, _: Table) -> str | None:
    return None if field.tag == "S" else f"{{unacceptable_type,{TYPE_NAMES[field.tag]}}}"


def _dead_key(field: Field, table: Table) -> str | None:
    if (error := _string(field, table)) is not None:
        return error
    return None if "x-dead-letter-exchange" in table else "routing_key_but_no_dlx_defined"


def _one_of(error: str, *values: str) -> Callable[[Field, Table], str | None]:
    def check(field: Field, table: Table) -> str | None:
        wrong = _string(field, table)
        return wrong if wrong or field.value in values else error.format(field.value)

    return check


def _version(field: Field, table: Table) -> str | None:
    if (error := _count(field, table)) is not None:
        return error
    return None if field.value in {1, 2} else f"\"unsupported queue version '{field.value}'\""


def _group_size(field: Field, table: Table) -> str | None:
    if (error := _count(field, table)) is not None:
        return error
    return None if field.value else "{value_zero,0}"


_QUEUE_TYPE = _one_of("\"unsupported queue type '{}'\"", "classic", "quorum", "stream")
#: In the order in which RabbitMQ looks at them.
_CHECKS: dict[str, Callable[[Field, Table], str | None]] = {
    "x-expires": _expires,
    "x-message-ttl": _ttl,
    "x-dead-letter-exchange": _string,
    "x-dead-letter-routing-key": _dead_key,
    "x-dead-letter-strategy": _one_of("invalid_dlx_strategy", "at-most-once", "at-least-once"),
    "x-max-length": _count,
    "x-max-length-bytes": _count,
    "x-max-in-memory-length": _count,
    "x-max-in-memory-bytes": _count,
    "x-max-priority": _priority,
    "x-overflow": _one_of("invalid_overflow", "drop-head", "reject-publish", "reject-publish-dlx"),
    "x-queue-mode": _one_of("\"unsupported queue mode '{}'\"", "default", "lazy"),
    "x-queue-version": _version,
    "x-single-active-consumer": _boolean,
    "x-quorum-initial-group-size": _group_size,
    "x-queue-leader-locator": _one_of("invalid_queue_locator_arg", "client-local", "balanced"),
}


def check_queue(shown: str, arguments: Table) -> str:
    """Check the arguments of a queue to be; returns its type.

    Args:
        shown: The queue as texts name it.
        arguments: What was declared.

    Raises:
        Refusal: An argument is wrong, or not for this type.
    """
    kind = arguments["x-queue-type"]
    if (error := _QUEUE_TYPE(kind, arguments)) is not None:
        raise Refusal(406, f"invalid arg 'x-queue-type' for {shown}: {error}")
    if kind.value == "stream":
        raise Refusal(540, f"streams are not supported by this broker: {shown}")
    taken = _BY_TYPE[kind.value]
    for name, check in _CHECKS.items():
        if name not in arguments or name not in taken:
            continue
        if (error := check(arguments[name], arguments)) is not None:
            raise Refusal(406, f"invalid arg '{name}' for {shown}: {error}")
    for name in arguments:
        if name in _KNOWN and name not in taken:
            module = f"rabbit_{kind.value}_queue"
            raise Refusal(406, f"invalid arg '{name}' for {shown} of queue type {module}")
    return str(kind.value)


def check_equivalent(shown: str, type_: str, current: Table, received: Table) -> None:
    """Refuse arguments that differ from those of the queue that is there."""
    check_fields(shown, current, received, _BY_TYPE[type_])


def check_fields(shown: str, current: Table, received: Table, names: tuple[str, ...]) -> None:
    """Refuse arguments of these names that differ from the current ones."""
    for name in names:
        old, new = current.get(name), received.get(name)
        if old == new:
            continue
        if old is not None and new is not None:
            if equivalent(old, new):
                continue
            unequal(shown, name, shown_value(old), shown_value(new))
        unequal(shown, name, described(old), described(new))


def shown_value(field: Field) -> str:
    """Show a value alone."""
    return shown(field.value)


def unequal(shown: str, name: str, current: str, received: str) -> None:
    """Refuse a declaration that differs in one thing."""
    raise Refusal(
        406, f"inequivalent arg '{name}' for {shown}: received {received} but current is {current}"
    )


def read_rules(type_: str, arguments: Table) -> QueueRules:
    """Return what checked arguments mean."""
    values = {name: field.value for name, field in arguments.items()}
    quorum = type_ == "quorum"
    limit = values.get("x-delivery-limit") if quorum else -1
    if not isinstance(limit, int):
        # a limit of another type is taken and means nothing
        limit = DELIVERY_LIMIT
    overflow = values.get("x-overflow", "drop-head")
    if quorum and overflow == "reject-publish-dlx":
        # quorum queues do not have it and take the default
        overflow = "drop-head"
    strategy = values.get("x-dead-letter-strategy")
    return QueueRules(
        type=type_,
        ttl=values.get("x-message-ttl"),
        expires=values.get("x-expires"),
        max_length=values.get("x-max-length"),
        max_bytes=values.get("x-max-length-bytes"),
        overflow=overflow,
        dead_exchange=values.get("x-dead-letter-exchange"),
        dead_key=values.get("x-dead-letter-routing-key"),
        # with drop-head RabbitMQ falls back on at-most-once
        at_least_once=strategy == "at-least-once" and overflow == "reject-publish",
        max_priority=values.get("x-max-priority"),
        delivery_limit=None if limit < 0 else limit,
        single_active=bool(values.get("x-single-active-consumer", False)),
    )


def check_consumer(shown: str, arguments: Table) -> int:
    """Check the arguments of a consumer to be; returns its priority."""
    field = arguments.get("x-priority")
    if field is not None and (error := _integer(field, arguments)) is not None:
        raise Refusal(406, f"invalid arg 'x-priority' for {shown}: {error}")
    return int(field.value) if field is not None else 0
