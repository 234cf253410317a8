"""Where cancelled calls stand on the broker: an exchange, and the register bound to it.

    cancel() --> exchange amqtask.cancel (fanout) --+--> amqtask.cancel.register
                                                    `--> a queue of each worker process

The register keeps records for workers that start later. Each of them becomes
its single active consumer in turn, reads all and gives all back; the broker
bounds it in size, and every record in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqtask.topology.deadletter import NO_DELIVERY_LIMIT
from amqtask.topology.plan import BindQueue, DeclareExchange, DeclareQueue, Plan

if TYPE_CHECKING:
    from amqtask.settings import Settings


#: Room for the marks that readers put behind the records of a full register.
MARKS = 256


def register_name(settings: Settings) -> str:
    """Return the name of the queue that keeps what is cancelled."""
    return f"{settings.cancel_exchange}.register"


def register_arguments(settings: Settings) -> dict[str, Any]:
    """Return the register's arguments: the oldest record goes when it is full."""
    arguments: dict[str, Any] = {
        "x-queue-type": settings.queue_type,
        "x-single-active-consumer": True,
        "x-max-length": settings.cancel_limit + MARKS,
        "x-overflow": "drop-head",
    }
    if settings.queue_type == "quorum":
        # every reader returns what it reads, and a record must outlive all of them
        arguments["x-delivery-limit"] = NO_DELIVERY_LIMIT
    return arguments


def cancel_plan(settings: Settings) -> Plan:
    """Return the steps that make, or check, what cancelling needs."""
    if settings.declare == "never":
        return Plan()
    passive = settings.declare == "passive"
    exchange, register = settings.cancel_exchange, register_name(settings)
    steps = (
        DeclareExchange(exchange, "fanout", passive=passive),
        DeclareQueue(register, arguments=register_arguments(settings), passive=passive),
    )
    return Plan(steps if passive else (*steps, BindQueue(register, exchange)))
