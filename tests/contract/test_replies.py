"""What another client gets back for the messages it writes, and which of its messages are run.

Source:
    celery 5.7 ``celery/backends/base.py`` and ``celery/backends/rpc.py`` for the reply document,
    ``celery/worker/strategy.py`` for the messages a worker takes.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest

from amqtask import App, Context, Queue
from amqtask.worker import Node
from tests.contract.conftest import MakeApp, Running
from tests.contract.peers import Peer, exact
from tests.helpers import TIMEOUT, aeventually
from tests.raw import publish_raw, text
from tests.servers import Names

#: The third element of a protocol 2 body.
NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def add_tasks(app: App) -> None:
    """Register what the client calls."""

    @app.task(name="add")
    async def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name="fail")
    def fail(*args: object) -> None:
        raise ValueError(*args)

    @app.task(bind=True, name="second", max_retries=1)
    def second(self: Context) -> int:
        if not self.retries:
            self.retry("not yet", countdown=0.05)
        return self.attempt

    @app.task(bind=True, name="context")
    def context(self: Context) -> dict[str, Any]:
        call = self.call
        return {
            "id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "retries": self.retries,
            "headers": dict(self.headers),
            "limits": [call.hard_limit, call.soft_limit],
            "eta": None if call.eta is None else call.eta.isoformat(),
            "exchange": self.exchange,
            "routing_key": self.routing_key,
            "queue": self.queue,
            "redelivered": self.redelivered,
        }


class Caller:
    """A client with a reply queue, and the worker it calls."""

    def __init__(self, peer: Peer, node: Node, queue: str, reply_to: str) -> None:
        self.peer = peer
        self.node = node
        self.queue = queue
        self.reply_to = reply_to

    async def send(self, headers: dict[str, Any] | None, body: Any, **properties: Any) -> None:
        """Send a message that asks for a reply."""
        said = {"reply_to": self.reply_to, **properties}
        await self.peer.send(self.queue, body, headers, **said)

    async def reply(self) -> dict[str, Any]:
        """Return the document of the next reply."""
        document: dict[str, Any] = json.loads((await self.peer.take(self.reply_to)).body)
        return document


@pytest.fixture
async def caller(
    make_app: MakeApp, running: Running, peer: Peer, names: Names
) -> AsyncIterator[Caller]:
    """A client and a worker on a queue of their own."""
    async with _caller(make_app, running, peer, names.queue()) as made:
        yield made


@asynccontextmanager
async def _caller(
    make_app: MakeApp, running: Running, peer: Peer, queue: str | Queue
) -> AsyncIterator[Caller]:
    app = make_app(queue, backend="rpc://")
    add_tasks(app)
    name = app.settings.default_queue
    async with running(app, name) as node:
        yield Caller(peer, node, name, await peer.reply_queue())


# -- the reply ------------------------------------------------------------------


async def test_success(caller: Caller):
    """The reply to a success is Celery's document, persistent JSON, matched by correlation id."""
    before = datetime.now(UTC)
    await caller.send({"task": "add", "id": "the-id"}, [[2, 3], {}, {}], correlation_id="mine")
    reply = await caller.peer.take(caller.reply_to)
    document = json.loads(reply.body)
    done = datetime.fromisoformat(document.pop("date_done"))
    assert before <= done <= datetime.now(UTC)
    assert exact(document) == exact(
        {
            "status": "SUCCESS",
            "result": 5,
            "traceback": None,
            "children": [],
            "task_id": "the-id",
        }
    )
    assert reply.correlation_id == "mine"
    assert reply.content_type == "application/json"
    assert reply.content_encoding == "utf-8"
    assert not reply.headers
    assert reply.exchange == ""
    assert reply.routing_key == caller.reply_to
    assert not reply.reply_to
    assert reply.expiration is None


async def test_correlation_id_is_the_task_id_by_default(caller: Caller):
    """A caller that sets no correlation id finds the task's id there, as with Celery."""
    await caller.send({"task": "add", "id": "the-id"}, [[1], {}, {}])
    assert (await caller.peer.take(caller.reply_to)).correlation_id == "the-id"


async def test_group_and_parent(caller: Caller):
    """Group and parent are in the document when the call has them."""
    headers = {"task": "add", "id": "the-id", "group": "the-group", "parent_id": "the-parent"}
    await caller.send(headers, [[1], {}, {}])
    document = await caller.reply()
    assert document["group_id"] == "the-group"
    assert document["parent_id"] == "the-parent"


async def test_failure(caller: Caller):
    """A failure carries class, arguments, module and traceback; what is no JSON comes as its repr."""
    await caller.send({"task": "fail", "id": "the-id"}, [["bad", 1], {}, {}])
    document = await caller.reply()
    assert datetime.fromisoformat(document.pop("date_done")).tzinfo is not None
    traceback = document.pop("traceback")
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("ValueError: ('bad', 1)\n")
    # the first frame is the task's own
    assert re.match(r'Traceback .*\n  File ".*test_replies\.py", line \d+, in fail\n', traceback)
    assert document == {
        "status": "FAILURE",
        "result": {
            "exc_type": "ValueError",
            "exc_message": ["bad", 1],
            "exc_module": "builtins",
        },
        "children": [],
        "task_id": "the-id",
    }


async def test_retry_then_success(caller: Caller):
    """A retry sends state RETRY first, with the reason and no date; the outcome follows."""
    await caller.send({"task": "second", "id": "the-id"}, [[], {}, {}])
    retry, success = await caller.reply(), await caller.reply()
    assert retry == {
        "status": "RETRY",
        "result": {"exc_type": "Retry", "exc_message": ["not yet"], "exc_module": None},
        "traceback": None,
        "children": [],
        "date_done": None,
        "task_id": "the-id",
    }
    assert (success["status"], success["result"]) == ("SUCCESS", 2)


@pytest.mark.parametrize(
    ("headers", "body", "status", "error"),
    [
        pytest.param(
            {"task": "add", "id": "the-id", "expires": "2020-01-01T00:00:00+00:00"},
            [[1], {}, {}],
            "REVOKED",
            {
                "exc_type": "TaskRevokedError",
                "exc_message": ["expired"],
                "exc_module": "celery.exceptions",
            },
            id="expired",
        ),
        pytest.param(
            {"task": "missing", "id": "the-id"},
            [[], {}, {}],
            "FAILURE",
            {
                "exc_type": "NotRegistered",
                "exc_message": ["unknown task 'missing'"],
                "exc_module": "celery.exceptions",
            },
            id="unknown task",
        ),
        pytest.param(
            {"task": "add", "id": "the-id"},
            [["too", "many", "arguments"], {}, {}],
            "FAILURE",
            {
                "exc_type": "TypeError",
                "exc_message": [re.compile("add.* takes from 1 to 2 positional arguments .*")],
                "exc_module": "builtins",
            },
            id="arguments",
        ),
    ],
)
async def test_calls_that_do_not_start(
    caller: Caller,
    headers: dict[str, Any],
    body: list[Any],
    status: str,
    error: dict[str, Any],
):
    """The caller hears of a call that cannot be started, in the class that Celery has for it."""
    await caller.send(headers, body)
    document = await caller.reply()
    assert document["status"] == status
    found = document["result"]
    assert found["exc_type"] == error["exc_type"]
    assert found["exc_module"] == error["exc_module"]
    (wanted,), (text,) = error["exc_message"], found["exc_message"]
    assert wanted.search(text) if isinstance(wanted, re.Pattern) else wanted in text
    assert document["task_id"] == "the-id"


async def test_no_reply_address(caller: Caller):
    """Without ``reply_to``, or with one that is gone, the task runs and the worker goes on."""
    await caller.send({"task": "add", "id": "a"}, [[1], {}, {}], reply_to=None)
    await caller.send({"task": "add", "id": "b"}, [[1], {}, {}], reply_to="test-no-such-queue")
    await caller.send({"task": "add", "id": "c"}, [[1], {}, {}])
    assert (await caller.reply())["task_id"] == "c"
    await aeventually(lambda: caller.node.counts["done"] == 3)
    assert await caller.peer.size(caller.queue) == 0


async def test_result_that_is_not_wanted(caller: Caller):
    """``ignore_result`` sends nothing, neither for a success nor for a failure."""
    for task in ("add", "fail"):
        headers = {"task": task, "id": task, "ignore_result": True}
        await caller.send(headers, [[1], {}, {}])
    await caller.send({"task": "add", "id": "wanted", "ignore_result": False}, [[1], {}, {}])
    assert (await caller.reply())["task_id"] == "wanted"
    await aeventually(lambda: caller.node.counts == {"done": 2, "failed": 1})
    assert await caller.peer.size(caller.reply_to) == 0


async def test_direct_reply_to(broker: str, caller: Caller):
    """A client may use RabbitMQ's direct reply-to instead of a queue."""
    connection = await aio_pika.connect(broker, timeout=TIMEOUT)
    async with connection:
        # publisher confirms are not possible with it on every version
        channel = await connection.channel(publisher_confirms=False)
        direct = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        replies: asyncio.Queue[Any] = asyncio.Queue()
        await direct.consume(replies.put, no_ack=True)
        message = aio_pika.Message(
            b"[[20, 3], {}, {}]",
            headers={"task": "add", "id": "the-id"},
            content_type="application/json",
            content_encoding="utf-8",
            reply_to="amq.rabbitmq.reply-to",
        )
        await channel.default_exchange.publish(message, routing_key=caller.queue)
        reply = await asyncio.wait_for(replies.get(), TIMEOUT)
    assert json.loads(reply.body)["result"] == 23
    assert reply.correlation_id == "the-id"


# -- messages that are run ------------------------------------------------------


FULL = {
    "lang": "js",
    "task": "context",
    "id": "the-id",
    "root_id": "the-root",
    "parent_id": "the-parent",
    "group": None,
    "group_index": None,
    "retries": 2,
    "eta": None,
    "expires": None,
    "timelimit": [30, 20.5],
    "shadow": None,
    "argsrepr": "()",
    "kwargsrepr": "{}",
    "origin": "gen1@host",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
    "mine": {"x": [1, None, 0.5]},
}


async def test_full_message(caller: Caller):
    """All that a message says reaches the task; headers of the user's own stay apart."""
    await caller.send(FULL, [[], {}, NOTHING_FOLLOWS], priority=3)
    document = await caller.reply()
    assert exact(document["result"]) == exact(
        {
            "id": "the-id",
            "root_id": "the-root",
            "parent_id": "the-parent",
            "retries": 2,
            "headers": {"mine": {"x": [1, None, 0.5]}},
            "limits": [30, 20.5],
            "eta": None,
            "exchange": "",
            "routing_key": caller.queue,
            "queue": caller.queue,
            "redelivered": False,
        }
    )


#: Messages by the id they carry.
FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "least": ({"task": "add", "id": "least"}, [[2], {"y": 3}, {}]),
    "embed null": ({"task": "add", "id": "embed null"}, [[2, 3], {}, None]),
    "embed list": ({"task": "add", "id": "embed list"}, [[2, 3], {}, []]),
    "limits": ({"task": "add", "id": "limits", "timelimit": None}, [[2, 3], {}, {}]),
    "retries": ({"task": "add", "id": "retries", "retries": "1"}, [[2, 3], {}, {}]),
    "naive": ({"task": "add", "id": "naive", "eta": "2020-01-01T00:00:00"}, [[2, 3], {}, {}]),
    "zulu": ({"task": "add", "id": "zulu", "eta": "2020-01-01T00:00:00Z"}, [[2, 3], {}, {}]),
    "one": ({}, {"task": "add", "id": "one", "args": [2, 3], "kwargs": {}}),
    "one, args only": ({}, {"task": "add", "id": "one, args only", "args": [2, 3]}),
    "hybrid": ({"task": "add", "id": "hybrid"}, {"args": [2], "kwargs": {"y": 3}}),
}


async def test_forms(caller: Caller):
    """Every form that a Celery worker runs is run, and answered: protocol 2, 1, and between."""
    for headers, body in FORMS.values():
        await caller.send(headers, body)
    documents = [await caller.reply() for _ in FORMS]
    found = {each["task_id"]: (each["status"], each["result"]) for each in documents}
    assert found == dict.fromkeys(FORMS, ("SUCCESS", 5))


async def test_eta(caller: Caller):
    """A message with a future ``eta`` waits in the broker, however it came, and keeps its form."""
    eta = datetime.now(UTC) + timedelta(seconds=0.5)
    await caller.send({**FULL, "eta": eta.isoformat()}, [[], {}, {}])
    document = await caller.reply()
    assert datetime.fromisoformat(document["date_done"]) >= eta - timedelta(seconds=0.05)
    result = document["result"]
    assert datetime.fromisoformat(result["eta"]) == eta
    assert result["retries"] == 2
    assert result["headers"] == {"mine": FULL["mine"]}


async def test_classic_queue(make_app: MakeApp, running: Running, peer: Peer, names: Names):
    """All of it works off a queue as Celery's clients declare it, retries and delays included."""
    queue = Queue(names.queue(), type="classic", exchange="", dead_letter=False)
    await peer.channel.declare_queue(queue.name, durable=True)
    async with _caller(make_app, running, peer, queue) as caller:
        await caller.send({"task": "second", "id": "a"}, [[], {}, {}])
        documents = [await caller.reply(), await caller.reply()]
        assert [document["status"] for document in documents] == ["RETRY", "SUCCESS"]
        await caller.send({"task": "fail", "id": "b"}, [["bad"], {}, {}])
        assert (await caller.reply())["status"] == "FAILURE"


# -- headers that few clients write ---------------------------------------------


#: Type letter and data of a header, and its value.
KINDS: list[tuple[bytes, Any]] = [
    (b"d" + struct.pack(">d", 0.25), 0.25),
    (b"f" + struct.pack(">f", 0.25), 0.25),
    (b"b\xff", -1),
    (b"B\xff", 255),
    (b"s\xff\xff", -1),
    (b"u\xff\xff", 65535),
    (b"i\xff\xff\xff\xff", 2**32 - 1),
    (b"l\x7f" + b"\xff" * 7, 2**63 - 1),
    (b"S\x00\x00\x00\x02\xc3\xa4", "ä"),
    (b"x\x00\x00\x00\x02\xc3\xa4", "ä"),
    (b"A\x00\x00\x00\x02t\x01", [True]),
    (b"F\x00\x00\x00\x03\x01aV", {"a": None}),
]


async def send_odd(broker: str, caller: Caller, task: str, id_: str, odd: bytes) -> None:
    """Send a call without arguments whose header ``odd`` is given as it is written."""
    headers = {b"task": text(task), b"id": text(id_), b"odd": odd}
    body = b"[[], {}, {}]"
    await asyncio.to_thread(
        publish_raw, broker, caller.queue, headers, body, reply_to=caller.reply_to
    )


async def test_kinds_of_header(broker: str, caller: Caller):
    """A header of any type that AMQP has reaches the task with its value."""
    for number, (odd, _) in enumerate(KINDS):
        await send_odd(broker, caller, "context", str(number), odd)
    documents = [await caller.reply() for _ in KINDS]
    found = {int(each["task_id"]): exact(each["result"]["headers"]["odd"]) for each in documents}
    assert found == {number: exact(value) for number, (_, value) in enumerate(KINDS)}


async def test_timestamp_that_no_datetime_holds(broker: str, caller: Caller):
    """A timestamp past the year 9999 neither ends the connection nor keeps the task from running."""
    late = b"T" + struct.pack(">Q", 2**62)
    await send_odd(broker, caller, "second", "x", late)
    assert [(await caller.reply())["status"] for _ in range(2)] == ["RETRY", "SUCCESS"]
    await caller.send({"task": "add", "id": "y"}, [[1], {}, {}])
    assert (await caller.reply())["task_id"] == "y"
