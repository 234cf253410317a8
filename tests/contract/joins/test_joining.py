"""Members end, and the body begins once, with all values in order."""

from __future__ import annotations

import time
from typing import Any

import pytest

from amqtask.errors import (
    ConnectionLost,
    EncodeError,
    MessageTooLarge,
    TaskRevoked,
)
from amqtask.workflow.join_queue import QueueJoins
from amqtask.workflow.ports import Joins
from tests.contract.joins.shop import (
    STORES,
    Shop,
)
from tests.helpers import TIMEOUT, eventually


def test_the_body_gets_the_values_in_the_order_of_the_header(shop: Shop) -> None:
    """Whatever the order in which members end, on whatever worker."""
    chord = shop.chord(3)
    chord.part(2, value="c")
    chord.part(0, value="a", worker=1)
    assert chord.follow.bodies == []
    chord.part(1, value={"b": [1, None]})
    assert chord.follow.bodies == [["a", {"b": [1, None]}, "c"]]
    assert chord.follow.failures == []


def test_a_chord_of_one_member(shop: Shop) -> None:
    """The first part is the last one."""
    chord = shop.chord(1)
    chord.part(0, value=7)
    assert chord.follow.bodies == [[7]]


def test_many_chords_are_opened_at_the_same_time(shop: Shop) -> None:
    """Each of them with the number of members that is its own."""
    chords = [shop.chord(1 + number % 2, opened=False) for number in range(30)]
    for wait in [chord.begin_open() for chord in chords]:
        wait()
    for chord in chords:
        chord.part(0)
    assert [chord.follow.bodies for chord in chords] == [[[0]], []] * 15


def test_a_part_that_comes_twice_counts_once(shop: Shop) -> None:
    """A member that was delivered again completes nothing that is not complete."""
    chord = shop.chord(3)
    for worker in (0, 1, 0, 1):
        chord.part(0, value="a", worker=worker)
    chord.part(1, value="b")
    assert chord.follow.bodies == []
    chord.part(2, value="c")
    assert chord.follow.bodies == [["a", "b", "c"]]


def test_a_part_that_comes_after_the_join_begins_nothing(shop: Shop) -> None:
    """All members delivered once more do not make a second body."""
    chord = shop.chord(2)
    for index in (0, 1, 0, 1, 0, 1):
        chord.part(index)
    assert chord.follow.bodies == [[0, 1]]


def test_all_members_end_at_the_same_time(shop: Shop) -> None:
    """Fifty on two workers, some of them twice: one body."""
    chord = shop.chord(50)
    waits = [chord.begin(index, worker=index % 2) for index in range(50)]
    waits += [chord.begin(index, worker=1) for index in range(0, 50, 10)]
    for wait in waits:
        wait()
    assert chord.follow.bodies == [list(range(50))]


def test_a_failing_member_fails_the_body_once_all_have_ended(shop: Shop) -> None:
    """The error names the member; siblings that end later change nothing."""
    chord = shop.chord(3)
    chord.part(1, error=ValueError("bad"))
    chord.part(0)
    assert chord.follow.failures == []
    chord.part(2, error=KeyError("worse"))
    chord.part(0)
    chord.part(2, error=KeyError("worse"))
    (error,) = chord.follow.failures
    assert f"{chord.id}-1" in str(error)
    assert "ValueError: bad" in str(error)
    assert chord.follow.bodies == []


def test_a_cancelled_member_fails_the_body(shop: Shop) -> None:
    """It will never have a value."""
    chord = shop.chord(2)
    chord.part(0)
    chord.part(1, error=TaskRevoked("cancelled by hand"))
    (error,) = chord.follow.failures
    assert "was cancelled or expired" in str(error)


def test_a_member_that_was_sent_back_ends_the_chord_after_all(shop: Shop) -> None:
    """Its value takes the place of its failure, before and after the body failed for it."""
    early = shop.chord(2)
    early.part(0, error=ValueError("bad"))
    early.part(0, value="better")
    early.part(1)
    assert (early.follow.bodies, early.follow.failures) == ([["better", 1]], [])

    late = shop.chord(2)
    late.part(0, error=ValueError("bad"))
    late.part(1)
    assert len(late.follow.failures) == 1
    late.part(0, value="better", worker=1)
    assert late.follow.bodies == [["better", 1]]
    assert len(late.follow.failures) == 1


def test_a_member_that_adds_others_has_the_chord_wait_for_them(shop: Shop) -> None:
    """What was added comes after the others, whichever ends first."""
    chord = shop.chord(2)
    chord.part(0, extra=2)
    chord.part(0, extra=2)
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.part(1)
    assert chord.follow.bodies == []
    chord.part(None, id=f"{chord.id}-y", value="y", worker=1)
    (values,) = chord.follow.bodies
    assert (values[:2], sorted(values[2:])) == ([0, 1], ["x", "y"])


def test_what_was_added_may_end_before_the_member_that_has_added_it(shop: Shop) -> None:
    """It is sent before that member's part is kept, and completes nothing in its place."""
    chord = shop.chord(2)
    chord.part(None, id=f"{chord.id}-x", value="x")
    chord.part(1)
    assert chord.follow.bodies == []
    chord.part(0, extra=1)
    assert chord.follow.bodies == [[0, 1, "x"]]


def test_a_body_that_was_not_sent_is_sent_when_its_part_is_offered_again(shop: Shop) -> None:
    """The part is not safe before the body is: the error reaches whoever holds the delivery."""
    chord = shop.chord(2)
    chord.part(0)
    chord.follow.refuse.append(ConnectionLost("gone"))
    with pytest.raises(ConnectionLost, match="gone"):
        chord.part(1)
    assert chord.follow.bodies == []
    chord.part(1, worker=1)
    assert chord.follow.bodies == [[0, 1]]


def test_a_body_that_can_never_be_sent_fails(shop: Shop) -> None:
    """Values that are too large together must not keep the last member for ever."""
    chord = shop.chord(1)
    chord.follow.refuse.append(MessageTooLarge("20 MB"))
    chord.part(0)
    (error,) = chord.follow.failures
    assert "has no body: 20 MB" in str(error)


def test_a_value_that_does_not_serialise_is_refused(shop: Shop) -> None:
    """The settler parks the member for it, and offers that failure instead."""
    chord = shop.chord(1)
    with pytest.raises(EncodeError):
        chord.part(0, value=object())
    chord.part(0, error=EncodeError("no"))
    assert len(chord.follow.failures) == 1


def test_opening_twice_is_fine(shop: Shop) -> None:
    """A step that launches a chord may be delivered again before any of it has run."""
    chord = shop.chord(2)
    chord.open()
    chord.part(0)
    chord.part(1)
    assert chord.follow.bodies == [[0, 1]]


# -- queues only ------------------------------------------------------------------------


def test_the_queue_is_gone_after_the_join(queues: Shop) -> None:
    """A chord leaves nothing on the broker."""
    chord = queues.chord(2)
    chord.part(0)
    chord.part(1)
    counting = queues.joins[0]
    assert isinstance(counting, QueueJoins)
    # nothing takes it, so the broker returns it, and the part is left
    chord.part(1, worker=1)
    assert chord.follow.bodies == [[0, 1]]


def test_a_taker_that_is_refused_waits_until_the_queue_is_gone(queues: Shop) -> None:
    """Its delivery stays unacked meanwhile: the one who has the queue may die."""
    chord = queues.chord(2)
    chord.follow.gate.clear()
    chord.part(0)
    first = chord.begin(1)
    second = chord.begin(1, worker=1)
    time.sleep(0.2)  # not for it to happen, but for it to go wrong
    chord.follow.gate.set()
    first()
    second()
    assert chord.follow.bodies == [[0, 1]]


def test_a_taker_that_dies_leaves_the_queue_to_another_one(queues: Shop) -> None:
    """The broker puts everything back, and the second body is the first one's repeat."""
    chord = queues.chord(2)
    chord.part(0)
    chord.follow.gate.clear()
    chord.begin(1)
    eventually(lambda: _taken(queues.joins[0]))
    # its connection ends, as it does when the process is killed
    io = queues.apps[0].transport.io

    async def cut() -> None:
        session = queues.apps[0].transport.link("consume").session
        assert session is not None
        session.abort()

    second = chord.begin(1, worker=1)
    io.run(cut(), TIMEOUT)
    chord.follow.gate.set()
    second()
    assert set(map(tuple, chord.follow.bodies)) == {(0, 1)}


def _taken(joins: Joins) -> bool:
    assert isinstance(joins, QueueJoins)
    return joins._takes._value < 8


def test_a_taker_whose_delivery_is_gone_stops(queues: Shop) -> None:
    """Somebody else has it by then."""
    chord = queues.chord(2)
    chord.part(0)
    chord.follow.gate.clear()
    first = chord.begin(1)
    eventually(lambda: _taken(queues.joins[0]))
    with pytest.raises(ConnectionLost, match="no longer this worker's"):
        chord.begin(1, worker=1, ours=lambda: False)()
    chord.follow.gate.set()
    first()
    assert chord.follow.bodies == [[0, 1]]


# -- stores only ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
def test_a_part_of_a_chord_that_the_store_has_lost_fails_it(make_shop: Any, kind: str) -> None:
    """Once, and not in silence: nobody else would ever say so."""
    shop = make_shop(kind)
    chord = shop.chord(3, opened=False)
    chord.part(0)
    chord.part(1)
    chord.part(2)
    (error,) = chord.follow.failures
    assert "has lost what it knew of it" in str(error)
    assert chord.follow.bodies == []
