"""Delays held by the broker: a queue for each value of each digit of the waiting time.

A delay is counted in ticks of 50 ms and written as digits in front of the
routing key: three in base 8, up to 25.6 s, and bits above. A message enters
at its highest digit that is not 0; each level keeps it for as long as its
digit is worth, or hands it on at once, down to the last:

    level 25 --1--> queue 25.1 (50 ms * 2**31) --expires--+
        |                                                 v
        +-----0-------------------------------------> level 24 ... level 0
                                                                     |
         email <--(26 words).email-- ready <---expires, or 0---------+

Nobody holds a delayed message, so any delay survives any process, and the
same 44 queues serve all of them.

Base 8, because a level makes late: a queue hands on some 2,000 messages a
second once they expire (its dead letters are confirmed, 32 at a time), and
each level begins to count when the one before is done. With bits all the way
half of what was sent in one instant expires in one instant of the highest
level; with digits an eighth does, and it passes three levels instead of nine.
"""

from __future__ import annotations

import math
from itertools import accumulate

from amqtask.errors import CallError, DelayTooLong
from amqtask.settings import Settings
from amqtask.topology.deadletter import dead_queue_arguments
from amqtask.topology.entities import Queue, check_name, check_queue_name
from amqtask.topology.plan import BindExchange, BindQueue, DeclareExchange, DeclareQueue, Plan, Step

#: Milliseconds that the lowest digit counts.
TICK_MS = 50
#: Bits of each level's digit, the lowest level first.
_BITS = (3, 3, 3, *(1,) * 23)
#: Bits below each level's digit.
_BELOW = tuple(accumulate(_BITS, initial=0))
LEVELS = len(_BITS)
#: Most ticks that the digits can count.
MAX_TICKS = 2 ** sum(_BITS) - 1
#: Seconds of the longest delay, about 6.8 years.
MAX_DELAY = MAX_TICKS * TICK_MS / 1000


def level_name(level: int, prefix: str) -> str:
    """Return the name of a level's exchange."""
    return f"{prefix}.level{level:02d}"


def level_queue(level: int, digit: int, prefix: str) -> str:
    """Return the name of the queue that keeps what has ``digit`` at a level."""
    return f"{level_name(level, prefix)}.{digit}"


def ready_name(prefix: str) -> str:
    """Return the name of the exchange that gets messages whose time has come."""
    return f"{prefix}.ready"


def lost_name(prefix: str) -> str:
    """Return the name of the exchange and queue for messages whose queue is gone."""
    return f"{prefix}.lost"


def delay_route(seconds: float, queue: str, prefix: str) -> tuple[str, str] | None:
    """Return exchange and routing key for a message that shall wait.

    The wait is rounded up to whole ticks, so a message is never early.

    Args:
        seconds: How long to wait.
        queue: Name of the queue it goes to then.
        prefix: The app's ``delay_prefix``.

    Returns:
        None when there is nothing to wait for: publish it directly.

    Raises:
        DelayTooLong: It is more than `MAX_DELAY`.
        CallError: It is not a number.
        ConfigurationError: A queue cannot have that name.
    """
    check_queue_name(queue)
    if math.isnan(seconds):
        raise CallError(f"a delay of {seconds!r} seconds for queue {queue!r} is no number")
    if seconds <= 0:
        return None
    # compared first: infinity has no ceiling
    if seconds > MAX_DELAY:
        raise DelayTooLong(
            f"a delay of {seconds!r} seconds for queue {queue!r} is too long, at most {MAX_DELAY!r}"
            f" seconds ({MAX_DELAY / 86400:.0f} days) fit",
            hint="use an earlier time, or a schedule that sends the call when it is due",
        )
    # rounded to far less than a tick, or 0.55 s would take 12 ticks, not 11; yet to more than the
    # quarter of a microsecond that the difference of two times of day is exact to
    ticks = max(1, math.ceil(round(seconds * 1000 / TICK_MS, 5)))
    digits = [_digit(ticks, level) for level in reversed(range(LEVELS))]
    highest = next(level for level in reversed(range(LEVELS)) if ticks >> _BELOW[level])
    return level_name(highest, prefix), f"{'.'.join(map(str, digits))}.{queue}"


def _digit(ticks: int, level: int) -> int:
    return ticks >> _BELOW[level] & (1 << _BITS[level]) - 1


def delay_prefix(queue: Queue, settings: Settings) -> str:
    """Return the prefix of the levels a queue's delayed messages wait in.

    All queues share one, except those that refuse messages when they are full:
    a refused message stays pending in its last level, and 32 of those stop the
    level (tried on RabbitMQ 3.10 and 4.0), so such a queue has levels of its own.
    """
    bounded = queue.max_length is not None or any(
        name.startswith("x-max-length") for name in queue.arguments
    )
    return f"{settings.delay_prefix}.{queue.name}" if bounded else settings.delay_prefix


def delay_plan(prefix: str) -> Plan:
    """Return the steps that make all levels, once for each broker and prefix.

    A message that no queue takes would stay pending in its last level, and 32
    of those stop the level for everybody (tried on RabbitMQ 3.10 and 4.0). So
    the ready exchange has an alternate: they end in the ``lost`` queue.

    A delivery limit does not matter on the level queues, on 4.x neither: it
    counts what consumers return, and these have none; expiring is no return.

    The entry of the highest level is made last: where it is, all of it is.

    Raises:
        ConfigurationError: The prefix makes names that are too long.
    """
    ready, lost = ready_name(prefix), lost_name(prefix)
    check_name("queue name", level_queue(LEVELS - 1, 1, prefix))
    steps: list[Step] = [
        DeclareExchange(lost, "fanout"),
        DeclareQueue(lost, arguments=dead_queue_arguments("quorum")),
        BindQueue(lost, lost),
        DeclareExchange(ready, arguments={"alternate-exchange": lost}),
    ]
    below = ready
    for level in range(LEVELS):
        name = level_name(level, prefix)
        any_above = "*." * (LEVELS - 1 - level)
        steps.append(DeclareExchange(name))
        for digit in range(1, 1 << _BITS[level]):
            queue = level_queue(level, digit, prefix)
            steps += [
                DeclareQueue(queue, arguments=_keeping(digit << _BELOW[level], below)),
                BindQueue(queue, name, f"{any_above}{digit}.#"),
            ]
        steps.append(BindExchange(below, name, f"{any_above}0.#"))
        below = name
    return Plan(tuple(steps))


def _keeping(ticks: int, then: str) -> dict[str, object]:
    """Return the arguments of a queue that keeps messages for so long, then hands them on."""
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": TICK_MS * ticks,
        # without a dead-letter routing key the message keeps its own
        "x-dead-letter-exchange": then,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def delay_binding(queue_name: str, prefix: str) -> Plan:
    """Return the step that lets a queue get delayed messages; it must exist.

    The pattern has one word for each digit and then the queue's whole name, so
    that ``celery`` gets nothing meant for ``eu.celery``.
    """
    check_queue_name(queue_name)
    return Plan((BindQueue(queue_name, ready_name(prefix), "*." * LEVELS + queue_name),))
