"""The demo's app and tasks, as a small shop would have them.

Each task returns when it started and which attempt it was: the demo's table is made of that.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TypedDict

from amqtask import App, Queue, RetryPolicy, current_task

#: Starts every name on the broker, so that two runs, or a run and a real installation, never meet.
RUN = os.environ.get("DEMO_RUN", "amqtask-demo")
EMAIL = f"{RUN}.email"
REPORTS = f"{RUN}.reports"

app = App(
    "demo",
    backend="rpc://",
    queues=[Queue(EMAIL, bindings=("email.*",)), Queue(REPORTS, bindings=("reports.*",))],
    default_queue=EMAIL,
    exchange=RUN,
    dead_letter_exchange=f"{RUN}.dead",
    delay_prefix=f"{RUN}.delay",
    cancel_exchange=f"{RUN}.cancel",
    # variables that set up another app must not lead this one to that app's queues
    environ={name: os.environ[name] for name in ("AMQTASK_BROKER",) if name in os.environ},
)


class Mark(TypedDict):
    """When a task started (Unix seconds), and in which attempt."""

    started: float
    attempt: int


def mark() -> Mark:
    return {"started": time.time(), "attempt": current_task.attempt}


@app.task
def welcome(user: str) -> Mark:
    return mark()


@app.task(retry=RetryPolicy(max_retries=3, on=(ConnectionError,), backoff=0.5))
def receipt(order: int) -> Mark:
    if order % 4 == 0 and current_task.attempt == 1:
        raise ConnectionError("the mail server is busy")
    return mark()


@app.task
def reminder(user: str) -> Mark:
    return mark()


@app.task
async def daily(day: int) -> Mark:
    at = mark()
    await asyncio.sleep(0.1)
    return at


@app.task
def yearly(year: int) -> Mark:
    raise ValueError(f"no figures for the year {year}")
