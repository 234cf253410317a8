"""The app that is measured; where its broker and queue are stands in ``AMQTASK_*`` variables."""

from __future__ import annotations

from itertools import count

from amqtask import App
from tests.bench import work

app = App("bench")
_tallied = count(1)


@app.task(ignore_result=True)
def noop() -> None:
    """Do nothing: what is left is the library's own cost."""


@app.task(ignore_result=True)
async def anoop() -> None:
    """Do nothing, on the event loop."""


@app.task(ignore_result=True)
def take(text: str) -> None:
    """Do nothing with an argument that is as large as is asked for."""


@app.task(ignore_result=True)
def mix() -> None:
    """Wait and compute."""
    work.mix()


@app.task(ignore_result=True)
async def amix() -> None:
    """Wait and compute, on the event loop."""
    await work.amix()


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
    work.write_mark(path)


@app.task(ignore_result=True)
async def amark(path: str) -> None:
    """Write down when the stream of async tasks came to here."""
    work.write_mark(path)


@app.task(ignore_result=True)
def note(sent: float, path: str) -> None:
    """Note how long ago it was sent."""
    work.note_start(sent, path)


@app.task(ignore_result=True)
def tally(first: str, last: str, total: int) -> None:
    """Write a mark at the first and at the last of so many, in whatever order they come."""
    number = next(_tallied)
    if number in (1, total):
        work.write_mark(first if number == 1 else last)
