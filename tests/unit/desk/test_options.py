"""Options: checked where they are said, the nearest wins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqtask import ConfigurationError, RetryPolicy
from amqtask.options import CallOptions, Options, options

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def test_the_typed_dict_and_the_checked_value_have_the_same_words() -> None:
    """Neither has a word that the other lacks."""
    assert set(CallOptions.__annotations__) == set(Options.__slots__)


def test_nothing_said_is_nothing_set() -> None:
    """None is "not said", for every option."""
    assert all(getattr(Options(), name) is None for name in Options.__slots__)
    assert options({}) == Options()


@pytest.mark.parametrize(
    ("said", "text", "hint"),
    [
        (
            {"countdwn": 3},
            "unknown option 'countdwn', did you mean 'countdown'?",
            (
                "known options: countdown, eta, expires, queue, exchange, routing_key, priority,"
                " headers, task_id, time_limit, soft_time_limit, retry, serializer, compression,"
                " ignore_result, shadow, call_timeout"
            ),
        ),
        (
            {"countdown": 1, "eta": LATER},
            "countdown and eta are both given",
            "give one: eta is an instant, countdown seconds from now",
        ),
        (
            {"eta": datetime(2030, 1, 1)},  # noqa: DTZ001 - what is refused
            "eta=datetime.datetime(2030, 1, 1, 0, 0) has no time zone",
            "use an aware datetime, such as datetime.now(UTC) + timedelta(hours=1)",
        ),
        (
            {"expires": datetime(2030, 1, 1)},  # noqa: DTZ001 - what is refused
            "expires=datetime.datetime(2030, 1, 1, 0, 0) has no time zone",
            "use an aware datetime, such as datetime.now(UTC) + timedelta(hours=1)",
        ),
        ({"countdown": "5"}, "countdown='5' is not a number of seconds", None),
        ({"countdown": True}, "countdown=True is not a number of seconds", None),
        ({"countdown": float("nan")}, "countdown=nan is not a number of seconds", None),
        ({"countdown": float("inf")}, "countdown=inf is not a number of seconds", None),
        ({"expires": 1e300}, "expires=1e+300 is not a number of seconds", None),
        ({"time_limit": -0.5}, "time_limit=-0.5 is not a number of seconds from 0 up", None),
        (
            {"soft_time_limit": "x"},
            "soft_time_limit='x' is not a number of seconds from 0 up",
            None,
        ),
        ({"priority": 256}, "priority=256 is not from 0 to 255", None),
        ({"priority": -1}, "priority=-1 is not from 0 to 255", None),
        ({"task_id": ""}, "task_id='' is not a str of 1 to 255 bytes", None),
        ({"task_id": 7}, "task_id=7 is not a str of 1 to 255 bytes", None),
        (
            {"task_id": "é" * 128},
            f"task_id={'é' * 128!r} is not a str of 1 to 255 bytes",
            None,
        ),
    ],
)
def test_a_bad_option_is_named(said: dict[str, Any], text: str, hint: str | None) -> None:
    """What is wrong fails where it is said, with the option, its value and a remedy."""
    with pytest.raises(ConfigurationError) as caught:
        options(said)
    assert str(caught.value) == text
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "said",
    [
        {"countdown": 0},
        {"countdown": -1},
        {"countdown": 0.1},
        {"expires": -3},
        {"eta": LATER},
        {"expires": timedelta(hours=1)},
        {"expires": LATER},
        {"priority": 0},
        {"priority": 255},
        {"task_id": "é" * 127},
    ],
)
def test_limits_are_inside(said: dict[str, Any]) -> None:
    """The edges of what is accepted are accepted."""
    made = options(said)
    assert {name: getattr(made, name) for name in said} == said


def test_the_nearest_wins() -> None:
    """What is said over something replaces it; what is not said stays."""
    base = Options(priority=1, serializer="msgpack", retry=RetryPolicy(max_retries=1))
    assert Options(priority=0).over(base) == Options(
        priority=0, serializer="msgpack", retry=RetryPolicy(max_retries=1)
    )
    assert Options().over(base) is base


def test_headers_are_merged() -> None:
    """Headers of both, the nearer one's where both have it."""
    base = Options(headers={"a": 1, "b": 1})
    assert Options(headers={"b": 2}).over(base).headers == {"a": 1, "b": 2}
    assert Options(priority=1).over(base).headers == {"a": 1, "b": 1}


def test_eta_and_countdown_replace_each_other() -> None:
    """A task with a countdown can be called with an eta, and the other way round."""
    assert Options(eta=LATER).over(Options(countdown=5)) == Options(eta=LATER)
    assert Options(countdown=5).over(Options(eta=LATER)) == Options(countdown=5)


def test_a_route_is_replaced_whole() -> None:
    """Half of the task's route with half of the call's would go nowhere."""
    base = Options(queue="email", priority=3)
    assert Options(routing_key="report.new").over(base) == Options(
        routing_key="report.new", priority=3
    )
    base = Options(exchange="x", routing_key="k")
    assert Options(queue="email").over(base) == Options(queue="email")
