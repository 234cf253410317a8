"""Exchanges, queues and bindings as an application names them.

These say what is wanted; `amqtask.topology.plan` turns them into the steps
that make it so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from amqtask.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ``auto`` makes what is missing, ``passive`` only checks that it is there,
#: ``never`` touches nothing.
Declare = Literal["auto", "passive", "never"]
QueueType = Literal["quorum", "classic"]
ExchangeType = Literal["direct", "topic", "fanout", "headers"]

#: AMQP 0-9-1 short strings: names and routing keys.
MAX_NAME = 255
#: Queue names leave room for 64 bytes of level bits in a routing key.
MAX_QUEUE_NAME = 191
#: RabbitMQ refuses a longer ``x-message-ttl`` (ten years; tried on 3.10 and 4.0).
MAX_TTL = 315_360_000


def check_name(what: str, name: Any, limit: int = MAX_NAME) -> None:
    """Raise ConfigurationError unless ``name`` fits where AMQP carries it."""
    if not isinstance(name, str):
        raise ConfigurationError(f"{what} {name!r} is not text")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise ConfigurationError(f"{what} {name!r} has {size} bytes, at most {limit} fit")


def _check_choice(what: str, value: object, choices: object) -> None:
    words = get_args(choices)
    if value is not None and value not in words:
        raise ConfigurationError(f"{what} is {value!r}", hint=f"accepted: {', '.join(words)}")


def _check_whole(what: str, value: Any, least: int, most: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(
            f"{what} is {value!r}", hint=f"accepted: a whole number from {least} to {most}"
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange to publish to.

    Attributes:
        name: At most 255 bytes of UTF-8; ``""`` is the default exchange.
        declare: None follows the app's ``declare`` setting.
    """

    name: str
    type: ExchangeType = "topic"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    declare: Declare | None = None

    def __post_init__(self) -> None:
        check_name("exchange name", self.name)
        what = f"exchange {self.name!r}"
        _check_choice(f"type of {what}", self.type, ExchangeType)
        _check_choice(f"declare of {what}", self.declare, Declare)
        # the broker's own exchanges are there to be used, never to be made
        if self.name.startswith("amq.") and self.declare not in ("passive", "never"):
            raise ConfigurationError(
                f"exchange name {self.name!r} starts with 'amq.', which the broker keeps"
                " for itself",
                hint='use another name, or declare="never" for an exchange the broker brings',
            )


@dataclass(frozen=True, slots=True)
class Binding:
    """What a queue wants from an exchange.

    Attributes:
        exchange: Its name, or an `Exchange` to declare along with it.
        routing_key: Pattern for a topic exchange, key for a direct one.
        arguments: For a headers exchange.
    """

    exchange: str | Exchange
    routing_key: str = "#"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.exchange.name if isinstance(self.exchange, Exchange) else self.exchange
        check_name("exchange name", name)
        if not name:
            raise ConfigurationError(
                "a queue cannot be bound to the default exchange '', which has every queue"
                " under its own name",
                hint='leave the binding out and set exchange="" on the queue',
            )
        check_name("routing key", self.routing_key)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue that workers consume.

    Attributes:
        name: At most 191 bytes of UTF-8 without ``*`` and ``#``: a delayed
            call carries it in a routing key behind 64 bytes of level bits.
        bindings: Binding objects, or bare patterns on the app's exchange.
            Empty: bound to the app's exchange with ``name.#``, or to
            ``exchange`` with ``routing_key`` when an exchange is given.
        exchange: Where calls for this queue are published; None is the app's
            exchange, ``""`` the default exchange (Celery's way).
        routing_key: Key of such calls; None is the queue's name.
        type: None follows the app's ``queue_type`` setting.
        delivery_limit: Returns and crashes after which the broker parks a
            message (quorum only); None follows the setting.
        max_priority: 1 to 255, classic only.
        message_ttl: Seconds after which a waiting message is parked.
        max_length: Messages after which publishing is refused.
        consumer_timeout: Seconds that a worker may hold a message before the broker takes it
            back (RabbitMQ 3.12 and later; there not below a minute). None leaves it to the
            broker, which grants half an hour unless configured otherwise.
        dead_letter: False leaves out the dead-letter queue and its arguments.
        arguments: More ``x-`` arguments, passed as they are.
        declare: None follows the app's ``declare`` setting.
    """

    name: str
    bindings: tuple[Binding | str, ...] = ()
    exchange: str | None = None
    routing_key: str | None = None
    type: QueueType | None = None
    delivery_limit: int | None = None
    max_priority: int | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    consumer_timeout: float | None = None
    dead_letter: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    declare: Declare | None = None

    def __post_init__(self) -> None:
        check_queue_name(self.name)
        what = f"queue {self.name!r}"
        _check_choice(f"type of {what}", self.type, QueueType)
        _check_choice(f"declare of {what}", self.declare, Declare)
        _check_whole(f"delivery_limit of {what}", self.delivery_limit, 0, 2**31 - 1)
        _check_whole(f"max_priority of {what}", self.max_priority, 1, 255)
        _check_whole(f"max_length of {what}", self.max_length, 1, 2**31 - 1)
        ttl: Any = self.message_ttl
        if ttl is not None and not (isinstance(ttl, (int, float)) and 0 <= ttl <= MAX_TTL):
            raise ConfigurationError(
                f"message_ttl of {what} is {ttl!r}", hint=f"accepted: seconds from 0 to {MAX_TTL}"
            )
        held: Any = self.consumer_timeout
        if held is not None and not (isinstance(held, (int, float)) and 0 < held <= MAX_TTL):
            raise ConfigurationError(
                f"consumer_timeout of {what} is {held!r}",
                hint=f"accepted: seconds above 0, up to {MAX_TTL}",
            )
        if "x-queue-type" in self.arguments:
            raise ConfigurationError(
                f"arguments of {what} hold 'x-queue-type'",
                hint='say type="classic" or type="quorum"',
            )
        self._check_way_in(what)

    def _check_way_in(self, what: str) -> None:
        bindings: Any = self.bindings
        if not isinstance(bindings, tuple):
            raise ConfigurationError(
                f"bindings of {what} are {bindings!r}",
                hint='give a tuple, like bindings=("email.*",)',
            )
        for binding in bindings:
            if not isinstance(binding, Binding):
                check_name(f"binding of {what}", binding)
        if self.exchange is not None:
            check_name("exchange name", self.exchange)
        if self.routing_key is not None:
            check_name("routing key", self.routing_key)
        if self.exchange == "" and self.routing_key not in (None, self.name):
            raise ConfigurationError(
                f"{what} has routing key {self.routing_key!r} on the default exchange '',"
                " which knows a queue by its name only",
                hint="leave routing_key out, or name another exchange",
            )


def check_queue_name(name: str) -> None:
    """Raise ConfigurationError unless a queue can have this name."""
    check_name("queue name", name, MAX_QUEUE_NAME)
    if not name:
        raise ConfigurationError("a queue name is empty", hint="give the queue a name")
    if name.startswith("amq."):
        raise ConfigurationError(
            f"queue name {name!r} starts with 'amq.', which the broker keeps for itself",
            hint="use another name",
        )
    if "*" in name or "#" in name:
        raise ConfigurationError(
            f"queue name {name!r} holds '*' or '#', which are wildcards in bindings",
            hint="use another name",
        )
