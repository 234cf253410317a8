"""Whatever arrives, it runs or is parked with a reason, and the worker goes on.

The rows are those that were tried on Celery 5.7, where most of them end the worker, and what else
a program can get wrong. One worker takes them all, with a good call behind each.
"""

from __future__ import annotations

import json
import pickle
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from amqtask import App
from tests.helpers import eventually
from tests.integration.worker.inprocess import Line, Worker, line_to
from tests.raw import nested, publish_raw, text
from tests.servers import Names

LIMIT = 200_000
GOOD = b"[[1],{},{}]"
ADD = {"task": "t.add", "id": "A"}
NO_TASK = "message has no 'task' header and its body is no protocol 1 task"


@dataclass
class Site:
    """A worker with one slot, a client beside it, and what ran."""

    url: str
    queue: str
    app: App
    worker: Worker
    line: Line
    ran: list[Any]

    def parked(self) -> tuple[Any, bytes]:
        """Return the properties and the body of the next dead letter."""
        return self.line.take(f"{self.queue}.dead")

    def still_works(self) -> bool:
        """Whether a good call runs, nothing else ran, and nothing is held or parked."""
        assert self.app.send_task("t.alive", ("yes",)).get(60) == "yes"
        eventually(lambda: self.worker.held == 0)
        assert self.ran == []
        return self.line.size(f"{self.queue}.dead") == 0


@pytest.fixture(scope="module")
def _site(broker: str) -> Iterator[Site]:
    names = Names()
    queue = names.queue()
    app = App(
        "malformed",
        broker=broker,
        queues=[queue],
        default_queue=queue,
        backend="rpc://",
        delay_prefix=names.delay_prefix(),
        max_decoded_size=LIMIT,
        environ={},
    )
    ran: list[Any] = []

    @app.task(name="t.add")
    def add(*args, **kwargs):
        ran.append((args, kwargs))

    @app.task(name="t.one")
    def one(x):
        ran.append(x)

    @app.task(name="t.later")
    async def later(x):
        ran.append(x)

    @app.task(name="t.alive")
    def alive(word):
        return word

    worker = Worker(app, queue, concurrency=1).start()
    with line_to(broker) as line:
        site = Site(broker, queue, app, worker, line, ran)
        assert site.still_works()  # every connection is there before the first test looks
        yield site
        worker.stop()
        app.close()
    names.delete(broker)


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    yield _site
    _site.ran.clear()
    _site.line.channel.queue_purge(f"{_site.queue}.dead")


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


NOT_JSON = "MalformedMessage: not valid json: "

ROWS: dict[str, tuple[dict[str, Any], bytes, dict[str, Any], str, str]] = {
    # name: headers, body, properties, reason, exception (its start where it ends in "...")
    "two elements": (
        *(ADD, b"[[1],{}]", {}, "malformed"),
        "MalformedMessage: body has 2 elements, a task message has 3 (args, kwargs, embed)",
    ),
    "four elements": (
        *(ADD, b"[[1],{},{},{}]", {}, "malformed"),
        "MalformedMessage: body has 4 elements, a task message has 3 (args, kwargs, embed)",
    ),
    "no id": (
        *({"task": "t.add"}, GOOD, {}, "malformed"),
        "MalformedMessage: message has no 'id'",
    ),
    "empty id": (
        *({**ADD, "id": ""}, GOOD, {}, "malformed"),
        "MalformedMessage: id is '', not text that is not empty",
    ),
    "id is a number": (
        *({**ADD, "id": 3}, GOOD, {}, "malformed"),
        "MalformedMessage: id is 3, not text or null",
    ),
    "task is a number": (
        *({**ADD, "task": 3}, GOOD, {}, "malformed"),
        "MalformedMessage: task is 3, not text or null",
    ),
    "timelimit is one number": (
        *({**ADD, "timelimit": 30}, GOOD, {}, "malformed"),
        "MalformedMessage: timelimit is 30, not a list of two (hard, soft)",
    ),
    "no content type": (
        *(ADD, GOOD, {"content_type": None}, "malformed"),
        "MalformedMessage: message has no content type",
    ),
    "raw data": (
        *(ADD, GOOD, {"content_type": "application/data"}, "content_disallowed"),
        "ContentDisallowed: content type 'application/data' is not accepted",
    ),
    "plain text": (
        *(ADD, GOOD, {"content_type": "text/plain"}, "content_disallowed"),
        "ContentDisallowed: content type 'text/plain' is not accepted",
    ),
    "msgpack": (
        *(ADD, b"\x93\x91\x01\x80\x80", {"content_type": "application/x-msgpack"}),
        "content_disallowed",
        "ContentDisallowed: content type 'application/x-msgpack' is not accepted",
    ),
    "pickle": (
        *(ADD, pickle.dumps([[1], {}, {}]), {"content_type": "application/x-python-serialize"}),
        "content_disallowed",
        "ContentDisallowed: content type 'application/x-python-serialize' is not accepted",
    ),
    "body null": (
        *(ADD, b"null", {}, "malformed"),
        "MalformedMessage: body is None, a task message has (args, kwargs, embed)",
    ),
    "body a number": (
        *(ADD, b"1", {}, "malformed"),
        "MalformedMessage: body is 1, a task message has (args, kwargs, embed)",
    ),
    "no JSON": (ADD, b"[[1],{},{}", {}, "malformed", NOT_JSON + "..."),
    "no body": (ADD, b"", {}, "malformed", NOT_JSON + "..."),
    "no UTF-8": (ADD, b'[["\xff"],{},{}]', {}, "malformed", NOT_JSON + "..."),
    "unknown JSON extension": (
        *(ADD, b'[[{"__type__":"os.system","__value__":"ls"}],{},{}]', {}, "malformed"),
        "MalformedMessage: json value is marked as 'os.system', a type nothing here reads",
    ),
    "nested too deep": (ADD, _deep(50_000), {}, "malformed", NOT_JSON + "..."),
    "args null": (
        *(ADD, b"[null,{},{}]", {}, "malformed"),
        "MalformedMessage: args is None, not a list",
    ),
    "kwargs null": (
        *(ADD, b"[[],null,{}]", {}, "malformed"),
        "MalformedMessage: kwargs is None, not a dict",
    ),
    "kwargs a list": (
        *(ADD, b"[[],[],{}]", {}, "malformed"),
        "MalformedMessage: kwargs is [], not a dict",
    ),
    "embed is text": (
        *(ADD, b'[[],{},"next"]', {}, "malformed"),
        "MalformedMessage: embed is 'next', not a dict or null",
    ),
    "callbacks are text": (
        *(ADD, b'[[],{},{"callbacks":"t.add"}]', {}, "malformed"),
        "MalformedMessage: callbacks is 't.add', not a list of signatures or null",
    ),
    "eta is no time": (
        *({**ADD, "eta": "soon"}, GOOD, {}, "malformed"),
        "MalformedMessage: eta is 'soon', not an ISO 8601 time",
    ),
    "expires is a number": (
        *({**ADD, "expires": 17}, GOOD, {}, "malformed"),
        "MalformedMessage: expires is 17, not an ISO 8601 time",
    ),
    "retries is text": (
        *({**ADD, "retries": "many"}, GOOD, {}, "malformed"),
        "MalformedMessage: retries is 'many', not a whole number",
    ),
    "retries below zero": (
        *({**ADD, "retries": -1}, GOOD, {}, "malformed"),
        "MalformedMessage: retries is -1, not a number of retries",
    ),
    "stamps are text": (
        *({**ADD, "stamps": "red"}, GOOD, {}, "malformed"),
        "MalformedMessage: stamps is 'red', not a table or null",
    ),
    "no task": ({}, GOOD, {}, "malformed", f"MalformedMessage: {NO_TASK}"),
    "somebody's own JSON": (
        *({}, b'{"order":7}', {}, "malformed"),
        f"MalformedMessage: {NO_TASK}",
    ),
    "protocol 1 without id": (
        *({}, b'{"task":"t.add"}', {}, "malformed"),
        "MalformedMessage: message has no 'id'",
    ),
    "hybrid without args": (
        *(ADD, b'{"kwargs":{}}', {}, "malformed"),
        "MalformedMessage: body is a dict without 'args'",
    ),
    "unknown task": (
        *({**ADD, "task": "t.ad"}, GOOD, {}, "unknown_task"),
        "UnknownTask: unknown task 't.ad', did you mean 't.add'?",
    ),
    "unknown task by protocol 1": (
        *({}, b'{"task":"nothing.like.it","id":"A"}', {}, "unknown_task"),
        "UnknownTask: unknown task 'nothing.like.it'",
    ),
    "too large": (
        *(ADD, b'[["' + b"x" * LIMIT + b'"],{},{}]', {}, "too_large"),
        f"DecodedTooLarge: body has {LIMIT + 12} bytes, {LIMIT} are allowed",
    ),
    "unpacks to too much": (
        *({**ADD, "compression": "application/x-gzip"}, zlib.compress(b" " * 50_000_000, 9)),
        *({}, "too_large"),
        f"DecodedTooLarge: body unpacks to more than {LIMIT} bytes",
    ),
    "unknown compression": (
        *({**ADD, "compression": "application/x-snappy"}, GOOD, {}, "content_disallowed"),
        "ContentDisallowed: body is compressed as 'application/x-snappy', which is not known here",
    ),
    "not compressed": (
        *({**ADD, "compression": "application/x-gzip"}, GOOD, {}, "malformed"),
        "MalformedMessage: body is not valid application/x-gzip: ...",
    ),
    "cut off": (
        *({**ADD, "compression": "application/x-gzip"}, zlib.compress(GOOD)[:-3], {}, "malformed"),
        "MalformedMessage: body ends before its application/x-gzip data does",
    ),
    "compression is a number": (
        *({**ADD, "compression": 3}, GOOD, {}, "malformed"),
        "MalformedMessage: compression is 3, not the name of a compression",
    ),
    "arguments that do not fit": (
        *({**ADD, "task": "t.one"}, b"[[1,2,3],{},{}]", {}, "failed"),
        "TypeError: ...",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_parked_with_a_reason(site: Site, row):
    """It is in the dead-letter queue, body byte for byte, with what was wrong; the worker goes on."""
    headers, body, properties, reason, exception = ROWS[row]
    said = {"message_id": "M", "correlation_id": "C", "type": "T", "priority": 4, **properties}
    site.line.send(site.queue, body, headers, **said)
    parked, parked_body = site.parked()
    assert parked_body == body
    assert parked.headers["amqtask-reason"] == reason
    found = parked.headers["amqtask-exception"]
    assert (
        found.startswith(exception.removesuffix("..."))
        if "..." in exception
        else (found == exception)
    )
    assert parked.headers["amqtask-queue"] == site.queue
    assert parked.headers["amqtask-host"] == "test-worker"
    assert parked.headers["amqtask-attempts"] == (1 if reason == "failed" else 0)
    assert ("amqtask-traceback" in parked.headers) == (reason == "failed")
    assert {name: parked.headers[name] for name in headers} == headers
    assert {name: getattr(parked, name) for name in said} == said
    assert site.still_works()


@pytest.mark.parametrize("row", ["no id", "unknown task", "arguments that do not fit"])
def test_the_caller_hears_of_it(site: Site, row):
    """Once the message says whose call it is, its caller gets the failure."""
    headers, body, _, reason, exception = ROWS[row]
    assert site.app.backend is not None
    result = site.app.result("C")
    site.line.send(
        site.queue, body, headers, correlation_id="C", reply_to=site.app.backend.reply_to()
    )
    parked, _ = site.parked()
    assert parked.headers["amqtask-reason"] == reason
    assert site.still_works()  # its own result is there, so this one would be too
    if row == "no id":
        assert result.state == "PENDING"
    else:
        error = result.get(60, propagate=False)
        kind, text = exception.split(": ", 1)
        assert type(error).__name__ == kind
        assert str(error).startswith(text.removesuffix("..."))


def test_random_bytes(site: Site):
    """Noise under any content type is parked as it came."""
    noise = random.Random(7)
    bodies = [noise.randbytes(noise.randrange(1, 400)) for _ in range(60)]
    for body in bodies:
        kind = noise.choice(["application/json", "application/x-python-serialize", "", "\u00e9"])
        headers = noise.choice([{}, ADD, {"task": "\u0000", "id": "x" * 250}])
        site.line.send(site.queue, body, headers, content_type=kind)
    assert sorted(site.parked()[1] for _ in bodies) == sorted(bodies)
    assert site.still_works()


def test_large_headers_survive(site: Site):
    """A header table near the frame's size is parked whole: what is left out is the worker's part."""
    headers = {"task": "t.gone", "id": "A", "note": "x" * 110_000}
    site.line.send(site.queue, GOOD, headers)
    parked, body = site.parked()
    assert body == GOOD
    assert parked.headers["note"] == headers["note"]
    assert parked.headers["amqtask-reason"] == "unknown_task"
    assert site.still_works()


def test_headers_that_leave_no_room(site: Site):
    """A table that fills its frame leaves no room for a reason; the message is parked all the same."""
    headers = {"task": "t.gone", "id": "A", "note": "x" * 130_900}
    site.line.send(site.queue, GOOD, headers)
    _, body = site.parked()
    assert body == GOOD
    assert site.still_works()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"T" + b"\xff" * 8, id="a time beyond all calendars"),
        pytest.param(b"T" + struct.pack(">Q", 1_790_000_000_000), id="milliseconds for a time"),
        pytest.param(b"D" + struct.pack(">Bi", 255, -1), id="a tiny decimal"),
        pytest.param(b"b\xff", id="a signed byte"),
        pytest.param(b"s\xff\xfe", id="a signed short"),
        pytest.param(b"u\xff\xff", id="an unsigned short"),
        pytest.param(b"i" + b"\xff" * 4, id="an unsigned int"),
        pytest.param(b"x\x00\x00\x00\x02ab", id="bytes"),
        pytest.param(b"d" + struct.pack(">d", 0.5), id="a fraction"),
        pytest.param(nested(100), id="a hundred arrays"),
        pytest.param(nested(5_000), id="five thousand arrays"),
    ],
)
@pytest.mark.parametrize("task", ["t.add", "t.gone"])
def test_header_values_of_other_clients(site: Site, task, value):
    """Any value that the broker lets through neither ends a connection nor keeps a message from its end."""
    consumer = site.worker.node._intake.consumers[0]  # type: ignore[union-attr]
    lease = consumer._lease
    publish_raw(site.url, site.queue, {b"task": text(task), b"id": text("A"), b"odd": value}, GOOD)
    if task == "t.add":
        eventually(lambda: site.ran)
        assert site.ran == [((1,), {})]
        site.ran.clear()
    else:
        assert site.parked()[1] == GOOD
    assert site.still_works()
    assert consumer._lease is lease, "the connection was lost"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({b"task": text("t.add"), b"id": b"S\x00\x00\x00\x02\xff\xfe"}, id="id"),
        pytest.param(
            {b"task": text("t.add"), b"id": text("A"), b"odd": b"x\x00\x00\x00\x02\xff\xfe"},
            id="a header of one's own",
        ),
        pytest.param({b"task": b"S\x00\x00\x00\x02\xff\xfe", b"id": text("A")}, id="task"),
        pytest.param(
            {b"task": text("t.gone"), b"id": text("A"), b"\xff\xfe": text("x")}, id="name"
        ),
    ],
)
def test_headers_that_are_no_text(site: Site, headers):
    """Bytes that are no UTF-8 are parked, not died of."""
    publish_raw(site.url, site.queue, headers, GOOD)
    parked, body = site.parked()
    assert body == GOOD
    assert parked.headers["amqtask-reason"] in ("malformed", "unknown_task")
    assert site.still_works()


@pytest.mark.parametrize(
    ("headers", "body", "properties", "args", "kwargs"),
    [
        pytest.param(ADD, GOOD, {}, (1,), {}, id="the least there can be"),
        pytest.param(ADD, b"[[1],{},null]", {}, (1,), {}, id="embed null"),
        pytest.param(ADD, b"[[1],{},[]]", {}, (1,), {}, id="embed a list"),
        pytest.param(ADD, GOOD, {"content_encoding": None}, (1,), {}, id="no encoding"),
        pytest.param({**ADD, "timelimit": None}, GOOD, {}, (1,), {}, id="timelimit null"),
        pytest.param({**ADD, "retries": "4"}, GOOD, {}, (1,), {}, id="retries as text"),
        pytest.param({**ADD, "eta": "2020-01-01T00:00:00Z"}, GOOD, {}, (1,), {}, id="eta with Z"),
        pytest.param({**ADD, "eta": "2020-01-01T00:00:00"}, GOOD, {}, (1,), {}, id="eta naive"),
        pytest.param({**ADD, "foo": "x", "meth": "y"}, GOOD, {}, (1,), {}, id="unknown headers"),
        pytest.param(ADD, b'{"args":[1],"kwargs":{"k":2}}', {}, (1,), {"k": 2}, id="hybrid"),
        pytest.param({}, b'{"task":"t.add","id":"A"}', {}, (), {}, id="the least protocol 1"),
        pytest.param(
            {},
            json.dumps(
                {
                    "task": "t.add",
                    "id": "A",
                    "args": [1],
                    "kwargs": {"k": 2},
                    "retries": 0,
                    "eta": None,
                    "expires": None,
                    "utc": True,
                    "taskset": None,
                    "chord": None,
                    "callbacks": None,
                    "errbacks": None,
                    "timelimit": [None, None],
                }
            ).encode(),
            {},
            (1,),
            {"k": 2},
            id="protocol 1",
        ),
    ],
)
def test_what_celery_runs_is_run(site: Site, headers, body, properties, args, kwargs):
    """A Celery worker takes these, so we do."""
    site.line.send(site.queue, body, headers, **properties)
    assert eventually(lambda: site.ran) == [(args, kwargs)]
    site.ran.clear()
    assert site.still_works()


def test_protocol_1_finds_coroutines_too(site: Site):
    """A protocol 1 message tells its task only once it is decoded; a coroutine function is found all the same."""
    site.line.send(site.queue, {"task": "t.later", "id": "A", "args": [5]})
    assert eventually(lambda: site.ran) == [5]
    site.ran.clear()
    assert site.still_works()
