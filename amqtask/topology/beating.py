"""Where beats stand on the broker: the queue that holds their state, and the control exchange.

amqtask.beat.APP     one message, the state, held by the beat that leads
amqtask.control      requests; the beat that leads listens to the key beat.APP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqtask.topology.deadletter import NO_DELIVERY_LIMIT
from amqtask.topology.entities import check_queue_name
from amqtask.topology.plan import DeclareExchange, DeclareQueue, Plan

if TYPE_CHECKING:
    from amqtask.settings import Settings

_PREFIX = "amqtask.beat."


def beat_queue_name(settings: Settings, app: str) -> str:
    """Return the name of the queue that holds the state of an app's beats.

    Args:
        app: The app's name.

    Raises:
        ConfigurationError: The app's name makes none.
    """
    name = settings.beat_queue or _PREFIX + app
    check_queue_name(name)
    return name


def beat_key(settings: Settings, app: str) -> str:
    """Return the routing key of requests to the beat that leads.

    Of the queue's name, so that whoever shares the state is asked together.
    """
    return f"beat.{beat_queue_name(settings, app)}"


def beat_queue_arguments(queue_type: str) -> dict[str, Any]:
    """Return the arguments of the queue that holds a state.

    Args:
        queue_type: ``quorum`` or ``classic``.
    """
    arguments: dict[str, Any] = {"x-queue-type": queue_type, "x-single-active-consumer": True}
    if queue_type == "quorum":
        # each change of leader returns the state once, and it must outlive all of them
        arguments["x-delivery-limit"] = NO_DELIVERY_LIMIT
    return arguments


def beat_plan(settings: Settings, app: str) -> Plan:
    """Return the steps that make, or check, what an app's beats need."""
    if settings.declare == "never":
        return Plan()
    passive = settings.declare == "passive"
    arguments = beat_queue_arguments(settings.queue_type)
    return Plan(
        (
            DeclareExchange(settings.control_exchange, passive=passive),
            DeclareQueue(beat_queue_name(settings, app), arguments=arguments, passive=passive),
        )
    )
