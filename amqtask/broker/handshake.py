"""How a connection begins, until its vhost is open.

    greeting --> starting --> tuning --> opening --> running
                 (start)      (tune)     (open)

What is wrong with a login or a limit ends the socket without a word, as in
RabbitMQ, unless the client can be told why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp import commands

from amqtask.broker.fields import Field, Table
from amqtask.broker.refusals import Hangup, Refusal
from amqtask.broker.wire import GREETING, Call, method, write_method

if TYPE_CHECKING:
    from amqtask.broker.server import Broker

#: What RabbitMQ offers, and what it takes at least.
CHANNEL_MAX, FRAME_MAX, HEARTBEAT = 2047, 131072, 60
FRAME_MIN = 4096
_CAPABILITIES = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)


class Agreed(NamedTuple):
    """What a handshake came to.

    Attributes:
        user: Who it is.
        vhost: The vhost's name.
        channel_max: Channels it may open.
        frame_max: Octets of a frame.
        heartbeat: Seconds, 0 for none.
        properties: What the client says of itself.
    """

    user: str
    vhost: str
    channel_max: int
    frame_max: int
    heartbeat: int
    properties: Table


class Handshake:
    """One connection's beginning.

    Attributes:
        state: RabbitMQ's word for where it is.
        agreed: Its result, once it is ``running``.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.state = "greeting"
        self.user = ""
        self._properties: Table = {}
        self._tuned = (0, 0, 0)
        self.agreed: Agreed | None = None

    def greet(self, octets: bytes) -> bytes:
        """Take the protocol header; returns what to send.

        Raises:
            Hangup: It is another protocol's.
        """
        if octets != GREETING:
            raise Hangup(GREETING)
        self.state = "starting"
        return write_method(
            method(
                commands.Connection.Start,
                version_major=0,
                version_minor=9,
                server_properties=self._server_properties(),
                mechanisms="PLAIN",
                locales="en_US",
            ),
            0,
        )

    def _server_properties(self) -> Table:
        capabilities = {name: Field("t", True) for name in _CAPABILITIES}
        texts = {
            "copyright": "Copyright amqtask contributors",
            "cluster_name": self._broker.name,
            "information": "Licensed under the MIT license. For development and tests.",
            "platform": "Python",
            "product": "amqtask",
            "version": self._broker.version,
        }
        return {
            "capabilities": Field("F", capabilities),
            **{name: Field("S", value) for name, value in texts.items()},
        }

    def take(self, call: Call) -> bytes:
        """Take the client's next method; returns what to send.

        Raises:
            Refusal: It is refused, and may be told so.
            Hangup: It is refused without a word.
        """
        step: dict[tuple[str, type[Any]], Any] = {
            ("starting", commands.Connection.StartOk): self._start,
            ("tuning", commands.Connection.TuneOk): self._tune,
            ("opening", commands.Connection.Open): self._open,
        }
        taken = step.get((self.state, type(call.method)))
        if taken is None:
            raise Hangup
        answer: bytes = taken(call.method, call.table)
        return answer

    def _start(self, call: commands.Connection.StartOk, table: Table) -> bytes:
        self._properties = table
        if call.mechanism != "PLAIN":
            raise Hangup
        parts = str(call.response).split("\0")
        if len(parts) != 3 or parts[0] or not self._broker.knows(parts[1], parts[2]):
            raise self._refused_login()
        self.user = parts[1]
        self.state = "tuning"
        offer = method(
            commands.Connection.Tune,
            channel_max=CHANNEL_MAX,
            frame_max=FRAME_MAX,
            heartbeat=HEARTBEAT,
        )
        return write_method(offer, 0)

    def _refused_login(self) -> Exception:
        if not capable(self._properties, "authentication_failure_close"):
            return Hangup()
        return Refusal(
            403,
            "Login was refused using authentication mechanism PLAIN. For details see the broker "
            "logfile.",
        )

    def _tune(self, call: commands.Connection.TuneOk, _: Table) -> bytes:
        channels, frames = int(call.channel_max), int(call.frame_max)
        if not (1 <= channels <= CHANNEL_MAX and FRAME_MIN <= frames <= FRAME_MAX):
            raise Hangup
        self._tuned = (channels, frames, int(call.heartbeat))
        self.state = "opening"
        return b""

    def _open(self, call: commands.Connection.Open, _: Table) -> bytes:
        vhost = str(call.virtual_host)
        index = commands.Connection.Open.index
        if not self._broker.has_vhost(vhost):
            raise Refusal(530, f"vhost {vhost} not found", method=index)
        if not self._broker.may_use(self.user, vhost):
            text = f"access to vhost '{vhost}' refused for user '{self.user}'"
            raise Refusal(530, text, method=index)
        self.agreed = Agreed(self.user, vhost, *self._tuned, self._properties)
        self.state = "running"
        return write_method(commands.Connection.OpenOk(), 0)


def capable(properties: Table, name: str) -> bool:
    """Tell whether a client says that it can do something."""
    capabilities = properties.get("capabilities")
    if capabilities is None or capabilities.tag != "F":
        return False
    return bool(capabilities.value.get(name) == Field("t", True))
