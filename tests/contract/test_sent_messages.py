"""What another client finds in the messages that amqtask sends: Celery's protocol 2, exactly.

Source:
    celery 5.7 ``celery/app/amqp.py``, ``as_task_v2``; which types clients in other languages insist
    on: rusty-celery's and py-amqp's decoders.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from amqtask import Context, Queue, RetryPolicy
from amqtask.topology.delay import TICK_MS
from tests.contract.conftest import MakeApp, Running
from tests.contract.peers import Peer, exact, read_raw, waited_ms
from tests.helpers import aeventually
from tests.servers import Names

ORIGIN = re.compile(r"amqtask\d+@.+")
NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

#: What RabbitMQ adds to a message from a quorum queue (3.10), or that waited in the delay levels.
BROKERS = {
    "x-delivery-count",
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
}


def protocol_headers(task: str, id: str, **changed: Any) -> dict[str, Any]:
    """Return the 19 headers of a call, without ``origin``, which is checked apart."""
    return {
        "lang": "py",
        "task": task,
        "id": id,
        "root_id": id,
        "parent_id": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
        "shadow": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **changed,
    }


def sent_headers(message: Any) -> dict[str, Any]:
    """Return a message's headers without the broker's."""
    return {name: value for name, value in message.headers.items() if name not in BROKERS}


async def test_plain_call(make_app: MakeApp, peer: Peer, names: Names):
    """A call without options has every header, property and body element of Celery's, and no other."""
    queue = names.queue()
    app = make_app(queue)

    @app.task(name="mail.send")
    def send(to: str, number: int, *, html: bool) -> None: ...

    before = int(time.time())
    result = await send.adelay("a@example.org", 2, html=True)
    message = await peer.take(queue)

    headers = sent_headers(message)
    assert ORIGIN.fullmatch(headers.pop("origin"))
    assert exact(headers) == exact(
        protocol_headers(
            "mail.send",
            result.id,
            argsrepr="('a@example.org', 2)",
            kwargsrepr="{'html': True}",
        )
    )
    assert str(UUID(result.id)) == result.id
    assert json.loads(message.body) == [["a@example.org", 2], {"html": True}, NOTHING_FOLLOWS]
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.correlation_id == result.id
    assert message.message_id == result.id
    assert message.delivery_mode == 2
    assert message.priority == 0
    assert message.expiration is None
    assert message.timestamp is not None
    assert before <= message.timestamp.timestamp() <= time.time()
    assert (message.type, message.user_id, message.app_id) == (None, None, None)
    assert message.exchange == "amqtask"
    assert message.routing_key == queue


async def test_properties_on_the_wire(broker: str, make_app: MakeApp, names: Names):
    """These properties are written and no others; ``reply_to`` is there though no reply is wanted.

    Celery writes an empty one too; a reader that asks for it finds text.
    """
    queue = names.queue()
    app = make_app(queue)
    result = await app.asend_task("any.task")
    properties, _ = await asyncio.to_thread(read_raw, broker, queue)
    properties.pop("cluster_id")  # pamqp's own, for a property that AMQP 0-9-1 dropped
    assert isinstance(properties.pop("timestamp"), datetime)
    assert exact(properties) == exact(
        {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "priority": 0,
            "correlation_id": result.id,
            "reply_to": "",
            "message_id": result.id,
        }
    )


async def test_reply_address_with_rpc_backend(make_app: MakeApp, peer: Peer, names: Names):
    """With ``rpc://`` the ``reply_to`` names a queue that exists, unless no result is wanted."""
    queue = names.queue()
    app = make_app(queue, backend="rpc://")
    await app.asend_task("any.task")
    await app.asend_task("any.task", ignore_result=True)
    wanted, unwanted = await peer.take(queue), await peer.take(queue)
    assert wanted.reply_to
    assert await peer.size(wanted.reply_to) == 0
    assert wanted.headers["ignore_result"] is None
    assert not unwanted.reply_to
    assert unwanted.headers["ignore_result"] is True


async def test_every_option(make_app: MakeApp, peer: Peer, names: Names):
    """Each option lands in the header or property where Celery looks for it, in Celery's type."""
    queue = names.queue()
    app = make_app(queue)
    expires = datetime.now(UTC) + timedelta(minutes=5)
    user = {
        "text": "ä",
        "number": 5,
        "flag": True,
        "none": None,
        "list": [1, "a"],
        "part": {"x": 1},
    }
    result = await app.asend_task(
        "any.task",
        task_id="order-17",
        expires=expires,
        priority=5,
        time_limit=30,
        soft_time_limit=20.5,
        shadow="shown",
        headers=user,
    )
    message = await peer.take(queue)

    headers = sent_headers(message)
    assert ORIGIN.fullmatch(headers.pop("origin"))
    assert result.id == "order-17"
    assert exact(headers) == exact(
        {
            **protocol_headers(
                "any.task",
                "order-17",
                expires=expires.isoformat(),
                timelimit=[30, 20.5],
                shadow="shown",
            ),
            **user,
        }
    )
    assert message.priority == 5
    assert message.correlation_id == "order-17"
    # aio-pika gives seconds; on the wire it is text, in milliseconds
    assert 299 < float(message.expiration or 0) <= 300


async def test_expires_in_seconds(make_app: MakeApp, peer: Peer, names: Names):
    """Seconds become an instant with an explicit offset, as strict readers drop one without."""
    queue = names.queue()
    app = make_app(queue)
    before = datetime.now(UTC)
    await app.asend_task("any.task", expires=90)
    message = await peer.take(queue)
    expires = datetime.fromisoformat(message.headers["expires"])
    assert message.headers["expires"].endswith("+00:00")
    assert timedelta(0) <= expires - before - timedelta(seconds=90) < timedelta(seconds=10)
    assert message.expiration == 90


async def test_kinds_on_the_wire(broker: str, make_app: MakeApp, names: Names):
    """Only field types that every client decodes alike are written: S, I, l, d, t, V, A and F.

    py-amqp up to 5.3 misreads s, b, B and l with other signs; rusty-celery takes integers only.
    """
    queue = names.queue()
    app = make_app(queue)
    user = {"small": 1, "large": 2**40, "negative": -1, "part": 0.5, "flag": False, "list": [None]}
    await app.asend_task("any.task", time_limit=30.0, soft_time_limit=0.5, headers=user)
    _, kinds = await asyncio.to_thread(read_raw, broker, queue)
    kinds.pop("x-delivery-count", None)
    assert kinds == {
        "lang": "S",
        "task": "S",
        "id": "S",
        "root_id": "S",
        "parent_id": "V",
        "group": "V",
        "group_index": "V",
        "retries": "I",
        "eta": "V",
        "expires": "V",
        "timelimit": ["I", "d"],
        "shadow": "V",
        "argsrepr": "S",
        "kwargsrepr": "S",
        "origin": "S",
        "ignore_result": "V",
        "replaced_task_nesting": "I",
        "stamped_headers": "V",
        "stamps": {},
        "small": "I",
        "large": "l",
        "negative": "I",
        "part": "d",
        "flag": "t",
        "list": ["V"],
    }


async def test_kinds_after_a_retry(
    broker: str, make_app: MakeApp, running: Running, peer: Peer, names: Names
):
    """A retry writes headers in the same types as the first attempt; it adds and drops none."""
    source, target = names.queue("source"), names.queue("target")
    app = make_app(source, target)

    @app.task(bind=True, name="retried")
    def retried(self: Context) -> None:
        self.retry(countdown=0)

    user = {"large": 2**40, "part": 0.5, "list": [1, None, {"x": True}]}
    await app.asend_task("retried", queue=source, headers=user, time_limit=1.5)
    # the same message where no worker takes it
    await app.asend_task("retried", queue=target, headers=user, time_limit=1.5)
    _, first = await asyncio.to_thread(read_raw, broker, target)
    async with running(app, source, prefetch=1, concurrency=1) as node:
        await aeventually(lambda: node.counts["failed"] == 1)
    _, again = await asyncio.to_thread(read_raw, broker, f"{source}.dead")
    ours = {name: again.pop(name) for name in list(again) if name.startswith("amqtask-")}
    for headers in (first, again):
        headers.pop("x-delivery-count", None)
    assert again.pop("eta") == "S"
    assert first.pop("eta") == "V"
    assert again == first
    assert ours["amqtask-attempts"] == "I"
    assert {*ours.values()} == {"S", "I"}


async def test_marked_values(make_app: MakeApp, peer: Peer, names: Names):
    """Values that JSON lacks travel in kombu's marked forms."""
    queue = names.queue()
    app = make_app(queue)
    moment = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
    uuid = UUID("12345678-1234-5678-1234-567812345678")
    await app.asend_task(
        "any.task",
        [moment, moment.date(), moment.timetz(), Decimal("1.50"), uuid, b"text", b"\xff\x00"],
    )
    message = await peer.take(queue)
    assert json.loads(message.body)[0] == [
        {"__type__": "datetime", "__value__": "2026-11-23T12:30:00+00:00"},
        {"__type__": "date", "__value__": "2026-11-23"},
        {"__type__": "time", "__value__": "12:30:00+00:00"},
        {"__type__": "decimal", "__value__": "1.50"},
        {"__type__": "uuid", "__value__": {"hex": "12345678123456781234567812345678"}},
        {"__type__": "bytes", "__value__": "text"},
        {"__type__": "base64", "__value__": "/wA="},
    ]


async def test_zlib(make_app: MakeApp, peer: Peer, names: Names):
    """A body compressed by ``zlib`` is zlib's own format under kombu's name ``x-gzip``."""
    queue = names.queue()
    app = make_app(queue, compress_over=0)
    result = await app.asend_task("any.task", ["a" * 1000], compression="zlib")
    message = await peer.take(queue)
    headers = sent_headers(message)
    assert headers.pop("compression") == "application/x-gzip"
    assert headers.keys() == protocol_headers("", "").keys() | {"origin"}
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.correlation_id == result.id
    assert len(message.body) < 200
    assert json.loads(zlib.decompress(message.body)) == [["a" * 1000], {}, NOTHING_FOLLOWS]


async def test_compression_leaves_small_bodies_alone(make_app: MakeApp, peer: Peer, names: Names):
    """A body up to ``compress_over`` bytes has no ``compression`` header, not even an empty one."""
    queue = names.queue()
    app = make_app(queue, compression="zlib")
    await app.asend_task("any.task", ["a"])
    message = await peer.take(queue)
    assert "compression" not in message.headers
    assert json.loads(message.body) == [["a"], {}, NOTHING_FOLLOWS]


async def test_msgpack(make_app: MakeApp, peer: Peer, names: Names):
    """A msgpack body has the same three elements, under kombu's content type."""
    msgpack = pytest.importorskip("msgpack")
    queue = names.queue()
    app = make_app(queue)
    await app.asend_task("any.task", [1, b"\xff"], {"k": "v"}, serializer="msgpack")
    message = await peer.take(queue)
    assert message.content_type == "application/x-msgpack"
    assert message.content_encoding == "binary"
    assert msgpack.unpackb(message.body) == [[1, b"\xff"], {"k": "v"}, NOTHING_FOLLOWS]
    assert message.headers["argsrepr"] == r"(1, b'\xff')"


async def test_call_from_a_task(make_app: MakeApp, running: Running, peer: Peer, names: Names):
    """A call sent by a running task names that task as its parent, and keeps the root of the tree."""
    queue, other = names.queue("first"), names.queue("second")
    app = make_app(queue, other)

    @app.task(name="parent")
    async def parent() -> None:
        await app.asend_task("child", queue=other)

    async with running(app, queue) as node:
        await peer.send(
            queue, [[], {}, {}], {"task": "parent", "id": "the-parent", "root_id": "the-root"}
        )
        await aeventually(lambda: node.counts["done"] == 1)
    message = await peer.take(other)
    assert message.headers["parent_id"] == "the-parent"
    assert message.headers["root_id"] == "the-root"
    assert message.headers["id"] not in {"the-parent", "the-root"}


async def test_pipeline(make_app: MakeApp, peer: Peer, names: Names):
    """Calls of a pipeline have the same shape, each its own id, in the order they were made."""
    queue = names.queue()
    app = make_app(queue)
    async with app.pipeline():
        results = [await app.asend_task("any.task", [number]) for number in range(3)]
    for number, result in enumerate(results):
        message = await peer.take(queue)
        headers = sent_headers(message)
        assert ORIGIN.fullmatch(headers.pop("origin"))
        assert exact(headers) == exact(
            protocol_headers("any.task", result.id, argsrepr=f"({number},)")
        )
        assert message.correlation_id == message.message_id == result.id
    assert len({result.id for result in results}) == 3


async def test_classic_queue_on_the_default_exchange(make_app: MakeApp, peer: Peer, names: Names):
    """A queue described as Celery's is declared as Celery's: durable, without any argument."""
    queue = names.queue()
    app = make_app(Queue(queue, type="classic", exchange="", dead_letter=False))
    await app.asend_task("any.task")
    # an argument of ours would close this channel with 406
    declared = await peer.channel.declare_queue(queue, durable=True)
    assert declared.declaration_result.message_count == 1
    message = await peer.take(queue)
    assert message.exchange == ""
    assert message.routing_key == queue


# -- messages that follow from messages -----------------------------------------


async def test_delayed_call(make_app: MakeApp, peer: Peer, names: Names):
    """A delayed call arrives as it was sent: with its ``eta``, without TTL, otherwise unchanged."""
    queue = names.queue()
    app = make_app(queue)
    before = datetime.now(UTC)
    result = await app.asend_task(
        "any.task", [1], countdown=0.3, expires=60, priority=3, headers={"mine": 1}
    )
    message = await peer.take(queue)

    eta = datetime.fromisoformat(message.headers["eta"])
    assert message.headers["eta"].endswith("+00:00")
    assert before + timedelta(seconds=0.3) <= eta <= datetime.now(UTC)
    headers = sent_headers(message)
    assert ORIGIN.fullmatch(headers.pop("origin"))
    assert exact(headers) == exact(
        {
            **protocol_headers(
                "any.task",
                result.id,
                argsrepr="(1,)",
                eta=message.headers["eta"],
                expires=message.headers["expires"],
            ),
            "mine": 1,
        }
    )
    assert json.loads(message.body) == [[1], {}, NOTHING_FOLLOWS]
    # a TTL would have run out in the levels; the worker looks at the header
    assert message.expiration is None
    assert message.priority == 3
    assert message.delivery_mode == 2
    assert message.correlation_id == message.message_id == result.id
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"


async def test_retried_call(make_app: MakeApp, running: Running, peer: Peer, names: Names):
    """A retry is the same message with another ``retries`` and ``eta``: id, body, all else stay."""
    queue, copy = names.queue(), names.queue("copy")
    app = make_app(queue, copy, backend="rpc://")

    @app.task(bind=True, name="retried", max_retries=None)
    def retried(self: Context, *args: object) -> None:
        self.retry(countdown=0.6 if self.retries else 0.1)

    said: dict[str, Any] = {
        "priority": 4,
        "headers": {"mine": [1, None]},
        "shadow": "shown",
        "time_limit": 9,
    }
    for name in (queue, copy):
        await app.asend_task("retried", [b"\xff"], queue=name, task_id="the-id", **said)
    first = await peer.take(copy)
    sent_by = datetime.now(UTC)
    async with running(app, queue) as node:
        await aeventually(lambda: node.counts["again"] == 2)
    third = await peer.take(queue)

    assert third.body == first.body
    eta = datetime.fromisoformat(third.headers["eta"])
    assert third.headers["eta"].endswith("+00:00")
    assert eta <= datetime.now(UTC)
    headers = sent_headers(third)
    assert exact(headers) == exact(
        {**sent_headers(first), "retries": 2, "eta": third.headers["eta"]},
    )
    for name in (
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "delivery_mode",
        "priority",
        "expiration",
        "message_id",
        "type",
        "user_id",
        "app_id",
    ):
        assert getattr(third, name) == getattr(first, name), name
    assert third.timestamp is not None
    assert third.timestamp <= sent_by  # of the first sending: the retries came later
    # 0.6 s are 12 ticks of 50 ms at most; deaths of the wait before would be counted too
    deaths = third.headers.get("x-death", [])
    assert {death["count"] for death in deaths} <= {1}
    assert waited_ms(third.headers, app.settings.delay_prefix) <= 12 * TICK_MS


async def test_retry_policy_of_a_call(make_app: MakeApp, peer: Peer, names: Names):
    """A call's own policy travels in one header of plain values, which Celery hands on untouched."""
    queue = names.queue()
    app = make_app(queue)
    policy = RetryPolicy(max_retries=2, on=(ValueError, "mail.Bounced"), backoff=0.5)
    await app.asend_task("any.task", retry=policy)
    message = await peer.take(queue)
    header = message.headers["x-amqtask-retry"]
    assert header["max_retries"] == 2
    assert header["on"] == ["builtins.ValueError", "mail.Bounced"]
    assert header["jitter"] is True
    assert RetryPolicy.from_header(header) == RetryPolicy(
        max_retries=2, on=("builtins.ValueError", "mail.Bounced"), backoff=0.5
    )


@pytest.mark.parametrize("compression", [None, "zlib"])
async def test_parked_call(
    make_app: MakeApp, running: Running, peer: Peer, names: Names, compression: str | None
):
    """A dead letter is the sender's message byte for byte, with headers that say what happened."""
    queue, copy = names.queue(), names.queue("copy")
    app = make_app(queue, copy, compress_over=0)

    @app.task(name="failing")
    def failing(text: str) -> None:
        raise ValueError("no such mailbox", text)

    for name in (queue, copy):
        await app.asend_task(
            "failing",
            ["ä" * 50],
            queue=name,
            task_id="the-id",
            priority=2,
            headers={"mine": {"x": 1}},
            compression=compression,
            expires=60,
        )
    sent = await peer.take(copy)
    async with running(app, queue) as node:
        await aeventually(lambda: node.counts["failed"] == 1)
    parked = await peer.take(f"{queue}.dead")

    assert parked.body == sent.body
    headers = sent_headers(parked)
    ours = {name: headers.pop(name) for name in list(headers) if name.startswith("amqtask-")}
    same = {**sent_headers(sent), "expires": headers["expires"]}  # two calls, two instants
    assert exact(headers) == exact(same)
    assert parked.expiration is None  # nothing may expire among the dead
    for name in ("content_type", "content_encoding", "correlation_id", "reply_to", "priority"):
        assert getattr(parked, name) == getattr(sent, name), name
    traceback = ours.pop("amqtask-traceback")
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert "in failing\n    raise ValueError(" in traceback
    first_seen = datetime.fromisoformat(ours.pop("amqtask-first-seen"))
    parked_at = datetime.fromisoformat(ours.pop("amqtask-parked-at"))
    assert first_seen <= parked_at <= datetime.now(UTC)
    assert ours == {
        "amqtask-reason": "failed",
        "amqtask-queue": queue,
        "amqtask-exception": f"ValueError: ('no such mailbox', '{'ä' * 50}')",
        "amqtask-attempts": 1,
        "amqtask-host": "contract-worker",
    }


async def test_parked_call_can_be_sent_again(
    make_app: MakeApp, running: Running, peer: Peer, names: Names
):
    """Any client can put a dead letter back as it is, and it runs under its old id."""
    queue = names.queue()
    app = make_app(queue)
    mended: list[str] = []

    @app.task(bind=True, name="mended")
    def once(self: Context) -> None:
        if not mended:
            mended.append("now")
            raise ValueError("once")
        mended.append(self.id)

    async with running(app, queue) as node:
        result = await app.asend_task("mended")
        parked = await peer.take(f"{queue}.dead")
        await peer.send(queue, parked.body, parked.headers, correlation_id=parked.correlation_id)
        await aeventually(lambda: node.counts["done"] == 1)
    assert mended == ["now", result.id]
