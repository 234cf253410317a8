"""What is sent: Celery's protocol 2 in its full shape."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest

from amqtask.errors import ConfigurationError, EncodeError
from amqtask.message.compression import decompress
from amqtask.message.encoding import encode
from amqtask.message.model import Call, Embed, Message
from amqtask.message.serializers import serializer

SIGNATURE = {"task": "t.next", "args": [], "kwargs": {}, "options": {"task_id": "B"}}

FULL = Call(
    "t.add",
    "A",
    (2, 3),
    {},
    eta=datetime(2026, 11, 23, 3, 18, 2, 950430, tzinfo=UTC),
    expires=datetime(2026, 11, 23, 3, 18, 52, tzinfo=UTC),
    hard_limit=30.0,
    soft_limit=20,
    origin="gen1@h",
    ignore_result=False,
    reply_to="oid",
    priority=5,
)


def test_full_shape():
    """Headers, properties and body are the documented sample, in its order."""
    message = encode(FULL, now=1700000000.9, ttl_ms=60000)
    assert message == Message(
        body=b'[[2,3],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]',
        headers={
            "lang": "py",
            "task": "t.add",
            "id": "A",
            "root_id": "A",
            "parent_id": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "eta": "2026-11-23T03:18:02.950430+00:00",
            "expires": "2026-11-23T03:18:52+00:00",
            "timelimit": [30, 20],
            "shadow": None,
            "argsrepr": "(2, 3)",
            "kwargsrepr": "{}",
            "origin": "gen1@h",
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id="A",
        reply_to="oid",
        delivery_mode=2,
        priority=5,
        expiration="60000",
        message_id="A",
        timestamp=1700000000,
    )
    assert list(message.headers)[:4] == ["lang", "task", "id", "root_id"]
    assert [type(limit) for limit in message.headers["timelimit"]] == [int, int]


def test_defaults():
    """What is not said is sent all the same: null limits, empty reply_to, priority 0."""
    message = encode(Call("t.add", "A"))
    assert message.headers["timelimit"] == [None, None]
    assert message.headers["argsrepr"] == "()"
    assert (message.reply_to, message.priority, message.expiration) == ("", 0, None)
    assert message.timestamp is not None
    assert message.timestamp > 1_700_000_000


def test_same_headers_as_celery():
    """The set of protocol headers is exactly the one Celery 5.7 sends."""
    celery = pytest.importorskip("celery")
    theirs = celery.Celery().amqp.as_task_v2("A", "t.add", (2, 3), {})
    message = encode(Call("t.add", "A", (2, 3)))
    assert set(message.headers) == set(theirs.headers)
    assert json.loads(message.body) == json.loads(json.dumps(theirs.body))
    for name in ("timelimit", "argsrepr", "kwargsrepr", "root_id", "stamps", "retries"):
        assert message.headers[name] == theirs.headers[name]


def test_workflow_and_stamps():
    """What follows the task goes into the body, stamps into the headers."""
    call = Call(
        "t.add",
        "A",
        embed=Embed(callbacks=[SIGNATURE], chain=[SIGNATURE]),
        root_id="R",
        parent_id="P",
        group="G",
        group_index=3,
        stamped_headers=["tenant"],
        stamps={"tenant": ["x"]},
        correlation_id="C",
        kwargs=MappingProxyType({"a": 1}),
    )
    message = encode(call)
    assert json.loads(message.body) == [
        [],
        {"a": 1},
        {"callbacks": [SIGNATURE], "errbacks": None, "chain": [SIGNATURE], "chord": None},
    ]
    headers = message.headers
    assert (headers["root_id"], headers["parent_id"]) == ("R", "P")
    assert (headers["group"], headers["group_index"]) == ("G", 3)
    assert (headers["stamped_headers"], headers["stamps"]) == (["tenant"], {"tenant": ["x"]})
    assert message.correlation_id == "C"


def test_other_serializer_and_compression():
    """The properties name the serializer, the header names the compression."""
    pytest.importorskip("msgpack")
    codec = serializer("msgpack")
    message = encode(FULL, serializer=codec, compression="zlib")
    assert (message.content_type, message.content_encoding) == ("application/x-msgpack", "binary")
    assert message.headers["compression"] == "application/x-gzip"
    assert codec.loads(decompress("application/x-gzip", message.body, 1000))[0] == [2, 3]


def test_small_bodies_are_left_uncompressed():
    """A body up to ``compress_over`` bytes is sent as it is."""
    assert "compression" not in encode(FULL, compression="zlib", compress_over=1024).headers
    assert "compression" in encode(FULL, compression="zlib", compress_over=70).headers


def test_unknown_compression():
    """A misspelt compression is a configuration error."""
    with pytest.raises(ConfigurationError, match="no compression 'zlob'"):
        encode(FULL, compression="zlob")


def test_negative_ttl_is_zero():
    """A call that has expired already goes out with a TTL of zero, as Celery sends it."""
    assert encode(FULL, ttl_ms=-5).expiration == "0"


def test_times_keep_their_offset():
    """A time in another zone is sent with that zone's offset."""
    eta = datetime(2026, 11, 23, 5, 0, tzinfo=timezone(timedelta(hours=2)))
    assert encode(Call("t", "A", eta=eta)).headers["eta"] == "2026-11-23T05:00:00+02:00"


def test_naive_eta():
    """A naive time means something else on another machine, so it is refused."""
    with pytest.raises(EncodeError) as caught:
        encode(Call("t", "A", eta=datetime(2026, 11, 23)))  # noqa: DTZ001 - naive on purpose
    assert str(caught.value) == "eta 2026-11-23T00:00:00 is naive"
    assert caught.value.hint == "give eta a zone: datetime.now(UTC)"


def test_user_headers():
    """The user's headers stand beside the protocol's."""
    message = encode(Call("t", "A", headers={"traceparent": "00-ab", "n": (1, 2)}))
    assert (message.headers["traceparent"], message.headers["n"]) == ("00-ab", [1, 2])


def test_user_header_with_a_taken_name():
    """A user's header never overwrites the protocol's."""
    with pytest.raises(EncodeError, match=r"^header 'id' belongs to the task protocol"):
        encode(Call("t", "A", headers={"id": "B"}))


class Rude:
    def __repr__(self) -> str:
        raise ValueError("no")

    def __reduce__(self) -> Any:
        return Rude, ()


def test_reprs_are_bounded_and_safe():
    """Reprs have at most 1024 characters, and a raising one does not fail the call."""
    message = encode(Call("t", "A", ("x" * 5000,), {"k": "y" * 50_000}))
    assert len(message.headers["argsrepr"]) <= 1024
    assert len(message.headers["kwargsrepr"]) <= 1024
    rude = encode(Call("t", "A", (1, Rude())), serializer=serializer("pickle"))
    assert rude.headers["argsrepr"].startswith("(1, <Rude instance at ")


@pytest.mark.parametrize(
    ("call", "path", "text"),
    [
        (
            Call("t.add", "A", ({"a": [1, 2, object()]},)),
            (0, "a", 2),
            (
                "cannot encode args of task 't.add': value of type 'object' at [0]['a'][2] "
                "does not serialise as json"
            ),
        ),
        (
            Call("t.add", "A", (), {"k": {1}}),
            ("k",),
            (
                "cannot encode kwargs of task 't.add': value of type 'set' at ['k'] "
                "does not serialise as json"
            ),
        ),
        (
            Call("t.add", "A", embed=Embed(callbacks=[{"task": {1}}])),
            ("callbacks", 0, "task"),
            (
                "cannot encode embed of task 't.add': value of type 'set' at ['callbacks'][0]['task'] "
                "does not serialise as json"
            ),
        ),
    ],
)
def test_refusal_names_task_part_and_place(call, path, text):
    """An argument that does not serialise is found from the error alone."""
    with pytest.raises(EncodeError) as caught:
        encode(call)
    assert str(caught.value) == text
    assert caught.value.path == path


def test_kwargs_are_named_by_text():
    """A key that is no str would end a Celery worker."""
    kwargs: Any = {1: 2}
    with pytest.raises(EncodeError) as caught:
        encode(Call("t.add", "A", (), kwargs))
    assert str(caught.value) == "cannot encode kwargs of task 't.add': the key 1 is no str"
