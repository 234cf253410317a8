"""How many chords a worker joins in a second, beside Celery: ``python -m tests.bench.chords``.

``--members 10000`` also joins one large chord and two half as large, on each kind of join, and says
how time and memory grow.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from functools import partial

import psutil
from rich.console import Console

from amqtask.testing import servers
from tests.bench.measure import Case, Contender, Goal, Reading, measure
from tests.bench.place import Place
from tests.bench.report import show
from tests.bench.rivals import CELERY, CELERY_SAFE, Rival

#: Chords of one reading, and members of each.
COUNT, SIZE = 100, 20


def cases(place: Place, count: int, rivals: bool, redis: str) -> list[Case]:
    """Return the case of chords; it needs a Redis, as Celery's do.

    Args:
        count: Chords of one reading.
        redis: Its URL.
    """
    ours = {"amqtask, Redis": redis, "amqtask, rpc:// alone": "rpc://"}
    theirs = (CELERY, CELERY_SAFE) if rivals else ()
    return [
        Case(
            "chords",
            f"Chords of {SIZE} members, from sending to the last body's result",
            f"{count} chords, all under way at once; one worker process. Celery keeps parts and "
            "results in Redis. amqtask does the same, or joins in RabbitMQ, parts confirmed, and "
            "sends results back over `rpc://`.",
            [
                *(
                    Contender(label, partial(_ours, place, count, label, url))
                    for label, url in ours.items()
                ),
                *(
                    Contender(rival.label, partial(_theirs, place, count, rival, redis))
                    for rival in theirs
                ),
            ],
            CELERY.label if rivals else "amqtask, Redis",
            goals=[Goal("amqtask, Redis", CELERY.label, 3)] if rivals else [],
        )
    ]


def _ours(place: Place, count: int, label: str, backend: str) -> Mapping[str, Reading]:
    with place.worker("--concurrency", "16", AMQTASK_BACKEND=backend):
        environ = {"AMQTASK_BACKEND": backend}
        reading = place.read("ours", "chords", environ=environ, count=count, size=SIZE)
    place.check_empty()
    return {label: reading}


def _theirs(place: Place, count: int, rival: Rival, redis: str) -> Mapping[str, Reading]:
    # a slow one takes long enough with fewer
    fewer = count // (5 if rival.safe else 1)
    with rival.working(place, results=redis):
        reading = rival.read(place, "chords", results=redis, count=fewer, size=SIZE)
    return {rival.label: reading}


def _growing(place: Place, members: int, redis: str) -> None:
    """Join one large chord after one half as large, and say how much longer it takes."""
    for label, backend in (("Redis", redis), ("rpc:// alone", "rpc://")):
        found: list[Reading] = []
        used: list[float] = []
        held: list[float] = []
        for size in (members // 2, members):
            with place.worker("--concurrency", "16", AMQTASK_BACKEND=backend):
                environ = {"AMQTASK_BACKEND": backend}
                place.read("ours", "chords", environ=environ, count=1, size=1)  # it has started
                began = _used()
                found.append(place.read("ours", "chords", environ=environ, count=1, size=size))
                used.append(_used() - began)
                held.append(_resident())
        half, whole = found
        print(
            f"{label}: {members // 2:,} members {half.seconds:.2f} s, {members:,} members "
            f"{whole.seconds:.2f} s, {whole.seconds / half.seconds:.2f}x; processor time of the "
            f"client {_ratio(half.cpu, whole.cpu)}, of the worker {_ratio(*used)}; the worker "
            f"holds {held[0]:.0f} and {held[1]:.0f} MiB then",
            flush=True,
        )


def _ratio(half: float | None, whole: float | None) -> str:
    return f"{half:.2f} and {whole:.2f} s, {whole / half:.2f}x" if half and whole else "unknown"


def _used() -> float:
    """Return the seconds of processor time that the processes started here, and alive, have used."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:2])
    return seconds


def _resident() -> float:
    """Return the MiB that the largest process of the workers started here holds."""
    sizes = [0]
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes.append(process.memory_info().rss)
    return max(sizes) / 2**20


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chords", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender, or none")
    parser.add_argument("--count", type=int, default=COUNT, help="chords of one reading")
    parser.add_argument("--members", type=int, default=0, help="members of one large chord")
    parser.add_argument("--no-rivals", dest="rivals", action="store_false", help="amqtask alone")
    said = parser.parse_args()
    with (
        servers.find_or_start("rabbitmq") as server,
        servers.find_or_start("redis") as redis,
        Place.at(server.url) as place,
    ):
        place.declare()
        for case in cases(place, said.count, said.rivals, redis.url) if said.rounds else ():
            table = measure(
                case, said.rounds, partial(print, file=sys.stderr, flush=True), place.clean
            )
            show(Console(width=150), table)
        if said.members:
            _growing(place, said.members, redis.url)


if __name__ == "__main__":
    main()
