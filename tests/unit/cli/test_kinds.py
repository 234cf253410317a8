"""Options that are more than text: what is accepted, and that a refusal says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest

from amqtask.cli.kinds import NONE, bounds, limit, seconds, seconds_or_none, size
from amqtask.cli.topology import split_slots


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (size, "300MB", 300 * 1024**2),
        (size, "1.5 GiB", 1536 * 1024**2),
        (size, "4096", 4096),
        (size, "10k", 10 * 1024),
        (bounds, "1,4", (1, 4)),
        (bounds, " 2 , 2 ", (2, 2)),
        (seconds, "0", 0.0),
        (seconds, "2.5", 2.5),
        (seconds_or_none, "0", 0.0),
        (seconds_or_none, "None", NONE),
        (limit, "0.5", 0.5),
        (limit, "none", NONE),
    ],
)
def test_accepted(kind: Callable[[str], Any], text: str, value: Any):
    """Each in the forms that people write."""
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (size, "much", "a size like 300MB or 2GB"),
        (size, "0", "a size like 300MB or 2GB"),
        (size, "300MBit", "a size like 300MB or 2GB"),
        (size, "-5MB", "a size like 300MB or 2GB"),
        (bounds, "4", "the least and the most, like 1,4"),
        (bounds, "4,1", "the least and the most, like 1,4"),
        (bounds, "0,4", "the least and the most, like 1,4"),
        (bounds, "1,2,3", "the least and the most, like 1,4"),
        (seconds, "-1", "seconds of at least 0"),
        (seconds, "inf", "seconds of at least 0"),
        (seconds, "nan", "seconds of at least 0"),
        (seconds, "none", "seconds of at least 0"),
        (seconds_or_none, "soon", "seconds of at least 0, or none"),
        (limit, "0", "seconds above 0, or none"),
        (limit, "soon", "seconds above 0, or none"),
    ],
)
def test_refused(kind: Callable[[str], Any], text: str, said: str):
    """The text says what was given and what is accepted."""
    with pytest.raises(click.BadParameter) as caught:
        kind(text)
    assert repr(text) in caught.value.message
    assert f"accepted: {said}" in caught.value.message.replace("bytes, or ", "")


@pytest.mark.parametrize(
    ("text", "queues"),
    [
        ("email", {"email": None}),
        ("email:8,reports:2", {"email": 8, "reports": 2}),
        (" email : 8 , default", {"email ": 8, "default": None}),
        ("a:b", {"a:b": None}),
        ("a:b:3", {"a:b": 3}),
        ("tenant:42", {"tenant:42": None}),
        ("tenant:42:3", {"tenant:42": 3}),
        ("email,email:3", {"email": 3}),
    ],
)
def test_queues_with_slots(text: str, queues: dict[str, int | None]):
    """A number after the last colon is slots, but for a queue that is called so."""
    expected = {name.strip(): slots for name, slots in queues.items()}
    assert split_slots(text, {"tenant:42"}) == expected


@pytest.mark.parametrize("text", ["email:0", "email:-1", ":8"])
def test_queues_with_wrong_slots(text: str):
    """No slots would run nothing, and no name is no queue."""
    with pytest.raises(click.UsageError, match="like email:8,reports"):
        split_slots(text, ())
