"""Draining a full queue: no-op tasks, tasks with something to carry, and tasks that work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.bench.cases.sizes import AIO_PIKA, OURS, PIKA, PREFETCH, SHARED, Sizes
from tests.bench.machine import tree, used
from tests.bench.measure import Case, Contender, Goal, Reading
from tests.bench.peers import environment
from tests.bench.place import Place, await_true
from tests.bench.rivals import (
    CELERY,
    CELERY_PREFORK,
    CELERY_SAFE,
    DRAMATIQ,
    DRAMATIQ_SAFE,
    TASKIQ,
    TASKIQ_SAFE,
    Rival,
    at_once,
    by_core,
)
from tests.bench.work import AT_ONCE, COMPUTES, WAITS

#: Those whose tasks are plain functions.
_PLAIN = (CELERY, CELERY_PREFORK, CELERY_SAFE, DRAMATIQ, DRAMATIQ_SAFE)
_COALESCED = f"{PIKA}, acks coalesced"
#: What stands in the way of a goal.
_HARD = "two processes of bare pika get no more out of the broker"


def cases(place: Place, sizes: Sizes, rivals: bool) -> list[Case]:
    """Return the cases."""
    made = [_one_process(place, sizes, rivals)]
    if rivals:
        made.append(_by_core(place, sizes))
    made += [_payload(place, size, count, rivals) for size, count in sizes.payloads.items()]
    made.append(_mix(place, sizes, rivals))
    return made


def _one_process(place: Place, sizes: Sizes, rivals: bool) -> Case:
    count = sizes.stream
    fixed = f"prefetch {PREFETCH}"
    sync, on_loop = f"{OURS}, sync, {fixed}", f"{OURS}, async, {fixed}"
    contenders = [
        _bare(place, _COALESCED, count, coalesced=True),
        _bare(place, f"{PIKA}, each acked", count, coalesced=False),
        _ours(place, sync, count, prefetch=PREFETCH),
        _ours(place, f"{OURS}, sync, default prefetch", count, halves=True),
        _ours(place, on_loop, count, kind="anoop", prefetch=PREFETCH),
        _ours(place, f"{OURS}, async, default prefetch", count, kind="anoop", halves=True),
    ]
    goals = [Goal(sync, _COALESCED, 0.6), Goal(on_loop, _COALESCED, 0.5)]
    if rivals:
        contenders.append(Contender(AIO_PIKA, partial(_aio_pika_drain, place, count // 3)))
        contenders += [
            _rival(place, rival, sizes.of(rival)) for rival in (*_PLAIN, TASKIQ, TASKIQ_SAFE)
        ]
        goals += [Goal(sync, rival.label, 3) for rival in _PLAIN]
        goals.append(Goal(on_loop, TASKIQ.label, 3))
    return Case(
        "drain",
        "Draining no-op tasks with one worker process",
        f"{count:,} messages wait in a quorum queue. `amqtask worker --processes 1` is "
        "timed from its first task to its last; what is new about a started worker, its prefetch "
        "above all, settles in the first half. pika only takes and acks the same messages, "
        f"{PREFETCH} under way: it decodes nothing, and runs nothing.",
        contenders,
        _COALESCED,
        goals=goals,
        pictured=True,
    )


def _by_core(place: Place, sizes: Sizes) -> Case:
    cores, count = os.cpu_count() or 1, sizes.stream
    plain = by_core(cores)
    sync, on_loop = f"{OURS}, {cores} processes, sync", f"{OURS}, {cores} processes, async"
    bare = f"{PIKA}, {cores} processes, acks coalesced"
    return Case(
        "cores",
        f"Draining no-op tasks with {cores} worker processes",
        f"A process for each processor, which they share with the broker; {count:,} messages, of which "
        f"a process of amqtask's or pika's holds {SHARED}.",
        [
            _bare(place, bare, count, prefetch=SHARED, processes=cores),
            _ours(place, sync, count, prefetch=SHARED, processes=cores),
            _ours(place, on_loop, count, kind="anoop", prefetch=SHARED, processes=cores),
            *(_rival(place, rival, count // 3) for rival in plain),
        ],
        bare,
        goals=[
            *(Goal(sync, rival.label, 3, _HARD) for rival in plain if rival.library != "taskiq"),
            *(Goal(on_loop, rival.label, 3) for rival in plain if rival.library == "taskiq"),
        ],
        pictured=True,
    )


def _payload(place: Place, size: int, count: int, rivals: bool) -> Case:
    word = (
        f"{size / 1e6:g} MB"
        if size >= 1e6
        else f"{size / 1e3:g} kB"
        if size >= 1e3
        else f"{size} B"
    )
    prefetch = 100 if size < 1e6 else 4
    contenders = [
        _bare(place, PIKA, count, coalesced=True, size=size, prefetch=prefetch),
        _ours(place, OURS, count, kind="take", size=size, prefetch=prefetch),
    ]
    if rivals:
        few = max(10, count // 4)
        contenders += [
            _rival(place, rival, few, kind="take", size=size)
            for rival in (CELERY, DRAMATIQ, TASKIQ)
        ]
    return Case(
        f"payload-{word.replace(' ', '').lower()}",
        f"Draining tasks with an argument of {word}",
        f"{count:,} messages; pika and amqtask hold {prefetch} at once, and pika decodes nothing.",
        contenders,
        PIKA,
    )


def _mix(place: Place, sizes: Sizes, rivals: bool) -> Case:
    count = sizes.mixed
    threads, loop = "Python alone, threads", "Python alone, event loop"
    sync, on_loop = f"{OURS}, threads", f"{OURS}, event loop"
    contenders = [
        Contender(threads, lambda: {threads: place.read("work", "in_threads", count=count)}),
        Contender(loop, lambda: {loop: place.read("work", "on_loop", count=count)}),
        _ours(place, sync, count, kind="mix", concurrency=AT_ONCE),
        _ours(place, on_loop, count, kind="amix", concurrency=AT_ONCE),
    ]
    if rivals:
        contenders += [_rival(place, rival, count // 2, kind="mix") for rival in at_once(AT_ONCE)]
    return Case(
        "mix",
        f"Tasks that wait {WAITS * 1e3:g} ms and compute {COMPUTES * 1e3:g} ms, {AT_ONCE} at once",
        f"{count:,} tasks, one process, default prefetch. The limit is the same work in a pool of "
        f"{AT_ONCE} threads, or on an event loop, without any library or broker.",
        contenders,
        threads,
        pictured=True,
    )


# -- contenders -------------------------------------------------------------------


def _bare(
    place: Place,
    name: str,
    count: int,
    *,
    coalesced: bool = True,
    size: int = 0,
    prefetch: int = PREFETCH,
    processes: int = 1,
) -> Contender:
    function = "drain" if processes == 1 else "drain_by"  # which coalesces always
    own: dict[str, Any] = {"coalesced": coalesced} if processes == 1 else {"processes": processes}

    def run() -> Mapping[str, Reading]:
        total = _fill(place, count, size)
        broker = place.broker_cpu()
        reading = place.read(
            "bare",
            function,
            url=place.url,
            queue=place.queue,
            count=total,
            prefetch=prefetch,
            **own,
        )
        place.check_empty()
        served = place.broker_cpu_since(broker)
        return {name: Reading(count, reading.seconds, reading.cpu, served)}

    return Contender(name, run)


def _aio_pika_drain(place: Place, count: int) -> Mapping[str, Reading]:
    total = _fill(place, count, 0)
    broker = place.broker_cpu()
    reading = place.read(
        "peers.aiopika_side",
        "drain",
        python=environment.python(),
        url=place.url,
        queue=place.queue,
        count=total,
        prefetch=PREFETCH,
    )
    place.purge()
    served = place.broker_cpu_since(broker)
    return {AIO_PIKA: Reading(count, reading.seconds, reading.cpu, served)}


def _fill(place: Place, count: int, size: int) -> int:
    """Fill the queue for who runs no tasks; returns how many messages it holds."""
    place.purge()
    marks = [str(path) for path in place.marks("first", "last")]
    place.read("ours", "fill", count=count, marks=marks, kind="take" if size else "noop", size=size)
    return count + len(marks)


def _ours(
    place: Place,
    name: str,
    count: int,
    *,
    kind: str = "noop",
    size: int = 0,
    prefetch: int | None = None,
    processes: int = 1,
    concurrency: int = 16,
    halves: bool = False,
) -> Contender:
    options = ["--concurrency", str(concurrency)]
    if prefetch is not None:
        options += ["--prefetch", str(prefetch)]

    def run() -> Mapping[str, Reading]:
        place.purge()
        paths = place.marks("first", "half", "last")
        marks = [str(path) for path in paths]
        place.read("ours", "fill", count=count, marks=marks, kind=kind, size=size)
        with place.worker(*options, processes=processes) as worker:
            await_true(paths[0].exists, "the worker did not start")
            begun, broker = used(tree(worker.process)), place.broker_cpu()
            first, half, last = place.await_marks(paths)
            # the marks of one process say it more exactly
            cpu = last[1] - first[1] if processes == 1 else used(tree(worker.process)) - begun
            served = place.broker_cpu_since(broker)
        if processes == 1:
            place.check_empty()
        found = {name: Reading(count, last[0] - first[0], cpu, served)}
        if halves:
            second = Reading(count // 2, last[0] - half[0], last[1] - half[1])
            found[f"{name}, second half"] = second
        return found

    return Contender(name, run)


def _rival(
    place: Place, rival: Rival, count: int, *, kind: str = "noop", size: int = 0
) -> Contender:
    return Contender(rival.label, partial(rival.drain, place, count, kind, size))
