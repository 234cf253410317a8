"""Routing: topic patterns, the order of what decides, and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError
from amqtask.settings import Settings
from amqtask.topology.entities import Binding, Exchange, Queue
from amqtask.topology.routing import Route, Router, topic_match

if TYPE_CHECKING:
    from collections.abc import Callable

EMAIL, REPORTS, DEFAULT = Queue("email"), Queue("reports"), Queue("default")
PLAIN = Queue("celery", exchange="", dead_letter=False)


def router(*queues: Queue, **settings: Any) -> Router:
    known = queues or (EMAIL, REPORTS, DEFAULT, PLAIN)
    return Router(Settings(**settings), {queue.name: queue for queue in known})


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call(*args, **kwargs)
    return f"{caught.value} | {caught.value.hint}"


# -- topic_match --------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("email", "email", True),
        ("email", "email.x", False),
        ("email.#", "email", True),
        ("email.#", "email.a.b", True),
        ("email.#", "emails", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*", "", False),
        ("#", "", True),
        ("", "", True),
        ("", "a", False),
        ("*.*", ".", True),
        ("a.*.c", "a..c", True),
        ("#.c", "a.b.c", True),
        ("#.c", "c.c.d", False),
        ("a.#.b.#.c", "a.x.b.c", True),
        ("a.#.#", "a", True),
        ("#.*", "", False),
        ("#.*.#", "a", True),
    ],
)
def test_topic_match(pattern, key, matches):
    """One word for a star, any number for a hash, words may be empty."""
    assert topic_match(pattern, key) is matches


def naive(wanted: list[str], words: list[str]) -> bool:
    if not wanted:
        return not words
    if wanted[0] == "#":
        return any(naive(wanted[1:], words[i:]) for i in range(len(words) + 1))
    return bool(words) and wanted[0] in ("*", words[0]) and naive(wanted[1:], words[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=7),
    st.lists(st.sampled_from(["a", "b", ""]), max_size=7),
)
def test_topic_match_agrees_with_the_definition(wanted, words):
    """The quick matcher says what the definition, written down as it is, says."""
    pattern, key = ".".join(wanted), ".".join(words)
    expected = naive(pattern.split(".") if pattern else [], key.split(".") if key else [])
    assert topic_match(pattern, key) is expected


def test_topic_match_is_not_exponential():
    """A pattern of many hashes is done at once, where trying all ways would never end."""
    pattern, key = "#.a." * 60 + "b", "a." * 120 + "c"
    assert topic_match(pattern, key) is False


# -- what decides -------------------------------------------------------------


def test_default_queue():
    """A call that nothing routes goes to the default queue on the app's exchange."""
    assert router().route("a.task") == Route("amqtask", "default", DEFAULT)
    assert router(default_queue="reports").route("a.task").queue == REPORTS


def test_order():
    """What the call or its task says beats the rules, they beat the default."""
    found = router(routes=[("mail.*", "email")])
    assert found.route("mail.send", queue="reports").queue == REPORTS
    assert found.route("mail.send").queue == EMAIL
    assert found.route("other").queue == DEFAULT


def test_queue_option():
    """A queue's calls go to its exchange with its key; the default exchange wants its name."""
    own = Queue("own", exchange="events", routing_key="own.new")
    found = router(own, PLAIN)
    assert found.route("t", queue="own") == Route("events", "own.new", own)
    assert found.route("t", queue="celery") == Route("", "celery", PLAIN)
    unlisted = Queue("unlisted")
    assert found.route("t", queue=unlisted) == Route("amqtask", "unlisted", unlisted)


def test_unknown_queue():
    """A queue this app does not know is reached by its name; the broker decides."""
    assert router().route("t", queue="elsewhere") == Route("amqtask", "elsewhere", None)
    assert router().hint("emial") == ", did you mean 'email'?"
    assert router().hint("zzz") == ""


def test_routing_key_option():
    """A key alone goes to the app's exchange; the queue is told where exactly one matches."""
    everything = Queue("all", bindings=("#",))
    assert router().route("t", routing_key="email.welcome") == Route(
        "amqtask", "email.welcome", EMAIL
    )
    assert router().route("t", routing_key="nobody").queue is None
    found = router(EMAIL, everything)
    assert found.route("t", routing_key="email.welcome").queue is None
    assert found.destinations("amqtask", "email.welcome") == [EMAIL, everything]
    assert found.route("t", routing_key="x").queue == everything


def test_queue_with_bindings_of_its_own():
    """By its name it is reached through the default exchange, unless its bindings match that."""
    orders, both = Queue("orders", bindings=("order.*",)), Queue("both", bindings=("x", "both.#"))
    made = router(orders, both, default_queue="orders", routes=[("to.*", "orders")])
    for route in (made.route("t"), made.route("t", queue="orders"), made.route("to.it")):
        assert route == Route("", "orders", orders)
    assert made.route("t", queue="both") == Route("amqtask", "both", both)
    keyed = made.route("t", queue="orders", routing_key="order.paid")
    assert keyed == Route("amqtask", "order.paid", orders)
    placed = Queue("placed", bindings=("y",), routing_key="y")
    assert router(placed).route("t", queue="placed") == Route("amqtask", "y", placed)


def test_exchange_option():
    """An exchange without a key gets the task's name as its key."""
    found = router()
    assert found.route("a.task", exchange="events") == Route("events", "a.task", None)
    assert found.route("t", exchange=Exchange("e", "direct"), routing_key="k") == Route("e", "k")
    assert found.route("t", exchange="", routing_key="email") == Route("", "email", EMAIL)
    assert found.route("t", queue="email", routing_key="email.now") == Route(
        "amqtask", "email.now", EMAIL
    )


def test_names_that_cannot_be_carried():
    """A key or queue name that AMQP cannot carry is refused before it is sent."""
    text = f"routing key {'k' * 256!r} has 256 bytes, at most 255 fit | None"
    assert refusal(router().route, "t", routing_key="k" * 256) == text
    assert refusal(router().route, "t", queue="a.#").startswith("queue name 'a.#' holds")


def test_destinations_by_exchange_type():
    """Each type of exchange matches in its own way; a headers exchange says nothing."""
    queues = [
        Queue("d", bindings=(Binding(Exchange("direct", "direct"), "a.*"),)),
        Queue("f", bindings=(Binding(Exchange("fan", "fanout"), "x"),)),
        Queue("h", bindings=(Binding(Exchange("head", "headers"), "k"),)),
        Queue("two", bindings=("k.*", "k.#", Binding("direct", "k"))),
    ]
    found = router(*queues)
    assert found.destinations("direct", "a.b") == []
    assert found.destinations("direct", "a.*") == [queues[0]]
    assert found.destinations("direct", "k") == [queues[3]]
    assert found.destinations("fan", "anything") == [queues[1]]
    assert found.destinations("head", "k") == []
    assert found.destinations("amqtask", "k.1") == [queues[3]]
    assert found.destinations("", "h") == [queues[2]]
    assert found.destinations("", "nobody") == []


# -- rules --------------------------------------------------------------------


def test_rule_forms():
    """A rule is a pair, a mapping, or a function; a target is a name, a queue or a mapping."""

    def choose(name, args, kwargs):
        return {"queue": "reports", "priority": 7} if args == (1,) else None

    found = router(
        routes=[
            choose,
            ("a.*", EMAIL),
            {"b.*": "email", "c.*": {"exchange": "events", "routing_key": "c"}},
            ["d.*", {"routing_key": "email.d"}],
        ]
    )
    assert found.route("x", args=(1,)) == Route("amqtask", "reports", REPORTS, priority=7)
    assert found.route("a.1").queue == EMAIL
    assert found.route("b.1").queue == EMAIL
    assert found.route("c.1") == Route("events", "c")
    assert found.route("d.1") == Route("amqtask", "email.d", EMAIL)
    assert found.route("x").queue == DEFAULT


def test_first_rule_wins():
    """The first rule that matches decides, whatever follows."""
    found = router(routes=[("mail.send", "email"), ("mail.*", "reports")])
    assert found.route("mail.send").queue == EMAIL
    assert found.route("mail.other").queue == REPORTS


def test_rule_with_priority_only():
    """A rule may raise the priority and leave the way alone."""
    found = router(routes={"mail.*": {"priority": 9}})
    assert found.route("mail.send") == Route("amqtask", "default", DEFAULT, priority=9)
    assert found.route("mail.send", queue="email").priority is None


def test_answers_are_remembered_but_not_those_of_functions():
    """A function is asked for every call, globs are matched once."""
    calls = []

    def choose(name, args, kwargs):
        calls.append(kwargs)
        return kwargs["to"]

    found = router(routes=[choose])
    assert found.route("t", kwargs={"to": "email"}).queue == EMAIL
    assert found.route("t", kwargs={"to": "reports"}).queue == REPORTS
    assert len(calls) == 2
    found = router(routes=[("t", "email")])
    assert found.route("t") is found.route("t")


def test_remembered_answers_stay_few():
    """Made-up queue names do not fill the memory."""
    found = router()
    for i in range(10_000):
        found.route("t", queue=f"tenant-{i}")
    assert len(found._cache) <= 4096


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            ("a", "b", "c"),
            (
                "route rule ('a', 'b', 'c') cannot be read"
                ' | write ("email.*", "email"), {"email.*": "email"}, or a function'
            ),
        ),
        (
            {5: "email"},
            (
                "route rule {5: 'email'} cannot be read"
                ' | write ("email.*", "email"), {"email.*": "email"}, or a function'
            ),
        ),
        (
            ("a.*", 5),
            (
                "the route of 'a.*' is 5"
                ' | give a queue name, or a mapping like {"queue": "email", "priority": 5}'
            ),
        ),
        (
            ("a.*", {"que": "email"}),
            (
                "the route of 'a.*' has an unknown key 'que', did you mean 'queue'?"
                " | accepted: queue, exchange, routing_key, priority"
            ),
        ),
        (
            ("a.*", {"priority": 256}),
            "priority of the route of 'a.*' is 256 | accepted: a whole number from 0 to 255",
        ),
        (
            ("a.*", {"routing_key": 5}),
            "routing_key of the route of 'a.*' is 5 | accepted: a name",
        ),
        (
            ("a.*", "amq.x"),
            "queue name 'amq.x' starts with 'amq.', which the broker keeps for itself | use another name",
        ),
    ],
)
def test_rules_that_cannot_be_read(rule, text):
    """A wrong rule is an error when the app starts, not when a call is made."""
    assert refusal(router, routes=[rule]) == text


def test_function_that_returns_no_target():
    """What a function returns is checked like a written rule, and the function is named."""

    def choose(name, args, kwargs):
        return 5

    assert refusal(router(routes=[choose]).route, "t") == (
        f"what {choose.__qualname__!r} returned is 5"
        ' | give a queue name, or a mapping like {"queue": "email", "priority": 5}'
    )
