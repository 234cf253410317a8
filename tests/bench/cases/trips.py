"""There and back: results one at a time and many under way, and the way to an idle worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

from tests.bench.cases.sizes import OURS, PIKA, Sizes
from tests.bench.measure import Case, Contender, Goal, Reading
from tests.bench.place import Place, await_true
from tests.bench.rivals import CELERY, DRAMATIQ, TASKIQ, Rival
from tests.bench.work import APART, tail

_RPC, _DIRECT = "rpc://", "rpc+direct://"
#: What stands in the way of a goal.
_HARD = "bare pika does not reach it either, as the broker takes most of a round trip"


def cases(place: Place, sizes: Sizes, rivals: bool, redis: str) -> list[Case]:
    """Return the cases."""
    made = [_round_trips(place, sizes, rivals, redis)]
    if rivals:
        made.append(_in_flight(place, sizes, redis))
    made.append(_latency(place, sizes, rivals))
    return made


def _round_trips(place: Place, sizes: Sizes, rivals: bool, redis: str) -> Case:
    count = sizes.trips
    durable, direct = f"{PIKA}, durable reply queue", f"{PIKA}, direct reply-to"
    ours = {url: f"{OURS}, {_short(url)}" for url in (_RPC, _DIRECT, redis) if url}
    contenders = [
        Contender(direct, partial(_bare_trips, place, direct, count, True)),
        Contender(durable, partial(_bare_trips, place, durable, count, False)),
        *(_our_results(place, name, "round_trips", count, url) for url, name in ours.items()),
    ]
    goals = [Goal(ours[_DIRECT], direct, 1 / 1.3), Goal(ours[_RPC], durable, 1 / 1.3)]
    if rivals:
        contenders += _celery_results(place, "round_trips", count, redis)
        goals.append(Goal(ours[_DIRECT], _celery(_RPC), 1 / 0.6, _HARD))
    return Case(
        "rpc",
        "A call and its result, one at a time",
        f"{count:,} times `delay().get()`. The call is confirmed. Over `rpc://` the answer is, too, "
        "so the broker writes to disk twice; direct answers it only hands on, and no Celery "
        "worker's result is confirmed. pika's answering process echoes.",
        contenders,
        direct,
        unit="ms",
        goals=goals,
        pictured=True,
    )


def _in_flight(place: Place, sizes: Sizes, redis: str) -> Case:
    count = sizes.flight
    ours = {url: f"{OURS}, {_short(url)}" for url in (_RPC, _DIRECT, redis) if url}
    goals = [Goal(ours[url], _celery(_RPC), 5) for url in (_RPC, _DIRECT)]
    if redis:
        goals.append(Goal(ours[redis], _celery(redis), 5))
    return Case(
        "flight",
        f"{count:,} calls and their results, all under way at once",
        "All calls are sent, then all results are waited for.",
        [
            *(_our_results(place, name, "in_flight", count, url) for url, name in ours.items()),
            *_celery_results(place, "in_flight", count // 2, redis),
        ],
        _celery(_RPC),
        goals=goals,
        pictured=True,
    )


def _latency(place: Place, sizes: Sizes, rivals: bool) -> Case:
    count = sizes.starts
    contenders = [
        Contender(PIKA, partial(_bare_starts, place, count)),
        Contender(OURS, partial(_our_starts, place, count)),
    ]
    if rivals:
        contenders += [
            Contender(rival.label, partial(_rival_starts, place, rival, count))
            for rival in (CELERY, DRAMATIQ, TASKIQ)
        ]
    return Case(
        "latency",
        "From a call to the start of its task, in an idle worker",
        f"{count:,} calls, {APART * 1e3:g} ms after one another; from before the call until the "
        "task's code runs.",
        contenders,
        PIKA,
        unit="ms",
    )


# -- results ------------------------------------------------------------------------


def _short(url: str) -> str:
    return f"{url.partition('://')[0]}://"


def _celery(url: str) -> str:
    return f"Celery, {_short(url)}"


def _bare_trips(place: Place, name: str, count: int, direct: bool) -> Mapping[str, Reading]:
    with place.program("bare_trips", "serve", url=place.url, queue=place.queue):
        reading = place.read(
            "bare_trips", "round_trips", **place.address, count=count, direct=direct
        )
    place.check_empty()
    return {name: reading}


def _our_results(place: Place, name: str, function: str, count: int, url: str) -> Contender:
    def run() -> Mapping[str, Reading]:
        with place.worker(AMQTASK_BACKEND=url):
            environ = {"AMQTASK_BACKEND": url}
            reading = place.read("ours", function, environ=environ, count=count)
        place.check_empty()
        return {name: reading}

    return Contender(name, run)


def _celery_results(place: Place, function: str, count: int, redis: str) -> list[Contender]:
    def run(url: str) -> Mapping[str, Reading]:
        with CELERY.working(place, results=url):
            return {_celery(url): CELERY.read(place, function, results=url, count=count)}

    return [Contender(_celery(url), partial(run, url)) for url in (_RPC, redis) if url]


# -- latency ------------------------------------------------------------------------


def _bare_starts(place: Place, count: int) -> Mapping[str, Reading]:
    (path,) = place.marks("starts")
    to = {"url": place.url, "queue": place.queue}
    with place.program("bare_trips", "listen", **to, count=count, path=str(path)):
        place.read("bare_trips", "paced", **place.address, count=count)
        return {PIKA: _noted(place, count)}


def _our_starts(place: Place, count: int) -> Mapping[str, Reading]:
    (path,) = place.marks("starts")
    with place.worker():
        _warmed_up(place, lambda path: place.read("ours", "fill", count=0, marks=[path]))
        place.read("ours", "paced", count=count, path=str(path))
        return {OURS: _noted(place, count)}


def _rival_starts(place: Place, rival: Rival, count: int) -> Mapping[str, Reading]:
    (path,) = place.marks("starts")
    with rival.working(place):
        _warmed_up(place, partial(rival.mark, place))
        rival.read(place, "paced", count=count, path=str(path))
        return {rival.label: _noted(place, count)}


def _warmed_up(place: Place, send: Callable[[str], object]) -> None:
    """Wait until the worker has run a task."""
    (path,) = place.marks("warm")
    send(str(path))
    place.await_marks([path])


def _noted(place: Place, count: int) -> Reading:
    """Return what the tasks noted."""
    (path,) = place.marks("starts")
    await_true(path.exists, "not all calls were started")
    seconds = json.loads(path.read_text())
    path.unlink()
    if len(seconds) != count:
        raise AssertionError(f"{len(seconds)} of {count} calls were started")
    return Reading(count, sum(seconds), tail=tail(seconds))
