"""Autoscaling: more processes for a backlog, fewer when they idle, and nothing lost on the way."""

from __future__ import annotations

from collections import Counter

from tests.acceptance.program import Workshop
from tests.helpers import eventually

TASKS = """
import os, time
from amqtask import App

app = App("scale")
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.task(name="note")
def note(number):
    while not os.path.exists("go"):  # as slow as scaling up is
        time.sleep(0.01)
    os.write(ledger, f"{number}\\n".encode())
"""


def test_up_and_down(workshop: Workshop) -> None:
    """From one to three and back; each call runs once."""
    workshop.write(TASKS)
    worker = workshop.worker("--autoscale", "1,3", "-c", "2", AMQTASK_AUTOSCALE_IDLE="3")
    worker.wait_for("worker.ready name=")
    assert "1 to 3 processes x 2 tasks" in worker.output
    assert len(worker.children()) == 1
    sent = workshop.python("-c", "from tasks import *\nnote.delay_many([(n,) for n in range(500)])")
    assert sent.returncode == 0, sent.stderr
    eventually(lambda: len(worker.children()) == 3)
    (workshop.folder / "go").touch()
    eventually(lambda: len(workshop.ledger()) >= 500)
    eventually(lambda: len(worker.children()) == 1)
    assert worker.stop() == 0
    assert Counter(workshop.ledger()) == Counter(str(number) for number in range(500))
    assert "worker.scaled from=1 to=2" in worker.output
    assert "worker.scaled from=2 to=1" in worker.output
    assert "child.died" not in worker.output
