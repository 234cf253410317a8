"""Clients that cost next to nothing: frames are copied and counted, not decoded.

A broker is measured with them where a library's client would be what is measured. Like any client
they have every message confirmed, and ack every delivery by itself.
"""

from __future__ import annotations

import select
import struct
from time import perf_counter, sleep
from typing import Any

from pamqp import body, commands, frame, header
from pika import BasicProperties

from tests.bench import bare
from tests.contract.broker.wire import Wire

#: Messages written at once.
BURST = 32
#: Seconds that RabbitMQ has for the last acks.
_SETTLING = 0.3
_FRAME = struct.Struct(">BHI")
_TAG = struct.Struct(">Q")
_ACK = struct.Struct(">BHIIQBB")
_METHOD, _BODY, _END = 1, 3, 0xCE


def message(exchange: str, queue: str) -> bytes:
    """Return the frames that publish what `tests.bench.bare` publishes, with one id for all."""
    said: BasicProperties = bare.properties()
    properties = commands.Basic.Properties(
        **{
            name: value
            for name in commands.Basic.Properties.attributes()
            if name != "timestamp" and (value := getattr(said, name, None)) not in (None, "")
        }
    )
    frames: list[frame.FrameTypes] = [
        commands.Basic.Publish(0, exchange, queue, mandatory=True),
        header.ContentHeader(0, len(bare.BODY), properties),
        body.ContentBody(bare.BODY),
    ]
    return b"".join(frame.marshal(each, 1) for each in frames)


def produce(url: str, exchange: str, queue: str, count: int, window: int) -> dict[str, Any]:
    """Publish so many messages, at most ``window`` of them unconfirmed; tell from when to when."""
    wire = Wire(url).login().open_channel()
    wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    octets = message(exchange, queue)
    sent = confirmed = 0
    rest = b""
    began = perf_counter()
    while confirmed < count:
        burst = min(BURST, count - sent, window - sent + confirmed)
        if burst:
            wire.write(octets * burst)
            sent += burst
        if burst and not select.select([wire], [], [], 0)[0]:
            continue
        rest, confirmed = _confirmed(rest + wire.read(), confirmed)
    ended = perf_counter()
    wire.close()
    return {"began": began, "ended": ended}


def _confirmed(octets: bytes, until: int) -> tuple[bytes, int]:
    """Read confirms; returns what is left, and up to which message all are confirmed."""
    place = 0
    # a broker without concurrent routes confirms in order, so the highest stands for all
    while len(octets) - place >= _ACK.size:
        _, _, _, method, tag, _, end = _ACK.unpack_from(octets, place)
        assert method == commands.Basic.Ack.index, "the broker refused or returned a message"
        assert end == _END
        until = max(until, tag)
        place += _ACK.size
    return octets[place:], until


def consume(url: str, queue: str, count: int, prefetch: int) -> dict[str, Any]:
    """Take so many messages and ack each; tell when the last was acked."""
    wire = Wire(url).login().open_channel()
    wire.call(commands.Basic.Qos(0, prefetch), commands.Basic.QosOk)
    wire.call(commands.Basic.Consume(queue=queue), commands.Basic.ConsumeOk)
    print("ready", flush=True)
    # tag, exchange and key follow the consumer's tag, which is the same for all
    seen, tag, rest = 0, 0, b""
    while seen < count:
        octets = rest + wire.read()
        place, acks = 0, bytearray()
        size = len(octets)
        while size - place >= 7:
            kind, _, length = _FRAME.unpack_from(octets, place)
            if place + length + 8 > size:
                break
            if kind == _METHOD:
                at = place + 12 + octets[place + 11]
                (tag,) = _TAG.unpack_from(octets, at)
            elif kind == _BODY:
                acks += _ACK.pack(1, 1, 13, commands.Basic.Ack.index, tag, 0, _END)
                seen += 1
            place += length + 8
        rest = octets[place:]
        if acks:
            wire.write(bytes(acks))
    ended = perf_counter()
    # RabbitMQ passes acks on to quorum queues later: those of a channel that ends now get lost
    sleep(_SETTLING)
    wire.close()
    return {"ended": ended}


def finish() -> None:
    """Nothing is left open."""
