"""What is received: lenient where Celery is, malformed where Celery would end, nothing else ever."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqtask.errors import ContentDisallowed, DecodedTooLarge, MalformedMessage, MessageError
from amqtask.message.compression import compress
from amqtask.message.decoding import decode, task_name
from amqtask.message.encoding import encode
from amqtask.message.model import NO_EMBED, Call, Embed, Message
from amqtask.message.serializers import accepted, serializer
from tests.unit.message.strategies import bodies, outcome, some, tables, text, values

JSON_ONLY = accepted(["json"])
LIMIT = 1 << 20
SIGNATURE = {"task": "t.next", "args": [], "kwargs": {}}
PLUS2 = timezone(timedelta(hours=2))


def message(
    headers: dict[str, Any] | None = None, body: Any = ((1,), {}, {}), **properties: Any
) -> Message:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    properties = {"content_type": "application/json", **properties}
    return Message(data, {"task": "t.add", "id": "A"} if headers is None else headers, **properties)


def read(
    headers: dict[str, Any] | None = None, body: Any = ((1,), {}, {}), **properties: Any
) -> Call:
    return decode(message(headers, body, **properties), JSON_ONLY, max_decoded_size=LIMIT)


def field(**fields: Any) -> Call:
    return read({"task": "t.add", "id": "A", **fields})


def refusal(found: Message, kind: type[MessageError] = MalformedMessage) -> str:
    with pytest.raises(kind) as caught:
        decode(found, JSON_ONLY, max_decoded_size=LIMIT)
    return str(caught.value)


def test_the_least_that_is_a_task():
    """Task, id, body and content type are enough, as for Celery."""
    assert read() == Call("t.add", "A", (1,), {}, correlation_id="A")


@some
@given(
    st.lists(values, max_size=3),
    st.dictionaries(text, values, max_size=3),
)
def test_round_trip_of_arguments(args, kwargs):
    """Arguments arrive as they were sent."""
    call = decode(encode(Call("t", "A", tuple(args), kwargs)), JSON_ONLY, max_decoded_size=LIMIT)
    assert call.args == tuple(args)
    assert call.kwargs == kwargs


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("name", ["json", "msgpack", "pickle"])
def test_round_trip_of_everything(name, compression):
    """Every field of a call arrives, with any serializer."""
    if name == "msgpack":
        pytest.importorskip("msgpack")
    call = Call(
        "t.add",
        "A",
        (1, "é"),
        {"k": [None]},
        Embed([SIGNATURE], [SIGNATURE], [SIGNATURE], SIGNATURE),
        retries=3,
        eta=datetime(2026, 11, 23, 3, 18, 2, 5, tzinfo=UTC),
        expires=datetime(2027, 1, 1, tzinfo=UTC),
        hard_limit=30,
        soft_limit=2.5,
        root_id="R",
        parent_id="P",
        group="G",
        group_index=0,
        shadow="shown",
        origin="gen1@h",
        ignore_result=True,
        replaced_task_nesting=2,
        stamped_headers=["s"],
        stamps={"s": ["x", 1]},
        reply_to="replies",
        correlation_id="C",
        priority=9,
        headers={"traceparent": "00-ab"},
    )
    sent = encode(call, serializer=serializer(name), compression=compression)
    assert decode(sent, accepted([name]), max_decoded_size=LIMIT) == call


def test_reads_celery():
    """A message Celery 5.7 made decodes to the call it was made from."""
    celery = pytest.importorskip("celery")
    kombu = pytest.importorskip("kombu.serialization")
    app = celery.Celery()
    eta = datetime(2026, 11, 23, 3, 18, tzinfo=UTC)
    options = {"eta": eta, "time_limit": 30, "soft_time_limit": 20, "reply_to": "oid", "retries": 1}
    for make, protocol in ((app.amqp.as_task_v2, 2), (app.amqp.as_task_v1, 1)):
        made = make("A", "t.add", (2, 3), {"k": eta}, **options)
        content_type, encoding, data = kombu.dumps(made.body, serializer="json")
        call = read(
            dict(made.headers),
            data.encode(),
            content_type=content_type,
            content_encoding=encoding,
            **made.properties,
        )
        assert (call.task, call.id, call.args, call.kwargs) == ("t.add", "A", (2, 3), {"k": eta})
        assert (call.eta, call.retries, call.hard_limit, call.soft_limit) == (eta, 1, 30, 20)
        assert (call.reply_to, call.correlation_id, call.protocol) == ("oid", "A", protocol)
        assert call.headers == {}


# -- lenient ----------------------------------------------------------------------


@pytest.mark.parametrize("embed", [None, [], {}, {"chain": None}, {"chord_size": 3}])
def test_embed_may_be_empty(embed):
    """No embed, an empty one, and one of unknown keys mean that nothing follows."""
    assert read(body=[[], {}, embed]).embed is NO_EMBED


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"retries": "4"}, "retries", 4),
        ({"retries": 2.0}, "retries", 2),
        ({"retries": None}, "retries", 0),
        ({"timelimit": None}, "hard_limit", None),
        ({"timelimit": []}, "hard_limit", None),
        ({"timelimit": [0, 1]}, "hard_limit", None),
        ({"timelimit": [0, 1]}, "soft_limit", 1),
        ({"eta": "2026-11-23T03:18:02Z"}, "eta", datetime(2026, 11, 23, 3, 18, 2, tzinfo=UTC)),
        ({"eta": "2026-11-23T03:18:02"}, "eta", datetime(2026, 11, 23, 3, 18, 2, tzinfo=UTC)),
        ({"eta": b"2026-11-23"}, "eta", datetime(2026, 11, 23, tzinfo=UTC)),
        (
            {"expires": datetime(2026, 1, 1, 2, tzinfo=PLUS2)},
            "expires",
            datetime(2026, 1, 1, tzinfo=UTC),
        ),
        ({"task": b"t.sub"}, "task", "t.sub"),
        ({"group_index": 1.0}, "group_index", 1),
        ({"ignore_result": 1}, "ignore_result", True),
        ({"stamps": None}, "stamps", {}),
        ({"lang": 5, "argsrepr": b"\xff"}, "headers", {}),
        ({"foo": b"bar", "x-death": [{}], "amqtask-a": 1}, "headers", {"foo": "bar"}),
    ],
)
def test_lenient(fields, name, value):
    """What Celery runs is run, with the field in its proper type."""
    found = getattr(field(**fields), name)
    assert found == value
    assert type(found) is type(value)


def test_naive_times_are_read_in_the_zone():
    """A time without an offset is in the zone of the settings; the result is UTC."""
    found = message({"task": "t", "id": "A", "eta": "2026-11-23T03:00:00"})
    call = decode(found, JSON_ONLY, max_decoded_size=LIMIT, timezone=PLUS2)
    assert call.eta == datetime(2026, 11, 23, 1, tzinfo=UTC)
    assert call.eta is not None
    assert call.eta.tzinfo is UTC


def test_properties():
    """Address, correlation id and priority come from the properties."""
    call = read(reply_to="", correlation_id=None, priority=None)
    assert (call.reply_to, call.correlation_id, call.priority) == (None, "A", 0)
    call = read(reply_to="q", correlation_id="C", priority=7)
    assert (call.reply_to, call.correlation_id, call.priority) == ("q", "C", 7)


# -- protocol 1 and hybrid --------------------------------------------------------


def test_protocol_1():
    """A dict body without headers is protocol 1; its metadata is in the body."""
    body = {
        "task": "t.add",
        "id": "A",
        "args": [1],
        "kwargs": {"k": 2},
        "group": "old",
        "taskset": "G",
        "retries": 2,
        "eta": "2026-11-23T03:00:00",
        "utc": True,
        "callbacks": [SIGNATURE],
        "errbacks": None,
        "timelimit": [30, None],
        "chord": SIGNATURE,
    }
    found = message({"foo": "bar"}, body)
    call = decode(found, JSON_ONLY, max_decoded_size=LIMIT, timezone=PLUS2)
    assert call == Call(
        "t.add",
        "A",
        (1,),
        {"k": 2},
        Embed(callbacks=[SIGNATURE], chord=SIGNATURE),
        retries=2,
        eta=datetime(2026, 11, 23, 3, tzinfo=UTC),
        hard_limit=30,
        group="G",
        correlation_id="A",
        headers={"foo": "bar"},
        protocol=1,
    )
    local = decode(
        message({}, {**body, "utc": False}), JSON_ONLY, max_decoded_size=LIMIT, timezone=PLUS2
    )
    assert local.eta == datetime(2026, 11, 23, 1, tzinfo=UTC)


def test_protocol_1_at_its_least():
    """Task and id are enough."""
    assert read({}, {"task": "t", "id": "A"}) == Call("t", "A", correlation_id="A", protocol=1)


def test_hybrid():
    """Headers over a protocol 1 body: the headers win, the body fills in."""
    call = read(
        {"task": "t.add", "id": "A", "retries": 1},
        {
            "args": [1],
            "kwargs": {},
            "retries": 9,
            "group": "G",
            "errbacks": [SIGNATURE],
            "task": "x",
        },
    )
    assert (call.task, call.retries, call.group, call.protocol) == ("t.add", 1, "G", 1)
    assert call.embed == Embed(errbacks=[SIGNATURE])


# -- malformed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([[], {}], "body has 2 elements, a task message has 3 (args, kwargs, embed)"),
        ([[], {}, {}, {}], "body has 4 elements, a task message has 3 (args, kwargs, embed)"),
        (None, "body is None, a task message has (args, kwargs, embed)"),
        ("text", "body is 'text', a task message has (args, kwargs, embed)"),
        ({"kwargs": {}}, "body is a dict without 'args'"),
        ([None, {}, {}], "args is None, not a list"),
        (["ab", {}, {}], "args is 'ab', not a list"),
        ([[], None, {}], "kwargs is None, not a dict"),
        ([[], [], {}], "kwargs is [], not a dict"),
        ([[], {}, [1]], "embed is [1], not a dict or null"),
        ([[], {}, 0], "embed is 0, not a dict or null"),
        ([[], {}, {"chain": {}}], "chain is {}, not a list of signatures or null"),
        ([[], {}, {"chain": [5]}], "a signature in chain is 5, not a dict with a 'task'"),
        ([[], {}, {"chord": []}], "a signature in chord is [], not a dict with a 'task'"),
        (b"", "not valid json: Expecting value: line 1 column 1 (char 0)"),
        (
            b"{",
            "not valid json: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
    ],
)
def test_malformed_body(body, text):
    """A body no worker can run is malformed, and the text says what is wrong with it."""
    assert refusal(message(None, body)) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"id": None}, "id is None, not text that is not empty"),
        ({"id": ""}, "id is '', not text that is not empty"),
        ({"id": 5}, "id is 5, not text or null"),
        ({"task": ["t"]}, "task is ['t'], not text or null"),
        ({"retries": -1}, "retries is -1, not a number of retries"),
        ({"retries": True}, "retries is True, not a whole number"),
        ({"retries": "x"}, "retries is 'x', not a whole number"),
        ({"retries": "9" * 5000}, None),
        ({"timelimit": 30}, "timelimit is 30, not a list of two (hard, soft)"),
        ({"timelimit": [1]}, "timelimit is [1], not a list of two (hard, soft)"),
        (
            {"timelimit": ["1", 2]},
            "an element of timelimit is '1', not a number of seconds or null",
        ),
        ({"timelimit": [-1, 2]}, "an element of timelimit is -1, not a number of seconds or null"),
        ({"timelimit": [1 << 2000, 2]}, None),
        ({"eta": "soon"}, "eta is 'soon', not an ISO 8601 time"),
        ({"eta": 1700000000}, "eta is 1700000000, not an ISO 8601 time"),
        (
            {"eta": "0001-01-01T00:00:00+10:00"},
            "eta is '0001-01-01T00:00:00+10:00', not an ISO 8601 time",
        ),
        ({"expires": ""}, "expires is '', not an ISO 8601 time"),
        ({"expires": b"\xff"}, "header 'expires' holds bytes that are no utf-8 text"),
        ({"group": 5}, "group is 5, not text or null"),
        ({"group_index": "1"}, "group_index is '1', not a whole number"),
        ({"stamped_headers": "x"}, "stamped_headers is 'x', not a list of names or null"),
        ({"stamps": []}, "stamps is [], not a table or null"),
        ({"compression": 5}, "compression is 5, not the name of a compression"),
        ({"foo": b"\xff"}, "header 'foo' holds bytes that are no utf-8 text"),
    ],
)
def test_malformed_fields(fields, text):
    """A field of the wrong kind is malformed, with its value shown."""
    found = refusal(message({"task": "t.add", "id": "A", **fields}))
    assert text is None or found == text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (message({"task": "t"}), "message has no 'id'"),
        (
            message({}),
            "message has no 'task' header and its body is no protocol 1 task",
        ),
        (
            message({}, {"args": []}),
            "message has no 'task' header and its body is no protocol 1 task",
        ),
        (message({}, {"task": "t"}), "message has no 'id'"),
        (message({}, {"task": 5, "id": "A"}), "task is 5, not text or null"),
        (
            message({}, {"task": "t", "id": "\ud800"}),
            "id is '\\ud800', not text: it has a lone surrogate",
        ),
        (message({}, {"task": "t", "id": "A", "kwargs": None}), "kwargs is None, not a dict"),
        (message({}, {"task": "t", "id": "A", "args": None}), "args is None, not a list"),
        (message(content_type=None), "message has no content type"),
        (message(content_type=""), "message has no content type"),
    ],
)
def test_malformed_message(found, text):
    """A message that is no task is malformed."""
    assert refusal(found) == text


def test_kwargs_keys_are_text():
    """A key that is no text, which JSON cannot have, is malformed."""
    found = message(
        None,
        serializer("pickle").dumps(([], {1: 2}, None)),
        content_type="application/x-python-serialize",
    )
    with pytest.raises(MalformedMessage, match=r"^a key of kwargs is 1, not text$"):
        decode(found, accepted(["pickle"]), max_decoded_size=LIMIT)


def test_content_that_is_not_accepted():
    """A serializer that was not listed is not run, and the error says what is."""
    with pytest.raises(ContentDisallowed) as caught:
        decode(
            message(content_type="application/x-python-serialize"),
            JSON_ONLY,
            max_decoded_size=LIMIT,
        )
    assert str(caught.value) == "content type 'application/x-python-serialize' is not accepted"
    assert caught.value.hint == "accept_content allows application/json"
    assert caught.value.reason == "content_disallowed"


def test_too_large():
    """The limit holds for plain and for compressed bodies."""
    found = message(None, [["x" * 2000], {}, {}])
    with pytest.raises(DecodedTooLarge) as caught:
        decode(found, JSON_ONLY, max_decoded_size=1000)
    assert str(caught.value) == f"body has {len(found.body)} bytes, 1000 are allowed"
    mime, packed = compress("zlib", found.body)
    small = replace(found, body=packed, headers={**found.headers, "compression": mime})
    with pytest.raises(DecodedTooLarge, match=r"^body unpacks to more than 1000 bytes$"):
        decode(small, JSON_ONLY, max_decoded_size=1000)
    assert decode(small, JSON_ONLY, max_decoded_size=len(found.body)).args == ("x" * 2000,)


# -- any input --------------------------------------------------------------------


@some
@given(
    bodies,
    tables,
    st.sampled_from(["application/json", "application/x-msgpack", None, "text/plain"]),
)
@example(b"[" * 50_000, {"task": "t", "id": "A"}, "application/json")
@example(b'{"task":"t","id":"A","eta":' + b"[" * 900 + b"]" * 900 + b"}", {}, "application/json")
def test_any_message(body, headers, content_type):
    """Whatever comes decodes or is a message error, never anything else."""
    found = Message(body, headers, content_type=content_type)
    allowed = accepted(["json", "msgpack"])
    read = outcome(lambda: decode(found, allowed, max_decoded_size=200))
    if isinstance(read, Call):
        assert read.task
        assert read.id
    else:
        assert str(read)


def test_task_name():
    """The name is read from the header alone, and its absence is no error."""
    assert task_name(message()) == "t.add"
    assert task_name(message({"task": b"t.sub"})) == "t.sub"
    assert task_name(message({"task": 5})) is None
    assert task_name(message({})) is None
