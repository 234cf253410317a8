"""``amqtask beat``, ``amqtask worker --beat`` and ``amqtask schedule``, as a user runs them."""

from __future__ import annotations

import http.client
import json
import re
import signal
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import psutil

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
    shown = ready(worker)["processes"]
    assert [each.get("role") for each in shown] == [None, "leading"]
    assert {each["pid"] for each in shown} == {child.pid for child in worker.children()}
    assert f":{shown[1]['pid']}\n" in schedule(workshop, "status")
    assert worker.stop() == 0
    assert "beat.ended" in worker.output


#: What the first version of the code has; the second one ticks under another word, and has more.
RESTARTED = """
from amqtask import App, every

app = App("clockwork")

@app.task(name="note", bind=True)
def note(context, word):
    with open("ledger", "a") as ledger:
        print(word, context.headers["x-amqtask-instant"], file=ledger)

app.schedule("tick", note, every(seconds=1), args=["old"])
"""


def test_a_rolling_restart_gives_the_beat_its_new_code(workshop: Workshop) -> None:
    """SIGHUP: new entries are fired, by a new process, and no instant is lost or comes twice."""
    workshop.write(RESTARTED)
    worker = workshop.worker("--beat", "--name", "bee")
    eventually(lambda: len(workshop.ledger()) >= 2)
    leader = schedule(workshop, "status")
    more = '\napp.schedule("more", note, every(seconds=1), args=["more"])\n'
    workshop.write(RESTARTED.replace('"old"', '"new"') + more)
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for("worker.restarted")
    for word in ("new", "more"):
        eventually(lambda: len(_noted(workshop, word)) >= 2)  # noqa: B023 - it is called here
    assert schedule(workshop, "status") != leader
    assert worker.stop() == 0
    ticks = _noted(workshop, "old") + _noted(workshop, "new")
    assert set(Counter(ticks).values()) == {1}
    assert {late - early for early, late in pairwise(sorted(ticks))} == {timedelta(seconds=1)}
    assert "beat.left_behind" not in worker.output
    assert "beat.died" not in worker.output


def _noted(workshop: Workshop, word: str) -> list[datetime]:
    lines = [line.split() for line in workshop.ledger()]
    return [datetime.fromisoformat(instant) for said, instant in lines if said == word]


def test_broken_code_leaves_the_old_beat_in_the_lead(workshop: Workshop) -> None:
    """What only beats trip over: the new processes run tasks, and the old beat goes on."""
    workshop.write(TASKS)
    worker = workshop.worker("--beat")
    worker.wait_for("beat.leading")
    trip = (
        '\nimport sys\nif "amqtask.beat.child" in sys.modules:\n    raise RuntimeError("a trap")\n'
    )
    workshop.write(TASKS + trip)
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for("worker.restart_failed")
    assert "RuntimeError: a trap" in worker.output
    before = len(workshop.ledger())
    eventually(lambda: len(workshop.ledger()) > before + 1)
    assert worker.output.count("beat.leading") == 1
    assert worker.stop() == 0


def test_a_beat_that_dies_is_started_again(workshop: Workshop) -> None:
    """Its death is no fault of the worker's; when the supervisor is gone it ends with it."""
    workshop.write(TASKS)
    worker = workshop.worker("--beat", "--health-port", "0")
    worker.wait_for("beat.leading")
    for times in (1, 2):
        beat = _beat(worker)
        beat.kill()
        worker.wait_for(f"beat.died pid={beat.pid} signal SIGKILL: another one starts in")
        worker.wait_for_count("beat.leading", times + 1)
    before = len(workshop.ledger())
    eventually(lambda: len(workshop.ledger()) > before + 1)
    eventually(lambda: ready(worker)["ready"])
    assert worker.stop() == 0

    worker = workshop.worker("--beat")
    worker.wait_for("beat.leading")
    left = worker.children()
    worker.process.kill()
    assert psutil.wait_procs(left, timeout=60)[1] == []
    worker.wait()
    assert "beat.orphaned" in worker.output


def test_a_beat_that_hangs_is_replaced(workshop: Workshop) -> None:
    """A process that is stopped in its tracks holds up neither schedules nor the end of the worker."""
    workshop.write(TASKS)
    worker = workshop.worker("--beat")
    worker.wait_for("beat.leading")
    _beat(worker).suspend()
    assert worker.stop(signal.SIGQUIT) == 0
    assert "beat.killed" in worker.output


def _beat(worker: Program) -> psutil.Process:
    (found,) = (child for child in worker.children() if child.name() == "amqtask-beat")
    return found


def test_a_bad_schedule_stops_the_start(workshop: Workshop) -> None:
    """It is said at once, by a worker that does not start."""
    workshop.write(TASKS.replace('cron("0 0 1 1 *", tz="Asia/Tokyo")', '"0 0 1 13 *"'))
    done = workshop.run("worker", "--beat")
    assert done.returncode == 1
    assert "entry 'new year': cron expression '0 0 1 13 *'" in done.stderr


def test_a_beat_needs_a_broker_that_others_reach(workshop: Workshop) -> None:
    """The one inside a process is refused, with what to do."""
    workshop.write(TASKS)
    done = workshop.run("beat", AMQTASK_BROKER="memory://")
    assert done.returncode == 1
    assert "a beat cannot use the broker memory://" in done.stderr
