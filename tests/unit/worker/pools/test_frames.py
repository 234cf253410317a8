"""Frames between node and runner."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from amqtask.worker.pools import frames
from amqtask.worker.pools.frames import Kind


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_there_and_back(pair):
    """Frames arrive whole and in order, empty ones too."""
    ours, theirs = pair
    frames.send(ours, Kind.READY)
    frames.send(ours, Kind.OUTCOME, b"x" * 50_000)
    assert frames.receive(theirs) == (Kind.READY, b"")
    assert frames.receive(theirs) == (Kind.OUTCOME, b"x" * 50_000)


@pytest.mark.parametrize("kept", [0, 3, 5, 9])
def test_half_a_frame_is_the_end(pair, kept):
    """A runner that dies while it writes has said nothing."""
    ours, theirs = pair
    whole = b"\x13\x08\x00\x00\x00" + b"8 bytes."
    ours.sendall(whole[:kept])
    ours.close()
    with pytest.raises(EOFError, match="bytes came"):
        frames.receive(theirs)


def test_a_frame_of_no_kind(pair):
    """It is refused."""
    ours, theirs = pair
    ours.sendall(b"\xff\x00\x00\x00\x00")
    with pytest.raises(ValueError, match="255"):
        frames.receive(theirs)


def test_nobody_there(pair):
    """The one who sends learns that too."""
    ours, theirs = pair
    theirs.close()
    with pytest.raises(BrokenPipeError):
        frames.send(ours, Kind.RUN, b"x" * 500_000)
