"""From a call to its messages: route, times, what has to be there first, and the hint on failure."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqtask import (
    Binding,
    ConfigurationError,
    DelayTooLong,
    Exchange,
    Queue,
    ResultTimeout,
    Unroutable,
)
from amqtask.clock import telling
from amqtask.options import Options
from amqtask.policy.retry import RETRY_HEADER, RetryPolicy
from amqtask.send import Place
from tests.unit.desk.recorder import make_app

#: Seconds that a date on the wire may be rounded by.
ROUNDED = 0.001


@pytest.mark.parametrize(
    ("said", "exchange", "key", "needs"),
    [
        ({}, "amqtask", "default", ["queue 'default'"]),
        ({"queue": "email"}, "amqtask", "email", ["queue 'email'"]),
        ({"routing_key": "email.welcome"}, "amqtask", "email.welcome", ["queue 'email'"]),
        ({"queue": "unknown"}, "amqtask", "unknown", ["exchange 'amqtask'"]),
        ({"routing_key": "nobody.wants"}, "amqtask", "nobody.wants", ["exchange 'amqtask'"]),
        ({"exchange": "theirs", "routing_key": "k"}, "theirs", "k", []),
        ({"exchange": "theirs"}, "theirs", "t.add", []),
        ({"exchange": "", "routing_key": "email"}, "", "email", None),
        ({"queue": Queue("mine", exchange="")}, "", "mine", ["queue 'mine'"]),
        ({"queue": "celery"}, "", "celery", ["queue 'celery'"]),
    ],
)
def test_where_a_call_goes(
    said: dict[str, Any], exchange: str, key: str, needs: list[str] | None
) -> None:
    """Queue, topic, exchange: each way to address a call, and what is declared before it."""
    app, sent = make_app("email", Queue("celery", exchange="", type="classic", dead_letter=False))
    app.send_task("t.add", **said)
    assert (sent.last.exchange, sent.last.routing_key) == (exchange, key)
    if needs is not None:
        assert [need.name for need in sent.last.requires] == needs


def test_routes_by_task_name() -> None:
    """Rules decide for calls that say nothing; what a call says wins."""
    app, sent = make_app("email", "reports", routes=[("mail.*", "email"), ("*", "reports")])
    keys = []
    for name, said in (("mail.send", {}), ("other", {}), ("mail.send", {"queue": "reports"})):
        app.send_task(name, **said)  # type: ignore[arg-type]
        keys.append(sent.last.routing_key)
    assert keys == ["email", "reports", "reports"]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            {"queue": "emial"},
            (
                "no queue of this app takes it, did you mean 'email'?; start a worker for it, or"
                " list the queue in App(queues=...)"
            ),
        ),
        (
            {"queue": "zzz"},
            (
                "no queue of this app takes it; start a worker for it, or list the queue in"
                " App(queues=...)"
            ),
        ),
        ({"queue": "email"}, None),
    ],
)
def test_the_hint_of_an_unroutable_call(said: dict[str, Any], hint: str | None) -> None:
    """A queue this app does not know may be a typing error, so the near name is there."""
    app, sent = make_app("email")
    app.send_task("t.add", **said)
    assert sent.last.hint == hint


# -- times ------------------------------------------------------------------------


def test_a_delayed_call_goes_to_the_delay_levels() -> None:
    """Not to the queue: nobody holds it, and the queue and its way there are made first."""
    app, sent = make_app("email", delay_prefix="d")
    before = time.time()
    app.send_task("t", queue="email", countdown=5)
    after = time.time()
    publication = sent.last
    assert publication.exchange.startswith("d.")
    assert publication.routing_key.endswith(".email")
    assert [need.name for need in publication.requires] == [
        "queue 'email'",
        "delay levels 'd'",
        "binding of 'email' to delay levels 'd'",
    ]
    eta = datetime.fromisoformat(publication.message.headers["eta"])
    assert before - ROUNDED <= eta.timestamp() - 5 <= after + ROUNDED


def test_the_levels_are_worked_out_when_it_is_sent() -> None:
    """What declaring and reconnecting took is not added to the delay; too late means at once."""
    app, sent = make_app("email", delay_prefix="d")
    app.send_task("t", queue="email", countdown=5)
    publication = sent.last
    assert publication.address is not None
    eta = datetime.fromisoformat(publication.message.headers["eta"]).timestamp()
    with telling(lambda: eta - 0.13):
        exchange, routing_key = publication.address()
    assert exchange == "d.level00"  # three ticks of 50 ms
    assert routing_key.endswith(".0.3.email")
    with telling(lambda: eta + 1):
        assert publication.address() == ("", "email")


@pytest.mark.parametrize(
    "said",
    [
        {"countdown": 0},
        {"countdown": -5},
        {"eta": datetime(2020, 1, 1, tzinfo=UTC)},
        {"countdown": None},
    ],
)
def test_a_time_that_is_past_is_now(said: dict[str, Any]) -> None:
    """No level for a wait of nothing."""
    app, sent = make_app("email")
    app.send_task("t", queue="email", **said)
    assert (sent.last.exchange, sent.last.routing_key) == ("amqtask", "email")


def test_too_far_ahead() -> None:
    """Beyond what the levels hold it fails at the call."""
    app, sent = make_app()
    with pytest.raises(DelayTooLong):
        app.send_task("t", eta=datetime(9000, 1, 1, tzinfo=UTC))
    assert sent.sent == []


def test_a_delayed_topic_nobody_is_bound_to_in_full() -> None:
    """The broker could not tell: it is known here that no queue would get it."""
    app, sent = make_app("email")
    with pytest.raises(Unroutable) as caught:
        app.send_task("t.add", routing_key="nobody.wants", countdown=5)
    assert str(caught.value) == (
        "delayed call of task 't.add' to exchange 'amqtask' with routing key 'nobody.wants':"
        " no queue this app knows is bound to that"
    )
    assert caught.value.hint == (
        "name the queue (queue=...), or list the bound queue in App(queues=...)"
    )
    assert sent.sent == []


def test_a_delayed_topic_goes_to_each_bound_queue() -> None:
    """One call, one id, a message for each queue that would have got it."""
    news = Exchange("news", "fanout")
    app, sent = make_app(
        Queue("a", bindings=("#", Binding(news))), Queue("b", bindings=(Binding(news),))
    )
    app.send_task("t", exchange="news", routing_key="x", countdown=5)
    assert sorted(each.routing_key.rpartition(".")[2] for each in sent.sent) == ["a", "b"]
    assert len({each.message.message_id for each in sent.sent}) == 1


def test_expires_is_left_to_the_broker_only_without_a_delay() -> None:
    """In a delay level the TTL would run out too early; the header says it to the worker."""
    app, sent = make_app("email")
    app.send_task("t", expires=60)
    assert 50_000 < int(sent.last.message.expiration or 0) <= 60_000
    before = time.time()
    app.send_task("t", expires=timedelta(minutes=1), countdown=30)
    after = time.time()
    assert sent.last.message.expiration is None
    expires = datetime.fromisoformat(sent.last.message.headers["expires"])
    assert before - ROUNDED <= expires.timestamp() - 60 <= after + ROUNDED
    for past in (datetime(2020, 1, 1, tzinfo=UTC), -1):
        app.send_task("t", expires=past)
        assert sent.last.message.expiration == "0"


def test_expires_is_left_to_workers_where_something_follows() -> None:
    """A call that the broker drops could tell nobody that it has ended: what follows would hang."""
    app, sent = make_app("email")
    other = app.signature("next")

    def expiring(**said: Any) -> Any:
        return app.signature("t", (1,)).set(expires=60, **said)

    for made in (expiring() | other, expiring(link=other), expiring(link_error=other)):
        made.delay()
        assert [each.message.expiration for each in sent.sent if each.task == "t"] == [None]
        sent.sent.clear()
    expiring().delay()
    assert sent.last.message.expiration is not None


@pytest.mark.parametrize("backend", ["rpc://", "memory://"])
def test_expires_is_left_to_workers_where_the_outcome_is_wanted(backend: str) -> None:
    """The broker sends no REVOKED: whoever waits would wait for ever."""
    app, sent = make_app("email", backend=backend)

    def left_to_the_broker() -> bool:
        return sent.last.message.expiration is not None

    @app.task(ignore_result=True)
    def quiet() -> None: ...

    app.send_task("t", expires=60)
    assert not left_to_the_broker()
    app.send_task("t", expires=60, ignore_result=True)
    assert left_to_the_broker()
    quiet.options(expires=60).delay()
    assert left_to_the_broker()
    # the last step of a chain, sent by the worker that ran the one before
    for reply_to in ("somebody", ""):
        place = Place(reply_to=reply_to)
        outgoing = app.sender.prepare("t", (), {}, Options(expires=60), place=place)
        assert outgoing.publications[0].message.expiration is None
        assert outgoing.pending is None


def test_expires_is_left_to_workers_where_a_reply_is_waited_for() -> None:
    """That goes for `call`, too, which needs no backend."""
    app, sent = make_app("email")
    vars(app.transport)["direct_replies"] = lambda *_: None

    @app.task
    def task() -> None: ...

    with pytest.raises(ResultTimeout):
        task.options(expires=60, call_timeout=0.001).call()
    assert sent.last.message.reply_to
    assert sent.last.message.expiration is None


# -- the message ------------------------------------------------------------------


def test_every_option_reaches_the_message() -> None:
    """Each has its place in properties or headers."""
    app, sent = make_app()
    policy = RetryPolicy(max_retries=7)
    app.send_task(
        "t.add",
        (1,),
        {"k": 2},
        task_id="id-1",
        priority=9,
        headers={"team": "a"},
        time_limit=30,
        soft_time_limit=20.5,
        retry=policy,
        serializer="json",
        ignore_result=True,
        shadow="shown",
    )
    message = sent.last.message
    assert (message.message_id, message.correlation_id, message.priority) == ("id-1", "id-1", 9)
    assert (message.delivery_mode, message.content_type) == (2, "application/json")
    headers = message.headers
    assert (headers["task"], headers["id"], headers["root_id"]) == ("t.add", "id-1", "id-1")
    assert (headers["timelimit"], headers["shadow"]) == ([30, 20.5], "shown")
    assert (headers["ignore_result"], headers["team"]) == (True, "a")
    assert headers[RETRY_HEADER] == policy.to_header()
    assert headers["argsrepr"] == "(1,)"
    assert "amqtask" in headers["origin"]


def test_an_unknown_serializer() -> None:
    """Fails at the call."""
    app, sent = make_app()
    with pytest.raises(ConfigurationError, match="'jsn'"):
        app.send_task("t", serializer="jsn")
    assert sent.sent == []


def test_large_bodies_are_compressed_when_told() -> None:
    """Over compress_over, and said in the header."""
    app, sent = make_app(compression="zlib", compress_over=100)
    app.send_task("t", ("x" * 1000,))
    assert sent.last.message.headers["compression"] == "application/x-gzip"
    assert len(sent.last.message.body) < 500
    app.send_task("t", ("x",))
    assert "compression" not in sent.last.message.headers


# -- results ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said", "wanted"),
    [
        ({}, {}, False),
        ({"backend": "rpc://"}, {}, True),
        ({"backend": "rpc://"}, {"ignore_result": True}, False),
        ({"backend": "rpc://", "ignore_result": True}, {}, False),
        ({"backend": "rpc://", "ignore_result": True}, {"ignore_result": False}, True),
    ],
)
def test_an_address_for_the_result_only_when_wanted(
    settings: dict[str, Any], said: dict[str, Any], wanted: bool
) -> None:
    """A reply queue is waited for, and named, only by calls whose outcome is wanted."""
    app, sent = make_app(**settings)
    result = app.send_task("t", **said)
    assert bool(sent.last.message.reply_to) is wanted
    assert ("reply queue" in [need.name for need in sent.last.requires]) is wanted
    assert (result._pending is not None) is wanted


def test_ids_are_unique() -> None:
    """And the given one is kept."""
    app, sent = make_app()
    ids = {app.send_task("t").id for _ in range(1000)}
    assert len(ids) == 1000
    assert {each.message.message_id for each in sent.sent} == ids
    assert app.send_task("t", task_id="mine").id == "mine"
