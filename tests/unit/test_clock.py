"""The clock: the time of day, unless a test says otherwise."""

from __future__ import annotations

import time

import pytest

from amqtask.clock import awake, telling, wall


def test_it_is_the_time_of_day() -> None:
    """Without a test's word it is `time.time`."""
    before = time.time()
    assert before <= wall() <= time.time()


def test_a_test_may_say_what_time_it_is() -> None:
    """For the length of a block, one inside the other too, and after an error as before."""
    with telling(lambda: 1.0):
        with telling(lambda: 2.0):
            assert wall() == 2.0
        with pytest.raises(LookupError), telling(lambda: 3.0):
            raise LookupError
        assert wall() == 1.0
    assert wall() > 1e9


def test_awake_goes_on_whatever_the_wall_says() -> None:
    """A right that runs out is not prolonged by a clock that is set back."""
    before = awake()
    with telling(lambda: 0.0):
        assert before <= awake() < before + 60
