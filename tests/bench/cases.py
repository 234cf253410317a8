"""What is compared with what."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.measure import Case, Goal, Reading, Run
from tests.bench.place import Place
from tests.bench.rivals import (
    CELERY,
    CELERY_PREFORK,
    CELERY_SAFE,
    DRAMATIQ,
    DRAMATIQ_SAFE,
    TASKIQ,
    TASKIQ_SAFE,
    Rival,
)

#: Threads that publish at once in the case of confirmed calls.
THREADS = 16
#: Deliveries held by a consumer that does not choose for itself.
PREFETCH = 500
PIKA = "pika"

_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each reading does.

    Attributes:
        stream: Messages published in a pipeline, or drained.
        calls: Calls confirmed one at a time, over all threads.
        trips: Calls whose result is waited for.
        flight: Calls under way at once.
    """

    stream: int = 30_000
    calls: int = 4_800
    trips: int = 400
    flight: int = 5_000

    def of(self, rival: Rival) -> int:
        """Return how many messages of the stream a rival handles: a slow one takes long enough."""
        return self.stream // (6 if rival.safe else 2)


QUICK = Sizes(stream=8_000, calls=1_600, trips=100, flight=500)


def cases(place: Place, sizes: Sizes, *, rivals: bool = True) -> list[Case]:
    """Return all cases.

    Args:
        rivals: False leaves the other libraries out.
    """
    made = [
        _pipelined(place, sizes, rivals),
        _one_by_one(place, sizes, rivals),
        _drain(place, sizes, rivals),
        _round_trips(place, sizes, rivals),
        _imports(place),
        _ready(place),
    ]
    if rivals:
        made.insert(4, _in_flight(place, sizes))
    return made


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
    place.read("bare", "pipelined", **_address(place), count=1)
    bare, bare_body = place.sample()
    place.purge()
    unlike = {
        name: (ours.get(name), bare.get(name))
        for name in (ours.keys() | bare.keys()) - differ
        if ours.get(name) != bare.get(name)
    }
    if our_body != bare_body or unlike:
        raise AssertionError(f"the sides publish different messages: {unlike}")


def _address(place: Place) -> dict[str, Any]:
    return {"url": place.url, "exchange": place.exchange, "queue": place.queue}


def _then_purged(place: Place, name: str, read: Callable[[], Reading]) -> Run:
    def run() -> Mapping[str, Reading]:
        reading = read()
        place.purge()
        return {name: reading}

    return run


def _rival_runs(
    place: Place, chosen: Sequence[Rival], function: str, **arguments: int
) -> list[Run]:
    """Return runs of the rivals' clients, each of which leaves an empty queue."""

    def run(rival: Rival) -> Mapping[str, Reading]:
        reading = rival.read(place, function, **arguments)
        place.purge_rival(rival.library)
        return {rival.label: reading}

    return [partial(run, rival) for rival in chosen]


# -- publishing -----------------------------------------------------------------


def _pipelined(place: Place, sizes: Sizes, rivals: bool) -> Case:
    ours = partial(place.read, "ours", "pipelined", count=sizes.stream)
    bare = partial(place.read, "bare", "pipelined", **_address(place), count=sizes.stream)
    return Case(
        "publish",
        "Publishing, confirms pipelined",
        f"{sizes.stream:,} messages to a quorum queue, all confirmed and `mandatory`: "
        "`with app.pipeline()` in a plain thread, beside pika's asyncio adapter with the same "
        "4,096 messages under way. Same body, properties and headers.",
        [
            _then_purged(place, PIKA, bare),
            _then_purged(place, "amqtask", ours),
            *(
                run
                for rival in (CELERY, CELERY_SAFE, DRAMATIQ, DRAMATIQ_SAFE, TASKIQ)
                if rivals
                for run in _rival_runs(place, [rival], "bulk", count=sizes.of(rival))
            ),
        ],
        PIKA,
        goals=[
            Goal("amqtask", PIKA, 0.75),
            *([Goal("amqtask", CELERY.label, 4), Goal("amqtask", CELERY_SAFE.label, 15)] * rivals),
        ],
    )


def _one_by_one(place: Place, sizes: Sizes, rivals: bool) -> Case:
    ours = partial(place.read, "ours", "one_by_one", count=sizes.calls, threads=THREADS)
    bare = partial(
        place.read, "bare", "one_by_one", **_address(place), count=sizes.calls, threads=THREADS
    )
    return Case(
        "calls",
        f"`delay()` from {THREADS} threads, each waiting for its confirm",
        f"{sizes.calls:,} calls in all. amqtask's threads share one connection; pika's blocking "
        "connections cannot be shared, so each thread has its own.",
        [
            _then_purged(place, PIKA, bare),
            _then_purged(place, "amqtask", ours),
            *(
                _rival_runs(
                    place,
                    (CELERY_SAFE, DRAMATIQ_SAFE),
                    "one_by_one",
                    count=sizes.calls,
                    threads=THREADS,
                )
                if rivals
                else ()
            ),
        ],
        PIKA,
        goals=[Goal("amqtask", PIKA, 0.9)],
    )


# -- consuming ------------------------------------------------------------------


def _drain(place: Place, sizes: Sizes, rivals: bool) -> Case:
    coalesced = f"{PIKA}, acks coalesced"
    return Case(
        "drain",
        "Draining no-op tasks with one worker process",
        f"{sizes.stream:,} messages wait in a quorum queue. `amqtask worker --processes 1` is "
        "timed from its first task to its last; what is new about a started worker, its prefetch "
        "above all, settles in the first half. pika only takes and acks the same messages, "
        f"{PREFETCH} under way: it decodes nothing, and runs nothing.",
        [
            partial(_bare_drain, place, sizes, coalesced, True),
            partial(_bare_drain, place, sizes, f"{PIKA}, each acked", False),
            partial(_our_drain, place, sizes, "sync", False, None),
            partial(_our_drain, place, sizes, "sync", False, PREFETCH),
            partial(_our_drain, place, sizes, "async", True, None),
            partial(_our_drain, place, sizes, "async", True, PREFETCH),
            *(
                partial(rival.drain, place, sizes.of(rival))
                for rival in (*_PLAIN, TASKIQ, TASKIQ_SAFE)
                if rivals
            ),
        ],
        coalesced,
        goals=[
            Goal(f"amqtask, sync, prefetch {PREFETCH}", coalesced, 0.6),
            Goal(f"amqtask, async, prefetch {PREFETCH}", coalesced, 0.5),
            *(
                Goal(f"amqtask, sync, prefetch {PREFETCH}", rival.label, 3)
                for rival in _PLAIN
                if rivals
            ),
            *([Goal(f"amqtask, async, prefetch {PREFETCH}", TASKIQ.label, 3)] * rivals),
        ],
    )


#: Those whose tasks are plain functions.
_PLAIN = (CELERY, CELERY_PREFORK, CELERY_SAFE, DRAMATIQ, DRAMATIQ_SAFE)


def _bare_drain(place: Place, sizes: Sizes, name: str, coalesced: bool) -> Mapping[str, Reading]:
    place.purge()
    count = sizes.stream
    marks = [str(place.folder / "first"), str(place.folder / "last")]
    place.read("ours", "fill", count=count, marks=marks, on_loop=False)
    reading = place.read(
        "bare",
        "drain",
        url=place.url,
        queue=place.queue,
        count=count + len(marks),
        prefetch=PREFETCH,
        coalesced=coalesced,
    )
    place.check_empty()
    return {name: reading}


def _our_drain(
    place: Place, sizes: Sizes, kind: str, on_loop: bool, prefetch: int | None
) -> Mapping[str, Reading]:
    place.purge()
    paths = [place.folder / name for name in ("first", "half", "last")]
    marks = [str(path) for path in paths]
    place.read("ours", "fill", count=sizes.stream, marks=marks, on_loop=on_loop)
    options = () if prefetch is None else ("--prefetch", str(prefetch))
    with place.worker("--concurrency", "16", *options):
        first, half, last = place.await_marks(paths)
    place.check_empty()
    name = f"amqtask, {kind}, {'default prefetch' if prefetch is None else f'prefetch {prefetch}'}"
    found = {name: _between(first, last, sizes.stream)}
    if prefetch is None:
        found[f"{name}, second half"] = _between(half, last, sizes.stream // 2)
    return found


def _between(start: tuple[float, float], end: tuple[float, float], count: int) -> Reading:
    return Reading(count, end[0] - start[0], end[1] - start[1])


# -- there and back ---------------------------------------------------------------


def _round_trips(place: Place, sizes: Sizes, rivals: bool) -> Case:
    def bare() -> Mapping[str, Reading]:
        with place.server():
            reading = place.read("bare", "round_trips", **_address(place), count=sizes.trips)
        place.check_empty()
        return {PIKA: reading}

    def ours() -> Mapping[str, Reading]:
        with place.worker(AMQTASK_BACKEND="rpc://"):
            reading = place.read("ours", "round_trips", count=sizes.trips)
        place.check_empty()
        return {"amqtask": reading}

    return Case(
        "rpc",
        "A call and its result over `rpc://`, one at a time",
        f"{sizes.trips:,} times `delay().get()`. Call and answer are confirmed on both sides, so "
        "the broker writes to disk twice; pika's answering process echoes.",
        [bare, ours, *([partial(_celery_trips, place, sizes.trips, "round_trips")] * rivals)],
        PIKA,
        unit="ms",
        goals=[
            Goal("amqtask", PIKA, 1 / 1.3),
            *([Goal("amqtask", CELERY.label, 1 / 0.6)] * rivals),
        ],
    )


def _in_flight(place: Place, sizes: Sizes) -> Case:
    def ours() -> Mapping[str, Reading]:
        with place.worker(AMQTASK_BACKEND="rpc://"):
            reading = place.read("ours", "in_flight", count=sizes.flight)
        place.check_empty()
        return {"amqtask": reading}

    return Case(
        "flight",
        f"{sizes.flight:,} calls and their results over `rpc://`, all under way at once",
        "All calls are sent, then all results are waited for.",
        [ours, partial(_celery_trips, place, sizes.flight, "in_flight")],
        CELERY.label,
        goals=[Goal("amqtask", CELERY.label, 5)],
    )


def _celery_trips(place: Place, count: int, function: str) -> Mapping[str, Reading]:
    with CELERY.working(place, results=True):
        return {CELERY.label: CELERY.read(place, function, count=count)}


# -- starting -----------------------------------------------------------------------


def _imports(place: Place) -> Case:
    def importing(module: str, name: str) -> Run:
        def run() -> Mapping[str, Reading]:
            output = place.run([sys.executable, "-c", _IMPORT.format(module)])
            return {name: Reading(1, float(output))}

        return run

    return Case(
        "import",
        "Importing it",
        "In a fresh process, byte code cached. pika is the asyncio adapter with what it needs.",
        [
            importing("pika.adapters.asyncio_connection", PIKA),
            importing("amqtask", "amqtask"),
        ],
        PIKA,
        unit="ms",
    )


def _ready(place: Place) -> Case:
    def bare() -> Mapping[str, Reading]:
        with place.server() as seconds:
            return {PIKA: Reading(1, seconds)}

    def ours() -> Mapping[str, Reading]:
        with place.worker(ready=True) as seconds:
            assert seconds is not None
            return {"amqtask worker": Reading(1, seconds)}

    return Case(
        "ready",
        "From starting a worker to its consuming",
        "From `exec` on. amqtask checks its whole topology, delay levels included, then starts a "
        "child process; pika is one process that consumes a queue that is there.",
        [bare, ours],
        PIKA,
        unit="ms",
    )
