"""Carry out a plan on a session, and say clearly what the broker minds."""

from __future__ import annotations

from amqtask.errors import ChannelClosed
from amqtask.topology.plan import (
    BindExchange,
    BindQueue,
    DeclareExchange,
    DeclareQueue,
    Plan,
    Step,
    mismatch,
)
from amqtask.transport.session import Channel, Session


async def declare(session: Session, plan: Plan) -> None:
    """Carry out every step of ``plan``, in order.

    Declaring is idempotent: what is there with the same arguments stays.

    Raises:
        TopologyMismatch: Something is there with other arguments.
        ChannelClosed: A passive or needed entity is missing (404).
        TransportError: The session ended meanwhile.
    """
    if not plan.steps:
        return
    channel = await session.channel()
    try:
        for step in plan.steps:
            try:
                await _carry_out(channel, step)
            except ChannelClosed as error:
                if error.code == 406:
                    raise mismatch(error.text, step) from error
                raise
    finally:
        await channel.close()


async def exists(session: Session, exchange: str) -> bool:
    """Return whether the broker has this exchange.

    Raises:
        TransportError: The session ended meanwhile, or the broker refuses to tell.
    """
    channel = await session.channel()
    try:
        await channel.declare_exchange(exchange, passive=True)
    except ChannelClosed as error:
        if error.code != 404:
            raise
        return False
    else:
        return True
    finally:
        await channel.close()


async def _carry_out(channel: Channel, step: Step) -> None:
    match step:
        case DeclareExchange():
            await channel.declare_exchange(
                step.name,
                exchange_type=step.type,
                passive=step.passive,
                durable=step.durable,
                auto_delete=step.auto_delete,
                internal=step.internal,
                arguments=dict(step.arguments) or None,
            )
        case DeclareQueue():
            await channel.declare_queue(
                step.name,
                passive=step.passive,
                durable=step.durable,
                exclusive=step.exclusive,
                auto_delete=step.auto_delete,
                arguments=dict(step.arguments) or None,
            )
        case BindQueue():
            await channel.bind_queue(
                step.queue, step.exchange, step.routing_key, dict(step.arguments)
            )
        case BindExchange():
            await channel.bind_exchange(
                step.destination, step.source, step.routing_key, dict(step.arguments)
            )
