"""Inputs for fuzzing: what a client that does a bit of everything sends, and the same spoilt."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from typing import Any

from pamqp import body, commands, frame, header

#: How many inputs; the full check is 100,000.
INPUTS = int(os.environ.get("AMQTASK_FUZZ", "1500"))
_FRAME = struct.Struct(">BHI")
_CLOSE = commands.Channel.Close.index.to_bytes(4)
SEED = int(os.environ.get("AMQTASK_FUZZ_SEED", "20"))


def valid(rng: random.Random) -> list[bytes]:
    """Return frames of a client that does a bit of everything."""
    queue = rng.choice(["a", "b", "c", ""])
    table: Any = {
        rng.choice(["x-message-ttl", "x-max-length", "x-expires", "x-queue-type", "x-max-priority",
                    "x-dead-letter-exchange", "x-match", "CC", "n"]):
        rng.choice([0, 1, 10, "quorum", "classic", "a", True, None, ["a", "b"], {"t": 1}, 2.5, -1])
    }  # fmt: skip
    properties = commands.Basic.Properties(
        headers=table,
        delivery_mode=rng.choice([None, 1, 2]),
        expiration=rng.choice([None, "0", "10", "x"]),
        reply_to=rng.choice([None, "amq.rabbitmq.reply-to", "a"]),
        priority=rng.choice([None, 0, 5, 255]),
    )
    text = b"x" * rng.choice([0, 1, 10, 5000])
    exchange = rng.choice(["", "amq.topic", "amq.fanout", "amq.headers", "e"])
    tag = rng.choice([0, 1, 2, 3])
    methods = [
        commands.Queue.Declare(
            queue=queue, durable=rng.random() < 0.7, exclusive=rng.random() < 0.1,
            auto_delete=rng.random() < 0.2, arguments=table if rng.random() < 0.5 else {},
        ),
        commands.Queue.Bind(queue=queue, exchange=exchange, routing_key="#", arguments=table),
        commands.Queue.Unbind(queue=queue, exchange=exchange, routing_key="#", arguments=table),
        commands.Queue.Delete(queue=queue),
        commands.Queue.Purge(queue=queue),
        commands.Exchange.Declare(exchange="e", exchange_type=rng.choice(["topic", "headers"])),
        commands.Exchange.Bind(destination="e", source="amq.topic", routing_key="a.#"),
        commands.Exchange.Delete(exchange="e"),
        commands.Basic.Qos(prefetch_count=rng.choice([0, 1, 5]), global_=rng.random() < 0.3),
        commands.Basic.Consume(queue=queue, no_ack=rng.random() < 0.5, arguments={}),
        commands.Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True),
        commands.Basic.Cancel(consumer_tag="t"),
        commands.Basic.Get(queue=queue, no_ack=rng.random() < 0.5),
        commands.Basic.Ack(tag, multiple=rng.random() < 0.5),
        commands.Basic.Nack(tag, requeue=rng.random() < 0.5),
        commands.Basic.Reject(tag, requeue=rng.random() < 0.5),
        commands.Basic.Recover(requeue=True),
        commands.Confirm.Select(),
        commands.Tx.Select(),
        commands.Tx.Commit(),
        commands.Tx.Rollback(),
        commands.Channel.Open(),
        commands.Channel.Close(200, "", 0, 0),
    ]  # fmt: skip
    channel = rng.choice([1, 1, 1, 2])
    publish = [
        frame.marshal(commands.Basic.Publish(0, exchange, queue, rng.random() < 0.5), channel),
        frame.marshal(header.ContentHeader(0, len(text), properties), channel),
        *([frame.marshal(body.ContentBody(text), channel)] if text else []),
    ]
    if rng.random() < 0.3:
        return publish
    return [frame.marshal(rng.choice(methods), channel)]


def mutated(rng: random.Random, octets: bytes) -> bytes:
    """Return octets of which a few are changed, gone or new."""
    changed = bytearray(octets)
    for _ in range(rng.choice([1, 1, 2, 8])):
        kind = rng.random()
        place = rng.randrange(len(changed)) if changed else 0
        if kind < 0.5 and changed:
            changed[place] = rng.randrange(256)
        elif kind < 0.7:
            del changed[place : place + rng.randrange(1, 5)]
        elif kind < 0.9:
            changed[place:place] = rng.randbytes(rng.randrange(1, 5))
        elif changed:
            changed = changed[:place]
    return bytes(changed)


def truncated(rng: random.Random, octets: bytes) -> bytes:
    """Return the beginning of octets: the end of the socket follows."""
    return octets[: rng.randrange(len(octets))]


def oversized(rng: random.Random, octets: bytes) -> bytes:
    """Return a frame that says it is longer than it is, or than may be."""
    claimed = rng.choice([len(octets), 131_072, 131_073, 1 << 20, 0x7FFF_FFFF, 0xFFFF_FFFF])
    payload = rng.randbytes(rng.choice([0, 10, 1000, 140_000]))
    kind = rng.choice([1, 2, 3, 8, rng.randrange(256)])
    return bytes((kind, 0, rng.choice([0, 1, 2]))) + claimed.to_bytes(4) + payload


def noise(rng: random.Random, octets: bytes) -> bytes:
    """Return random octets."""
    return rng.randbytes(rng.randrange(1, 200))


def unspoilt(rng: random.Random, octets: bytes) -> bytes:
    """Return the octets."""
    return octets


#: The ways to spoil what `valid` makes.
SPOILT: dict[str, Callable[[random.Random, bytes], bytes]] = {
    each.__name__: each for each in (unspoilt, mutated, truncated, oversized, noise)
}


class Courtesy:
    """Agrees to the end of a channel and opens it again: it would be deaf to all that follows."""

    def __init__(self) -> None:
        self._rest = b""

    def answer(self, octets: bytes) -> bytes:
        """Return what to send after these octets have come."""
        octets = self._rest + octets
        answers = []
        place = 0
        while len(octets) - place >= _FRAME.size:
            kind, channel, size = _FRAME.unpack_from(octets, place)
            start, end = place + _FRAME.size, place + _FRAME.size + size
            if end >= len(octets):
                break
            place = end + 1
            if kind == 1 and octets[start : start + 4] == _CLOSE:
                answers.append(frame.marshal(commands.Channel.CloseOk(), channel))
                answers.append(frame.marshal(commands.Channel.Open(), channel))
        self._rest = octets[place:]
        return b"".join(answers)
