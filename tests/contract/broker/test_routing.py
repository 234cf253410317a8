"""Which queues a message reaches."""

from __future__ import annotations

import pytest

from tests.contract.broker.clients import channel_closed, drain, publish, refusal


@pytest.fixture
def declare(channel, names):
    """Declares an exchange of a type, with a queue per binding; returns who gets a message."""

    def make(kind, bindings):
        exchange = names.exchange()
        channel.exchange_declare(exchange, kind)
        queues = {}
        for word, (key, arguments) in bindings.items():
            queues[word] = names.queue(word)
            channel.queue_declare(queues[word], exclusive=True)
            channel.queue_bind(queues[word], exchange, key, arguments)

        def reached(key="", headers=None):
            publish(channel, key, "x", exchange=exchange, headers=headers)
            return {word for word, queue in queues.items() if drain(channel, queue) == ["x"]}

        return reached

    return make


def test_default_exchange_reaches_the_queue_of_that_name(channel, names):
    queue = names.queue()
    channel.queue_declare(queue, exclusive=True)
    publish(channel, queue, "to it")
    publish(channel, names.queue("other"), "to nobody")
    assert drain(channel, queue) == ["to it"]


def test_direct_takes_the_key_literally(declare):
    reached = declare(
        "direct", {"a": ("a", None), "a2": ("a", None), "star": ("*", None), "none": ("", None)}
    )
    assert reached("a") == {"a", "a2"}
    assert reached("*") == {"star"}
    assert reached("") == {"none"}
    assert reached("A") == set()


def test_fanout_ignores_the_key(declare):
    reached = declare("fanout", {"a": ("a", None), "b": ("b", {"x-match": "all", "c": 1})})
    assert reached("whatever") == {"a", "b"}


TOPICS = ["#", "*", "a", "a.*", "a.#", "#.c", "*.*", "a.*.c", "a.#.c", "*.#", "#.b.#", "a.b.", ""]


@pytest.mark.parametrize(
    ("key", "patterns"),
    [
        ("", {"#", ""}),
        ("a", {"#", "*", "a", "a.#", "*.#"}),
        ("a.b", {"#", "a.*", "a.#", "*.*", "*.#", "#.b.#"}),
        ("a.c", {"#", "a.*", "a.#", "#.c", "*.*", "a.#.c", "*.#"}),
        ("a.b.c", {"#", "a.#", "#.c", "a.*.c", "a.#.c", "*.#", "#.b.#"}),
        ("a.b.b.c", {"#", "a.#", "#.c", "a.#.c", "*.#", "#.b.#"}),
        ("a.b.", {"#", "a.#", "*.#", "#.b.#", "a.b."}),
        ("c", {"#", "*", "#.c", "*.#"}),
        (".", {"#", "*.*", "*.#"}),
        ("a..c", {"#", "a.#", "#.c", "a.*.c", "a.#.c", "*.#"}),
    ],
)
def test_topic_matches_words(declare, key, patterns):
    """A star is one word, even an empty one; a hash is any number of words."""
    reached = declare("topic", {pattern or "empty": (pattern, None) for pattern in TOPICS})
    assert reached(key) == {pattern or "empty" for pattern in patterns}


def test_topic_reaches_a_queue_once(channel, names):
    """Two bindings that match are one way to the queue."""
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue, exclusive=True)
    for key in ("a.*", "#", "a.b"):
        channel.queue_bind(queue, exchange, key)
    publish(channel, "a.b", "once", exchange=exchange)
    assert drain(channel, queue) == ["once"]
    channel.queue_unbind(queue, exchange, "#")
    publish(channel, "a.c", "still", exchange=exchange)
    publish(channel, "b", "no more", exchange=exchange)
    assert drain(channel, queue) == ["still"]


def test_headers_match_all_or_any(declare):
    wanted = {"a": 1, "b": "two"}
    reached = declare(
        "headers",
        {
            "all": ("", {"x-match": "all", **wanted}),
            "any": ("", {"x-match": "any", **wanted}),
            "default": ("", wanted),
        },
    )
    assert reached(headers={"a": 1, "b": "two"}) == {"all", "any", "default"}
    assert reached(headers={"a": 1, "b": "two", "c": 3}) == {"all", "any", "default"}
    assert reached(headers={"a": 1}) == {"any"}
    assert reached(headers={"a": 1, "b": "three"}) == {"any"}
    assert reached(headers={"a": 2, "b": "three"}) == set()
    assert reached() == set()


def test_headers_without_conditions(declare):
    """All of nothing is true, any of nothing is not."""
    reached = declare("headers", {"all": ("", {"x-match": "all"}), "any": ("", {"x-match": "any"})})
    assert reached(headers={"a": 1}) == {"all"}
    assert reached() == {"all"}


def test_headers_that_start_with_x(declare):
    """They count only where the binding says so."""
    reached = declare(
        "headers",
        {
            "all": ("", {"x-match": "all", "x-a": 1, "b": 1}),
            "all-with-x": ("", {"x-match": "all-with-x", "x-a": 1, "b": 1}),
            "any": ("", {"x-match": "any", "x-a": 1}),
            "any-with-x": ("", {"x-match": "any-with-x", "x-a": 1}),
        },
    )
    assert reached(headers={"b": 1}) == {"all"}
    assert reached(headers={"x-a": 1, "b": 1}) == {"all", "all-with-x", "any-with-x"}


def test_headers_compare_values_with_their_types(declare):
    reached = declare("headers", {"text": ("", {"a": "1"}), "number": ("", {"a": 1})})
    assert reached(headers={"a": "1"}) == {"text"}
    assert reached(headers={"a": 1}) == {"number"}


def test_headers_without_a_value_ask_for_presence(declare):
    reached = declare("headers", {"there": ("", {"a": None})})
    assert reached(headers={"a": "anything"}) == {"there"}
    assert reached(headers={"b": 1}) == set()


@pytest.mark.parametrize(
    ("match", "said"),
    [
        (
            "nosuch",
            (
                'Invalid x-match field value <<"nosuch">>; '
                "expected all, any, all-with-x, or any-with-x"
            ),
        ),
        (True, "Invalid x-match field type bool (value true); expected longstr"),
    ],
    ids=["value", "type"],
)
def test_headers_with_a_wrong_match(channel, names, match, said):
    queue = names.queue()
    channel.queue_declare(queue, exclusive=True)
    assert refusal(
        channel.queue_bind, queue, "amq.headers", "", {"x-match": match}
    ) == channel_closed(406, f"PRECONDITION_FAILED - {said}")


def test_bindings_differ_by_their_arguments(channel, names):
    """The same key with other arguments is another binding, and unbinding takes one of them."""
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "headers")
    channel.queue_declare(queue, exclusive=True)
    one, two = {"x-match": "all", "a": 1}, {"x-match": "all", "b": 1}
    channel.queue_bind(queue, exchange, "", one)
    channel.queue_bind(queue, exchange, "", two)
    channel.queue_unbind(queue, exchange, "", one)
    publish(channel, "", "one", exchange=exchange, headers={"a": 1})
    publish(channel, "", "two", exchange=exchange, headers={"b": 1})
    assert drain(channel, queue) == ["two"]


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_binding_twice_is_binding_once(channel, names, kind):
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, kind)
    channel.queue_declare(queue, exclusive=True)
    for _ in range(2):
        channel.queue_bind(queue, exchange, "a")
    publish(channel, "a", "once", exchange=exchange)
    assert drain(channel, queue) == ["once"]
    channel.queue_unbind(queue, exchange, "a")
    publish(channel, "a", "lost", exchange=exchange)
    assert drain(channel, queue) == []


def test_keys_of_any_text(declare):
    word = "grüße-😀-" + "x" * 200
    reached = declare("direct", {"a": (word, None)})
    assert reached(word) == {"a"}
