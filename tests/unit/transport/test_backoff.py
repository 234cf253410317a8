"""Waits between tries: longer each time, never the same for all, over after a success."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from amqtask.transport.backoff import Backoff, Repeats


@settings(deadline=None)
@given(st.floats(0.001, 10), st.floats(0.001, 100), st.integers(0, 200))
def test_waits_double_up_to_the_cap(first: float, cap: float, failures: int) -> None:
    """Each wait lies between half of its step and all of it, also after very many failures."""
    backoff = Backoff(first=first, cap=cap)
    for _ in range(failures):
        backoff.next()
    step = min(cap, first * 2.0 ** min(failures, 32))
    assert step / 2 <= backoff.next() <= step


def test_many_clients_do_not_come_back_at_once() -> None:
    """Two clients that lost the broker together try again at different times."""
    assert len({Backoff().next() for _ in range(50)}) > 40


def test_a_success_starts_over() -> None:
    """After a reset the first wait is short again."""
    backoff = Backoff(first=0.1, cap=5.0)
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.1


def test_equal_lines_become_rare() -> None:
    """An hour of tries, one each second: the first at once, then after ever longer silences."""
    repeats = Repeats(first=10, cap=600)
    said = [second for second in range(3600) if repeats.due("down", float(second))]
    assert said == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]


def test_another_line_is_said_at_once() -> None:
    """A new reason is news, and does not bring the old one back to mind."""
    repeats = Repeats()
    assert repeats.due("down", 0.0)
    assert repeats.due("wrong password", 1.0)
    assert not repeats.due("down", 2.0)
    repeats.reset()
    assert repeats.due("down", 3.0)


def test_texts_are_forgotten() -> None:
    """An error with a number in it does not fill the memory."""
    repeats = Repeats()
    for number in range(1000):
        assert repeats.due(f"down since {number}", float(number))
    assert len(repeats._said) <= 16
