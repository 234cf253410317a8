"""Plans: what a queue needs, merging, showing, and reading the broker's refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from amqtask.errors import ConfigurationError
from amqtask.settings import Settings
from amqtask.topology.delay import delay_binding, delay_plan
from amqtask.topology.entities import Binding, Exchange, Queue
from amqtask.topology.plan import (
    BindExchange,
    BindQueue,
    DeclareExchange,
    DeclareQueue,
    Plan,
    exchange_plan,
    mismatch,
    queue_plan,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SETTINGS = Settings()
DEAD = {"x-queue-type": "quorum", "x-delivery-limit": 2147483647, "x-overflow": "reject-publish"}


def arguments(queue: Queue, settings: Settings = SETTINGS) -> Mapping[str, Any]:
    steps = queue_plan(queue, settings).steps
    (found,) = [s for s in steps if isinstance(s, DeclareQueue) and s.name == queue.name]
    return found.arguments


def refusal(call: Callable[..., object], *args: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call(*args)
    return f"{caught.value} | {caught.value.hint}"


# -- queue_plan ---------------------------------------------------------------


def test_default_queue_plan():
    """The place for dead letters stands before the queue that may send some."""
    assert queue_plan(Queue("email"), SETTINGS).steps == (
        DeclareExchange("amqtask", "topic"),
        DeclareExchange("amqtask.dead", "direct"),
        DeclareQueue("email.dead", arguments=DEAD),
        BindQueue("email.dead", "amqtask.dead", "email"),
        DeclareQueue(
            "email",
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": 20,
                "x-overflow": "reject-publish",
                "x-dead-letter-exchange": "amqtask.dead",
                "x-dead-letter-routing-key": "email",
                "x-dead-letter-strategy": "at-least-once",
            },
        ),
        BindQueue("email", "amqtask", "email.#"),
    )


def test_quorum_arguments():
    """Seconds become whole milliseconds; the user's own arguments have the last word."""
    queue = Queue(
        "q",
        message_ttl=1.1,
        max_length=5,
        delivery_limit=3,
        arguments={"x-single-active-consumer": True},
    )
    found = arguments(queue)
    assert found["x-message-ttl"] == 1100
    assert type(found["x-message-ttl"]) is int
    assert (found["x-max-length"], found["x-delivery-limit"]) == (5, 3)
    assert found["x-single-active-consumer"] is True
    assert arguments(Queue("q", arguments={"x-overflow": "drop-head"}))["x-overflow"] == "drop-head"


def test_without_dead_letters():
    """dead_letter=False leaves out the dead-letter queue and its arguments."""
    plan = queue_plan(Queue("q", dead_letter=False), SETTINGS)
    assert plan.steps == (
        DeclareExchange("amqtask"),
        DeclareQueue(
            "q",
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": 20,
                "x-overflow": "reject-publish",
            },
        ),
        BindQueue("q", "amqtask", "q.#"),
    )


def test_classic_arguments():
    """A classic queue gets only what classic queues know; a length limit refuses, not drops."""
    assert arguments(Queue("q", type="classic", max_priority=9)) == {
        "x-queue-type": "classic",
        "x-dead-letter-exchange": "amqtask.dead",
        "x-dead-letter-routing-key": "q",
        "x-max-priority": 9,
    }
    assert arguments(Queue("q", type="classic", dead_letter=False, max_length=5)) == {
        "x-queue-type": "classic",
        "x-max-length": 5,
        "x-overflow": "reject-publish",
    }


def test_plain_classic_has_no_arguments():
    """Celery and its clients declare their queue without arguments; so can we."""
    assert arguments(Queue("celery", type="classic", dead_letter=False)) == {}


def test_classic_by_setting():
    """With classic queues by setting, the dead-letter queue is classic too."""
    plan = queue_plan(Queue("q"), Settings(queue_type="classic"))
    assert DeclareQueue("q.dead", arguments={"x-queue-type": "classic"}) in plan.steps


def test_options_of_the_other_type():
    """A quorum queue has no max_priority, a classic one no delivery_limit."""
    assert refusal(queue_plan, Queue("q", max_priority=5), SETTINGS) == (
        "queue 'q' is quorum and has max_priority 5, which only classic queues know"
        ' | give it type="classic", or leave max_priority out'
    )
    assert refusal(queue_plan, Queue("q", type="classic", delivery_limit=5), SETTINGS) == (
        "queue 'q' is classic and has delivery_limit 5, which only quorum queues know"
        ' | give it type="quorum", or leave delivery_limit out'
    )


def test_bindings():
    """Patterns go on the app's exchange; an Exchange is declared along with its binding."""
    events = Exchange("events", "headers")
    theirs = Exchange("amq.topic", declare="never")
    queue = Queue(
        "q",
        bindings=(
            "a.*",
            Binding(events, "", {"x-match": "any"}),
            Binding(theirs, "b"),
            Binding("y"),
        ),
        dead_letter=False,
    )
    steps = queue_plan(queue, SETTINGS).steps
    assert steps[:2] == (DeclareExchange("amqtask"), DeclareExchange("events", "headers"))
    assert steps[3:] == (
        BindQueue("q", "amqtask", "a.*"),
        BindQueue("q", "events", "", {"x-match": "any"}),
        BindQueue("q", "amq.topic", "b"),
        BindQueue("q", "y", "#"),
    )


def test_passive():
    """Passive checks the same entities and binds nothing; never touches nothing."""
    names = ["amqtask", "amqtask.dead", "q.dead", "q"]
    for plan in (
        queue_plan(Queue("q", declare="passive"), SETTINGS),
        queue_plan(Queue("q"), Settings(declare="passive")),
    ):
        assert [getattr(step, "name", None) for step in plan.steps] == names
        assert all(getattr(step, "passive", False) for step in plan.steps)
    assert queue_plan(Queue("q", declare="never"), SETTINGS) == Plan()
    assert queue_plan(Queue("q", declare="auto"), Settings(declare="never")) != Plan()


def test_exchange_plan():
    """An exchange by itself is made, checked or left alone; the default one is just there."""
    assert exchange_plan(Exchange("x", "fanout"), SETTINGS).steps == (
        DeclareExchange("x", "fanout"),
    )
    checked = exchange_plan(Exchange("x", declare="passive"), SETTINGS)
    assert checked.steps == (DeclareExchange("x", passive=True),)
    assert exchange_plan(Exchange("amq.topic", declare="passive"), SETTINGS) == Plan()
    assert exchange_plan(Exchange("x"), Settings(declare="never")) == Plan()
    assert exchange_plan(Exchange(""), SETTINGS) == Plan()


def test_reserved_app_exchange():
    """An app exchange that only the broker can make is refused when it would be made."""
    assert refusal(queue_plan, Queue("q"), Settings(exchange="amq.topic")) == (
        "exchange name 'amq.topic' starts with 'amq.', which the broker keeps for itself"
        ' | use another name, or declare="never" for an exchange the broker brings'
    )


# -- merge --------------------------------------------------------------------


def test_merge_drops_equal_steps_and_keeps_order():
    """Shared exchanges are declared once, and everything before it is used."""
    plan = Plan().merge(
        queue_plan(Queue("a"), SETTINGS),
        queue_plan(Queue("b"), SETTINGS),
        queue_plan(Queue("a"), SETTINGS),
        delay_plan("d"),
        delay_binding("a", "d"),
    )
    made: set[tuple[str, str]] = set()
    for step in plan.steps:
        match step:
            case DeclareExchange(name=name):
                assert ("exchange", name) not in made
                made.add(("exchange", name))
            case DeclareQueue(name=name):
                assert ("queue", name) not in made
                made.add(("queue", name))
            case BindQueue(queue=queue, exchange=exchange):
                assert {("queue", queue), ("exchange", exchange)} <= made
            case BindExchange(destination=destination, source=source):
                assert {("exchange", destination), ("exchange", source)} <= made
    assert len(set(plan.steps)) == len(plan.steps)
    assert plan.merge(plan) == plan


def test_merge_keeps_bindings_that_differ_in_arguments_only():
    """Two bindings of a headers exchange differ by their tables alone."""
    one, two = BindQueue("q", "x", "", {"a": 1}), BindQueue("q", "x", "", {"a": 2})
    assert Plan((one,)).merge(Plan((two, one))).steps == (one, two)


def test_merge_makes_what_another_only_checks():
    """Where one plan makes an entity, checking it first would fail."""
    check = DeclareExchange("x", "direct", passive=True)
    make, bind = DeclareExchange("x"), BindQueue("q", "x")
    assert Plan((check, bind)).merge(Plan((make,))).steps == (make, bind)
    assert Plan((make,)).merge(Plan((check,))).steps == (make,)


@pytest.mark.parametrize(
    ("one", "two", "text"),
    [
        (
            DeclareQueue("q", arguments={"x-delivery-limit": 5}),
            DeclareQueue("q", arguments={"x-delivery-limit": 20}),
            "queue 'q' is wanted twice with different x-delivery-limit: 5 and 20",
        ),
        (
            DeclareQueue("q"),
            DeclareQueue("q", arguments={"x-max-length": 1}),
            "queue 'q' is wanted twice with different x-max-length: none and 1",
        ),
        (
            DeclareQueue("q", arguments={"x-y": 1}),
            DeclareQueue("q", arguments={"x-y": True}),
            "queue 'q' is wanted twice with different x-y: 1 and True",
        ),
        (
            DeclareExchange("x", "topic"),
            DeclareExchange("x", "direct"),
            "exchange 'x' is wanted twice with different type: 'topic' and 'direct'",
        ),
    ],
)
def test_merge_conflict(one, two, text):
    """The same name with other arguments is an error that shows both values."""
    hint = " | give it the same value in both places, or two names"
    assert refusal(Plan((one,)).merge, Plan((two,))) == text + hint


def test_queue_and_exchange_may_share_a_name():
    """Queues and exchanges have names of their own on a broker."""
    steps = (DeclareExchange("n"), DeclareQueue("n"))
    assert Plan(steps).merge().steps == steps


# -- render -------------------------------------------------------------------


def test_render():
    """The text for people is grouped, aligned and sums up the delay levels."""
    plan = Plan().merge(
        queue_plan(Queue("email", dead_letter=False), SETTINGS),
        queue_plan(Queue("celery", type="classic", dead_letter=False, exchange=""), SETTINGS),
        queue_plan(Queue("theirs", declare="passive", dead_letter=False), SETTINGS),
        delay_plan("amqtask.delay"),
        delay_binding("email", "amqtask.delay"),
    )
    assert render(plan) == (
        "exchanges\n"
        "  amqtask  topic  durable\n"
        "\n"
        "queues\n"
        "  celery  classic  durable\n"
        "  email   quorum   durable  x-delivery-limit=20 x-overflow=reject-publish\n"
        "  theirs           checked only\n"
        "\n"
        "bindings\n"
        "  amqtask              celery.#           -> celery\n"
        "  amqtask              email.#            -> email\n"
        "  amqtask.delay.ready  (any delay).email  -> email\n"
        "\n"
        "delays\n"
        "  amqtask.delay  44 queues from 50 ms, up to 2485.5 days"
    )


def test_render_does_not_depend_on_order():
    """The same topology reads the same, whatever queue came first."""
    a, b = queue_plan(Queue("a"), SETTINGS), queue_plan(Queue("b"), SETTINGS)
    assert render(a.merge(b)) == render(b.merge(a))


def test_render_shows_what_only_looks_like_a_level():
    """A queue named like a level's, without its TTL, is shown as any other."""
    named = Plan((DeclareQueue("shard.level07.1"),))
    assert render(named) == "queues\n  shard.level07.1  classic  durable"
    assert render(Plan((BindExchange("a", "b", "c"),))) == "bindings\n  b  c  -> exchange a"
    assert render(Plan()) == "nothing to declare"


# -- mismatch -----------------------------------------------------------------
# Source: texts of RabbitMQ 3.10.8 and 4.0.5, which agree in all but one

START = "PRECONDITION_FAILED - inequivalent arg "


@pytest.mark.parametrize(
    ("rest", "argument", "wanted", "found"),
    [
        (
            "'x-delivery-limit' for queue 'email' in vhost '/': received '5' but current is '20'",
            "x-delivery-limit",
            "5",
            "20",
        ),
        (
            (
                "'x-delivery-limit' for queue 'email' in vhost '/': received none but current is"
                " the value '20' of type 'signedint'"
            ),
            "x-delivery-limit",
            "none",
            "20",
        ),
        (
            (
                "'x-message-ttl' for queue 'email' in vhost '/': received the value '1000' of type"
                " 'signedint' but current is none"
            ),
            "x-message-ttl",
            "1000",
            "none",
        ),
        (
            (
                "'x-dead-letter-exchange' for queue 'email' in vhost '/': received none but current is"
                " the value 'amqtask.dead' of type 'longstr'"
            ),
            "x-dead-letter-exchange",
            "none",
            "amqtask.dead",
        ),
        (
            # 3.10, where 4.0 says: received 'classic' but current is 'quorum'
            (
                "'x-queue-type' for queue 'email' in vhost '/': received none but current is"
                " the value 'quorum' of type 'longstr'"
            ),
            "x-queue-type",
            "none",
            "quorum",
        ),
        (
            "'x-queue-type' for queue 'email' in vhost '/': received 'classic' but current is 'quorum'",
            "x-queue-type",
            "classic",
            "quorum",
        ),
        (
            "'durable' for queue 'email' in vhost '/': received 'false' but current is 'true'",
            "durable",
            "false",
            "true",
        ),
    ],
)
def test_queue_mismatch(rest, argument, wanted, found):
    """Argument and both values are read from every form of the broker's text."""
    error = mismatch(f"{START}{rest}", DeclareQueue("email"))
    assert (error.entity, error.argument) == ("queue 'email'", argument)
    assert (error.wanted, error.found) == (wanted, found)
    assert str(error) == (
        f"queue 'email' in vhost '/' has another {argument} than wanted here:"
        f" wanted {wanted}, found {found}"
    )


@pytest.mark.parametrize(
    ("rest", "argument", "wanted", "found"),
    [
        (
            "'type' for exchange 'x' in vhost 'v': received 'direct' but current is 'topic'",
            "type",
            "direct",
            "topic",
        ),
        (
            "'durable' for exchange 'x' in vhost 'v': received 'false' but current is 'true'",
            "durable",
            "false",
            "true",
        ),
        (
            "'internal' for exchange 'x' in vhost 'v': received 'true' but current is 'false'",
            "internal",
            "true",
            "false",
        ),
        (
            (
                "'alternate-exchange' for exchange 'x' in vhost 'v': received the value 'foo' of type"
                " 'longstr' but current is none"
            ),
            "alternate-exchange",
            "foo",
            "none",
        ),
    ],
)
def test_exchange_mismatch(rest, argument, wanted, found):
    """The same for exchanges."""
    error = mismatch(f"{START}{rest}", DeclareExchange("x"))
    assert (error.entity, error.argument) == ("exchange 'x'", argument)
    assert (error.wanted, error.found) == (wanted, found)


def test_mismatch_in_type_only():
    """Text '20' is not the number 20, though the broker spells both alike."""
    text = (
        f"{START}'x-delivery-limit' for queue 'q' in vhost '/': received '20' but current is '20'"
    )
    assert str(mismatch(text, DeclareQueue("q"))) == (
        "queue 'q' in vhost '/' has another x-delivery-limit than wanted here:"
        " wanted 20, found 20, of another type"
    )


def test_mismatch_hints():
    """The hint names the option to change and the other ways out."""
    text = f"{START}'x-delivery-limit' for queue 'q' in vhost '/': received '5' but current is '20'"
    assert mismatch(text, DeclareQueue("q")).hint == (
        "give the queue the same delivery_limit here, or use it as it is with"
        ' declare="passive", or take another name, or delete the queue on the broker once it is'
        " empty, so that it is made anew"
    )
    text = f"{START}'type' for exchange 'x' in vhost '/': received 'direct' but current is 'topic'"
    assert str(mismatch(text, DeclareExchange("x")).hint).startswith(
        "give the exchange the same type here"
    )
    text = f"{START}'x-foo' for queue 'q' in vhost '/': received '5' but current is '20'"
    assert str(mismatch(text, DeclareQueue("q")).hint).startswith(
        "give the queue the same arguments here"
    )


def test_invalid_argument():
    """An argument the queue's type does not know is told apart from one that differs."""
    step = DeclareQueue("q", arguments={"x-max-priority": 5})
    error = mismatch(
        "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/'"
        " of queue type rabbit_quorum_queue",
        step,
    )
    assert str(error) == (
        "queue 'q' in vhost '/' cannot have x-max-priority: a rabbit_quorum_queue does not know it"
    )
    assert error.hint == "change max_priority of the queue, or leave it out"
    assert (error.argument, error.wanted, error.found) == ("x-max-priority", "5", None)
    error = mismatch(
        "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/':"
        " {value_too_large,315360000001}",
        step,
    )
    assert str(error) == (
        "queue 'q' in vhost '/' cannot have x-message-ttl: {value_too_large,315360000001}"
    )


def test_unknown_refusal():
    """A text that cannot be read is passed on whole, with the ways out."""
    error = mismatch("PRECONDITION_FAILED - something new", DeclareQueue("q"))
    assert str(error) == "the broker refused queue 'q': PRECONDITION_FAILED - something new"
    assert (error.entity, error.argument) == ("queue 'q'", None)
    assert mismatch("no", BindExchange("a", "b")).entity == "exchange 'a'"
    assert mismatch("no", BindQueue("a", "b")).entity == "queue 'a'"


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_consumer_timeout(kind):
    """In milliseconds, on either type; which RabbitMQ heeds it is not known here."""
    plan = queue_plan(Queue("q", type=kind, consumer_timeout=7200.5), Settings())
    (step,) = [s for s in plan.steps if isinstance(s, DeclareQueue) and s.name == "q"]
    assert step.arguments["x-consumer-timeout"] == 7_200_500
