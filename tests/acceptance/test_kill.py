"""Killed in the middle: every task runs at least once, and little runs twice."""

from __future__ import annotations

import signal
from collections import Counter

import psutil

from tests.acceptance.program import Workshop
from tests.helpers import eventually

#: Its last third waits until there is a file ``go``: however fast a worker is, it is killed with work
#: left and deliveries in its hands.
TASKS = """
import os, time
from amqtask import App

app = App("kill")
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.task(name="note")
def note(number):
    while number > HELD and not os.path.exists("go"):
        time.sleep(0.01)
    os.write(ledger, f"{number}\\n".encode())
    time.sleep(0.001)
"""
SEND = """
import sys
from tasks import note
note.delay_many([(number,) for number in range(int(sys.argv[1]))])
"""
#: Deliveries that each child may hold when it dies.
PREFETCH = 50
CALLS = 10_000
#: The last call that runs before the worker is killed.
HELD = 6_000


def test_kill_9_of_a_child_and_of_the_whole_worker(workshop: Workshop) -> None:
    """10,000 calls, a child killed, then all of it: none lost, repeats within what was held."""
    workshop.write(f"HELD = {HELD}\n{TASKS}")
    workshop.write(SEND, "send.py")
    options = ("--processes", "2", "--prefetch", str(PREFETCH), "--loglevel", "warning")
    worker = workshop.worker(*options)
    sent = workshop.python("send.py", str(CALLS))
    assert sent.returncode == 0, sent.stderr

    eventually(lambda: len(workshop.ledger()) > CALLS // 5)
    worker.children()[0].send_signal(signal.SIGKILL)
    worker.wait_for("signal SIGKILL: another one starts in")

    eventually(lambda: len(workshop.ledger()) > CALLS // 2)
    worker.kill()
    assert len(workshop.ledger()) < CALLS

    (workshop.folder / "go").touch()
    second = workshop.worker(*options)
    eventually(lambda: len(set(workshop.ledger())) == CALLS)
    assert second.stop() == 0
    runs = Counter(workshop.ledger())
    assert set(runs) == {str(number) for number in range(CALLS)}
    assert runs.total() - CALLS <= 3 * PREFETCH


def test_children_end_when_their_supervisor_is_killed(workshop: Workshop) -> None:
    """No child goes on by itself: it sees that the supervisor is gone, and stops."""
    workshop.write(f"HELD = {HELD}\n{TASKS}")
    worker = workshop.worker("--processes", "2")
    worker.wait_for("worker.ready")
    children = worker.children()
    assert len(children) == 2
    worker.process.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


DEADLY = """
import os
from amqtask import App

app = App("deadly")

@app.task(name="kill")
def kill():
    os.kill(os.getpid(), 9)

@app.task(name="note")
def note(word):
    with open("ledger", "a") as ledger:
        print(word, file=ledger)
"""


def test_a_message_that_kills_its_worker_is_parked(workshop: Workshop) -> None:
    """Once it is suspect it runs isolated, and is parked with what is known of its deaths."""
    workshop.write(DEADLY)
    workshop.write(
        "import os, pika\n"
        "connection = pika.BlockingConnection(pika.URLParameters(os.environ['AMQTASK_BROKER']))\n"
        "queue = os.environ['AMQTASK_DEFAULT_QUEUE'] + '.dead'\n"
        "_, props, _ = connection.channel().basic_get(queue, auto_ack=True)\n"
        "print(props and [props.headers['amqtask-' + h] for h in ('reason', 'signal', 'crashes')])\n",
        "look.py",
    )
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    sent = workshop.python("-c", "from tasks import *; kill.delay()")
    assert sent.returncode == 0, sent.stderr
    looked = eventually(
        lambda: (said := workshop.python("look.py").stdout.strip()) != "None" and said, timeout=60
    )
    assert looked == "['worker_lost', 'SIGKILL', 3]"
    sent = workshop.python("-c", "from tasks import *; note.delay('after')")
    assert sent.returncode == 0, sent.stderr
    eventually(lambda: workshop.ledger() == ["after"])
    assert worker.stop() == 0
