"""What follows from a message: the next attempt and the dead letter keep the sender's bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqtask.errors import EncodeError, RemoteError
from amqtask.message.decoding import decode
from amqtask.message.encoding import encode
from amqtask.message.model import Call, Embed, Message
from amqtask.message.republish import exception_text, park, resend
from amqtask.message.serializers import accepted
from tests.unit.message.strategies import junk, runnable, some, without_floats

pika_data = pytest.importorskip("pika.data")

JSON_ONLY = accepted(["json"])
ETA = datetime(2026, 11, 23, 3, 18, tzinfo=UTC)
NOW = 1_795_000_000.0
SIGNATURE = {"task": "t.next", "args": [], "kwargs": {}}
BROKER = {
    "x-death": [{"queue": "q", "count": 1}],
    "x-first-death-queue": "q",
    "x-last-death-reason": "expired",
    "x-delivery-count": 2,
    "amqtask-reason": "old",
    "CC": ["other"],
}
CALL = Call(
    "t.add",
    "A",
    (2, 3),
    {"k": 1},
    Embed(callbacks=[SIGNATURE]),
    stamps={"s": 1},
    stamped_headers=["s"],
    headers={"traceparent": "00-ab"},
)


def received(**changes: object) -> Message:
    sent = encode(CALL, now=NOW - 60)
    found = replace(
        sent,
        # as another writer would space it, to see that nobody wrote it anew
        body=sent.body.replace(b",", b", "),
        headers={**sent.headers, **BROKER, "price": Decimal("1.50")},
        expiration="5000",
        user_id="guest",
        type="kind",
        app_id="shop",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def read(message: Message) -> Call:
    return decode(message, JSON_ONLY, max_decoded_size=1 << 20)


def test_next_attempt_keeps_bytes_and_properties():
    """Only retries and eta change; the broker's headers, the TTL and the user go."""
    message = received()
    successor = resend(message, read(message), retries=1, eta=ETA)
    headers = {**encode(CALL).headers, "price": Decimal("1.50")}
    assert successor == replace(
        message,
        headers={**headers, "retries": 1, "eta": "2026-11-23T03:18:00+00:00"},
        expiration=None,
        user_id=None,
    )


def test_next_attempt_reads_as_the_same_call():
    """What arrives again is the call with its new number and time."""
    message = received()
    call = read(message)
    again = read(resend(message, call, retries=2, eta=None))
    assert again == replace(call, retries=2, eta=None)


def test_other_arguments():
    """Changed arguments are written anew; what follows, the id and the headers stay."""
    message = received()
    call = read(message)
    successor = resend(message, call, retries=1, eta=None, args=(5,))
    assert json.loads(successor.body)[0] == [5]
    assert successor.headers["argsrepr"] == "(5,)"
    assert successor.headers["price"] == Decimal("1.50")
    assert read(successor) == replace(call, args=(5,), retries=1)
    assert (successor.type, successor.expiration) == ("kind", None)
    assert read(resend(message, call, retries=1, eta=None, kwargs={})).kwargs == {}


def test_other_arguments_of_a_compressed_message():
    """A body that was compressed is compressed again."""
    message = encode(CALL, compression="zlib")
    successor = resend(message, read(message), retries=1, eta=None, args=(5,))
    assert successor.headers["compression"] == "application/x-gzip"
    assert read(successor).args == (5,)


def test_other_arguments_that_do_not_serialise():
    """The caller learns that the retry cannot be sent."""
    message = received()
    with pytest.raises(EncodeError, match=r"cannot encode args of task 't\.add'"):
        resend(message, read(message), retries=1, eta=None, args=(object(),))


@pytest.mark.parametrize("headers", [{"foo": "bar"}, {"task": "t.add", "id": "A", "foo": "bar"}])
def test_protocol_1_becomes_2(headers):
    """An old message goes on as protocol 2, with all it said."""
    body = {"task": "t.add", "id": "A", "args": [1], "kwargs": {}, "callbacks": [SIGNATURE]}
    message = Message(
        json.dumps(body).encode(),
        {**headers, **BROKER},
        content_type="application/json",
        reply_to="replies",
        priority=3,
    )
    call = read(message)
    successor = resend(message, call, retries=1, eta=ETA)
    assert json.loads(successor.body)[0] == [1]
    assert (successor.reply_to, successor.priority) == ("replies", 3)
    assert read(successor) == replace(
        call, retries=1, eta=ETA, root_id="A", protocol=2, headers={"foo": "bar"}
    )


def parked(message: Message, **changes: object) -> Message:
    said = {
        "reason": "failed",
        "queue": "email",
        "exception": ValueError("x"),
        "traceback": "Traceback ...",
        "attempts": 3,
        "host": "h1",
        "now": NOW,
    }
    return park(message, **{**said, **changes})  # type: ignore[arg-type]


def test_parked_message():
    """Body and properties stay; the broker's headers go, ours say what happened."""
    message = received()
    dead = parked(message)
    assert dead == replace(
        message,
        headers={
            **encode(CALL).headers,
            "price": Decimal("1.50"),
            "amqtask-reason": "failed",
            "amqtask-queue": "email",
            "amqtask-exception": "ValueError: x",
            "amqtask-attempts": 3,
            "amqtask-host": "h1",
            "amqtask-first-seen": "2026-11-18T11:05:40+00:00",
            "amqtask-parked-at": "2026-11-18T11:06:40+00:00",
            "amqtask-user-id": "guest",
            "amqtask-traceback": "Traceback ...",
        },
        expiration=None,
        user_id=None,
    )


def test_parked_message_can_be_read_again():
    """The call comes back out of a parked message as it was."""
    message = received()
    assert read(parked(message)) == read(message)


@pytest.mark.parametrize("timestamp", [None, 0, -5, int(NOW) + 1, 1 << 60, True])
def test_first_seen_without_a_sane_timestamp(timestamp):
    """A timestamp that cannot be true is not believed."""
    dead = parked(received(timestamp=timestamp))
    assert dead.headers["amqtask-first-seen"] == dead.headers["amqtask-parked-at"]


def test_texts_are_capped():
    """Exception text keeps its start, the traceback its end."""
    dead = parked(received(), exception="e" * 5000, traceback="start" + "t" * 20_000 + "end")
    assert len(dead.headers["amqtask-exception"]) == 2000
    assert len(dead.headers["amqtask-traceback"]) == 16_000
    assert dead.headers["amqtask-traceback"].endswith("tttend")


def test_absent_texts_are_left_out():
    """No exception, no header for one."""
    dead = parked(received(), exception=None, traceback=None)
    assert not {"amqtask-exception", "amqtask-traceback"} & dead.headers.keys()


def test_headers_fit_one_frame():
    """The traceback gives way when the sender's headers fill the frame."""
    for size in (100_000, 119_000, 130_000):
        dead = parked(received(headers={"a": "x" * size}), traceback="é" * 16_000)
        table = pika_data.encode_table([], dead.headers)
        assert table <= max(120_000, size + 1000)


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_exception_text():
    """The class and its text, or the class alone, whatever the exception does."""
    assert exception_text(ValueError("x")) == "ValueError: x"
    assert exception_text(ValueError()) == "ValueError"
    assert exception_text("died") == "died"
    assert exception_text(Rude()) == "Rude: <its text cannot be had>"


@some
@given(st.binary(), st.dictionaries(st.text(max_size=5), junk), st.text())
def test_any_message_can_be_parked(body, headers, text):
    """Parking works for what nothing else can be done with, and the driver can write it."""
    message = Message(body, headers, content_type=None)
    dead = parked(message, exception=text, traceback=text, reason=text)
    assert dead.body == body
    assert pika_data.encode_table([], without_floats(dead.headers)) > 0


@some
@given(runnable)
@example((b"[[NaN],{},null]", {"task": "t", "id": "A"}))
@example((b'{"task":"t","id":"A","args":["\\ud800"]}', {}))
def test_any_call_can_be_sent_again(found):
    """What decodes has a next attempt that decodes to the same, and the driver can write it."""
    body, headers = found
    message = Message(body, headers, content_type="application/json")
    call = read(message)
    successor = resend(message, call, retries=7, eta=ETA)
    assert pika_data.encode_table([], without_floats(successor.headers)) > 0
    again = read(successor)
    assert (again.task, again.id, again.retries, again.eta) == (call.task, call.id, 7, ETA)
    assert repr(again.args) == repr(call.args)


def test_old_message_that_cannot_be_written_anew():
    """Protocol 1 with NaN runs, but has no next attempt: the caller is told."""
    message = Message(b'{"task":"t","id":"A","args":[NaN]}', {}, content_type="application/json")
    with pytest.raises(EncodeError, match=r"cannot encode args of task 't': value nan at \[0\]"):
        resend(message, read(message), retries=1, eta=None)


def test_a_count_of_deaths_is_sent_only_where_there_is_one():
    """What came with the message is the broker's or the last worker's word, and not passed on."""
    came = received(headers={**received().headers, "amqtask-crashes": 2})
    assert "amqtask-crashes" not in resend(came, CALL, retries=1, eta=None).headers
    assert resend(came, CALL, retries=0, eta=None, crashes=3).headers["amqtask-crashes"] == 3


def test_details_of_a_dead_letter():
    """They are headers beside the others."""
    assert parked(received(), details={"amqtask-signal": "SIGBUS"}).headers["amqtask-signal"] == (
        "SIGBUS"
    )


def test_the_text_of_an_exception_from_elsewhere():
    """It has its own name in it already; one that has none is shown like any other."""
    assert exception_text(RemoteError("Odd: why", exc_type="Odd")) == "Odd: why"
    assert exception_text(RemoteError("why")) == "RemoteError: why"
