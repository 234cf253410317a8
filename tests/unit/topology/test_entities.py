"""Entities: what names and options an exchange, a binding and a queue can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from amqtask.errors import ConfigurationError
from amqtask.topology.entities import Binding, Exchange, Queue

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(make: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make(*args, **kwargs)
    return f"{caught.value} | {caught.value.hint}"


KEPT = "starts with 'amq.', which the broker keeps for itself"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "a queue name is empty | give the queue a name"),
        ("amq.mine", f"queue name 'amq.mine' {KEPT} | use another name"),
        (
            "a*",
            "queue name 'a*' holds '*' or '#', which are wildcards in bindings | use another name",
        ),
        (
            "#",
            "queue name '#' holds '*' or '#', which are wildcards in bindings | use another name",
        ),
        ("q" * 192, f"queue name {'q' * 192!r} has 192 bytes, at most 191 fit | None"),
        ("é" * 96, f"queue name {'é' * 96!r} has 192 bytes, at most 191 fit | None"),
        (5, "queue name 5 is not text | None"),
    ],
)
def test_queue_names(name, text):
    """A queue name fits into a delayed call's routing key and is no pattern."""
    assert refusal(Queue, name) == text


def test_longest_names():
    """Limits are the last that fits."""
    assert Queue("q" * 191).name == "q" * 191
    assert Exchange("x" * 255).name == "x" * 255


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"type": "stream"}, "type of queue 'q' is 'stream' | accepted: quorum, classic"),
        ({"declare": "no"}, "declare of queue 'q' is 'no' | accepted: auto, passive, never"),
        (
            {"max_priority": 256},
            "max_priority of queue 'q' is 256 | accepted: a whole number from 1 to 255",
        ),
        (
            {"delivery_limit": -1},
            "delivery_limit of queue 'q' is -1 | accepted: a whole number from 0 to 2147483647",
        ),
        (
            {"consumer_timeout": 0},
            "consumer_timeout of queue 'q' is 0 | accepted: seconds above 0, up to 315360000",
        ),
        (
            {"max_length": 0},
            "max_length of queue 'q' is 0 | accepted: a whole number from 1 to 2147483647",
        ),
        (
            {"message_ttl": -0.5},
            "message_ttl of queue 'q' is -0.5 | accepted: seconds from 0 to 315360000",
        ),
        (
            {"arguments": {"x-queue-type": "classic"}},
            "arguments of queue 'q' hold 'x-queue-type' | say type=\"classic\" or type=\"quorum\"",
        ),
        (
            {"bindings": "email.*"},
            "bindings of queue 'q' are 'email.*' | give a tuple, like bindings=(\"email.*\",)",
        ),
        (
            {"exchange": "", "routing_key": "other"},
            (
                "queue 'q' has routing key 'other' on the default exchange '', which knows a queue by"
                " its name only | leave routing_key out, or name another exchange"
            ),
        ),
    ],
)
def test_queue_options(options, text):
    """An option that no broker would take is refused where it is written."""
    assert refusal(Queue, "q", **options) == text


def test_exchange_options():
    """Exchanges are checked too; the broker's own can be used, not made."""
    assert refusal(Exchange, "x", "topik") == (
        "type of exchange 'x' is 'topik' | accepted: direct, topic, fanout, headers"
    )
    assert refusal(Exchange, "amq.topic") == (
        f"exchange name 'amq.topic' {KEPT}"
        ' | use another name, or declare="never" for an exchange the broker brings'
    )
    assert Exchange("amq.topic", declare="never").name == "amq.topic"
    assert Binding("amq.topic", "a").exchange == "amq.topic"


def test_no_binding_to_the_default_exchange():
    """The default exchange knows every queue by name and takes no binding."""
    assert refusal(Binding, "") == (
        "a queue cannot be bound to the default exchange '', which has every queue under its own"
        ' name | leave the binding out and set exchange="" on the queue'
    )
    assert refusal(Binding, "x", "k" * 256) == (
        f"routing key {'k' * 256!r} has 256 bytes, at most 255 fit | None"
    )
