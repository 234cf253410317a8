"""Publishing: in bulk, one call at a time, from threads and from coroutines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.bench.cases.sizes import AIO_PIKA, OURS, PIKA, Sizes
from tests.bench.measure import Case, Contender, Goal, Reading
from tests.bench.peers import environment
from tests.bench.place import Place
from tests.bench.rivals import (
    CELERY,
    CELERY_SAFE,
    DRAMATIQ,
    DRAMATIQ_SAFE,
    TASKIQ,
    Rival,
)

#: Threads that publish at once in the case of confirmed calls.
THREADS = 16
#: What stands in the way of a goal.
_HARD = (
    "each call waits for a write to the broker's disk, and the broker begins one as soon "
    "as a message is there, so that few share it"
)


def cases(place: Place, sizes: Sizes, rivals: bool) -> list[Case]:
    """Return the cases."""
    made = [_pipelined(place, sizes, rivals), _calls(place, sizes, rivals)]
    if rivals:
        made += [_awaited(place, sizes), _gathered(place, sizes)]
    return made


def _pipelined(place: Place, sizes: Sizes, rivals: bool) -> Case:
    count = sizes.stream
    contenders = [
        _bare(place, PIKA, "pipelined", count=count),
        _ours(place, OURS, "pipelined", count=count),
    ]
    goals = [Goal(OURS, PIKA, 0.75)]
    if rivals:
        contenders += [_aio_pika(place, "gathered", count // 3)]
        contenders += [
            _rival(place, rival, "bulk", count=sizes.of(rival))
            for rival in (CELERY, CELERY_SAFE, DRAMATIQ, DRAMATIQ_SAFE, TASKIQ)
        ]
        goals += [Goal(OURS, CELERY.label, 4), Goal(OURS, CELERY_SAFE.label, 15)]
    return Case(
        "publish",
        "Publishing, confirms pipelined",
        f"{count:,} messages to a quorum queue, all confirmed and `mandatory`: "
        "`with app.pipeline()` in a plain thread, beside pika's asyncio adapter with the same "
        "4,096 messages under way. Same body, properties and headers. aio-pika and Taskiq publish "
        "1,000 at a time from coroutines.",
        contenders,
        PIKA,
        goals=goals,
        pictured=True,
    )


def _calls(place: Place, sizes: Sizes, rivals: bool) -> Case:
    many, one = f"{THREADS} threads", "1 thread"
    count, few = sizes.calls, sizes.calls // 4
    names = {which: f"{OURS}, {which}" for which in (many, one)}
    contenders = [
        _bare(place, f"{PIKA}, {many}", "one_by_one", count=count, threads=THREADS),
        _bare(place, f"{PIKA}, {one}", "one_by_one", count=few, threads=1),
        _ours(place, names[many], "one_by_one", count=count, threads=THREADS),
        _ours(place, names[one], "one_by_one", count=few, threads=1),
    ]
    if rivals:
        contenders += [
            _rival(
                place, rival, "one_by_one", f"{rival.label}, {many}", count=count, threads=THREADS
            )
            for rival in (CELERY_SAFE, DRAMATIQ_SAFE)
        ]
    return Case(
        "calls",
        "`delay()`, each waiting for its confirm",
        f"{count:,} calls in all from {many}, {few:,} from one. amqtask's threads share one "
        "connection; pika's blocking connections cannot be shared, so each thread has its own.",
        contenders,
        f"{PIKA}, {many}",
        goals=[
            Goal(names[one], f"{PIKA}, {one}", 0.9),
            Goal(names[many], f"{PIKA}, {many}", 0.9),
            Goal(names[many], names[one], 5, _HARD),
        ],
        pictured=True,
    )


def _awaited(place: Place, sizes: Sizes) -> Case:
    count = sizes.calls // 4
    return Case(
        "awaited",
        "`await adelay()`, one after the other",
        f"{count:,} calls from one coroutine, each confirmed before the next.",
        [
            _aio_pika(place, "awaited", count),
            _ours(place, OURS, "awaited", count=count),
            _rival(place, TASKIQ, "awaited", count=count),
        ],
        AIO_PIKA,
        goals=[Goal(OURS, AIO_PIKA, 0.9)],
    )


def _gathered(place: Place, sizes: Sizes) -> Case:
    count = sizes.stream // 2
    return Case(
        "gathered",
        "`await adelay()`, 1,000 gathered at a time",
        f"{count:,} calls, `asyncio.gather` over 1,000 of them, each with a confirm of its own.",
        [
            _aio_pika(place, "gathered", count),
            _ours(place, OURS, "gathered", count=count),
            _rival(place, TASKIQ, "bulk", count=sizes.of(TASKIQ)),
        ],
        AIO_PIKA,
    )


# -- contenders -------------------------------------------------------------------


def _bare(place: Place, name: str, function: str, **arguments: Any) -> Contender:
    read = partial(place.read, "bare", function, **place.address, **arguments)
    return Contender(name, partial(_then_purged, place, name, read))


def _ours(place: Place, name: str, function: str, **arguments: Any) -> Contender:
    read = partial(place.read, "ours", function, **arguments)
    return Contender(name, partial(_then_purged, place, name, read))


def _aio_pika(place: Place, function: str, count: int) -> Contender:
    def read() -> Reading:
        return place.read(
            "peers.aiopika_side",
            function,
            python=environment.python(),
            **place.address,
            count=count,
        )

    return Contender(AIO_PIKA, partial(_then_purged, place, AIO_PIKA, read))


def _rival(
    place: Place, rival: Rival, function: str, name: str = "", **arguments: Any
) -> Contender:
    def run() -> Mapping[str, Reading]:
        reading = rival.read(place, function, **arguments)
        place.purge_rival(rival.library)
        return {name or rival.label: reading}

    return Contender(name or rival.label, run)


def _then_purged(place: Place, name: str, read: Callable[[], Reading]) -> Mapping[str, Reading]:
    reading = read()
    place.purge()
    return {name: reading}
