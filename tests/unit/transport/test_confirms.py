"""Confirms are read and written as pika does both, and everything else is left to pika."""

from __future__ import annotations

import pika.frame
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.spec import Basic

from amqtask.transport.confirms import ack_frame, read_acks

CHANNEL = 7
tags = st.tuples(st.integers(0, 2**64 - 1), st.booleans())


def _ack(tag: int, multiple: bool, channel: int = CHANNEL) -> bytes:
    return bytes(pika.frame.Method(channel, Basic.Ack(tag, multiple)).marshal())


@given(st.integers(1, 2**16 - 1), tags)
def test_acks_are_written_as_pika_writes_them(channel: int, said: tuple[int, bool]) -> None:
    """A consumer's acks and the broker's confirms are the same frame."""
    assert ack_frame(channel, *said) == _ack(*said, channel)


@settings(max_examples=200)
@given(st.lists(tags, max_size=5), st.data())
def test_acks_are_read_however_they_are_cut(
    sent: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """What is whole is handed over in order; what is not stays where it is."""
    stream = b"".join(_ack(*each) for each in sent)
    cut = data.draw(st.integers(0, len(stream)))
    got: list[tuple[int, bool, bool]] = []

    def take(tag: int, multiple: bool, nacked: bool) -> None:
        got.append((tag, multiple, nacked))

    read_to = read_acks(stream[:cut], 0, {CHANNEL: take})
    size = len(_ack(1, True))
    assert read_to == cut - cut % size
    assert read_acks(stream, read_to, {CHANNEL: take}) == len(stream)
    assert got == [(*each, False) for each in sent]


def test_what_is_no_ack_of_ours_is_left_to_pika() -> None:
    """A nack, another channel, an end that is not there: nothing is taken, nothing is passed."""
    whole = _ack(3, False)
    for other in (
        pika.frame.Method(CHANNEL, Basic.Nack(3, False)).marshal(),
        _ack(3, False, channel=CHANNEL + 1),
        whole[:-1] + b"\x00",
        whole[:6] + b"\x0e" + whole[7:],
        b"\x02" + whole[1:],
        b"",
    ):
        assert read_acks(other + whole, 0, {CHANNEL: _never}) == (0 if other else len(whole))


def _never(tag: int, multiple: bool, nacked: bool) -> None:
    assert (tag, multiple, nacked) == (3, False, False)
