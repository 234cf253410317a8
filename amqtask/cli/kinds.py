"""Kinds of option: text that is read as something else, and refused with what would be accepted."""

from __future__ import annotations

import click

from amqtask.settings import parse_size

#: What an option says to mean that there is none, where None means that it was not given.
NONE = "none"


def size(value: str) -> int:
    """Return the bytes of ``"300MB"``."""
    try:
        return parse_size(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no size; accepted: bytes, or a size like 300MB or 2GB"
        ) from None


def bounds(value: str) -> tuple[int, int]:
    """Return the least and the most in ``"1,4"``."""
    try:
        least, most = (int(part) for part in value.split(","))
    except ValueError:
        least, most = 0, 0
    if not 1 <= least <= most:
        raise click.BadParameter(
            f"{value!r} are no bounds; accepted: the least and the most, like 1,4"
        )
    return least, most


def seconds(value: str) -> float:
    """Return seconds; 0 is accepted."""
    found = _number(value)
    if found is None or found < 0:
        raise click.BadParameter(f"{value!r} is no time; accepted: seconds of at least 0")
    return found


def seconds_or_none(value: str) -> float | str:
    """Return seconds, or `NONE`; 0 is accepted."""
    found = _number(value)
    if value.lower() == NONE:
        return NONE
    if found is None or found < 0:
        raise click.BadParameter(f"{value!r} is no time; accepted: seconds of at least 0, or none")
    return found


def limit(value: str) -> float | str:
    """Return seconds above 0, or `NONE`."""
    found = _number(value)
    if value.lower() == NONE:
        return NONE
    if found is None or found <= 0:
        raise click.BadParameter(f"{value!r} is no limit; accepted: seconds above 0, or none")
    return found


def _number(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None
