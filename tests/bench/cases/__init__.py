"""What is compared with what."""

from __future__ import annotations

from tests.bench import chords
from tests.bench.cases import draining, publishing, starting, trips
from tests.bench.cases.sizes import QUICK, Sizes
from tests.bench.measure import Case
from tests.bench.place import Place

__all__ = ["QUICK", "Sizes", "cases", "check_alike"]


def cases(place: Place, sizes: Sizes, *, rivals: bool = True, redis: str = "") -> list[Case]:
    """Return all cases.

    Args:
        rivals: False leaves the other libraries out, and with them what would have no baseline.
        redis: URL of a Redis that results may be kept in; empty leaves those rows out.
    """
    return [
        *publishing.cases(place, sizes, rivals),
        *draining.cases(place, sizes, rivals),
        *trips.cases(place, sizes, rivals, redis),
        *(chords.cases(place, chords.COUNT, rivals, redis) if redis else ()),
        *starting.cases(place, sizes, rivals),
    ]


def check_alike(place: Place) -> None:
    """Raise unless both sides publish the same message, but for ids and times.

    Raises:
        AssertionError: They differ, so comparing them would flatter one.
    """
    differ = {"id", "root_id", "correlation_id", "message_id", "timestamp", "origin"}
    place.purge()
    place.read("ours", "pipelined", count=1)
    ours, our_body = place.sample()
    place.purge()
    place.read("bare", "pipelined", **place.address, count=1)
    bare, bare_body = place.sample()
    place.purge()
    unlike = {
        name: (ours.get(name), bare.get(name))
        for name in (ours.keys() | bare.keys()) - differ
        if ours.get(name) != bare.get(name)
    }
    if our_body != bare_body or unlike:
        raise AssertionError(f"the sides publish different messages: {unlike}")
