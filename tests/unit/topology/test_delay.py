"""Delays: that every wait adds up, ends in one queue only, and is never early."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from amqtask.errors import CallError, ConfigurationError, DelayTooLong
from amqtask.topology.delay import (
    LEVELS,
    MAX_DELAY,
    MAX_TICKS,
    TICK_MS,
    delay_binding,
    delay_plan,
    delay_route,
)
from amqtask.topology.plan import BindExchange, BindQueue, DeclareExchange, DeclareQueue, Plan
from amqtask.topology.routing import topic_match

QUEUES = (
    "celery",
    "eu.celery",
    "x.eu.celery",
    "celery.eu",
    "0.celery",
    "1",
    "0",
    "..",
    ".celery",
    "q" * 191,
    "é" * 95,
    ("a." * 95) + "z",
)


class Broker:
    """Routes and expires as a broker would, by nothing but the steps of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.exchanges: dict[str, DeclareExchange] = {}
        self.queues: dict[str, DeclareQueue] = {}
        self.bindings: dict[str, list[tuple[str, str, bool]]] = {}
        for step in plan.steps:
            match step:
                case DeclareExchange(name=name):
                    self.exchanges[name] = step
                case DeclareQueue(name=name):
                    self.queues[name] = step
                case BindQueue(queue=target, exchange=source):
                    self.bindings.setdefault(source, []).append((step.routing_key, target, True))
                case BindExchange(destination=target, source=source):
                    self.bindings.setdefault(source, []).append((step.routing_key, target, False))

    def routed(self, exchange: str, key: str) -> list[str]:
        fanout = self.exchanges[exchange].type == "fanout"
        found: list[str] = []
        for pattern, target, is_queue in self.bindings.get(exchange, ()):
            if fanout or topic_match(pattern, key):
                found += [target] if is_queue else self.routed(target, key)
        alternate = self.exchanges[exchange].arguments.get("alternate-exchange")
        return self.routed(alternate, key) if alternate and not found else found

    def run(self, exchange: str, key: str) -> list[tuple[str, int]]:
        """Return ``(queue, milliseconds it took)`` of every copy that came to rest."""
        arrived, under_way = [], [(exchange, key, 0)]
        while under_way:
            exchange, key, waited = under_way.pop()
            for name in self.routed(exchange, key):
                arguments = self.queues[name].arguments
                if "x-message-ttl" in arguments:
                    after = waited + arguments["x-message-ttl"]
                    under_way.append((arguments["x-dead-letter-exchange"], key, after))
                else:
                    arrived.append((name, waited))
        return arrived


def way_in(seconds: float, queue: str) -> tuple[str, str]:
    route = delay_route(seconds, queue, "d")
    assert route is not None
    return route


@pytest.fixture(scope="module")
def broker():
    queues = Plan(tuple(DeclareQueue(name) for name in QUEUES))
    return Broker(delay_plan("d").merge(queues, *(delay_binding(name, "d") for name in QUEUES)))


# -- the levels ---------------------------------------------------------------


@given(st.integers(1, MAX_TICKS), st.sampled_from(QUEUES))
def test_waits_add_up(broker, ticks, queue):
    """Any delay passes through levels that sum up to it, and one copy reaches its queue only."""
    exchange, key = way_in(ticks * TICK_MS / 1000, queue)
    assert broker.run(exchange, key) == [(queue, ticks * TICK_MS)]


@given(st.floats(0, MAX_DELAY, exclude_min=True), st.sampled_from(QUEUES))
def test_never_early_and_at_most_a_tick_late(broker, seconds, queue):
    """A wait is rounded up: never early beyond a microsecond, late by less than a tick."""
    ((arrived, waited),) = broker.run(*way_in(seconds, queue))
    assert arrived == queue
    assert -1e-3 < waited - seconds * 1000 < TICK_MS + 1e-3


@given(
    st.integers(1, MAX_TICKS),
    st.text("abcelry01.-_ é漢", min_size=1, max_size=40),
)
def test_other_names_do_not_collide(broker, ticks, queue):
    """A queue that is not bound gets nothing, nor does any other for it: it is kept as lost."""
    assume(queue not in QUEUES and not queue.startswith("amq."))
    route = way_in(ticks * TICK_MS / 1000, queue)
    assert broker.run(*route) == [("d.lost", ticks * TICK_MS)]


def test_route():
    """The key is the digits and the queue's name; the way in is the highest that is not 0."""
    zeros = "0." * 23
    assert delay_route(0.05, "email", "d") == ("d.level00", f"{zeros}0.0.1.email")
    assert delay_route(0.4, "email", "d") == ("d.level01", f"{zeros}0.1.0.email")
    assert delay_route(0.55, "email", "d") == ("d.level01", f"{zeros}0.1.3.email")
    assert delay_route(25.55, "email", "d") == ("d.level02", f"{zeros}7.7.7.email")
    assert delay_route(25.6, "email", "d") == ("d.level03", f"{zeros[2:]}1.0.0.0.email")
    assert delay_route(MAX_DELAY, "email", "d") == ("d.level25", "1." * 23 + "7.7.7.email")


@pytest.mark.parametrize("seconds", [0, -1, -0.0, float("-inf")])
def test_nothing_to_wait_for(seconds):
    """What is due already is published directly."""
    assert delay_route(seconds, "email", "d") is None


@pytest.mark.parametrize(
    ("seconds", "ticks"), [(1e-12, 1), (0.05, 1), (0.050001, 2), (0.1, 2), (0.55, 11), (4.35, 87)]
)
def test_rounding(seconds, ticks):
    """Rounded up to ticks, without a tick more for what a float cannot hold."""
    _, key = way_in(seconds, "q")
    *bits, high, middle, low = map(int, key.removesuffix(".q").split("."))
    assert not any(bits)
    assert (high * 8 + middle) * 8 + low == ticks


def test_too_long():
    """What the levels do not hold is refused, infinity included."""
    with pytest.raises(DelayTooLong) as caught:
        delay_route(MAX_DELAY + 0.001, "email", "d")
    assert str(caught.value) == (
        "a delay of 214748364.751 seconds for queue 'email' is too long,"
        " at most 214748364.75 seconds (2486 days) fit"
    )
    assert caught.value.hint == (
        "use an earlier time, or a schedule that sends the call when it is due"
    )
    with pytest.raises(DelayTooLong, match="a delay of inf seconds"):
        delay_route(math.inf, "email", "d")


def test_no_number():
    """NaN is no time to wait."""
    with pytest.raises(CallError, match=r"^a delay of nan seconds for queue 'email' is no number$"):
        delay_route(math.nan, "email", "d")


@given(st.floats(0.001, MAX_DELAY), st.sampled_from(QUEUES))
def test_keys_fit(seconds, queue):
    """The longest queue name still makes a routing key and a pattern that AMQP carries."""
    _, key = way_in(seconds, queue)
    (step,) = delay_binding(queue, "d").steps
    assert isinstance(step, BindQueue)
    assert max(len(key.encode()), len(step.routing_key.encode())) <= 255


def test_queue_names_are_checked():
    """A wildcard in a queue's name would reach other queues."""
    for call in (lambda: delay_route(1, "#", "d"), lambda: delay_binding("a.*", "d")):
        with pytest.raises(ConfigurationError, match="which are wildcards in bindings"):
            call()


# -- the plan -----------------------------------------------------------------


def test_level():
    """A level keeps messages on disk, loses none and leaves their key as it is."""
    steps = delay_plan("d").steps
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": 50 * 2**31,
        "x-dead-letter-exchange": "d.level24",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert DeclareQueue("d.level25.1", arguments=arguments) in steps
    assert DeclareExchange("d.level25", "topic") in steps
    assert BindQueue("d.level25.1", "d.level25", "1.#") in steps
    assert BindExchange("d.level24", "d.level25", "0.#") in steps
    for digit in range(1, 8):
        assert BindQueue(f"d.level00.{digit}", "d.level00", "*." * 25 + f"{digit}.#") in steps
    assert BindExchange("d.ready", "d.level00", "*." * 25 + "0.#") in steps


def test_digits_pass_few_queues():
    """What is due within 25 s passes three queues at most: each makes a message later."""
    declared = [step for step in delay_plan("d").steps if isinstance(step, DeclareQueue)]
    waits = sorted(
        step.arguments["x-message-ttl"] for step in declared if "x-message-ttl" in step.arguments
    )
    digits = [digit * unit for unit in (50, 400, 3_200) for digit in range(1, 8)]
    assert waits == digits + [25_600 << bit for bit in range(23)]


def test_lost():
    """What no queue takes leaves the levels, where 32 of it would stop everybody's delays."""
    steps = delay_plan("d").steps
    assert DeclareExchange("d.ready", arguments={"alternate-exchange": "d.lost"}) in steps
    assert BindQueue("d.lost", "d.lost") in steps
    # an exchange, a way past it and two steps a queue
    assert len(steps) == 4 + 2 * LEVELS + 2 * 44


def test_prefix_is_checked():
    """A prefix that makes too long a name is refused."""
    with pytest.raises(ConfigurationError, match="has 256 bytes, at most 255 fit"):
        delay_plan("d" * 246)
