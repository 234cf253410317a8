"""What a queue may be declared with, and how the broker refuses the rest.

A refused declaration closes the channel with 406 and leaves no queue behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import channel_closed, exists, refusal
from tests.contract.broker.differences import LEADER_LOCATOR_ON_CLASSIC

#: An argument, its value, and what is said about it where it is refused.
Cases = Sequence[tuple[Any, ...]]
#: Ten years, the longest time there is.
TEN_YEARS = 315_360_000_000
NO_NUMBER = '"expected integer, got longstr"'

REFUSED = [
    ("x-message-ttl", "100", NO_NUMBER),
    ("x-message-ttl", True, '"expected integer, got bool"'),
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-message-ttl", TEN_YEARS + 1, f"{{value_too_large,{TEN_YEARS + 1}}}"),
    ("x-expires", "100", NO_NUMBER),
    ("x-expires", 0, "{value_zero,0}"),
    ("x-expires", -5, "{value_negative,-5}"),
    ("x-expires", TEN_YEARS + 1, f"{{value_too_large,{TEN_YEARS + 1}}}"),
    ("x-max-length", "1", NO_NUMBER),
    ("x-max-length", -1, "{value_negative,-1}"),
    ("x-max-length-bytes", "1", NO_NUMBER),
    ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ("x-overflow", "nosuch", "invalid_overflow"),
    ("x-overflow", True, "{unacceptable_type,bool}"),
    ("x-dead-letter-routing-key", "key", "routing_key_but_no_dlx_defined"),
    ("x-single-active-consumer", "yes", "{unacceptable_type,longstr}"),
]
REFUSED_BY_CLASSIC = [
    ("x-max-priority", "1", NO_NUMBER),
    ("x-max-priority", -1, "{value_negative,-1}"),
    ("x-max-priority", 256, "{max_value_exceeded,256}"),
    ("x-queue-mode", "nosuch", "\"unsupported queue mode 'nosuch'\""),
    ("x-queue-version", 3, "\"unsupported queue version '3'\""),
]
REFUSED_BY_QUORUM = [
    ("x-dead-letter-strategy", "nosuch", "invalid_dlx_strategy"),
    ("x-dead-letter-strategy", True, "{unacceptable_type,bool}"),
    ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
]
#: Arguments that one type of queue has and the other refuses.
CLASSIC_ONLY = [("x-max-priority", 5), ("x-queue-mode", "lazy"), ("x-queue-version", 2)]
QUORUM_ONLY = [
    ("x-delivery-limit", 3),
    ("x-dead-letter-strategy", "at-least-once"),
    ("x-max-in-memory-length", 10),
    ("x-quorum-initial-group-size", 1),
]
STREAM_ONLY = [("x-max-age", "1h"), ("x-stream-max-segment-size-bytes", 1000)]
TAKEN = [
    ("x-message-ttl", 0),
    ("x-message-ttl", TEN_YEARS),
    ("x-expires", 100_000),
    ("x-max-length", 0),
    ("x-max-length-bytes", 1 << 40),
    ("x-overflow", "drop-head"),
    ("x-overflow", "reject-publish"),
    ("x-overflow", "reject-publish-dlx"),
    ("x-dead-letter-exchange", "not-there-yet"),
    ("x-single-active-consumer", True),
    ("x-single-active-consumer", False),
    ("x-consumer-timeout", 60_000),
    ("x-unknown", "anything"),
]
TAKEN_BY_CLASSIC = [("x-max-priority", 0), ("x-max-priority", 255), *CLASSIC_ONLY]
TAKEN_BY_QUORUM = [
    ("x-delivery-limit", 0),
    ("x-delivery-limit", -1),
    ("x-dead-letter-strategy", "at-most-once"),
    ("x-queue-leader-locator", "balanced"),
    *QUORUM_ONLY,
]


def declare(channel: BlockingChannel, name: str, kind: Any, arguments: dict[str, Any]) -> Any:
    return channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind, **arguments})


def both(cases: Cases, classic: Cases, quorum: Cases) -> list[Any]:
    """Return the cases of both types of queue, and those of each."""
    return [
        pytest.param(kind, name, *rest, id=f"{kind}-{name}-{rest[0]}")
        for kind, own in (("classic", classic), ("quorum", quorum))
        for name, *rest in (*cases, *own)
    ]


@pytest.mark.parametrize(
    ("kind", "argument", "value", "said"), both(REFUSED, REFUSED_BY_CLASSIC, REFUSED_BY_QUORUM)
)
def test_refused(channel, connection, names, here, kind, argument, value, said):
    name = names.queue()
    assert refusal(declare, channel, name, kind, {argument: value}) == channel_closed(
        406, f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' {here}: {said}"
    )
    assert not exists(connection, name)


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    both(STREAM_ONLY, QUORUM_ONLY, CLASSIC_ONLY),
)
def test_refused_as_of_another_type(channel, names, here, kind, argument, value):
    name = names.queue()
    assert refusal(declare, channel, name, kind, {argument: value}) == channel_closed(
        406,
        f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' {here} "
        f"of queue type rabbit_{kind}_queue",
    )


@pytest.mark.parametrize(
    ("kind", "argument", "value"), both(TAKEN, TAKEN_BY_CLASSIC, TAKEN_BY_QUORUM)
)
def test_taken(channel, names, kind, argument, value):
    declare(channel, names.queue(), kind, {argument: value})


def test_classic_leader_locator(channel, names, here, contract_broker):
    name, arguments = names.queue(), {"x-queue-leader-locator": "balanced"}
    if contract_broker.expects(LEADER_LOCATOR_ON_CLASSIC):
        declare(channel, name, "classic", arguments)
    else:
        assert refusal(declare, channel, name, "classic", arguments).code == 406


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_dead_letter_key_without_an_exchange_of_text(channel, names, here, kind):
    name = names.queue()
    assert refusal(
        declare,
        channel,
        name,
        kind,
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": True},
    ) == channel_closed(
        406,
        f"PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue '{name}' "
        f"{here}: {{unacceptable_type,bool}}",
    )


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_dead_letter_exchange_of_a_wrong_type(channel, names, here, kind):
    name = names.queue()
    assert refusal(
        declare, channel, name, kind, {"x-dead-letter-exchange": True}
    ) == channel_closed(
        406,
        "PRECONDITION_FAILED - invalid type 'bool' for arg 'x-dead-letter-exchange' "
        f"in queue '{name}' {here}",
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [("nosuch", "\"unsupported queue type 'nosuch'\""), (True, "{unacceptable_type,bool}")],
    ids=["word", "no-word"],
)
def test_unknown_type(channel, names, here, kind, said):
    name = names.queue()
    assert refusal(declare, channel, name, kind, {}) == channel_closed(
        406, f"PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue '{name}' {here}: {said}"
    )


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"durable": False}, "non-durable"),
        ({"durable": True, "exclusive": True}, "exclusive-owner"),
        ({"durable": True, "auto_delete": True}, "auto-delete"),
    ],
    ids=["transient", "exclusive", "auto-delete"],
)
def test_quorum_queues_are_durable_and_shared(channel, names, here, properties, said):
    name = names.queue()
    assert refusal(
        channel.queue_declare, name, **properties, arguments={"x-queue-type": "quorum"}
    ) == channel_closed(
        406, f"PRECONDITION_FAILED - invalid property '{said}' for queue '{name}' {here}"
    )


def test_quorum_queues_are_named_by_the_client(channel):
    assert refusal(declare, channel, "", "quorum", {}) == channel_closed(
        406,
        "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue",
    )
