"""The app that is measured; where its broker and queue are stands in ``AMQTASK_*`` variables."""

from __future__ import annotations

import json
import time
from pathlib import Path

from amqtask import App

app = App("bench")


@app.task(ignore_result=True)
def noop() -> None:
    """Do nothing: what is left is the library's own cost."""


@app.task(ignore_result=True)
async def anoop() -> None:
    """Do nothing, on the event loop."""


@app.task
def echo(value: int) -> int:
    """Answer."""
    return value


@app.task
def total(values: list[int]) -> int:
    """Add up."""
    return sum(values)


@app.task(ignore_result=True)
def mark(path: str) -> None:
    """Write down when the stream of tasks came to here."""
    write_mark(path)


@app.task(ignore_result=True)
async def amark(path: str) -> None:
    """Write down when the stream of async tasks came to here."""
    write_mark(path)


def write_mark(path: str) -> None:
    """Write the time, and the processor time this process has used, to a file."""
    unfinished = Path(f"{path}.part")
    unfinished.write_text(json.dumps([time.monotonic(), time.process_time()]))
    unfinished.rename(path)
