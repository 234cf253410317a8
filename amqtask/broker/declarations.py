"""The methods of the exchange and queue classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from amqtask.broker.exchanges import Exchange
from amqtask.broker.fields import Table
from amqtask.broker.publishing import REPLY_TO
from amqtask.broker.refusals import Refusal, not_found
from amqtask.broker.vhost import refuse_default
from amqtask.broker.wire import method

if TYPE_CHECKING:
    from amqtask.broker.channel import Channel
    from amqtask.broker.queues import Queue

_NO_LINES = str.maketrans("", "", "\r\n")


def _name(received: str) -> str:
    return received.translate(_NO_LINES)


def _named_queue(channel: Channel, received: str) -> str:
    """Return a queue's name; ``""`` is the one declared last."""
    if received:
        return received
    if not channel.last_queue:
        raise Refusal(404, "no previously declared queue")
    return channel.last_queue


# -- exchange -----------------------------------------------------------------


def exchange_declare(channel: Channel, call: commands.Exchange.Declare, table: Table) -> None:
    """Make an exchange."""
    name = _name(call.exchange)
    if call.passive:
        refuse_default(name)
        channel.vhost.exchange(name)
    else:
        channel.vhost.declare_exchange(
            name,
            call.exchange_type,
            durable=call.durable,
            auto_delete=call.auto_delete,
            internal=call.internal,
            arguments=table,
        )
    if not call.nowait:
        channel.reply(commands.Exchange.DeclareOk())


def exchange_delete(channel: Channel, call: commands.Exchange.Delete, _: Table) -> None:
    """Delete an exchange."""
    channel.vhost.delete_exchange(_name(call.exchange), if_unused=call.if_unused)
    if not call.nowait:
        channel.reply(commands.Exchange.DeleteOk())


def exchange_bind(channel: Channel, call: commands.Exchange.Bind, table: Table) -> None:
    """Bind an exchange to an exchange."""
    source, target = _ends(call.source, call.destination)
    vhost = channel.vhost
    # of two that are missing the source is named
    vhost.exchange(source)
    vhost.bind(source, vhost.exchange(target), call.routing_key, table)
    if not call.nowait:
        channel.reply(commands.Exchange.BindOk())


def exchange_unbind(channel: Channel, call: commands.Exchange.Unbind, table: Table) -> None:
    """Take a binding between exchanges away."""
    source, target = _ends(call.source, call.destination)
    _unbind(channel, source, channel.vhost.exchanges.get(target), call.routing_key, table)
    if not call.nowait:
        channel.reply(commands.Exchange.UnbindOk())


def _ends(source: str, target: str) -> tuple[str, str]:
    source, target = _name(source), _name(target)
    refuse_default(target)
    refuse_default(source)
    return source, target


def _unbind(
    channel: Channel, source: str, target: Queue | Exchange | None, key: str, table: Table
) -> None:
    # what is not there is not bound either
    if target is not None and source in channel.vhost.exchanges:
        channel.vhost.unbind(source, target, key, table)


# -- queue --------------------------------------------------------------------


def queue_declare(channel: Channel, call: commands.Queue.Declare, table: Table) -> None:
    """Make a queue."""
    name = _name(call.queue)
    vhost = channel.vhost
    if name.startswith(REPLY_TO):
        if name != REPLY_TO and name[len(REPLY_TO) + 1 :] not in vhost.repliers:
            raise not_found("queue", name, vhost.name)
        _declared(channel, call, name, 0, 1)
        return
    if call.passive:
        queue = vhost.queue(name, channel.connection)
    else:
        queue = vhost.declare_queue(
            name,
            durable=call.durable,
            exclusive=call.exclusive,
            auto_delete=call.auto_delete,
            arguments=table,
            user=channel.connection,
        )
    _declared(channel, call, queue.name, len(queue), queue.roster.counted)


def _declared(
    channel: Channel, call: commands.Queue.Declare, name: str, messages: int, consumers: int
) -> None:
    channel.last_queue = name
    if not call.nowait:
        answer = method(
            commands.Queue.DeclareOk,
            queue=name,
            message_count=messages,
            consumer_count=consumers,
        )
        channel.reply(answer)


def queue_bind(channel: Channel, call: commands.Queue.Bind, table: Table) -> None:
    """Bind a queue to an exchange."""
    name, key = _bound(channel, call.queue, call.routing_key)
    source, target = _ends(call.exchange, name)
    vhost = channel.vhost
    vhost.exchange(source)
    vhost.bind(source, vhost.queue(target, channel.connection), key, table)
    if not call.nowait:
        channel.reply(commands.Queue.BindOk())


def queue_unbind(channel: Channel, call: commands.Queue.Unbind, table: Table) -> None:
    """Take a queue's binding away."""
    name, key = _bound(channel, call.queue, call.routing_key)
    source, target = _ends(call.exchange, name)
    vhost = channel.vhost
    queue = vhost.queue(target, channel.connection) if target in vhost.queues else None
    _unbind(channel, source, queue, key, table)
    channel.reply(commands.Queue.UnbindOk())


def _bound(channel: Channel, queue: str, key: str) -> tuple[str, str]:
    name = _named_queue(channel, queue)
    return name, key if queue or key else name


def queue_purge(channel: Channel, call: commands.Queue.Purge, _: Table) -> None:
    """Forget a queue's ready messages."""
    name = _named_queue(channel, call.queue)
    count = channel.vhost.queue(name, channel.connection).purge()
    if not call.nowait:
        channel.reply(method(commands.Queue.PurgeOk, message_count=count))


def queue_delete(channel: Channel, call: commands.Queue.Delete, _: Table) -> None:
    """Delete a queue."""
    name = _name(_named_queue(channel, call.queue))
    count = channel.vhost.delete_queue(
        name, channel.connection, if_unused=call.if_unused, if_empty=call.if_empty
    )
    if not call.nowait:
        channel.reply(method(commands.Queue.DeleteOk, message_count=count))
