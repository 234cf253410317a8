"""Recycling: a process that ran enough, or grew too large, is replaced, and nothing is lost."""

from __future__ import annotations

from collections import Counter

from tests.acceptance.program import Workshop
from tests.helpers import eventually

TASKS = """
import os, time
from amqtask import App

app = App("recycle")
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
kept = []

@app.task(name="note")
def note(number):
    os.write(ledger, f"{number} {os.getpid()}\\n".encode())
    time.sleep(0.02)

@app.task(name="grow")
def grow(number):
    kept.append(b"x" * 200_000_000)
    os.write(ledger, f"{number} {os.getpid()}\\n".encode())
"""


def _send(workshop: Workshop, code: str) -> None:
    sent = workshop.python("-c", f"from tasks import *\n{code}")
    assert sent.returncode == 0, sent.stderr


def _column(workshop: Workshop, number: int) -> list[str]:
    return [line.split()[number] for line in workshop.ledger()]


def test_after_so_many_tasks(workshop: Workshop) -> None:
    """Processes follow each other; each call runs once, and the worker never stops consuming."""
    workshop.write(TASKS)
    worker = workshop.worker("--max-tasks-per-child", "50", "-c", "4")
    worker.wait_for("worker.ready")
    _send(workshop, "note.delay_many([(number,) for number in range(600)])")
    eventually(lambda: len(workshop.ledger()) >= 600)
    # the first one is gone, however long its successor took to get ready
    eventually(lambda: "child.ended" in worker.output)
    _send(workshop, "note.delay_many([(number,) for number in range(600, 610)])")
    eventually(lambda: len(workshop.ledger()) >= 610)
    assert worker.stop() == 0
    assert Counter(_column(workshop, 0)) == Counter(str(number) for number in range(610))
    assert len(set(_column(workshop, 1))) >= 2
    assert "child.recycled" in worker.output
    assert "child.died" not in worker.output


def test_beyond_so_much_memory(workshop: Workshop) -> None:
    """The next calls run in a process that is small again."""
    workshop.write(TASKS)
    worker = workshop.worker("--max-memory-per-child", "180MB", "-c", "1")
    worker.wait_for("worker.ready")
    (large,) = worker.children()
    _send(workshop, "grow.delay(0)")
    worker.wait_for(f"child.recycled pid={large.pid}: it holds")
    eventually(lambda: large not in worker.children())
    _send(workshop, "note.delay(1)")
    eventually(lambda: len(workshop.ledger()) == 2)
    first, second = _column(workshop, 1)
    assert first == str(large.pid) != second
    assert worker.stop() == 0
