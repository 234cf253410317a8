"""How long deliveries may be held: what is asked of which RabbitMQ, and what cannot be had."""

from __future__ import annotations

import pytest

from amqtask.policy.holding import consume_timeout, holding_time, longest, too_short

HOUR = 3600.0


def test_the_longest_limit() -> None:
    """Of those that are set; a task without one sets none."""
    assert longest([]) is None
    assert longest([None, None]) is None
    assert longest([None, 10, 5.5]) == 10


def test_time_to_wait_and_to_run() -> None:
    """A delivery may wait for one that runs to its limit, and then do the same."""
    assert holding_time(HOUR) > 2 * HOUR


@pytest.mark.parametrize(
    ("version", "quorum", "limit", "said", "asked"),
    [
        ((4, 3), True, HOUR, None, holding_time(HOUR)),
        ((5, 0), True, HOUR, None, holding_time(HOUR)),
        ((4, 2), True, HOUR, None, None),
        ((4, 3), False, HOUR, None, None),
        ((4, 3), True, None, None, None),
        ((4, 3), True, 60.0, None, None),
        ((4, 3), True, HOUR, 7200.0, None),
        (None, True, HOUR, None, None),
    ],
)
def test_what_a_consumer_asks_for(
    version: tuple[int, int] | None,
    quorum: bool,
    limit: float | None,
    said: float | None,
    asked: float | None,
) -> None:
    """Only where it is known, only when it is needed, never against the queue's own."""
    assert consume_timeout(version, quorum=quorum, limit=limit, said=said) == asked


@pytest.mark.parametrize(
    ("version", "quorum", "limit", "said", "allowed"),
    [
        ((3, 10), True, HOUR, None, 1800.0),
        ((3, 10), True, HOUR, 7200.0, 1800.0),  # there a queue has no say
        ((3, 12), True, HOUR, 7200.0, None),
        ((3, 12), True, HOUR, 3000.0, 3000.0),
        ((4, 2), False, HOUR, None, 1800.0),
        ((4, 3), True, HOUR, None, None),  # asked for with the consume
        ((4, 3), True, HOUR, 3000.0, 3000.0),
        ((4, 3), False, HOUR, None, None),
        ((4, 0), True, 1800.0, None, None),
        ((4, 0), True, None, None, None),
        (None, True, HOUR, None, None),
    ],
)
def test_what_is_too_short(
    version: tuple[int, int] | None,
    quorum: bool,
    limit: float | None,
    said: float | None,
    allowed: float | None,
) -> None:
    """Only where a limit is set and runs over what the broker allows, as far as we can know."""
    assert too_short(version, quorum=quorum, limit=limit, said=said) == allowed
