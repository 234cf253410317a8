"""``amqtask beat``, ``amqtask worker --beat`` and ``amqtask schedule``, as a user runs them."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing
from typing import Any

from tests.acceptance.program import Program, Workshop
from tests.helpers import eventually

TASKS = """
from amqtask import App, cron, every

app = App("clockwork")

@app.task(name="note")
def note(word):
    with open("ledger", "a") as ledger:
        print(word, file=ledger)

app.schedule("tick", note, every(seconds=1), args=["tick"])
app.schedule("new year", note, cron("0 0 1 1 *", tz="Asia/Tokyo"), args=["new year"])
"""


def ready(program: Program) -> dict[str, Any]:
    """Ask a program that it started for ``/ready``; returns the body, and whether it is."""
    program.wait_for("health.listening")
    found = re.search(r"health\.listening host=\S+ port=(\d+)", program.output)
    assert found is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    with closing(connection):
        connection.request("GET", "/ready")
        response = connection.getresponse()
        said: dict[str, Any] = json.loads(response.read())
        assert said["ready"] is (response.status == 200)
        return said


def schedule(workshop: Workshop, *words: str) -> str:
    """Run ``amqtask schedule`` and return what it prints."""
    done = workshop.run("schedule", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_beat_and_its_desk(workshop: Workshop) -> None:
    """It says what it is, is asked and changed by commands, and hands over at SIGTERM."""
    workshop.write(TASKS)
    beat = workshop.program("beat", "--name", "b-1", "--health-port", "0")
    beat.wait_for("beat.leading")
    assert "amqtask beat clockwork" in beat.output
    assert "new year  CRON_TZ=Asia/Tokyo 0 0 1 1 *  note" in beat.output
    shown = ready(beat)
    assert (shown["worker"], shown["processes"][0]["role"]) == ("b-1", "leading")

    said = schedule(workshop, "add", "extra", "note", "every 1h", "--args", '["extra"]', "-h")
    assert "Usage" in said
    assert "extra is added: every 1h, next in" in schedule(
        workshop, "add", "extra", "note", "every 1h", "--args", '["extra"]', "--jitter", "5"
    )
    assert "extra is changed: every 2h" in schedule(
        workshop, "edit", "extra", "--when", "every 2h", "--unset", "jitter"
    )
    assert "tick is paused" in schedule(workshop, "pause", "tick")
    assert "extra is sent: " in schedule(workshop, "run-now", "extra")
    rows = {row["name"]: row for row in json.loads(schedule(workshop, "list", "--json"))}
    assert {name: row["origin"] for name, row in rows.items()} == {
        "tick": "code",
        "new year": "code",
        "extra": "dynamic",
    }
    assert rows["tick"]["paused"]
    assert rows["extra"]["fires"] == 1
    assert rows["extra"]["entry"] == {
        "schedule": {"every": 7200},
        "task": "note",
        "args": ["extra"],
    }
    assert "paused" in schedule(workshop, "list")
    assert "added at run time" in schedule(workshop, "show", "extra")
    assert "tick goes on, next in" in schedule(workshop, "resume", "tick")
    assert "extra is removed" in schedule(workshop, "remove", "extra")
    assert "no entry is ahead" in schedule(workshop, "rewind")
    assert "leader   b-1" in schedule(workshop, "status")

    refused = workshop.run("schedule", "remove", "tick")
    assert refused.returncode == 1
    assert refused.stderr == (
        "amqtask: entry 'tick' is declared in code\n"
        "  change it there; at run time it can be paused, resumed and run\n"
    )
    wrong = workshop.run("schedule", "add", "bad", "note", "every 1h", "--args", "{")
    assert wrong.returncode == 1
    assert "--args is '{'" in wrong.stderr
    assert beat.stop() == 0
    assert "beat.stopped counts=" in beat.output


def test_a_worker_that_is_a_beat_besides(workshop: Workshop) -> None:
    """What it fires is run, by itself among others; it is ready when both are."""
    workshop.write(TASKS)
    worker = workshop.worker("--beat", "--health-port", "0")
    worker.wait_for("beat.leading")
    eventually(lambda: workshop.ledger().count("tick") >= 2)
    eventually(lambda: ready(worker)["ready"])
    assert [each.get("role") for each in ready(worker)["processes"]] == [None, "leading"]
    assert worker.stop() == 0


def test_a_beat_needs_a_broker_that_others_reach(workshop: Workshop) -> None:
    """The one inside a process is refused, with what to do."""
    workshop.write(TASKS)
    done = workshop.run("beat", AMQTASK_BROKER="memory://")
    assert done.returncode == 1
    assert "a beat cannot use the broker memory://" in done.stderr
