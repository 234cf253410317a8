"""Coalesced acks: fewer frames, and never an ack for what was not acked."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from amqtask.transport.acks import AckWindow

#: Each step: what to do, and which of the open deliveries it is about.
steps = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "deliver", "ack", "ack", "settle", "flush"]), st.integers(0)
    ),
    max_size=200,
)


class Broker:
    """What RabbitMQ does with acks: a tag that is not outstanding ends the channel."""

    def __init__(self) -> None:
        self.outstanding: set[int] = set()
        self.acked: list[int] = []

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.outstanding, f"406 unknown delivery tag {tag}"
        covered = {each for each in self.outstanding if each <= tag} if multiple else {tag}
        self.outstanding -= covered
        self.acked += sorted(covered)


@settings(deadline=None)
@given(steps)
def test_every_ack_reaches_the_broker_once_and_nothing_else_does(
    steps: list[tuple[str, int]],
) -> None:
    """In any interleaving what was acked is acked once, and what is open or returned never is."""
    window, broker = AckWindow(), Broker()
    open_tags: list[int] = []
    acked: list[int] = []
    waiting = 0
    last = 0
    for step, pick in [*steps, ("flush", 0)]:
        if step == "deliver":
            last += 1
            open_tags.append(last)
            broker.outstanding.add(last)
            window.delivered(last)
        elif step == "flush":
            for tag, multiple in window.flush():
                broker.ack(tag, multiple)
            waiting = 0
            assert sorted(broker.acked) == sorted(acked)
            assert broker.outstanding == set(open_tags)
        elif open_tags:
            tag = open_tags.pop(pick % len(open_tags))
            if step == "ack":
                assert window.ack(tag) is (waiting == 0)
                waiting += 1
                acked.append(tag)
            else:
                window.settled(tag)
                broker.outstanding.discard(tag)  # nack and reject go out at once
        assert window.outstanding == len(open_tags)
    assert len(broker.acked) == len(set(broker.acked))


def test_a_run_without_gaps_is_one_frame() -> None:
    """A thousand quick tasks cost one ack frame, whatever order they end in."""
    window = AckWindow()
    for tag in range(1, 1001):
        window.delivered(tag)
    for tag in reversed(range(1, 1001)):
        window.ack(tag)
    assert window.flush() == [(1000, True)]
    assert window.flush() == []


def test_only_the_front_goes_as_multiple() -> None:
    """What ends behind a slow task is acked one by one: multiple would ack the slow one too."""
    window = AckWindow()
    for tag in range(1, 7):
        window.delivered(tag)
    for tag in (6, 2, 1, 4):
        window.ack(tag)
    assert window.flush() == [(2, True), (4, False), (6, False)]
    assert window.outstanding == 2


def test_a_single_ack_is_not_multiple() -> None:
    """One tag says itself and no more."""
    window = AckWindow()
    window.delivered(1)
    window.ack(1)
    assert window.flush() == [(1, False)]


def test_a_slow_task_in_front_costs_no_memory() -> None:
    """The window remembers what is open, not all that passed behind it."""
    window = AckWindow()
    window.delivered(1)
    for tag in range(2, 10_000):
        window.delivered(tag)
        window.ack(tag)
        assert window.flush() == [(tag, False)]
    assert window.outstanding == 1
    assert (len(window._open), len(window._pending)) == (1, 0)
