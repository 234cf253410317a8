"""``amqtask result``, as a stranger uses it, and a worker whose results anybody reads."""

from __future__ import annotations

import json
import re
import uuid

from tests.acceptance.program import Workshop

TASKS = """
from datetime import date
from amqtask import App

app = App("shop", backend="db+sqlite:///results.db", result_extended=True)

@app.task(name="day")
def day(password: str) -> dict: return {"on": date(2026, 11, 23)}

@app.task(name="fail")
def fail() -> None: raise ValueError("no such user", 7)
"""

SEND = """
from tasks import app, day, fail
results = [day.delay("s3cret"), fail.delay()]
for result in results:
    result.get(60, propagate=False)
    print(result.id)
app.close()
"""


def test_results_of_a_worker(workshop: Workshop) -> None:
    """What another process sent and a worker ran is printed, as text and as JSON."""
    workshop.write(TASKS)
    workshop.write(SEND, "send.py")
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    sent = workshop.python("send.py")
    assert sent.returncode == 0, sent.stderr
    good, bad = sent.stdout.split()
    shown = workshop.run("result", good)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"{good}  SUCCESS\n  name      day\n  args      ['***']\n")
    assert "  result    {'on': datetime.date(2026, 11, 23)}" in shown.stdout
    shown = workshop.run("result", bad, "--wait", "--timeout", "20", "--json")
    assert shown.returncode == 1, shown.stderr
    document = json.loads(shown.stdout)
    assert (document["status"], document["name"]) == ("FAILURE", "fail")
    assert document["result"]["exc_message"] == ["no such user", 7]
    shown = workshop.run("result", bad)
    assert "  result    ValueError: no such user, 7\nTraceback" in shown.stdout
    assert worker.stop() == 0


def test_a_call_that_has_not_ended(workshop: Workshop) -> None:
    """Its exit code is 3, and a wait for it ends with an error."""
    workshop.write(TASKS)
    unknown = str(uuid.uuid4())
    shown = workshop.run("result", unknown)
    assert shown.returncode == 3
    assert shown.stdout == (
        f"{unknown}  PENDING: nothing is known of it; it waits, runs, or never was\n"
    )
    shown = workshop.run("result", unknown, "--wait", "--timeout", "0.2")
    assert shown.returncode == 1
    assert shown.stderr == f"amqtask: call {unknown} did not end within 0.2 s\n"


def test_an_app_whose_results_nobody_else_reads(workshop: Workshop) -> None:
    """The error says why, and what to set."""
    for backend, kind in (("", "no result backend"), ('backend="rpc://"', "the backend rpc://")):
        workshop.write(f'from amqtask import App\napp = App("shop", {backend})\n')
        shown = workshop.run("result", "some-id")
        assert shown.returncode == 1
        assert re.match(f"amqtask: app 'shop' has {kind}, so only the process", shown.stderr)


def test_help(workshop: Workshop) -> None:
    """It tells what the exit codes mean."""
    shown = workshop.run("result", "--help")
    assert "--wait" in shown.stdout
    assert "Exit code 0: it ended well" in shown.stdout
