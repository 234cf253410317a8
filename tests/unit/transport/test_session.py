"""What pika says about a connection or channel, in our words: full texts, no password, the cause."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pika import exceptions as pika_errors
from pika.adapters.utils import connection_workflow

from amqtask.errors import (
    AccessRefused,
    BrokerUnreachable,
    ChannelClosed,
    ConnectionLost,
    TransportError,
)
from amqtask.transport import BrokerURL, Session
from amqtask.transport.session import Channel, channel_error, connection_error

URL = BrokerURL.parse("amqp://user:secret@mq.example/shop")
BROKER = "broker amqp://user@mq.example:5672/shop"


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (
            pika_errors.ConnectionClosedByBroker(403, "ACCESS_REFUSED - login refused"),
            AccessRefused,
            f"{BROKER} refused access to vhost 'shop': 403 ACCESS_REFUSED - login refused",
        ),
        (
            pika_errors.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost shop not found"),
            AccessRefused,
            f"{BROKER} refused access to vhost 'shop': 530 NOT_ALLOWED - vhost shop not found",
        ),
        (
            pika_errors.ProbableAuthenticationError(
                repr(pika_errors.ConnectionClosedByBroker(403, "ACCESS_REFUSED - it's refused"))
            ),
            AccessRefused,
            f"{BROKER} refused access to vhost 'shop': 403 ACCESS_REFUSED - it's refused",
        ),
        (
            pika_errors.ProbableAccessDeniedError(
                repr(
                    pika_errors.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost shop not found")
                )
            ),
            AccessRefused,
            f"{BROKER} refused access to vhost 'shop': 530 NOT_ALLOWED - vhost shop not found",
        ),
        (
            pika_errors.ProbableAuthenticationError(repr(pika_errors.StreamLostError("reset"))),
            BrokerUnreachable,
            f"{BROKER} ended the connection during the handshake",
        ),
        (
            pika_errors.AMQPConnectionError(ConnectionRefusedError(111, "Connection refused")),
            BrokerUnreachable,
            f"{BROKER} does not answer: [Errno 111] Connection refused",
        ),
        (
            pika_errors.ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"),
            ConnectionLost,
            f"{BROKER} closed the connection: 320 CONNECTION_FORCED - shutdown",
        ),
        (
            pika_errors.AMQPHeartbeatTimeout("no activity"),
            ConnectionLost,
            f"{BROKER} sent no heartbeat in time",
        ),
        (
            pika_errors.StreamLostError("Stream connection lost"),
            ConnectionLost,
            "connection to broker amqp://user@mq.example:5672/shop was lost",
        ),
        (
            pika_errors.ConnectionClosedByClient(200, "Normal shutdown"),
            ConnectionLost,
            "connection to broker amqp://user@mq.example:5672/shop was closed here",
        ),
        (
            ConnectionRefusedError(111, "Connection refused"),
            BrokerUnreachable,
            f"{BROKER} does not answer: [Errno 111] Connection refused",
        ),
        (TimeoutError(), BrokerUnreachable, f"{BROKER} does not answer: TimeoutError"),
        (None, BrokerUnreachable, f"{BROKER} does not answer: no reason given"),
    ],
)
def test_connection_errors(
    said: BaseException | None, kind: type[TransportError], text: str
) -> None:
    """Each way a connection fails or ends has its class and its text, and pika's as cause."""
    error = connection_error(said, URL)
    assert type(error) is kind
    assert str(error) == text
    if type(said) is not pika_errors.AMQPConnectionError:  # a wrapper of what happened
        assert error.__cause__ is said
    if kind is AccessRefused:
        assert error.hint == "check user, password, vhost and permissions of the broker URL"


def test_the_last_real_reason_of_a_workflow_is_told() -> None:
    """pika wraps what happened three times over; the reader gets what happened."""
    refused = ConnectionRefusedError(111, "Connection refused")
    phase = connection_workflow.AMQPConnectorSocketConnectError(refused)
    error = connection_error(
        connection_workflow.AMQPConnectionWorkflowFailed([ValueError("first"), phase]), URL
    )
    assert str(error) == f"{BROKER} does not answer: [Errno 111] Connection refused"
    assert error.__cause__ is refused


@pytest.mark.parametrize("code", [404, 405, 406, 541])
def test_channel_errors_keep_code_and_text(code: int) -> None:
    """The broker's reply is in the text and, for those who decide by it, in attributes."""
    error = channel_error(pika_errors.ChannelClosedByBroker(code, "TEXT - why"), URL)
    assert isinstance(error, ChannelClosed)
    assert str(error) == f"{BROKER} closed a channel: {code} TEXT - why"
    assert (error.code, error.text) == (code, "TEXT - why")


def test_a_missing_permission_has_a_remedy() -> None:
    """403 on a channel is no matter of login."""
    error = channel_error(pika_errors.ChannelClosedByBroker(403, "ACCESS_REFUSED - no"), URL)
    assert type(error) is AccessRefused
    assert str(error) == f"{BROKER} refused an operation: ACCESS_REFUSED - no"
    assert error.hint == (
        "give the user this permission, or have somebody else declare the entities and set"
        ' declare="never"'
    )


def test_a_channel_that_ends_with_its_connection() -> None:
    """The connection's reason is the channel's."""
    error = channel_error(pika_errors.StreamLostError("gone"), URL)
    assert type(error) is ConnectionLost


def test_nothing_shows_the_password() -> None:
    """Neither text nor hint nor repr of any of them."""
    for said in (
        pika_errors.ProbableAuthenticationError("reset"),
        pika_errors.ConnectionClosedByBroker(403, "no"),
        OSError("no"),
    ):
        error: Any = connection_error(said, URL)
        assert "secret" not in f"{error!r} {error} {error.hint}"


async def test_an_alarm_is_noted_and_its_end_told() -> None:
    """connection.blocked keeps the broker's reason; unblocked wakes who waited for it."""
    session, told = Session(URL, 1), asyncio.Event()
    session.on_unblocked.append(told.set)
    session._on_blocked(None, SimpleNamespace(method=SimpleNamespace(reason="low on disk")))
    reasons = [session.blocked]
    session._on_unblocked(None, None)
    reasons.append(session.blocked)
    assert reasons == ["low on disk", None]
    assert told.is_set()


async def test_an_alarm_without_a_reason() -> None:
    """Brokers need not give one; blocked is blocked."""
    session = Session(URL, 1)
    session._on_blocked(None, SimpleNamespace(method=SimpleNamespace(reason="")))
    assert session.blocked == "no reason given"


async def test_what_is_small_is_sent_joined_and_what_is_large_as_it_is() -> None:
    """Frames go out in order, and nothing of what pika holds is copied when it is sent in part."""
    emitted: list[bytes | memoryview] = []
    channel = Channel(cast(Session, None))
    connection = SimpleNamespace(_output_marshaled_frames=emitted.extend)
    channel._raw = cast(Any, SimpleNamespace(connection=connection))
    channel.write([])
    assert emitted == []
    channel.write([b"a", b"b"])
    assert emitted == [b"ab"]
    assert isinstance(emitted[0], memoryview)
    emitted.clear()
    large, other = memoryview(b"large"), memoryview(b"other")
    channel.write([b"a", b"b", large, b"c", other, b"d", b"e"])
    assert emitted == [b"ab", b"large", b"c", b"other", b"de"]
    assert emitted[1] is large
    assert emitted[3] is other
