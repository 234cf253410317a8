"""What it costs to be there: importing, starting, and memory at rest and after much work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import psutil

from tests.bench.cases.sizes import OURS, PIKA, PREFETCH, Sizes
from tests.bench.machine import memory, tree
from tests.bench.measure import Case, Contender, Goal, Reading, Run
from tests.bench.peers import environment
from tests.bench.place import Place
from tests.bench.rivals import CELERY, CELERY_PREFORK, DRAMATIQ, TASKIQ, Rival

#: Milliseconds that an import, and a start to the first task, may take.
IMPORT, READY = 120.0, 1000.0
#: What stands in the way of the goals for memory.
_HARD_AT_REST = (
    "it is code, of amqtask, pika and asyncio, whose reference counts a process writes to, which ends "
    "its sharing; Dramatiq has no event loop and a blocking connection"
)
_HARD_AFTER = (
    f"{PREFETCH} held messages at the peak, whose memory CPython and glibc keep for the next ones; "
    "nothing grows with the number of tasks"
)
_IMPORT = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
_IMPORTS = {
    "Celery": "from celery import Celery",
    "Dramatiq": "import dramatiq; from dramatiq.brokers.rabbitmq import RabbitmqBroker",
    "Taskiq": "from taskiq_aio_pika import AioPikaBroker",
}


def cases(place: Place, sizes: Sizes, rivals: bool) -> list[Case]:
    """Return the cases."""
    made = [_imports(place, rivals), _ready(place, rivals)]
    if rivals:
        made.append(_memory(place, sizes))
    return made


def _imports(place: Place, rivals: bool) -> Case:
    def importing(name: str, statement: str, python: str = sys.executable) -> Contender:
        def run() -> Mapping[str, Reading]:
            output = place.run([python, "-c", _IMPORT.format(statement)])
            return {name: Reading(1, float(output))}

        return Contender(name, run)

    contenders = [
        importing(PIKA, "import pika.adapters.asyncio_connection"),
        importing(OURS, "from amqtask import App"),
    ]
    if rivals:
        python = str(environment.python())
        contenders += [importing(name, words, python) for name, words in _IMPORTS.items()]
    return Case(
        "import",
        "Importing it",
        "What a program that defines tasks imports, in a fresh process, byte code cached. pika is "
        "the asyncio adapter with what it needs.",
        contenders,
        PIKA,
        unit="ms",
        goals=[Goal(OURS, IMPORT)],
    )


def _ready(place: Place, rivals: bool) -> Case:
    def bare() -> Mapping[str, Reading]:
        with place.program("bare_trips", "serve", url=place.url, queue=place.queue) as seconds:
            return {PIKA: Reading(1, seconds)}

    def ours() -> Mapping[str, Reading]:
        return {OURS: _first_task(place, partial(_mark, place), place.worker)}

    def theirs(rival: Rival) -> Run:
        def run() -> Mapping[str, Reading]:
            working = partial(rival.working, place)
            return {rival.label: _first_task(place, partial(rival.mark, place), working)}

        return run

    contenders = [Contender(PIKA, bare), Contender(OURS, ours)]
    if rivals:
        contenders += [
            Contender(rival.label, theirs(rival)) for rival in (CELERY_PREFORK, DRAMATIQ, TASKIQ)
        ]
    return Case(
        "ready",
        "From starting a worker to its first task",
        "From `exec` on, a task waits. amqtask checks its whole topology, delay levels included, "
        "then starts a child process; pika is one process that consumes a queue that is there.",
        contenders,
        PIKA,
        unit="ms",
        goals=[Goal(OURS, READY)],
    )


def _mark(place: Place, path: str) -> None:
    place.read("ours", "fill", count=0, marks=[path])


def _first_task(
    place: Place,
    mark: Callable[[str], None],
    working: Callable[[], AbstractContextManager[object]],
) -> Reading:
    (path,) = place.marks("first")
    mark(str(path))
    began = time.monotonic()
    with working():
        ((when, _),) = place.await_marks([path])
    return Reading(1, when - began)


# -- memory -------------------------------------------------------------------------


def _memory(place: Place, sizes: Sizes) -> Case:
    rest, after, child = "at rest", f"after {sizes.served:,} tasks", "a child at rest"

    def contender(
        name: str,
        working: Callable[[], AbstractContextManager[psutil.Process]],
        mark: Callable[[str], None],
        fill: Callable[[list[str]], object],
    ) -> Contender:
        def run() -> Mapping[str, Reading]:
            (ready,), work = place.marks("ready"), place.marks("first", "last")
            mark(str(ready))
            with working() as process:
                place.await_marks([ready])
                before = memory(tree(process))
                fill([str(path) for path in work])
                place.await_marks(work)
                then = memory(tree(process))
            found = {f"{name}, {rest}": sum(before), f"{name}, {after}": sum(then)}
            if before[1:]:
                found[f"{name}, {child}"] = max(before[1:])
            return {row: Reading(1, 0.0, size=size) for row, size in found.items()}

        return Contender(name, run)

    @contextmanager
    def worker() -> Iterator[psutil.Process]:
        with place.worker("--concurrency", "8", "--prefetch", str(PREFETCH)) as working:
            yield working.process

    def filling(rival: Rival) -> Callable[[list[str]], object]:
        count = sizes.served
        return lambda marks: rival.read(
            place, "fill", count=count, marks=marks, kind="noop", size=0
        )

    contenders = [
        contender(
            OURS,
            worker,
            partial(_mark, place),
            lambda marks: place.read("ours", "fill", count=sizes.served, marks=marks),
        ),
        *(
            contender(
                rival.label,
                partial(rival.working, place),
                partial(rival.mark, place),
                filling(rival),
            )
            for rival in (CELERY, CELERY_PREFORK, DRAMATIQ, TASKIQ)
        ),
    ]
    return Case(
        "memory",
        "Memory of a worker",
        f"PSS of all its processes, once it has run a task and after {sizes.served:,} of them; and "
        "of its largest process below the one that was started. One process that runs tasks, with 8 "
        "threads where the library has threads.",
        contenders,
        f"{DRAMATIQ.label}, {rest}",
        unit="MiB",
        goals=[
            Goal(f"{OURS}, {child}", f"{DRAMATIQ.label}, {child}", hard=_HARD_AT_REST),
            Goal(f"{OURS}, {after}", f"{OURS}, {rest}", 1 / 1.05, _HARD_AFTER),
        ],
        rounds=1,
    )
