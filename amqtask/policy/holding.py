"""How long a worker holds a delivery, and how long the broker lets it.

RabbitMQ takes back what a consumer has held for longer than the consumer
timeout, and the consumer with it: half an hour unless configured otherwise.

Source: RabbitMQ's consumer documentation and rabbit_channel, rabbit_fifo of
3.12 to 4.3: an argument of the queue from 3.12 on, one of ``basic.consume``
from 4.3 on, there for quorum queues only.
"""

from __future__ import annotations

from collections.abc import Iterable

#: RabbitMQ's own consumer timeout in seconds.
USUAL = 1800.0
#: Seconds granted for settling, beyond what tasks may take.
_MARGIN = 300.0
_IN_QUEUE = (3, 12)
_IN_CONSUME = (4, 3)


def longest(limits: Iterable[float | None]) -> float | None:
    """Return the largest of some hard time limits; None when none is set."""
    return max((limit for limit in limits if limit is not None), default=None)


def holding_time(limit: float) -> float:
    """Return the seconds that a delivery may be held when tasks run up to ``limit``.

    It may wait here behind another one that runs to its limit, and then run as long itself.
    """
    return 2 * limit + _MARGIN


def consume_timeout(
    version: tuple[int, int] | None,
    *,
    quorum: bool,
    limit: float | None,
    said: float | None,
) -> float | None:
    """Return the consumer timeout to ask for with ``basic.consume``; None asks for none.

    Args:
        version: RabbitMQ's; None for another broker.
        quorum: Whether the queue is one.
        limit: The longest hard time limit of the tasks.
        said: The queue's own consumer timeout, which is then the user's will.
    """
    if version is None or version < _IN_CONSUME or not quorum or limit is None or said is not None:
        return None
    wanted = holding_time(limit)
    return wanted if wanted > USUAL else None


def too_short(
    version: tuple[int, int] | None,
    *,
    quorum: bool,
    limit: float | None,
    said: float | None,
) -> float | None:
    """Return the consumer timeout that a task may run over within its limit; None when none.

    Args: as `consume_timeout`.
    """
    if version is None or limit is None:
        return None
    if version >= _IN_CONSUME and not quorum:
        return None  # classic queues have none any more
    if consume_timeout(version, quorum=quorum, limit=limit, said=said) is not None:
        return None
    allowed = said if said is not None and version >= _IN_QUEUE else USUAL
    return allowed if limit > allowed else None
