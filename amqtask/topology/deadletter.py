"""Names and arguments of dead-letter queues.

The broker parks what exceeds its delivery limit or expires, the worker parks
failures; both end in ``Q.dead``, where nothing may discard a message again.
"""

from __future__ import annotations

from typing import Any

SUFFIX = ".dead"

#: Put in place of "no limit". RabbitMQ 4.0 limits a quorum queue to 20
#: deliveries unless told otherwise; it reads -1 as "no limit", but 3.10 drops
#: a message with -1 on its first return, and LavinMQ refuses it. Tried on 3.10
#: and 4.0: both keep a message under this one. The largest that every client
#: writes as a 32-bit integer.
NO_DELIVERY_LIMIT = 2**31 - 1


def dead_queue_name(queue_name: str) -> str:
    """Return the name of the queue that holds what failed in ``queue_name``."""
    return queue_name + SUFFIX


def dead_queue_arguments(queue_type: str) -> dict[str, Any]:
    """Return the arguments of a dead-letter queue: it keeps everything until told otherwise.

    Args:
        queue_type: ``quorum`` or ``classic``.
    """
    if queue_type == "classic":
        return {"x-queue-type": "classic"}
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": NO_DELIVERY_LIMIT,
        "x-overflow": "reject-publish",
    }


def dead_letter_arguments(queue_name: str, exchange: str, queue_type: str) -> dict[str, Any]:
    """Return the arguments that make a queue send its dead letters to its own dead-letter queue.

    Args:
        queue_name: The queue; also the routing key on the direct dead-letter exchange.
        exchange: Name of the dead-letter exchange.
        queue_type: ``quorum`` or ``classic``.

    Delivery:
        A quorum queue keeps a dead letter until the other queue has confirmed
        it (repeats are possible); a classic one only tries once.
    """
    arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": queue_name}
    if queue_type == "quorum":
        # classic queues refuse the argument with 406 (tried on 3.10 and 4.0)
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments
