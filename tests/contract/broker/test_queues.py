"""Queues as things: named, declared, compared, bound."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.broker.clients import (
    Inbox,
    channel_closed,
    depth,
    drain,
    fetch,
    publish,
    refusal,
)
from tests.contract.broker.differences import QUORUM_TO_CLASSIC
from tests.contract.broker.wire import Refused

QUORUM = {"x-queue-type": "quorum"}


def not_found(name: str, here: str) -> Refused:
    return channel_closed(404, f"NOT_FOUND - no queue '{name}' {here}")


@pytest.fixture
def queue(channel, names):
    name = names.queue()
    channel.queue_declare(name, durable=True)
    return name


def test_declare_answers_with_counts(channel, queue):
    publish(channel, queue, "one")
    publish(channel, queue, "two")
    Inbox(channel, queue).wait(2)
    publish(channel, queue, "three")
    answer = channel.queue_declare(queue, durable=True).method
    assert (answer.queue, answer.consumer_count) == (queue, 1)


def test_unacked_messages_do_not_count(channel, queue):
    """The count is of what a consumer could still be given."""
    for body in "abc":
        publish(channel, queue, body)
    fetch(channel, queue, auto_ack=False)
    assert depth(channel, queue) == 2


def test_server_named(channel):
    """The broker makes a name nobody else has, under its reserved prefix."""
    first, second = (channel.queue_declare("", exclusive=True).method.queue for _ in range(2))
    assert first != second
    assert first.startswith("amq.gen-")
    publish(channel, first, "to it")
    assert drain(channel, first) == ["to it"]


def test_last_declared_queue_needs_no_name(channel):
    """An empty name means the queue that this channel declared last."""
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind("", "amq.direct", name)
    publish(channel, name, "to it", exchange="amq.direct")
    assert channel.basic_get("", auto_ack=True)[2] == b"to it"
    assert channel.queue_purge("").method.message_count == 0


@pytest.mark.parametrize("verb", ["queue_purge", "basic_get"])
def test_no_last_declared_queue(channel, verb):
    assert refusal(getattr(channel, verb), "") == channel_closed(
        404, "NOT_FOUND - no previously declared queue"
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda channel, name: channel.queue_declare(name, passive=True),
        lambda channel, name: channel.queue_purge(name),
        lambda channel, name: channel.basic_get(name),
        lambda channel, name: channel.basic_consume(name, print),
        lambda channel, name: channel.queue_bind(name, "amq.direct", "key"),
    ],
    ids=["declare-passive", "purge", "get", "consume", "bind"],
)
def test_missing(channel, names, here, call):
    name = names.queue()
    assert refusal(call, channel, name) == not_found(name, here)


def test_deleting_a_missing_one_is_fine(channel, names):
    assert channel.queue_delete(names.queue()).method.message_count == 0


def test_unbinding_what_is_not_there_is_fine(channel, names, queue):
    channel.queue_unbind(queue, "amq.direct", "never-bound")
    channel.queue_unbind(names.queue("missing"), "amq.direct", "key")
    channel.queue_unbind(queue, names.exchange("missing"), "key")


def test_bind_to_a_missing_exchange(channel, names, here, queue):
    name = names.exchange()
    assert refusal(channel.queue_bind, queue, name, "key") == channel_closed(
        404, f"NOT_FOUND - no exchange '{name}' {here}"
    )


def test_reserved_prefix(channel):
    assert refusal(channel.queue_declare, "amq.test") == channel_closed(
        403, "ACCESS_REFUSED - queue name 'amq.test' contains reserved prefix 'amq.*'"
    )


def test_name_of_greatest_length(channel, names):
    name = names.queue().ljust(255, "x")
    channel.queue_declare(name, exclusive=True)
    publish(channel, name, "to it")
    assert drain(channel, name) == ["to it"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"durable": False}, "'durable' for {}: received 'false' but current is 'true'"),
        ({"auto_delete": True}, "'auto_delete' for {}: received 'true' but current is 'false'"),
        (
            {"arguments": {"x-message-ttl": 100_000}},
            (
                "'x-message-ttl' for {}: "
                "received the value '100000' of type 'signedint' but current is none"
            ),
        ),
        (
            {"arguments": {"x-queue-mode": "lazy"}},
            (
                "'x-queue-mode' for {}: "
                "received the value 'lazy' of type 'longstr' but current is none"
            ),
        ),
        (
            {"arguments": {"x-queue-type": "quorum"}},
            "'x-queue-type' for {}: received 'quorum' but current is 'classic'",
        ),
    ],
    ids=lambda value: next(iter(value.get("arguments", value))) if isinstance(value, dict) else "",
)
def test_declaring_again_otherwise(channel, names, here, change, said):
    """What clients disagree about is refused, and named with both values."""
    name = names.queue()
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "classic"})
    wanted: dict[str, Any] = {"durable": True, "arguments": {"x-queue-type": "classic"}}
    wanted |= {key: value for key, value in change.items() if key != "arguments"}
    wanted["arguments"] = {**wanted["arguments"], **change.get("arguments", {})}
    text = said.format(f"queue '{name}' {here}")
    assert refusal(channel.queue_declare, name, **wanted) == channel_closed(
        406, f"PRECONDITION_FAILED - inequivalent arg {text}"
    )


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {"x-message-ttl": 100_000},
            {},
            (
                "'x-message-ttl' for {}: "
                "received none but current is the value '100000' of type 'signedint'"
            ),
        ),
        (
            {"x-message-ttl": 100_000},
            {"x-message-ttl": 100_001},
            "'x-message-ttl' for {}: received '100001' but current is '100000'",
        ),
        (
            {"x-overflow": "drop-head"},
            {"x-overflow": "reject-publish"},
            "'x-overflow' for {}: received 'reject-publish' but current is 'drop-head'",
        ),
        (
            {"x-max-priority": 5},
            {"x-max-priority": 6},
            "'x-max-priority' for {}: received '6' but current is '5'",
        ),
        (
            {"x-single-active-consumer": True},
            {},
            (
                "'x-single-active-consumer' for {}: "
                "received none but current is the value 'true' of type 'bool'"
            ),
        ),
        (
            {"x-dead-letter-exchange": "here", "x-dead-letter-routing-key": "key"},
            {"x-dead-letter-exchange": "there", "x-dead-letter-routing-key": "key"},
            "'x-dead-letter-exchange' for {}: received 'there' but current is 'here'",
        ),
    ],
    ids=lambda value: ",".join(value) or "none" if isinstance(value, dict) else "",
)
def test_declaring_again_with_other_arguments(channel, names, here, first, second, said):
    name = names.queue()
    channel.queue_declare(name, durable=True, arguments=first)
    text = said.format(f"queue '{name}' {here}")
    assert refusal(channel.queue_declare, name, durable=True, arguments=second) == channel_closed(
        406, f"PRECONDITION_FAILED - inequivalent arg {text}"
    )


def test_declaring_again_with_unknown_arguments(channel, names):
    """What the broker does not know, it does not compare."""
    name = names.queue()
    channel.queue_declare(name, durable=True, arguments={"x-unknown": 1})
    channel.queue_declare(name, durable=True)
    channel.queue_declare(name, durable=True, arguments={"x-unknown": "other"})


def test_classic_is_the_default_type(channel, queue):
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "classic"})


def test_declaring_a_quorum_queue_again_without_its_type(channel, names, here, contract_broker):
    name = names.queue()
    channel.queue_declare(name, durable=True, arguments=QUORUM)
    said = contract_broker.expects(QUORUM_TO_CLASSIC)
    assert refusal(channel.queue_declare, name, durable=True) == channel_closed(
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue '{name}' {here}: {said}",
    )
