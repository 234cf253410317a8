"""Read deliveries straight off the wire, as `frames` writes what is published.

A worker reads three frames a message, and pika takes each of them through an
object, a copy of all that came after it, and three calls for every field.
Here the three are read in one go, when all of them are there, and end in a
`Message`. Where the body is still on its way, or has several frames, the
delivery is held until it is whole:

    method and header are here --some of the body--> held --all of it--> handed over
                                                      |  `--channel closed--> dropped
                                                      `--anything unusual--> pika's

Whatever is not that simple (another method, a field that pika reads in a way
of its own, frames that do not belong together, or bytes that make no sense)
is left where it is, for pika to read or to refuse.

Source: AMQP 0-9-1 specification, 2.3.5 (frames), 4.2 (fields), 1.8.3.13
(``basic.deliver``); checked against pika's decoder in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from struct import Struct, error
from typing import Any

from pika import data
from pika.exceptions import AMQPError, InvalidFrameError

from amqtask.message.model import Message

#: Called with delivery tag, redelivered, exchange, routing key and the message.
Sink = Callable[[int, bool, str, str, Message], None]

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = 0xCE
_HEAD = 7  # bytes of a frame before its payload: type, channel, size
_DELIVER = b"\x00\x3c\x00\x3c"  # class 60, method 60
_EMPTY = b"\x00\x00\x00\x00"
_TWO_VOIDS = b"\x00\x00\x00\x02VV"
#: Bytes of the largest body that RabbitMQ can be told to take. A header that says more lies.
_LARGEST = 512 * 1024 * 1024

_frame = Struct(">BHI").unpack_from
_content = Struct(">HHQH").unpack_from
_tag = Struct(">QB").unpack_from
_long = Struct(">I").unpack_from
_int32 = Struct(">i").unpack_from
_timestamp = Struct(">Q").unpack_from

_UNREADABLE = (error, IndexError, ValueError, AMQPError)  # UnicodeDecodeError is a ValueError


class Reader:
    """Reads the deliveries of one connection.

    Args:
        sinks: For each channel that is read here, who takes its deliveries.
        leave: Called with a delivery that was held and is pika's to read after all: its channel,
            its method and its header frame, and what has come of its body.
    """

    def __init__(
        self, sinks: Mapping[int, Sink], leave: Callable[[int, bytes, bytes], None]
    ) -> None:
        self._sinks = sinks
        self._leave = leave
        self._held: dict[int, _Held] = {}  # by channel
        self._filling: _Held | None = None  # whose body frame is on its way
        self._left = 0  # bytes of that frame's payload still to come

    def drop(self, channel: int) -> None:
        """Drop what is held of a channel, which is closed."""
        self._held.pop(channel, None)

    def read(self, buffer: bytes, start: int) -> tuple[int, bool]:
        """Hand over the deliveries that ``buffer`` begins with, and stop at anything else.

        Args:
            buffer: Bytes as they came from the broker.
            start: Where in it a frame begins, or goes on that has begun before.

        Returns:
            Where the first frame begins that was not read, and whether it begins a delivery
            that is to wait for more bytes.

        Raises:
            InvalidFrameError: The body frame that was on its way has no end.
        """
        size, sinks, held = len(buffer), self._sinks, self._held
        if self._filling is not None:
            start = self._fill(self._filling, buffer, start)
        while start + _HEAD < size:
            kind, channel, length = _frame(buffer, start)
            if held and channel in held:
                if kind != _BODY or length > held[channel].missing:
                    self._give_up(channel)
                    break
                self._left = length
                start = self._fill(held[channel], buffer, start + _HEAD)
                continue
            method = start + _HEAD
            header = method + length + 1 + _HEAD
            if kind != _METHOD or buffer[method : method + 4] != _DELIVER or channel not in sinks:
                break
            if header > size:
                return start, True
            kind, also, length = _frame(buffer, header - _HEAD)
            body = header + length + 1
            if kind != _HEADER or also != channel:
                break
            if body > size:
                return start, True
            try:
                of_class, _, body_size, flags = _content(buffer, header)
                if buffer[header - _HEAD - 1] != _END or buffer[body - 1] != _END or of_class != 60:
                    break
                end = _body_end(buffer, body, size, channel, body_size)
                if not end:
                    if body_size > _LARGEST:
                        break
                    held[channel] = _Held(channel, buffer[start:body], header - start, body_size)
                    start = body
                    continue
                content = buffer[body + _HEAD : end - 1]
                got = _delivery(buffer, method, header, body, flags, content)
            except _UNREADABLE:
                break
            sinks[channel](*got)
            start = end
        return start, False

    def _fill(self, held: _Held, buffer: bytes, at: int) -> int:
        """Take what is here of a body frame whose payload goes on at ``at``; returns where it ends."""
        end = at + self._left
        held.body.write(memoryview(buffer)[at:end])
        if end >= len(buffer):  # and its last octet is still to come
            taken = len(buffer) - at
            self._left -= taken
            held.missing -= taken
            self._filling = held
            return len(buffer)
        if buffer[end] != _END:
            raise InvalidFrameError("a body frame does not end where its length says")
        held.missing -= self._left
        self._filling = None
        if not held.missing:
            self._hand_over(held)
        return end + 1

    def _hand_over(self, held: _Held) -> None:
        if self._held.get(held.channel) is not held:
            return  # its channel was closed meanwhile
        head, header, content = held.head, held.header, held.body.getvalue()
        try:
            got = _delivery(head, _HEAD, header, len(head), _content(head, header)[3], content)
        except _UNREADABLE:
            self._give_up(held.channel)
            return
        del self._held[held.channel]
        self._sinks[held.channel](*got)

    def _give_up(self, channel: int) -> None:
        """Leave a delivery that was held to pika."""
        held = self._held.pop(channel)
        self._leave(channel, held.head, held.body.getvalue()[: held.body.tell()])


class _Held:
    """A delivery whose body is not whole.

    Attributes:
        head: Its method and its header frame.
        header: Where in them the header's payload begins.
        body: What has come, in a buffer of the size it will have: it is written once, and not
            copied to become bytes.
        missing: Bytes still to come.
    """

    __slots__ = ("body", "channel", "head", "header", "missing")

    def __init__(self, channel: int, head: bytes, header: int, size: int) -> None:
        self.channel = channel
        self.head = head
        self.header = header
        self.body = BytesIO(bytes(size))
        self.missing = size


def _body_end(buffer: bytes, at: int, size: int, channel: int, length: int) -> int:
    """Return where a body ends that is here, and in one frame; 0 where it is not."""
    if not length:
        return at
    end = at + _HEAD + length
    if end >= size or buffer[end] != _END or _frame(buffer, at) != (_BODY, channel, length):
        return 0
    return end + 1


def _delivery(
    buffer: bytes, method: int, header: int, body: int, flags: int, content: bytes
) -> tuple[int, bool, str, str, Message]:
    """Return what a sink takes; the payloads of method and header begin, and end, at these."""
    message = _message(buffer, header + 14, body - 1, flags, content)
    return *_method(buffer, method + 4, header - _HEAD - 1), message


def _method(buffer: bytes, at: int, stop: int) -> tuple[int, bool, str, str]:
    """Return delivery tag, redelivered, exchange and routing key, which end at ``stop``."""
    at += 1 + buffer[at]  # the consumer's tag: a channel has one consumer
    tag, redelivered = _tag(buffer, at)
    at += 9
    middle = at + 1 + buffer[at]
    if middle + 1 + buffer[middle] != stop:
        raise ValueError("the method does not end where its frame does")
    return tag, redelivered & 1 == 1, *_route(buffer[at:stop])


@lru_cache(maxsize=1024)
def _route(encoded: bytes) -> tuple[str, str]:
    """Return the two short strings: workers see the same few again and again."""
    exchange = encoded[1 : 1 + encoded[0]]
    return exchange.decode(), encoded[2 + len(exchange) :].decode()


def _message(buffer: bytes, at: int, end: int, flags: int, body: bytes) -> Message:
    """Return the message whose properties stand at ``at``."""
    if flags & 3:
        raise ValueError("flags that no property of this class has")
    texts: list[str | None] = [None] * 16
    headers: dict[str, Any] = {}
    mode = priority = timestamp = None
    for bit in _bits(flags):
        if bit == 13:
            length = _long(buffer, at)[0]
            headers = _table(buffer, at + 4, at + 4 + length)
            at += 4 + length
        elif bit == 12:
            mode = buffer[at]
            at += 1
        elif bit == 11:
            priority = buffer[at]
            at += 1
        elif bit == 6:
            timestamp = _timestamp(buffer, at)[0]
            at += 8
        else:
            stop = at + 1 + buffer[at]
            texts[bit] = buffer[at + 1 : stop].decode()
            at = stop
    if at != end:
        raise ValueError("the properties do not end where their frame does")
    return Message(
        body,
        headers,
        texts[15],
        texts[14],
        texts[10],
        texts[9],
        mode,
        priority,
        texts[8],
        texts[7],
        timestamp,
        texts[5],
        texts[4],
        texts[3],
    )


@lru_cache(maxsize=256)
def _bits(flags: int) -> tuple[int, ...]:
    """Return the properties that are set, by their bits, in the order they are written."""
    return tuple(bit for bit in range(15, 1, -1) if flags >> bit & 1)


def _table(buffer: bytes, at: int, end: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    while at < end:
        begin = at + 1
        at = begin + buffer[at]
        name = _name(buffer[begin:at])
        kind = buffer[at]
        # the kinds that nearly every header is; pika reads the others
        if kind == 0x53:  # S
            begin = at + 5
            at = begin + _long(buffer, at + 1)[0]
            table[name] = buffer[begin:at].decode()
        elif kind == 0x56:  # V
            table[name] = None
            at += 1
        elif kind == 0x49:  # I
            table[name] = _int32(buffer, at + 1)[0]
            at += 5
        elif kind == 0x74:  # t
            table[name] = buffer[at + 1] != 0
            at += 2
        elif kind == 0x46 and buffer[at + 1 : at + 5] == _EMPTY:  # F: no stamps
            table[name] = {}
            at += 5
        elif kind == 0x41 and buffer[at + 1 : at + 7] == _TWO_VOIDS:  # A: no limits
            table[name] = [None, None]
            at += 7
        else:
            table[name], at = data.decode_value(buffer, at)
    if at != end:
        raise ValueError("a table does not end where its length says")
    return table


#: Names recur from message to message.
_name = lru_cache(maxsize=1024)(bytes.decode)
