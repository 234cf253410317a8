"""Exchanges as things: declared, compared, deleted, bound to each other."""

from __future__ import annotations

import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.contract.broker.clients import (
    NOT_FOUND,
    channel_closed,
    drain,
    fetch,
    publish,
    refusal,
)
from tests.contract.broker.differences import UNKNOWN_EXCHANGE_TYPE

TYPES = ["direct", "fanout", "topic", "headers"]
DEFAULT_EXCHANGE = channel_closed(
    403, "ACCESS_REFUSED - operation not permitted on the default exchange"
)


@pytest.fixture
def queue(channel, names):
    name = names.queue()
    channel.queue_declare(name, exclusive=True)
    return name


def missing(channel: BlockingChannel, exchange: str) -> bool:
    """Tell whether the broker has no such exchange; a channel of its own pays for the answer."""
    probe = channel.connection.channel()
    try:
        probe.exchange_declare(exchange, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise
        return True
    probe.close()
    return False


@pytest.mark.parametrize("kind", TYPES)
def test_declaring_again_alike_changes_nothing(channel, names, kind):
    name = names.exchange()
    for _ in range(2):
        channel.exchange_declare(name, kind, durable=True)
    channel.exchange_declare(name, passive=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(f"amq.{kind}", kind) for kind in TYPES] + [("amq.match", "headers")],
)
def test_predeclared_exchanges_are_durable(channel, name, kind):
    channel.exchange_declare(name, kind, durable=True)


def test_passive_declare_ignores_all_but_the_name(channel):
    channel.exchange_declare("amq.direct", "topic", passive=True)


def test_passive_declare_of_a_missing_one(channel, names, here):
    name = names.exchange()
    assert refusal(channel.exchange_declare, name, passive=True) == channel_closed(
        404, f"NOT_FOUND - no exchange '{name}' {here}"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exchange_type": "fanout"}, "'type' for {}: received 'fanout' but current is 'direct'"),
        ({"durable": True}, "'durable' for {}: received 'true' but current is 'false'"),
        ({"auto_delete": True}, "'auto_delete' for {}: received 'true' but current is 'false'"),
        ({"internal": True}, "'internal' for {}: received 'true' but current is 'false'"),
        (
            {"arguments": {"alternate-exchange": "other"}},
            (
                "'alternate-exchange' for {}: "
                "received the value 'other' of type 'longstr' but current is none"
            ),
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_declaring_again_otherwise(channel, names, here, change, said):
    """What clients disagree about is refused, and named with both values."""
    name = names.exchange()
    channel.exchange_declare(name, "direct")
    text = said.format(f"exchange '{name}' {here}")
    assert refusal(
        channel.exchange_declare, name, **{"exchange_type": "direct", **change}
    ) == channel_closed(406, f"PRECONDITION_FAILED - inequivalent arg {text}")


def test_declaring_again_without_the_alternate(channel, names, here):
    name = names.exchange()
    channel.exchange_declare(name, arguments={"alternate-exchange": "other"})
    assert refusal(channel.exchange_declare, name) == channel_closed(
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{name}' "
        f"{here}: received none but current is the value 'other' of type 'longstr'",
    )


def test_unknown_arguments_are_not_compared(channel, names):
    name = names.exchange()
    channel.exchange_declare(name)
    channel.exchange_declare(name, arguments={"x-unknown": 1})


def test_unknown_type(channel, names, contract_broker):
    assert refusal(channel.exchange_declare, names.exchange(), "nosuch") == contract_broker.expects(
        UNKNOWN_EXCHANGE_TYPE
    )


def test_reserved_prefix(channel):
    assert refusal(channel.exchange_declare, "amq.test") == channel_closed(
        403, "ACCESS_REFUSED - exchange name 'amq.test' contains reserved prefix 'amq.*'"
    )


@pytest.mark.parametrize("name", ["amq.direct", "amq.test"])
def test_reserved_exchanges_stay(channel, here, name):
    assert refusal(channel.exchange_delete, name) == channel_closed(
        403, f"ACCESS_REFUSED - deletion of system exchange '{name}' {here} not allowed"
    )


@pytest.mark.parametrize("passive", [False, True], ids=["active", "passive"])
def test_default_exchange_cannot_be_declared(channel, passive):
    assert refusal(channel.exchange_declare, "", passive=passive) == DEFAULT_EXCHANGE


@pytest.mark.parametrize("verb", ["queue_bind", "queue_unbind"])
def test_default_exchange_cannot_be_bound(channel, queue, verb):
    assert refusal(getattr(channel, verb), queue, "", "key") == DEFAULT_EXCHANGE


@pytest.mark.parametrize(("to", "source"), [("amq.fanout", ""), ("", "amq.fanout")])
def test_default_exchange_cannot_be_bound_to_exchanges(channel, to, source):
    assert refusal(channel.exchange_bind, to, source, "key") == DEFAULT_EXCHANGE


def test_default_exchange_cannot_be_deleted(channel):
    assert refusal(channel.exchange_delete, "") == DEFAULT_EXCHANGE


def test_deleting_a_missing_one_is_fine(channel, names):
    channel.exchange_delete(names.exchange())


def test_deleted_is_gone_with_its_bindings(channel, names, queue):
    name = names.exchange()
    channel.exchange_declare(name)
    channel.queue_bind(queue, name, "key")
    channel.exchange_delete(name)
    channel.exchange_declare(name)
    publish(channel, "key", "lost", exchange=name)
    assert drain(channel, queue) == []


def test_delete_if_unused(channel, names, here, queue):
    name = names.exchange()
    channel.exchange_declare(name)
    channel.queue_bind(queue, name, "key")
    assert refusal(channel.exchange_delete, name, if_unused=True) == channel_closed(
        406, f"PRECONDITION_FAILED - exchange '{name}' {here} in use"
    )


def test_delete_if_unused_when_it_is(channel, names):
    name = names.exchange()
    channel.exchange_declare(name)
    channel.exchange_delete(name, if_unused=True)
    assert missing(channel, name)


def test_auto_delete_goes_with_its_last_binding(channel, names, queue):
    name = names.exchange()
    channel.exchange_declare(name, auto_delete=True)
    channel.queue_bind(queue, name, "one")
    channel.queue_bind(queue, name, "two")
    channel.queue_unbind(queue, name, "one")
    assert not missing(channel, name)
    channel.queue_unbind(queue, name, "two")
    assert missing(channel, name)


def test_auto_delete_goes_with_the_queue_bound_to_it(channel, names):
    name, queue = names.exchange(), names.queue()
    channel.exchange_declare(name, auto_delete=True)
    channel.queue_declare(queue)
    channel.queue_bind(queue, name, "key")
    channel.queue_delete(queue)
    assert missing(channel, name)


def test_auto_delete_that_was_never_bound_stays(channel, names):
    name = names.exchange()
    channel.exchange_declare(name, auto_delete=True)
    assert not missing(channel, name)


def test_auto_delete_goes_with_its_last_binding_to_an_exchange(channel, names):
    source, target = names.exchange("source"), names.exchange("target")
    channel.exchange_declare(source, auto_delete=True)
    channel.exchange_declare(target)
    channel.exchange_bind(target, source, "key")
    channel.exchange_unbind(target, source, "key")
    assert missing(channel, source)


def test_internal_takes_nothing_from_clients(channel, names, here):
    name = names.exchange()
    channel.exchange_declare(name, internal=True)
    assert refusal(publish, channel, "key", exchange=name) == channel_closed(
        403, f"ACCESS_REFUSED - cannot publish to internal exchange '{name}' {here}"
    )


def test_internal_takes_from_exchanges(channel, names, queue):
    outer, inner = names.exchange("outer"), names.exchange("inner")
    channel.exchange_declare(outer, "fanout")
    channel.exchange_declare(inner, "direct", internal=True)
    channel.exchange_bind(inner, outer)
    channel.queue_bind(queue, inner, "key")
    publish(channel, "key", "through", exchange=outer)
    assert drain(channel, queue) == ["through"]


def test_exchange_bindings_keep_key_and_first_exchange(channel, names, queue):
    """The message passes through; what it says of itself stays."""
    one, two, three = (names.exchange(word) for word in ("one", "two", "three"))
    for name, kind in ((one, "direct"), (two, "topic"), (three, "fanout")):
        channel.exchange_declare(name, kind)
    channel.exchange_bind(two, one, "a.b")
    channel.exchange_bind(three, two, "a.#")
    channel.queue_bind(queue, three)
    publish(channel, "a.b", "through", exchange=one)
    publish(channel, "a.c", "not bound", exchange=one)
    delivery = fetch(channel, queue)
    assert (delivery.method.exchange, delivery.method.routing_key) == (one, "a.b")
    assert drain(channel, queue) == []


def test_exchange_bindings_in_a_circle_deliver_once(channel, names, queue):
    one, two = names.exchange("one"), names.exchange("two")
    for name in (one, two):
        channel.exchange_declare(name, "fanout")
        channel.queue_bind(queue, name)
    channel.exchange_bind(two, one)
    channel.exchange_bind(one, two)
    publish(channel, "", "once", exchange=one)
    assert drain(channel, queue) == ["once"]


def test_exchange_unbind(channel, names, queue):
    one, two = names.exchange("one"), names.exchange("two")
    for name in (one, two):
        channel.exchange_declare(name, "fanout")
    channel.queue_bind(queue, two)
    channel.exchange_bind(two, one, "key")
    channel.exchange_unbind(two, one, "key")
    publish(channel, "key", "lost", exchange=one)
    assert drain(channel, queue) == []


@pytest.mark.parametrize("ends", [("nosuch", "amq.direct"), ("amq.direct", "nosuch")])
def test_exchange_bind_to_a_missing_one(channel, here, ends):
    assert refusal(channel.exchange_bind, *ends, "key") == channel_closed(
        404, f"NOT_FOUND - no exchange 'nosuch' {here}"
    )


def test_exchange_unbind_of_nothing_is_fine(channel):
    channel.exchange_unbind("amq.fanout", "amq.direct", "never-bound")


def test_alternate_exchange_takes_what_found_no_queue(channel, names, queue):
    main, other = names.exchange("main"), names.exchange("other")
    bound = names.queue("bound")
    channel.exchange_declare(other, "fanout")
    channel.exchange_declare(main, "direct", arguments={"alternate-exchange": other})
    channel.queue_declare(bound, exclusive=True)
    channel.queue_bind(bound, main, "known")
    channel.queue_bind(queue, other)
    publish(channel, "known", "routed", exchange=main)
    publish(channel, "unknown", "caught", exchange=main, mandatory=True)
    assert drain(channel, bound) == ["routed"]
    caught = fetch(channel, queue)
    assert (caught.body, caught.method.exchange) == (b"caught", main)
    assert drain(channel, queue) == []


def test_alternate_exchanges_follow_each_other(channel, names, queue):
    one, two, three = (names.exchange(word) for word in ("one", "two", "three"))
    channel.exchange_declare(three, "fanout")
    channel.exchange_declare(two, "direct", arguments={"alternate-exchange": three})
    channel.exchange_declare(one, "direct", arguments={"alternate-exchange": two})
    channel.queue_bind(queue, three)
    publish(channel, "unknown", "caught", exchange=one)
    assert drain(channel, queue) == ["caught"]


def test_alternate_exchange_that_is_missing_catches_nothing(channel, names):
    name = names.exchange()
    channel.exchange_declare(name, arguments={"alternate-exchange": names.exchange("missing")})
    with pytest.raises(pika.exceptions.UnroutableError):
        publish(channel, "key", exchange=name, mandatory=True)


def test_alternate_exchange_that_routes_nowhere_returns(channel, names):
    main, other = names.exchange("main"), names.exchange("other")
    channel.exchange_declare(other, "fanout")
    channel.exchange_declare(main, arguments={"alternate-exchange": other})
    with pytest.raises(pika.exceptions.UnroutableError):
        publish(channel, "key", exchange=main, mandatory=True)


def test_alternate_exchange_of_a_wrong_type(channel, names, here):
    name = names.exchange()
    assert refusal(
        channel.exchange_declare, name, arguments={"alternate-exchange": True}
    ) == channel_closed(
        406,
        "PRECONDITION_FAILED - invalid type 'bool' for arg 'alternate-exchange' "
        f"in exchange '{name}' {here}",
    )


def test_transient_exchange_is_one_all_connections_see(connect, names):
    name = names.exchange()
    connect().channel().exchange_declare(name, "fanout")
    connect().channel().exchange_declare(name, passive=True)
