"""``amqtask joins``, and chords that outlive whoever was to give them up."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest

from tests.acceptance.program import Workshop
from tests.helpers import TIMEOUT, eventually
from tests.servers import Names

TASKS = """
import os
from amqtask import App, chord

app = App("shop", backend=os.environ["STORE"] or None, queues=["IDLE"])
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.task(name="same")
def same(value): return value

@app.task(name="blame")
def blame(id, error, traceback): os.write(ledger, f"{id} {error}\\n".encode())
"""
SEND = """
from tasks import app, blame, chord, same
members = [same.s(1).set(queue="IDLE"), same.s(2).set(queue="IDLE")]
handle = chord(members, same.s().on_error(blame.s())).delay()
print(handle.parent.id, handle.id)
app.close()
"""
#: A worker that is killed the first time that it comes to a place, wherever that is.
DEADLY = """
import signal
from amqtask.worker import overdue
from amqtask.workflow import join_store

overdue.CLAIM = 3.0

def once(name, real):
    async def deadly(*args, **kwargs):
        try:
            os.close(os.open(f"{name}.died", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return await real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    return deadly

overdue.Overdue._ring = once("ring", overdue.Overdue._ring)
join_store.give_up = once("give_up", join_store.give_up)
"""


def _send(workshop: Workshop, names: Names, tasks: str, store: str) -> tuple[str, str]:
    """Write the program and send a chord whose members never run; returns its ids."""
    idle = names.queue("idle")
    workshop.environ["STORE"] = store
    workshop.environ["AMQTASK_JOIN_EXPIRES"] = workshop.environ.get("AMQTASK_JOIN_EXPIRES", "600")
    workshop.write(tasks.replace("IDLE", idle))
    workshop.write(SEND.replace("IDLE", idle), "send.py")
    sent = workshop.python("send.py")
    assert sent.returncode == 0, sent.stderr
    group, body = sent.stdout.split()
    return group, body


@pytest.mark.parametrize("store", ["", "db+sqlite:///results.db"], ids=["broker", "store"])
def test_a_chord_is_shown_and_given_up(workshop: Workshop, names: Names, store: str) -> None:
    """Its id leads to what it waits for; a worker gives it up, and then it is not open any more."""
    group, body = _send(workshop, names, TASKS, store)
    shown = workshop.run("joins", "show", group)
    assert shown.returncode == 0, shown.stderr
    assert f"{group}\n  kept by   {'store' if store else 'broker'}\n" in shown.stdout
    assert "parts     0 of 2" in shown.stdout
    assert f"body      same (id {body})" in shown.stdout

    said = json.loads(workshop.run("joins", "show", "--json", group).stdout)
    assert (said["members"], said["came"]) == (2, 0)
    assert said["body"] == {"task": "same", "id": body}

    given_up = workshop.run("joins", "give-up", group, "unknown")
    assert given_up.returncode == 3
    assert given_up.stdout == f"{group} will be given up: 0 of 2 parts came\n"
    assert "no chord unknown is open" in given_up.stderr

    worker = workshop.worker("-Q", workshop.queue)
    worker.wait_for("chord.given_up")
    eventually(workshop.ledger, timeout=TIMEOUT)
    (line,) = workshop.ledger()
    assert line.startswith(body)
    assert "was given up by hand: 0 of 2 parts came, none yet of members 0, 1" in line
    assert worker.stop() == 0
    gone = workshop.run("joins", "show", group)
    assert (gone.returncode, gone.stdout) == (3, "")


def test_the_list_of_a_store(workshop: Workshop, names: Names) -> None:
    """As a table and as JSON; nothing is said of what has ended."""
    store = "db+sqlite:///results.db"
    group, body = _send(workshop, names, TASKS, store)
    listed = workshop.run("joins", "list")
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if group in line]
    assert "0 of 2" in line
    assert re.search(r" in \d+ min ", line)
    (row,) = json.loads(workshop.run("joins", "list", "--json").stdout)
    opened, given_up = (datetime.fromisoformat(row[key]) for key in ("opened", "given_up"))
    assert 600 <= (given_up - opened).total_seconds() < 600 + TIMEOUT
    assert (row["id"], row["kept"], row["body"]["id"]) == (group, "store", body)
    workshop.run("joins", "give-up", group)
    worker = workshop.worker("-Q", workshop.queue)
    worker.wait_for("chord.given_up")
    eventually(lambda: workshop.run("joins", "list").stdout == "no chord waits\n", timeout=TIMEOUT)
    assert json.loads(workshop.run("joins", "list", "--json").stdout) == []


def test_kill_9_of_whoever_gives_a_chord_up(workshop: Workshop, names: Names) -> None:
    """Once with the chord in his hands, and once with its alarm: the next one ends the body."""
    workshop.environ["AMQTASK_JOIN_EXPIRES"] = "2"
    group, body = _send(workshop, names, TASKS + DEADLY, "db+sqlite:///results.db")
    worker = workshop.worker("-Q", workshop.queue)
    worker.wait_for_count("signal SIGKILL: another one starts in", 2)
    worker.wait_for(f"chord.given_up group={group}")
    eventually(workshop.ledger, timeout=TIMEOUT)
    (line,) = workshop.ledger()
    assert line.startswith(body)
    result = workshop.run("result", body)
    assert "was given up after 2 s: 0 of 2 parts came" in result.stdout
    assert worker.stop() == 0
