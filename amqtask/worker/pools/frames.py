"""What a node and a runner say to each other: frames on a socketpair, one at a time.

    node -> runner   SPEC  RUN  SOFT  CANCEL
    runner -> node   READY | BROKEN   BEGUN  OUTCOME

A frame is a byte for its kind, four for its length, and the payload. What a
node says is a pickle of plain values that it made itself; what a runner says
is JSON, as a runner holds user code and what it sends need not be true.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum

_HEAD = struct.Struct("<BI")
#: RUN, SOFT and CANCEL begin with the number of the call that is meant.
NUMBER_BYTES = 8


class Kind(IntEnum):
    """What a frame says."""

    #: How to start: once, first.
    SPEC = 1
    #: A call to run.
    RUN = 2
    #: Raise `SoftTimeLimitExceeded` in the call of that number.
    SOFT = 3
    #: Ask the call of that number to end.
    CANCEL = 4
    #: The app is imported, calls may come.
    READY = 16
    #: The app cannot be imported; the payload says why.
    BROKEN = 17
    #: From here on user code runs.
    BEGUN = 18
    #: How it ended.
    OUTCOME = 19


def send(sock: socket.socket, kind: Kind, payload: bytes = b"") -> None:
    """Send a frame.

    Raises:
        OSError: The other side is gone.
    """
    sock.sendall(_HEAD.pack(kind, len(payload)) + payload)


def receive(sock: socket.socket) -> tuple[Kind, bytes]:
    """Wait for the next frame.

    Raises:
        EOFError: The other side is gone, be it in the middle of a frame.
        ValueError: That was no frame.
    """
    kind, size = _HEAD.unpack(_exactly(sock, _HEAD.size))
    return Kind(kind), _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = sock.recv(min(size - len(parts), 1 << 20))
        except OSError as error:
            raise EOFError(str(error)) from error
        if not part:
            raise EOFError(f"{len(parts)} of {size} bytes came")
        parts += part
    return bytes(parts)
