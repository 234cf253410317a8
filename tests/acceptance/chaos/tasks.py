"""The tasks that are run amid faults: one of every kind, each writing down what it does."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from amqtask import App, Queue, Retry, current_task
from tests.acceptance.chaos.ledger import Ledger

#: Where the ledger is.
FOLDER = "AMQTASK_TEST_LEDGER"
#: The queue whose deletion is one of the faults.
EXPENDABLE = "AMQTASK_TEST_EXPENDABLE"

_making = threading.Lock()

app = App("chaos", queues=[Queue(os.environ.get(EXPENDABLE, "chaos-expendable"))])


@cache
def _made() -> Ledger:
    return Ledger(Path(os.environ[FOLDER]))


def _ledger() -> Ledger:
    with _making:  # many threads begin at once
        return _made()


@contextmanager
def _noted() -> Iterator[None]:
    task = current_task
    about = (task.id, task.attempt, task.task)
    run = uuid.uuid4().hex[:12]
    ledger = _ledger()
    ledger.write(run, "begun", *about)
    try:
        yield
    except Retry:
        ledger.write(run, "again", *about)
        raise
    except Exception:
        ledger.write(run, "failed", *about)
        raise
    ledger.write(run, "done", *about)


class Doomed(Exception):
    """What a task that fails for good fails with."""


@app.task(name="plain")
def plain(seconds: float) -> None:
    with _noted():
        time.sleep(seconds)


@app.task(name="coroutine")
async def coroutine(seconds: float) -> None:
    with _noted():
        await asyncio.sleep(seconds)


@app.task(name="slow")
def slow(seconds: float) -> None:
    with _noted():
        time.sleep(seconds)


@app.task(name="large")
def large(text: str, size: int) -> None:
    with _noted():
        assert len(text) == size


@app.task(name="delayed")
def delayed() -> None:
    with _noted():
        pass


@app.task(name="retrying", max_retries=5)
def retrying(failures: int, countdown: float) -> None:
    with _noted():
        if current_task.attempt <= failures:
            raise Retry("not yet", countdown=countdown)


@app.task(name="failing")
def failing() -> None:
    with _noted():
        raise Doomed("for good")


@app.task(name="expendable", queue=os.environ.get(EXPENDABLE, "chaos-expendable"))
def expendable() -> None:
    with _noted():
        pass


@app.task(name="computing", pool="process")
def computing(seconds: float) -> None:
    with _noted():
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
