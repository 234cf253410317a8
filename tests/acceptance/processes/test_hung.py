"""Processes that hang: a task beyond its hard limit costs its process, and is not run again."""

from __future__ import annotations

import os
import signal

import psutil

from tests.acceptance.program import WRITING, Workshop
from tests.helpers import eventually

TASKS = (
    WRITING
    + """
@app.task(name="note")
def note(word):
    write(word)

@app.task(name="beside")
def beside():
    write("beside")
    time.sleep(1)
    write("beside ended")

@app.task(name="holder", time_limit=2)
def holds_the_interpreter():
    write("held")
    re.match("(a+)+$", "a" * 64 + "b")  # a C function that comes back after ages

@app.task(name="blocker", time_limit=1)
async def blocks_the_loop():
    write("blocked")
    time.sleep(120)

@app.task(name="endless")
def endless():
    write("begun")
    while True:
        time.sleep(1)

@app.task(name="leaver")
def leaves_somebody_behind():
    if os.fork() == 0:
        write(os.getpid())
        time.sleep(120)
        os._exit(0)
    time.sleep(0.2)
    os._exit(3)

@app.task(name="closer")
def closes_everything():
    write("closed")
    os.closerange(3, 4096)
    time.sleep(120)
"""
)


def _send(workshop: Workshop, code: str) -> None:
    sent = workshop.python("-c", f"from tasks import *\n{code}")
    assert sent.returncode == 0, sent.stderr


def test_a_task_that_holds_the_interpreter(workshop: Workshop) -> None:
    """Its process is killed for it; it is settled without running again, its neighbour runs."""
    workshop.write(TASKS)
    worker = workshop.worker("-c", "4")
    worker.wait_for("worker.ready")
    (before,) = worker.children()
    _send(workshop, "beside.delay()\nholds_the_interpreter.delay()")
    worker.wait_for("ran over its hard time limit, and nothing ended it")
    worker.wait_for("signal SIGKILL: another one starts in")
    assert "ran='" in worker.output
    assert "holder[" in worker.output
    worker.wait_for("reason=timeout")
    eventually(lambda: "beside ended" in workshop.ledger())
    _send(workshop, "note.delay('after')")
    eventually(lambda: "after" in workshop.ledger())
    assert workshop.ledger().count("held") == 1
    assert before not in worker.children()
    assert worker.stop() == 0


def test_a_coroutine_that_blocks_its_loop(workshop: Workshop) -> None:
    """Its process gives itself up, without a pause; the call does not run again."""
    workshop.write(TASKS)
    worker = workshop.worker("-c", "4")
    worker.wait_for("worker.ready")
    _send(workshop, "blocks_the_loop.delay()")
    worker.wait_for("task.hard_limit")
    worker.wait_for("child.gave_up")
    worker.wait_for("another one starts at once")
    assert "reason=timeout" in worker.output
    _send(workshop, "note.delay('after')")
    eventually(lambda: "after" in workshop.ledger())
    assert workshop.ledger().count("blocked") == 1
    assert worker.stop() == 0


def test_an_orphan_ends_in_time(workshop: Workshop) -> None:
    """kill -9 of the supervisor: a task without end keeps its process for --shutdown-timeout."""
    workshop.write(TASKS)
    worker = workshop.worker("--shutdown-timeout", "1", AMQTASK_CLEANUP_TIMEOUT="1")
    worker.wait_for("worker.ready")
    _send(workshop, "endless.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    children = worker.children()
    worker.process.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    worker.wait()
    assert "child.orphaned: the supervisor is gone, what runs has 1 s to finish" in worker.output


def test_a_process_whose_line_is_held_open(workshop: Workshop) -> None:
    """What a task forked keeps the line to the supervisor open: the death is noticed all the same."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    (before,) = worker.children()
    _send(workshop, "leaves_somebody_behind.delay()")
    worker.wait_for("exit code 3: another one starts in")
    for left in map(int, workshop.ledger()):
        os.kill(left, signal.SIGKILL)
    eventually(lambda: worker.children() not in ([], [before]))
    worker.kill()


def test_a_task_that_closes_every_descriptor(workshop: Workshop) -> None:
    """Its process hears nothing any more: it is ended, and another one takes over."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(workshop, "closes_everything.delay()")
    worker.wait_for("another one starts in")
    _send(workshop, "note.delay('after')")
    eventually(lambda: "after" in workshop.ledger())
    worker.kill()
