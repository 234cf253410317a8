"""Declaring on a real broker: made, checked or left alone; a difference is told in full."""

from __future__ import annotations

import pytest

from amqtask import Exchange, PublishError, Queue, TopologyMismatch, Unroutable
from tests.integration.transport.conftest import MakeApp
from tests.integration.transport.peer import Peer
from tests.servers import Names


def _remedy(kind: str, field: str) -> str:
    return (
        f"give the {kind} the same {field} here, or use it as it is with"
        f' declare="passive", or take another name, or delete the {kind} on the broker'
        " once it is empty, so that it is made anew"
    )


# -- differences --------------------------------------------------------------------


def test_a_plain_queue_in_full(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """A queue that somebody made without arguments, as Celery does."""
    queue = names.queue("email")
    peer.channel.queue_declare(queue, durable=True)
    app = make_app(queue)
    with pytest.raises(TopologyMismatch) as caught:
        app.send_task("t")
    dead = app.settings.dead_letter_exchange
    assert str(caught.value) == (
        f"queue {queue!r} in vhost '/' has another x-dead-letter-exchange than wanted here:"
        f" wanted {dead}, found none"
    )
    assert caught.value.hint == _remedy("queue", "dead_letter")


def test_a_queue_of_another_type_in_full(make_app: MakeApp, names: Names) -> None:
    """The argument, what is wanted here, what the broker has, and the ways out."""
    queue = names.queue("email")
    # the broker names the first argument that differs, and looks at the type last
    there = Queue(queue, type="classic", arguments={"x-overflow": "reject-publish"})
    make_app(there).send_task("t")
    with pytest.raises(TopologyMismatch) as caught:
        make_app(queue).send_task("t")
    error = caught.value
    assert str(error) == (
        f"queue {queue!r} in vhost '/' has another x-queue-type than wanted here:"
        " wanted quorum, found classic"
    )
    assert (error.entity, error.argument) == (f"queue {queue!r}", "x-queue-type")
    assert (error.wanted, error.found) == ("quorum", "classic")
    assert error.hint == _remedy("queue", "type")


@pytest.mark.parametrize(
    ("there", "here", "argument", "wanted", "found", "field"),
    [
        ({"max_length": 5}, {"max_length": 6}, "x-max-length", "6", "5", "max_length"),
        ({}, {"message_ttl": 60}, "x-message-ttl", "60000", "none", "message_ttl"),
        ({"message_ttl": 60}, {}, "x-message-ttl", "none", "60000", "message_ttl"),
        ({}, {"max_priority": 9}, "x-max-priority", "9", "none", "max_priority"),
        (
            {},
            {"dead_letter": False},
            "x-dead-letter-exchange",
            "none",
            "dead-exchange",
            "dead_letter",
        ),
    ],
)
def test_each_argument_that_can_differ_in_full(
    make_app: MakeApp,
    names: Names,
    there: dict[str, int],
    here: dict[str, int],
    argument: str,
    wanted: str,
    found: str,
    field: str,
) -> None:
    """Missing on one side or different: both values as the broker spells them."""
    queue = names.queue("email")
    first = make_app(Queue(queue, type="classic", **there))  # type: ignore[arg-type]
    first.send_task("t")
    second = make_app(Queue(queue, type="classic", **here))  # type: ignore[arg-type]
    with pytest.raises(TopologyMismatch) as caught:
        second.send_task("t")
    found = found.replace("dead-exchange", first.settings.dead_letter_exchange)
    assert str(caught.value) == (
        f"queue {queue!r} in vhost '/' has another {argument} than wanted here:"
        f" wanted {wanted}, found {found}"
    )
    assert caught.value.hint == _remedy("queue", field)


def test_an_exchange_of_another_type_in_full(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """The same for exchanges."""
    app = make_app(names.queue("email"))
    exchange = app.settings.exchange
    peer.channel.exchange_declare(exchange, "direct", durable=True)
    with pytest.raises(TopologyMismatch) as caught:
        app.send_task("t")
    error = caught.value
    assert str(error) == (
        f"exchange {exchange!r} in vhost '/' has another type than wanted here:"
        " wanted topic, found direct"
    )
    assert (error.entity, error.argument) == (f"exchange {exchange!r}", "type")
    assert (error.wanted, error.found) == ("topic", "direct")
    assert error.hint == _remedy("exchange", "type")


def test_a_transient_exchange_in_full(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """Flags count as arguments do."""
    app = make_app(names.queue("email"))
    exchange = app.settings.exchange
    peer.channel.exchange_declare(exchange, "topic", durable=False)
    with pytest.raises(TopologyMismatch) as caught:
        app.send_task("t")
    assert str(caught.value) == (
        f"exchange {exchange!r} in vhost '/' has another durable than wanted here:"
        " wanted true, found false"
    )


def test_every_call_says_it_until_it_is_mended(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """A mismatch fails each call, others go on, and no restart is needed once it is gone."""
    queue, good = names.queue("email"), names.queue("good")
    peer.channel.queue_declare(queue, durable=True)
    app = make_app(queue, good)
    for _ in range(2):
        with pytest.raises(TopologyMismatch):
            app.send_task("t")
        app.send_task("t", (1,), queue=good)
    peer.delete_queue(queue)
    app.send_task("t", (2,))
    assert [args for _, args in peer.take(queue)] == [[2]]
    assert [args for _, args in peer.take(good)] == [[1], [1]]


def test_declared_twice_is_declared(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """Several apps and several starts with the same topology do not mind each other."""
    queue = names.queue("email")
    wanted = Queue(queue, delivery_limit=5, message_ttl=60.5, bindings=("a.#", f"{queue}.#"))
    for _ in range(2):
        app = make_app(wanted)
        app.send_task("t", queue=queue, routing_key=f"{queue}.x")
        app.close()
    assert len(peer.take(queue)) == 2


# -- passive --------------------------------------------------------------------------


def test_passive_uses_what_is_there(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """Whatever its arguments are, and without making or binding anything."""
    queue = names.queue("theirs")
    exchange = names.exchange("x")
    app = make_app(
        Queue(queue, dead_letter=False), declare="passive", exchange=exchange, delay_prefix="none"
    )
    peer.channel.exchange_declare(exchange, "topic", durable=True)
    peer.channel.queue_declare(queue, durable=True, arguments={"x-max-length": 100})
    with pytest.raises(Unroutable):
        app.send_task("t")  # nobody bound it, and passive binds nothing
    peer.channel.queue_bind(queue, exchange, queue)
    app.send_task("t", (1,))
    assert [args for _, args in peer.take(queue)] == [[1]]
    assert not peer.exists(f"{queue}.dead")


@pytest.mark.parametrize("missing", ["exchange", "queue"])
def test_passive_and_missing_in_full(
    make_app: MakeApp, names: Names, peer: Peer, missing: str
) -> None:
    """What is not there is named, and not made."""
    queue, exchange = names.queue("theirs"), names.exchange("x")
    app = make_app(Queue(queue, dead_letter=False), declare="passive", exchange=exchange)
    if missing == "queue":
        peer.channel.exchange_declare(exchange, "topic", durable=True)
    with pytest.raises(PublishError) as caught:
        app.send_task("t.add", task_id="id-1")
    name = exchange if missing == "exchange" else queue
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {exchange!r} with routing key {queue!r} was not"
        f" published: broker {app.transport.urls[0]} closed a channel: 404 NOT_FOUND -"
        f" no {missing} {name!r} in vhost '/'"
    )
    assert not peer.exists(queue)


def test_one_queue_passive_in_an_app_that_declares(
    make_app: MakeApp, names: Names, peer: Peer
) -> None:
    """A queue that another team owns beside our own."""
    ours, theirs = names.queue("ours"), names.queue("theirs")
    app = make_app(ours, Queue(theirs, exchange="", dead_letter=False, declare="passive"))
    peer.channel.queue_declare(theirs, durable=True)
    app.send_task("t", (1,))
    app.send_task("t", (2,), queue=theirs)
    assert [args for _, args in peer.take(ours)] == [[1]]
    assert [args for _, args in peer.take(theirs)] == [[2]]


# -- never ----------------------------------------------------------------------------


def test_never_declares_nothing(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """What is missing is an unroutable message; what is there is used."""
    queue = names.queue("theirs")
    app = make_app(Queue(queue, exchange=""), declare="never")
    with pytest.raises(Unroutable) as caught:
        app.send_task("t.add", task_id="id-1")
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to the default exchange with routing key {queue!r} was not"
        " published: no queue took it (312 NO_ROUTE)"
    )
    assert not peer.exists(queue)
    peer.channel.queue_declare(queue, durable=True)
    app.send_task("t", (1,))
    assert [args for _, args in peer.take(queue)] == [[1]]


def test_never_and_no_exchange(make_app: MakeApp, names: Names) -> None:
    """An app exchange that nobody made is named."""
    app = make_app(names.queue("theirs"), declare="never")
    with pytest.raises(Unroutable, match=f"no exchange '{app.settings.exchange}' in vhost '/'"):
        app.send_task("t")


def test_an_exchange_of_the_broker_is_used(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """amq.topic and the like are there: used, never declared."""
    queue = names.queue("q")
    app = make_app(queue)
    peer.channel.queue_declare(queue, durable=True)
    peer.channel.queue_bind(queue, "amq.topic", f"{queue}.#")
    exchange = Exchange("amq.topic", declare="never")
    app.send_task("t", (1,), exchange=exchange, routing_key=f"{queue}.x")
    assert [args for _, args in peer.take(queue)] == [[1]]
