"""Sending on a real broker: in a queue when delay returns, or an error that says why not."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from amqtask import (
    AccessRefused,
    App,
    Exchange,
    MessageTooLarge,
    Nacked,
    PipelineError,
    PublishError,
    PublishTimeout,
    Queue,
    Unroutable,
)
from amqtask.options import CallOptions
from amqtask.transport import BrokerURL
from tests.helpers import eventually
from tests.integration.transport.conftest import RABBITMQ_4, MakeApp
from tests.integration.transport.peer import Peer
from tests.proxy import Proxy, closed_port
from tests.servers import Names

#: Seconds a call may take beyond its deadline: less than one that takes the usual deadline here, 60,
#: and more than a busy machine needs to wake a thread.
LATE = 30.0


# -- confirmed --------------------------------------------------------------------


def test_in_the_queue_when_delay_returns(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """The queue is made, bound and holds the message; nobody had to start a worker first."""
    queue = names.queue("email")
    app = make_app(queue)

    @app.task(name="t.add")
    def add(a: int, b: int) -> int:
        return a + b

    result = add.delay(1, 2)
    assert peer.take(queue) == [(result.id, [1, 2])]


async def test_in_the_queue_when_adelay_returns(
    make_app: MakeApp, names: Names, peer: Peer
) -> None:
    """The same from a coroutine."""
    queue = names.queue("email")
    app = make_app(queue)
    results = await asyncio.gather(*(app.asend_task("t", (n,)) for n in range(20)))
    assert sorted(peer.take(queue)) == sorted((r.id, [n]) for n, r in enumerate(results))


def test_by_topic(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """A routing key under a queue's name goes to that queue; a pattern of its own to that one."""
    email, news = names.queue("email"), names.queue("news")
    app = make_app(email, Queue(news, bindings=("news.*", f"{email}.important.#")))
    app.send_task("t", (1,), routing_key=f"{email}.welcome")
    app.send_task("t", (2,), routing_key="news.today")
    app.send_task("t", (3,), routing_key=f"{email}.important.now")
    app.send_task("t", (4,), queue=news)  # makes the queue, and its bindings were there before
    assert [args for _, args in peer.take(email)] == [[1], [3]]
    assert [4] not in [args for _, args in peer.take(email)]


def test_past_the_app_exchange(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """As Celery's own queues are: over the default exchange, classic, without arguments."""
    queue = names.queue("celery")
    app = make_app(Queue(queue, exchange="", type="classic", dead_letter=False))
    app.send_task("t", (1,))
    peer.channel.queue_declare(queue, durable=True)  # as Celery declares it: equivalent
    assert [args for _, args in peer.take(queue)] == [[1]]


# -- refused by a queue -------------------------------------------------------------


def test_unroutable_in_full(make_app: MakeApp, names: Names) -> None:
    """No queue: an error, with the near name of one that is known."""
    email = names.queue("email")
    app = make_app(email)
    with pytest.raises(Unroutable) as caught:
        app.send_task("t.add", queue=f"{email}s", task_id="id-1")
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {app.settings.exchange!r} with routing key"
        f" '{email}s' was not published: no queue took it (312 NO_ROUTE)"
    )
    assert caught.value.hint == (
        f"no queue of this app takes it, did you mean {email!r}?; start a worker for it, or list"
        " the queue in App(queues=...)"
    )
    assert (caught.value.task, caught.value.task_id) == ("t.add", "id-1")
    assert caught.value.routing_key == f"{email}s"


async def test_unroutable_from_a_coroutine(make_app: MakeApp, names: Names) -> None:
    """The same error where it is awaited."""
    app = make_app(names.queue("email"))
    with pytest.raises(Unroutable, match="no queue took it"):
        await app.asend_task("t.add", routing_key="nobody.wants")


def test_nacked_in_full(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """A full queue refuses, and what it took before is in it."""
    queue = names.queue("full")
    app = make_app(Queue(queue, type="classic", max_length=1))
    app.send_task("t.add", task_id="first")
    with pytest.raises(Nacked) as caught:
        app.send_task("t.add", task_id="id-1")
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {app.settings.exchange!r} with routing key {queue!r}"
        " was not published: the queue refused it"
    )
    assert caught.value.hint == (
        "it is full (x-max-length with reject-publish) or its replicas are down;"
        " see the broker's log"
    )
    assert [id_ for id_, _ in peer.take(queue)] == ["first"]
    app.send_task("t.add", task_id="again")
    assert [id_ for id_, _ in peer.take(queue)] == ["again"]


def test_a_full_quorum_queue_refuses_too(make_app: MakeApp, names: Names) -> None:
    """Its limit is soft: a few more get in, then no more."""
    app = make_app(Queue(names.queue("full"), max_length=1))
    with pytest.raises(PipelineError) as caught:
        _send_many(app, 2000)
    assert {type(why) for _, why in caught.value.failures} == {Nacked}
    assert caught.value.confirmed >= 1


# -- too large ----------------------------------------------------------------------


def test_too_large_for_the_setting_in_full(make_app: MakeApp, names: Names) -> None:
    """Nothing is sent; the limit and the size are named."""
    queue = names.queue("email")
    app = make_app(queue, max_message_size=1000)
    with pytest.raises(MessageTooLarge) as caught:
        app.send_task("t.add", ("x" * 1000,), task_id="id-1")
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {app.settings.exchange!r} with routing key {queue!r}"
        " was not published: its body has 1070 bytes, max_message_size is 1000"
    )
    assert caught.value.hint == "store the data elsewhere and send a reference to it"


@RABBITMQ_4  # before 4.0 it takes 128 MiB, too much for a test
def test_too_large_for_the_broker(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """The broker closes the channel over one message; those in flight with it arrive all the same."""
    queue = names.queue("email")
    app = make_app(queue, max_message_size=1 << 30, publish_timeout=60)
    size = (16 << 20) + 1
    with pytest.raises(PipelineError) as caught:
        _send_many(app, 50, special={25: ("x" * size, {})})
    ((id_, error),) = caught.value.failures
    assert (id_, caught.value.confirmed) == ("25", 49)
    assert isinstance(error, MessageTooLarge)
    assert str(error) == (
        f"task 't.add' (id 25) to exchange {app.settings.exchange!r} with routing key {queue!r}"
        f" was not published: PRECONDITION_FAILED - message size {size + 70} is larger than"
        " configured max size 16777216"
    )
    assert {int(id_) for id_, _ in peer.take(queue)} == set(range(50)) - {25}


# -- exchanges ----------------------------------------------------------------------


def test_a_missing_exchange_in_full(make_app: MakeApp, names: Names) -> None:
    """Somebody else's exchange that is not there: unroutable, by its name."""
    app = make_app(names.queue("email"))
    missing = names.exchange("missing")
    with pytest.raises(Unroutable) as caught:
        app.send_task("t.add", exchange=missing, routing_key="k", task_id="id-1")
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {missing!r} with routing key 'k' was not published:"
        f" NOT_FOUND - no exchange {missing!r} in vhost '/'"
    )


def test_a_missing_exchange_costs_the_others_nothing(
    make_app: MakeApp, names: Names, peer: Peer
) -> None:
    """Each 404 closes the channel; all else in flight is sent again and arrives."""
    queue = names.queue("email")
    app = make_app(queue)
    missing = names.exchange("missing")
    nowhere: CallOptions = {"exchange": missing, "routing_key": "k"}
    with pytest.raises(PipelineError) as caught:
        _send_many(app, 300, special={100: (0, nowhere), 200: (0, nowhere)})
    assert sorted(id_ for id_, _ in caught.value.failures) == ["100", "200"]
    assert {type(why) for _, why in caught.value.failures} == {Unroutable}
    assert caught.value.confirmed == 298
    assert {int(id_) for id_, _ in peer.take(queue)} == set(range(300)) - {100, 200}


def test_an_internal_exchange_refuses(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """A 403 on publishing names task, route and remedy, and the app works on."""
    queue, internal = names.queue("email"), names.exchange("internal")
    app = make_app(queue)
    peer.channel.exchange_declare(internal, "topic", durable=True, internal=True)
    with pytest.raises(PublishError) as caught:
        app.send_task("t.add", exchange=internal, routing_key="k", task_id="id-1")
    assert type(caught.value) is PublishError
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {internal!r} with routing key 'k' was not published:"
        f" broker {app.transport.urls[0]} refused an operation: ACCESS_REFUSED - cannot publish"
        f" to internal exchange {internal!r} in vhost '/'"
    )
    assert caught.value.hint == (
        "give the user this permission, or have somebody else declare the entities and set"
        ' declare="never"'
    )
    app.send_task("t.add")


def test_an_exchange_object_is_declared(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """An Exchange in a call is made before the message; without a queue it is unroutable."""
    app = make_app(names.queue("email"))
    exchange = Exchange(names.exchange("events"), "fanout")
    with pytest.raises(Unroutable):
        app.send_task("t", exchange=exchange)
    peer.channel.exchange_declare(exchange.name, "fanout", durable=True, passive=True)


# -- deleted under us -----------------------------------------------------------------


@pytest.mark.parametrize("what", ["queue", "exchange", "both"])
def test_deleted_under_the_publisher(
    make_app: MakeApp, names: Names, peer: Peer, what: str
) -> None:
    """What this app declared before and somebody deleted is made anew, without an error."""
    queue = names.queue("email")
    app = make_app(queue)
    app.send_task("t", (1,))
    if what in ("queue", "both"):
        peer.delete_queue(queue)
    if what in ("exchange", "both"):
        peer.delete_exchange(app.settings.exchange)
    with app.pipeline():
        for number in range(20):
            app.send_task("t", (number,))
    found = [args for _, args in peer.take(queue)]
    assert {args[0] for args in found} == set(range(20))


# -- no broker --------------------------------------------------------------------------


def test_unreachable_in_full(make_app: MakeApp, names: Names) -> None:
    """Nothing listens: an error at the deadline, with the broker and the reason."""
    port, queue = closed_port(), names.queue("email")
    app = make_app(queue, url=f"amqp://user:secret@127.0.0.1:{port}/", publish_timeout=2.0)
    began = time.monotonic()
    with pytest.raises(PublishTimeout) as caught:
        app.send_task("t.add", task_id="id-1")
    assert 2.0 <= time.monotonic() - began < 2.0 + LATE
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {app.settings.exchange!r} with routing key {queue!r}"
        f" was not published: broker amqp://user@127.0.0.1:{port} does not answer:"
        f" [Errno 111] Connection refused"
    )


async def test_unreachable_from_a_coroutine(make_app: MakeApp, names: Names) -> None:
    """The loop of the caller is free meanwhile."""
    app = make_app(
        names.queue("email"), url=f"amqp://127.0.0.1:{closed_port()}/", publish_timeout=1.0
    )
    ticks = 0
    call = asyncio.create_task(app.asend_task("t"))
    while not call.done():
        ticks += 1
        await asyncio.sleep(0.01)
    assert ticks > 5
    assert isinstance(call.exception(), PublishTimeout)


def test_a_handshake_that_hangs(make_app: MakeApp, names: Names, proxy: Proxy) -> None:
    """Something listens and says nothing: the deadline holds, and the reason is the handshake."""
    proxy.black_hole()
    app = make_app(names.queue("email"), url=proxy.url, publish_timeout=3.0, connect_timeout=1.0)
    began = time.monotonic()
    with pytest.raises(PublishTimeout) as caught:
        app.send_task("t.add", task_id="id-1")
    assert 3.0 <= time.monotonic() - began < 3.0 + LATE
    assert str(caught.value).endswith(
        f" was not published: broker {BrokerURL.parse(proxy.url)} did not complete the handshake"
        " within 1 s"
    )
    proxy.forward()
    make_app(app.settings.default_queue, url=proxy.url).send_task("t.add")


def test_a_connection_that_goes_silent(
    make_app: MakeApp, names: Names, peer: Peer, proxy: Proxy
) -> None:
    """A dead network after connecting: the deadline holds; once it is back, all goes on."""
    queue = names.queue("email")
    app = make_app(queue, url=proxy.url, publish_timeout=3.0)
    app.send_task("t.add", task_id="before")
    proxy.black_hole()
    began = time.monotonic()
    with pytest.raises(PublishTimeout) as caught:
        app.send_task("t.add", task_id="id-1")
    assert 3.0 <= time.monotonic() - began < 3.0 + LATE
    assert str(caught.value) == (
        f"task 't.add' (id id-1) to exchange {app.settings.exchange!r} with routing key {queue!r}"
        " was not published: no confirm before the deadline; it was sent and may still arrive"
    )
    proxy.forward()
    app.send_task("t.add", task_id="after")
    # as the error said: it may still arrive
    assert [id_ for id_, _ in peer.take(queue)] == ["before", "id-1", "after"]


def test_fails_over_to_a_live_url(make_app: MakeApp, names: Names, broker: str, peer: Peer) -> None:
    """The first URL is dead, the second one takes the message within the deadline."""
    queue = names.queue("email")
    app = make_app(queue, url=[f"amqp://127.0.0.1:{closed_port()}/", broker])
    app.send_task("t", (1,))
    assert [args for _, args in peer.take(queue)] == [[1]]


def test_fails_over_when_the_live_one_dies(
    make_app: MakeApp, names: Names, broker: str, peer: Peer, proxy: Proxy
) -> None:
    """The connection's broker goes away: the next call goes over the other URL."""
    queue = names.queue("email")
    app = make_app(queue, url=[proxy.url, broker])
    app.send_task("t", (1,))
    assert proxy.accepted == 1
    proxy.down()
    app.send_task("t", (2,))
    assert [args for _, args in peer.take(queue)] == [[1], [2]]


# -- no access --------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["password", "vhost"])
def test_no_access_in_full(make_app: MakeApp, names: Names, broker: str, wrong: str) -> None:
    """Wrong password or vhost fails at once, whatever the deadline, without the password."""
    good = BrokerURL.parse(broker)
    user = f"{good.user}:wrong-secret" if wrong == "password" else f"{good.user}:{good.password}"
    vhost = "no-such-vhost" if wrong == "vhost" else ""
    app = make_app(
        names.queue("email"),
        url=f"amqp://{user}@{good.host}:{good.port}/{vhost}",
        publish_timeout=600,
    )
    began = time.monotonic()
    with pytest.raises(AccessRefused) as caught:
        app.send_task("t.add")
    assert time.monotonic() - began < 300
    url = app.transport.urls[0]
    reason = {
        "password": (
            "403 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For"
            " details see the broker logfile."
        ),
        "vhost": "530 NOT_ALLOWED - vhost no-such-vhost not found",
    }
    assert str(caught.value) == (
        f"broker {url} refused access to vhost {url.vhost!r}: {reason[wrong]}"
    )
    assert caught.value.hint == "check user, password, vhost and permissions of the broker URL"
    assert "secret" not in str(caught.value)
    with pytest.raises(AccessRefused):
        app.send_task("t.add")


def _send_many(
    app: App, count: int, special: Mapping[int, tuple[Any, CallOptions]] | None = None
) -> None:
    """Send calls with their number as id and argument; special ones with another and options."""
    with app.pipeline():
        for number in range(count):
            argument, said = (special or {}).get(number, (number, {}))
            options: CallOptions = {"task_id": str(number), **said}
            app.send_task("t.add", (argument,), **options)


def test_what_is_thrown_into_senders_loses_nothing(
    make_app: MakeApp, names: Names, peer: Peer
) -> None:
    """Soft time limits strike between any two steps; what was confirmed is there all the same."""
    queue = names.queue("email")
    app = make_app(queue)
    app.send_task("t")
    over = threading.Event()

    def send(sent: list[str]) -> None:
        while True:
            try:
                while not over.is_set():
                    sent.append(app.send_task("t").id)
                return
            except _Struck:
                pass

    lists: list[list[str]] = [[], []]
    senders = [threading.Thread(target=send, args=(each,)) for each in lists]
    for sender in senders:
        sender.start()
    for number in range(100):
        sender, sent = senders[number % 2], lists[number % 2]
        # by the second call since the last strike it is where the next one will be caught
        eventually(partial(_longer, sent, len(sent) + 1))
        target = ctypes.c_ulong(sender.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(_Struck))
    over.set()
    for sender in senders:
        sender.join()
    last = app.send_task("t").id
    there = {id_ for id_, _ in peer.take(queue)}
    assert there.issuperset([last, *lists[0], *lists[1]])


def _longer(found: list[str], than: int) -> bool:
    return len(found) > than


class _Struck(BaseException):
    """Stands for a time limit."""
