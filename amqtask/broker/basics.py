"""The methods of the basic, confirm, tx and channel classes, publish and ack aside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from pamqp import base, commands

from amqtask.broker import arguments, declarations
from amqtask.broker.channel import reject, requeue
from amqtask.broker.consumers import Consumer
from amqtask.broker.fields import Table
from amqtask.broker.publishing import REPLY_TO
from amqtask.broker.refusals import Refusal
from amqtask.broker.vhost import random_name
from amqtask.broker.wire import method

if TYPE_CHECKING:
    from amqtask.broker.channel import Channel
    from amqtask.broker.queues import Queue

Handler: TypeAlias = Callable[["Channel", Any, Table], None]


# -- consuming ----------------------------------------------------------------


def qos(channel: Channel, call: commands.Basic.Qos, _: Table) -> None:
    """Limit what consumers may have unacked: each of those to come, or all together."""
    if call.prefetch_size:
        raise Refusal(540, f"prefetch_size!=0 ({call.prefetch_size})")
    if call.global_:
        channel.shared_limit = call.prefetch_count
    else:
        channel.limit = call.prefetch_count
        channel.shared_limit = 0
    channel.resume()
    channel.reply(commands.Basic.QosOk())


def consume(channel: Channel, call: commands.Basic.Consume, table: Table) -> None:
    """Start a consumer."""
    tag = call.consumer_tag
    if tag and (tag in channel.consumers or tag == channel.reply_tag):
        raise Refusal(530, f"attempt to reuse consumer tag '{tag}'")
    name = call.queue or channel.last_queue
    if not name:
        raise Refusal(404, "no previously declared queue")
    tag = tag or f"amq.ctag-{random_name()}"
    if name == REPLY_TO:
        _consume_replies(channel, tag, call)
        return
    queue = channel.vhost.queue(name, channel.connection)
    priority = arguments.check_consumer(queue.shown(), table)
    _check_exclusive(queue, exclusive=call.exclusive)
    if queue.quorum and channel.shared_limit:
        raise Refusal(540, f"{queue.shown()} does not support global qos")
    consumer = Consumer(
        tag,
        channel,
        queue,
        no_ack=call.no_ack,
        exclusive=call.exclusive and not queue.quorum,
        limit=channel.limit,
        priority=priority,
    )
    channel.consumers[tag] = consumer
    if not call.nowait:
        channel.reply(method(commands.Basic.ConsumeOk, consumer_tag=tag))
    queue.consume(consumer)


def _consume_replies(channel: Channel, tag: str, call: commands.Basic.Consume) -> None:
    if not call.no_ack:
        raise Refusal(406, "reply consumer cannot acknowledge")
    if channel.reply_suffix is not None:
        raise Refusal(406, "reply consumer already set")
    channel.set_reply_consumer(tag, random_name())
    if not call.nowait:
        channel.reply(method(commands.Basic.ConsumeOk, consumer_tag=tag))


def _check_exclusive(queue: Queue, *, exclusive: bool) -> None:
    # quorum queues take no notice of exclusive consumers
    if queue.quorum:
        return
    taken = queue.roster.exclusive is not None or (
        exclusive and (len(queue.roster) > 0 or queue.rules.single_active)
    )
    if taken:
        raise Refusal(403, f"{queue.shown()} in exclusive use")


def cancel(channel: Channel, call: commands.Basic.Cancel, _: Table) -> None:
    """Stop a consumer; one that is not there is fine."""
    tag = call.consumer_tag or ""
    if tag and tag == channel.reply_tag:
        channel.drop_reply_consumer()
    consumer = channel.consumers.pop(tag, None)
    if not call.nowait:
        channel.reply(method(commands.Basic.CancelOk, consumer_tag=tag))
    if consumer is not None:
        consumer.queue.cancel(consumer)


def get(channel: Channel, call: commands.Basic.Get, _: Table) -> None:
    """Fetch a message."""
    name = call.queue or channel.last_queue
    if not name:
        raise Refusal(404, "no previously declared queue")
    queue = channel.vhost.queue(name, channel.connection)
    if queue.quorum and queue.rules.single_active:
        raise Refusal(
            405,
            f"cannot obtain access to locked {queue.shown()}. basic.get operations are not "
            "supported by quorum queues with single active consumer",
        )
    entry = queue.get(no_ack=call.no_ack)
    if entry is None:
        channel.reply(commands.Basic.GetEmpty())
    else:
        channel.fetched(entry, no_ack=call.no_ack, left=len(queue))


def basic_reject(channel: Channel, call: commands.Basic.Reject, _: Table) -> None:
    """Give a message back, or let it die."""
    channel.settle(call.delivery_tag or 0, False, requeue if call.requeue else reject)


def nack(channel: Channel, call: commands.Basic.Nack, _: Table) -> None:
    """Give messages back, or let them die."""
    channel.settle(call.delivery_tag, call.multiple, requeue if call.requeue else reject)


def recover_async(channel: Channel, call: commands.Basic.Recover, _: Table) -> None:
    """Give all messages back."""
    if not call.requeue:
        raise Refusal(540, "requeue=false")
    entries = list(channel.unacked.values())
    channel.unacked.clear()
    if entries:
        channel.carry_out(entries, requeue)


def recover(channel: Channel, call: commands.Basic.Recover, table: Table) -> None:
    """Give all messages back, and say so."""
    recover_async(channel, call, table)
    channel.reply(commands.Basic.RecoverOk())


# -- confirms and transactions ------------------------------------------------


def confirm_select(channel: Channel, call: commands.Confirm.Select, _: Table) -> None:
    """Confirm from now on."""
    if channel.publishing.kept is not None:
        raise Refusal(406, "cannot switch from tx to confirm mode")
    channel.publishing.confirming = True
    if not call.nowait:
        channel.reply(commands.Confirm.SelectOk())


def tx_select(channel: Channel, call: commands.Tx.Select, _: Table) -> None:
    """Begin a transaction, and another one after each."""
    if channel.publishing.confirming:
        raise Refusal(406, "cannot switch from confirm to tx mode")
    if channel.publishing.kept is None:
        channel.publishing.kept = []
    channel.reply(commands.Tx.SelectOk())


def tx_commit(channel: Channel, call: commands.Tx.Commit, _: Table) -> None:
    """Carry the transaction out."""
    if channel.publishing.kept is None:
        raise Refusal(406, "channel is not transactional")
    acks, channel.acks = channel.acks, []
    complete = channel.publishing.send_kept()
    for _tag, entry, verdict in acks:
        channel.carry_out([entry], verdict)
    if not complete:
        raise Refusal(406, "partial tx completion")

    def answer(saved: bool) -> None:
        if saved:
            channel.reply(commands.Tx.CommitOk())
        elif channel.open:
            channel.refuse(Refusal(406, "partial tx completion", method=call.index))

    channel.publishing.when_saved(answer)


def tx_rollback(channel: Channel, call: commands.Tx.Rollback, _: Table) -> None:
    """Forget the transaction: its messages go, its deliveries are unacked again."""
    if channel.publishing.kept is None:
        raise Refusal(406, "channel is not transactional")
    channel.publishing.kept = []
    acks, channel.acks = channel.acks, []
    back = {tag: entry for tag, entry, _verdict in acks} | channel.unacked
    channel.unacked = dict(sorted(back.items()))
    channel.reply(commands.Tx.RollbackOk())


# -- channel ------------------------------------------------------------------


def flow(channel: Channel, call: commands.Channel.Flow, _: Table) -> None:
    """Go on delivering; stopping is not supported, as in RabbitMQ."""
    if not call.active:
        raise Refusal(540, "active=false")
    channel.reply(method(commands.Channel.FlowOk, active=True))


def close(channel: Channel, call: commands.Channel.Close, _: Table) -> None:
    """End the channel."""
    channel.publishing.flush()
    channel.end()
    channel.reply(commands.Channel.CloseOk())
    channel.connection.forget(channel)


def reopen(channel: Channel, call: commands.Channel.Open, _: Table) -> None:
    """Refuse to open an open channel."""
    raise Refusal(504, "second 'channel.open' seen")


#: What each method does. Publish and ack have a way of their own in `Channel`.
HANDLERS: dict[type[base.Frame], Handler] = {
    commands.Basic.Qos: qos,
    commands.Basic.Consume: consume,
    commands.Basic.Cancel: cancel,
    commands.Basic.Get: get,
    commands.Basic.Reject: basic_reject,
    commands.Basic.Nack: nack,
    commands.Basic.RecoverAsync: recover_async,
    commands.Basic.Recover: recover,
    commands.Confirm.Select: confirm_select,
    commands.Tx.Select: tx_select,
    commands.Tx.Commit: tx_commit,
    commands.Tx.Rollback: tx_rollback,
    commands.Channel.Open: reopen,
    commands.Channel.Flow: flow,
    commands.Channel.Close: close,
    commands.Exchange.Declare: declarations.exchange_declare,
    commands.Exchange.Delete: declarations.exchange_delete,
    commands.Exchange.Bind: declarations.exchange_bind,
    commands.Exchange.Unbind: declarations.exchange_unbind,
    commands.Queue.Declare: declarations.queue_declare,
    commands.Queue.Bind: declarations.queue_bind,
    commands.Queue.Unbind: declarations.queue_unbind,
    commands.Queue.Purge: declarations.queue_purge,
    commands.Queue.Delete: declarations.queue_delete,
}
