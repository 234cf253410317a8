"""What deciding costs: ``python -m tests.bench.agenda``, beside Celery's scheduler in the same run.

Ten thousand entries, half of them cron expressions, half intervals. Nothing is sent: the
broker costs both the same. Times are processor times, so that other programs do not count.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

ENTRIES = 10_000
NOON = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
#: Celery compares all entries in each tick, so few ticks take long enough.
IDLE_TICKS = 100
CELERY_FIRES = 200
ROUNDS = 3

#: What a side measures, and how it is written.
ROWS = {
    "load": ("until all entries have their next instant", "{:.2f} s"),
    "memory": ("memory for them", "{:.0f} MiB"),
    "idle": ("a tick with nothing due", "{:.1f} us"),
    "fire": ("a fire, all entries due at once", "{:.0f} us"),
    "worst": ("the longest tick then", "{:.1f} ms"),
}


def main() -> None:
    """Measure both sides in turn, each in a process of its own, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("ours", "celery"))
    parser.add_argument("--entries", type=int, default=ENTRIES)
    said = parser.parse_args()
    if said.side is not None:
        print(json.dumps({"ours": ours, "celery": celery}[said.side](said.entries)))
        return
    found = [{side: _run(side, said.entries) for side in ("ours", "celery")} for _ in range(ROUNDS)]
    print(f"{said.entries:,} entries  amqtask  Celery  ratio (median of {ROUNDS})")
    for key, (what, form) in ROWS.items():
        pairs = sorted(
            ((each["celery"][key] / each["ours"][key], each) for each in found),
            key=lambda pair: pair[0],
        )
        ratio, middle = pairs[ROUNDS // 2]
        shown = [form.format(middle[side][key]) for side in ("ours", "celery")]
        print(f"{what}: {shown[0]}  {shown[1]}  {ratio:.1f}")


def ours(count: int) -> dict[str, float]:
    """Measure the agenda."""
    from amqtask.beat.agenda import Agenda
    from amqtask.policy.entry import Entry
    from amqtask.policy.schedule import cron, every

    before = _peak()
    began = time.process_time()
    entries = [
        Entry(
            f"entry {index}",
            cron(f"* {_hours(index)} * * *") if index % 2 else every(60 * (1 + index % 4)),
            "t",
        )
        for index in range(count)
    ]
    agenda = Agenda("bench", entries, {}, NOON)
    while (agenda.tick(NOON).wake or NOON) <= NOON:
        pass
    load = time.process_time() - began
    memory = _peak() - before
    idle = _idle(lambda: agenda.tick(NOON))
    fired, worst, spent = 0, 0.0, 0.0
    now = NOON + timedelta(seconds=30)
    while True:
        began = time.process_time()
        tick = agenda.tick(now)
        took = time.process_time() - began
        if not tick.fires:
            break
        fired, worst, spent = fired + len(tick.fires), max(worst, took), spent + took
    return _measured(load, memory, idle, spent / fired, worst)


def celery(count: int) -> dict[str, float]:
    """Measure Celery's scheduler."""
    from celery import Celery, beat
    from celery.schedules import crontab, schedule

    clock = [NOON]

    def now() -> datetime:
        return clock[0]

    class Scheduler(beat.Scheduler):  # type: ignore[misc]
        fired = 0

        def apply_entry(self, entry: Any, producer: Any = None) -> None:
            self.fired += 1

    app = Celery("bench", broker="memory://", set_as_current=True)
    app.now = now
    before = _peak()
    began = time.process_time()
    table = {
        f"entry {index}": {
            "task": "t",
            "schedule": crontab(hour=_hours(index), nowfun=now, app=app)
            if index % 2
            else schedule(timedelta(seconds=60), nowfun=now, app=app),
        }
        for index in range(count)
    }
    app.conf.beat_schedule = table
    scheduler = Scheduler(app=app, schedule={}, Producer=lambda *_, **__: None)
    scheduler.tick()
    load = time.process_time() - began
    memory = _peak() - before
    idle = _idle(scheduler.tick)
    clock[0] = NOON + timedelta(seconds=61)
    worst = spent = 0.0
    while scheduler.fired < CELERY_FIRES:
        began = time.process_time()
        scheduler.tick()
        took = time.process_time() - began
        worst, spent = max(worst, took), spent + took
    return _measured(load, memory, idle, spent / scheduler.fired, worst)


def _measured(
    load: float, memory: float, idle: float, fire: float, worst: float
) -> dict[str, float]:
    return {
        "load": load,
        "memory": memory / 2**20,
        "idle": idle * 1e6,
        "fire": fire * 1e6,
        "worst": worst * 1e3,
    }


def _hours(index: int) -> str:
    """Return hours that all hold noon: of 10,000 entries some are alike, as in life."""
    return f"{index % 12}-{12 + index % 11}"


def _idle(tick: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(IDLE_TICKS):
        tick()
    return (time.process_time() - began) / IDLE_TICKS


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _run(side: str, entries: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.agenda", "--side", side]
    output = subprocess.check_output([*command, "--entries", str(entries)])
    measured: dict[str, float] = json.loads(output)
    return measured


if __name__ == "__main__":
    main()
