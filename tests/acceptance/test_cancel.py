"""`amqtask cancel`, as a user meets it: before a worker starts, while a task runs, and when it will not end."""

from __future__ import annotations

import re

import pytest

from tests.acceptance.program import Workshop
from tests.helpers import eventually

TASKS = """
import asyncio, os, sys, time
from amqtask import App

app = App("shop")

def note(text):
    with open("ledger", "a") as ledger:
        ledger.write(text + "\\n")

@app.task(name="quick")
def quick(name): note(name)

@app.task(name="patient")
async def patient(name):
    note(f"{name} begun")
    try:
        await asyncio.sleep(60)
    finally:
        note(f"{name} ended")

@app.task(name="stubborn")
async def stubborn(name):
    note(f"{name} begun {os.getpid()}")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note(f"{name} goes on")

if __name__ == "__main__":
    name, *args = sys.argv[1:]
    print(app.send_task(name, args).id)
"""


@pytest.fixture(autouse=True)
def _tasks(workshop: Workshop) -> None:
    workshop.write(TASKS)


def _send(workshop: Workshop, *words: str) -> str:
    ran = workshop.python("tasks.py", *words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def _cancel(workshop: Workshop, *words: str) -> str:
    ran = workshop.run("cancel", *words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_before_a_worker_starts(workshop: Workshop) -> None:
    """It says what is on record and for how long; the worker drops that and runs the rest."""
    one, two, three = (_send(workshop, "quick", name) for name in ("one", "two", "three"))
    assert _cancel(workshop, one, three) == (
        f"{one} is on record as cancelled for 86400 s\n"
        f"{three} is on record as cancelled for 86400 s\n"
    )
    assert "for 60 s" in _cancel(workshop, one, "--keep", "60")
    worker = workshop.worker()
    worker.wait_for(f"task.cancelled task=quick id={one}: it does not run")
    worker.wait_for(f"task.cancelled task=quick id={three}")
    worker.wait_for(f"task.succeeded task=quick id={two}")
    assert worker.stop() == 0
    assert workshop.ledger() == ["two"]


def test_while_it_runs(workshop: Workshop) -> None:
    """The task cleans up and is gone; the worker goes on with others."""
    worker = workshop.worker("--processes", "2")
    worker.wait_for("worker.ready")
    task = _send(workshop, "patient", "p")
    eventually(lambda: workshop.ledger() == ["p begun"])
    _cancel(workshop, task)
    worker.wait_for(f"task.cancelled task=patient id={task}: cancelled after")
    assert workshop.ledger() == ["p begun", "p ended"]
    after = _send(workshop, "quick", "after")
    worker.wait_for(f"task.succeeded task=quick id={after}")
    assert worker.stop() == 0


@pytest.mark.parametrize("broker", ["rabbitmq4"], indirect=True)
def test_what_will_not_end_is_ended(workshop: Workshop) -> None:
    """Asked in vain, then with --terminate: its process goes, and another one takes over."""
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    task = _send(workshop, "stubborn", "s")
    eventually(lambda: workshop.ledger())
    _cancel(workshop, task)
    eventually(lambda: "s goes on" in workshop.ledger())
    _cancel(workshop, task, "--terminate")
    worker.wait_for(f"task.cancelled task=stubborn id={task}")
    after = _send(workshop, "quick", "after")
    worker.wait_for(f"task.succeeded task=quick id={after}")
    worker.wait_for_count("consumer.ready", 2)  # the other one
    assert "after" in workshop.ledger()
    assert len([line for line in workshop.ledger() if line.startswith("s begun")]) == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("broker", ["rabbitmq4"], indirect=True)
def test_what_is_wrong_is_said(workshop: Workshop) -> None:
    """No id, no broker: exit codes and words of the other commands."""
    assert workshop.run("cancel").returncode == 2
    ran = workshop.run("cancel", "x" * 300)
    assert ran.returncode == 1
    assert "is no id of a call" in ran.stderr
    shown = workshop.run("cancel", "--help").stdout
    assert re.search(r"--terminate +End also", shown)
