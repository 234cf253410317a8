"""Scale a crew between bounds: look at its load now and then, and have it resized."""

from __future__ import annotations

import asyncio
import logging
import time

from amqtask.worker.crew import Crew
from amqtask.worker.ladder import Rung
from amqtask.worker.prepare import Backlog
from amqtask.worker.scaling import Load, Scaler
from amqtask.worker.spec import WorkerSpec

log = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK = 3.0


async def scale(crew: Crew, spec: WorkerSpec, scaler: Scaler, backlog: Backlog) -> None:
    """Look and resize until cancelled."""
    try:
        while True:
            await asyncio.sleep(LOOK)
            load = await load_of(crew, spec, backlog)
            want = scaler.look(time.monotonic(), load)
            if want != crew.size:
                log.info(
                    "worker.scaled from=%d to=%d running=%d backlog=%s",
                    crew.size,
                    want,
                    load.running,
                    load.backlog,
                )
                crew.resize(want)
    finally:
        await backlog.close()


async def load_of(crew: Crew, spec: WorkerSpec, backlog: Backlog) -> Load:
    """Return what a crew has to do; the broker is asked only when no slot is free."""
    children = [place.child for place in crew.places]
    here = [child for child in children if child is not None]
    settled = len(here) == len(children) and all(
        child.ready and child.rung is Rung.RUNNING and not child.silent for child in here
    )
    waiting = sum(child.beat.waiting for child in here)
    # what waits in a process waits for a slot of its kind, whatever the other kinds do
    busy = bool(here) and all(
        child.beat.waiting or child.beat.running >= spec.slots for child in here
    )
    queued = await backlog.count() if busy else 0
    return Load(
        processes=len(children),
        settled=settled,
        slots=spec.slots,
        running=sum(child.beat.running for child in here),
        busy=busy,
        backlog=None if queued is None else queued + waiting,
    )
