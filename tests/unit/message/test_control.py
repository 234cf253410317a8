"""Requests and replies as they stand on the wire."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from amqtask.errors import ConfigurationError, MalformedMessage
from amqtask.message.control import (
    Refusal,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from amqtask.message.model import Message

REQUEST = Request("schedule.pause", {"name": "report"}, "id", "replies")


def test_a_request_comes_as_it_went() -> None:
    """Method, arguments, id and reply address; and it expires with the patience of who asks."""
    message = encode_request(REQUEST, 2.5)
    assert message.body == b'{"method":"schedule.pause","arguments":{"name":"report"}}'
    assert message.expiration == "2500"
    assert decode_request(message) == REQUEST


def test_a_value_comes_back() -> None:
    """Dates are what they were."""
    now = datetime(2026, 11, 25, tzinfo=UTC)
    message = encode_reply(REQUEST, {"at": now})
    assert message.correlation_id == "id"
    assert decode_reply(message) == ({"at": now}, None)


def test_a_refusal_comes_back() -> None:
    """With the kind, the text and the hint of the error."""
    message = encode_reply(REQUEST, error=ConfigurationError("no such entry", hint="look"))
    assert decode_reply(message) == (None, Refusal("ConfigurationError", "no such entry", "look"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"method": 5, "arguments": {}}'])
def test_what_makes_no_sense_is_said_to(body: bytes) -> None:
    """Neither side takes just anything."""
    with pytest.raises(MalformedMessage):
        decode_request(Message(body))
    with pytest.raises(MalformedMessage):
        decode_reply(Message(body))
