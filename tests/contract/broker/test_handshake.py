"""From the first octet to an open connection, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import aio_pika
import aiormq.exceptions
import pika
import pika.exceptions
import pytest
from pamqp import commands, header, heartbeat
from yarl import URL

from tests.contract.broker.wire import Gone, Refused, Wire
from tests.helpers import TIMEOUT

REFUSED_LOGIN = Refused(
    "connection",
    403,
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
    "For details see the broker logfile.",
)


def test_server_introduces_itself(dial):
    """Clients choose by these: the protocol version, how to log in, and what the server can do."""
    start = dial().start()
    assert (start.version_major, start.version_minor) == (0, 9)
    assert "PLAIN" in start.mechanisms.split()
    assert "en_US" in start.locales.split()
    assert {"product", "version", "platform", "copyright", "information"} <= set(
        start.server_properties
    )
    assert start.server_properties["capabilities"] == {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": True,
    }


@pytest.mark.parametrize("octets", [b"HTTP/1.1", b"AMQP\x00\x00\x08\x00"])
def test_another_protocol_is_answered_with_ours(dial, octets):
    """A client of another protocol learns what is spoken here, and is left."""
    wire = dial()
    wire.write(octets)
    assert wire.read_all()[:4] == b"AMQP"


def test_server_proposes_limits(dial):
    wire = dial()
    wire.start()
    wire.authenticate()
    tune = wire.expect(commands.Connection.Tune, channel=0)
    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (2047, 131072, 60)


def test_lower_limits_are_taken(dial):
    wire = dial().login(channel_max=7, frame_max=8192).open_channel(7)
    assert wire.call(commands.Channel.Flow(True), commands.Channel.FlowOk, channel=7).active


def test_wrong_password(dial):
    wire = dial()
    wire.password = "wrong"
    wire.start()
    wire.authenticate()
    assert wire.refusal() == REFUSED_LOGIN


def test_unknown_user(dial):
    wire = dial()
    wire.user = "nobody-of-this-name"
    wire.start()
    wire.authenticate()
    assert wire.refusal() == REFUSED_LOGIN


def out_of_step(dial: Callable[[], Wire]) -> Iterator[Wire]:
    """Make connections that each take another wrong step before they are open."""
    steps: list[Callable[[Wire], None]] = [
        lambda wire: wire.authenticate(mechanism="NOSUCH"),
        lambda wire: wire.send(commands.Connection.StartOk({}, "PLAIN", "no zeros", "en_US"), 0),
        lambda wire: wire.send(commands.Connection.Open("/"), 0),
        lambda wire: wire.send(commands.Channel.Open(), 1),
    ]
    for step in steps:
        wire = dial()
        wire.start()
        step(wire)
        yield wire
    # a client may lower the limits, not raise them; zero means none, which is more
    for limits in ((2048, 131072), (0, 131072), (2047, 131073), (2047, 0), (2047, 4095)):
        wire = dial()
        wire.start()
        wire.authenticate()
        wire.expect(commands.Connection.Tune, channel=0)
        wire.send(commands.Connection.TuneOk(*limits, 0), channel=0)
        yield wire


def test_missteps_at_the_login_end_it(dial):
    """Before the connection is open there is no close method, only the end of it.

    So it is for a wrong password too, when the client does not say that it expects a close.
    """
    password = dial()
    password.password = "wrong"
    password.start()
    password.authenticate(capabilities={})
    # RabbitMQ takes three seconds to close each, so they run side by side
    for wire in [password, *out_of_step(dial)]:
        with pytest.raises(Gone):
            wire.receive()


def test_unknown_vhost(dial):
    wire = dial()
    wire.start()
    wire.authenticate()
    wire.expect(commands.Connection.Tune, channel=0)
    wire.send(commands.Connection.TuneOk(2047, 131072, 0), channel=0)
    wire.send(commands.Connection.Open("no-such-vhost"), channel=0)
    close = wire.expect(commands.Connection.Close, channel=0)
    assert (close.reply_code, close.reply_text) == (
        530,
        "NOT_ALLOWED - vhost no-such-vhost not found",
    )
    assert (close.class_id, close.method_id) == (10, 40)


def test_client_closes(wire):
    wire.send(commands.Connection.Close(200, "bye", 0, 0), channel=0)
    wire.expect(commands.Connection.CloseOk, channel=0)


def test_no_more_than_the_channels_agreed_on(dial):
    wire = dial().login(channel_max=2).open_channel(1).open_channel(2)
    wire.send(commands.Channel.Open(), channel=3)
    assert wire.refusal() == Refused(
        "connection",
        530,
        "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)",
    )


def test_heartbeats(dial):
    """The side that hears nothing for two intervals takes the other for dead."""
    silent, beating = dial().login(beat=1), dial().login(beat=1)
    for _ in range(5):
        beating.expect(heartbeat.Heartbeat, channel=0)
        beating.send(heartbeat.Heartbeat(), channel=0)
    silent.expect(heartbeat.Heartbeat, channel=0)
    assert silent.ended()
    beating.send(commands.Channel.Open())
    # one more heartbeat may come first
    beating.await_(commands.Channel.OpenOk)


def test_a_secret_can_be_renewed(wire):
    """Clients with tokens that expire do this; with a password it changes nothing."""
    wire.call(
        commands.Connection.UpdateSecret("new", "rotation"),
        commands.Connection.UpdateSecretOk,
        channel=0,
    )


def test_protocol_header_in_pieces(dial):
    """TCP cuts where it likes."""
    wire = dial()
    for octet in header.ProtocolHeader().marshal():
        wire.write(bytes([octet]))
    wire.expect(commands.Connection.Start, channel=0)


def test_pika_learns_of_a_wrong_password(url):
    parameters = pika.URLParameters(url)
    parameters.credentials = pika.PlainCredentials("guest", "wrong")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="403"):
        pika.BlockingConnection(parameters)


def test_pika_learns_of_an_unknown_vhost(url):
    parameters = pika.URLParameters(url)
    parameters.virtual_host = "no-such-vhost"
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="530"):
        pika.BlockingConnection(parameters)


async def test_aio_pika_learns_of_a_wrong_password(url):
    with pytest.raises(aiormq.exceptions.ProbableAuthenticationError, match="Login was refused"):
        await aio_pika.connect(URL(url).with_password("wrong"), timeout=TIMEOUT)
