"""Growth: more that waits, more queues, more processes. The cost of a task should stay."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tests.bench.cases.sizes import PREFETCH, SHARED
from tests.bench.machine import tree, used
from tests.bench.measure import Case, Contender, Goal, Reading
from tests.bench.place import Place, await_true

#: Waiting tasks, queues, and processes that are looked at.
WAITING = (1_000, 100_000, 1_000_000)
QUEUES = (1, 10, 100, 500)
PROCESSES = (1, 2, 4, 8)
#: How much more a task may cost at a million than at a thousand.
_MORE = 1.15
#: What stands in the way of that.
_HARD = (
    "what a task costs the worker stays; the broker's cost grows, as all messages of a queue are in "
    "the memory of one of its processes"
)
_FIXED = ("--concurrency", "16", "--prefetch", str(PREFETCH))


def cases(place: Place, stream: int, most: int) -> list[Case]:
    """Return the cases.

    Args:
        stream: Tasks that each reading runs.
        most: Tasks that wait at most.
    """
    return [_waiting(place, stream, most), _queues(place, stream), _processes(place, stream)]


def _waiting(place: Place, stream: int, most: int) -> Case:
    counts = [count for count in WAITING if count <= most]
    names = [f"{count:,} waiting" for count in counts]
    return Case(
        "waiting",
        "Draining while more and more waits",
        f"{stream:,} no-op tasks are run while so many wait in the queue at first. A thousand are "
        "drained again and again, with the worker stopped while they are sent.",
        [
            Contender(name, partial(_drain_of, place, name, count, stream))
            for name, count in zip(names, counts, strict=True)
        ],
        names[0],
        goals=[Goal(names[-1], names[0], 1 / _MORE, _HARD)],
    )


def _drain_of(place: Place, name: str, waiting: int, stream: int) -> Mapping[str, Reading]:
    place.purge()
    if waiting < stream:
        return {name: _waves(place, waiting, stream // waiting)}
    paths = place.marks("first", "last")
    marks = [str(path) for path in paths]
    place.read("ours", "fill", count=stream, marks=marks)
    place.read("ours", "pipelined", count=waiting - stream)
    with place.worker(*_FIXED):
        await_true(paths[0].exists, "the worker did not start")
        broker = place.broker_cpu()
        first, last = place.await_marks(paths)
        served = place.broker_cpu_since(broker)
    place.purge()
    return {name: Reading(stream, last[0] - first[0], last[1] - first[1], served)}


def _waves(place: Place, waiting: int, times: int) -> Reading:
    """Drain so many, again and again, with the same worker."""
    seconds = cpu = 0.0
    ready, *paths = place.marks("ready", "first", "last")
    marks = [str(path) for path in paths]
    with place.worker(*_FIXED) as worker:
        place.read("ours", "fill", count=0, marks=[str(ready)])
        place.await_marks([ready])
        for _ in range(times):
            processes = tree(worker.process)
            for each in processes:
                each.suspend()
            place.read("ours", "fill", count=waiting, marks=marks)
            for each in reversed(processes):
                each.resume()
            first, last = place.await_marks(paths)
            seconds += last[0] - first[0]
            cpu += last[1] - first[1]
    place.check_empty()
    return Reading(waiting * times, seconds, cpu)


def _queues(place: Place, stream: int) -> Case:
    names = [f"{count} queue{'s' if count > 1 else ''}" for count in QUEUES]
    return Case(
        "queues",
        "Draining more and more queues",
        f"One worker process; {stream:,} no-op tasks, spread evenly over the queues, which share the "
        f"prefetch of {PREFETCH}: the more there are, the fewer messages come and are acked at once, "
        "down to a frame each way for every task.",
        [
            Contender(name, partial(_drain_all, place, name, count, stream))
            for name, count in zip(names, QUEUES, strict=True)
        ],
        names[0],
        rounds=1,
    )


def _drain_all(place: Place, name: str, queues: int, stream: int) -> Mapping[str, Reading]:
    """Drain some queues; each holds its share of the prefetch."""
    some = place.more_queues(queues)
    paths = place.marks("first", "last")
    marks = [str(path) for path in paths]
    place.read("ours", "spread", count=stream, queues=some, marks=marks)
    prefetch = max(1, PREFETCH // queues)
    options = ("--concurrency", "16", "--prefetch", str(prefetch))
    with place.worker(*options, queues=some):
        await_true(paths[0].exists, "the worker did not start")
        broker = place.broker_cpu()
        first, last = place.await_marks(paths)
        served = place.broker_cpu_since(broker)
    return {name: Reading(stream, last[0] - first[0], last[1] - first[1], served)}


def _processes(place: Place, stream: int) -> Case:
    names = [f"{count} process{'es' if count > 1 else ''}" for count in PROCESSES]
    return Case(
        "processes",
        "Draining with more and more processes",
        f"{2 * stream:,} no-op tasks in one queue. More processes than processors, which the broker "
        "needs too, can only cost.",
        [
            Contender(name, partial(_drain_by, place, name, count, 2 * stream))
            for name, count in zip(names, PROCESSES, strict=True)
        ],
        names[0],
    )


def _drain_by(place: Place, name: str, processes: int, count: int) -> Mapping[str, Reading]:
    place.purge()
    paths = place.marks("first", "last")
    place.read("ours", "fill", count=count, marks=[str(path) for path in paths])
    options = ("--concurrency", "16", "--prefetch", str(SHARED))
    with place.worker(*options, processes=processes) as worker:
        await_true(paths[0].exists, "the worker did not start")
        begun, broker = used(tree(worker.process)), place.broker_cpu()
        first, last = place.await_marks(paths)
        cpu = used(tree(worker.process)) - begun
        served = place.broker_cpu_since(broker)
    return {name: Reading(count, last[0] - first[0], cpu, served)}
