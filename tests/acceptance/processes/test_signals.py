"""Signals that do not stop a worker: a rolling restart, and the stacks of what runs."""

from __future__ import annotations

import re
import signal
from collections import Counter
from functools import partial

import pytest

from tests.acceptance.program import WRITING, Program, Workshop
from tests.helpers import eventually

TASKS = (
    WRITING
    + """
VERSION = "one"

@app.task(name="note")
def note(number):
    write(number)
    time.sleep(0.002)

@app.task(name="version")
def version():
    write(VERSION)

@app.task(name="long")
def long_task():
    write("begun")
    time.sleep(3)
    write("ended")

@app.task(name="thread")
def in_a_thread():
    write("begun")
    time.sleep(60)

@app.task(name="coroutine")
async def on_the_loop():
    write("begun")
    await asyncio.sleep(60)

@app.task(name="holder")
def holds_the_interpreter():
    write("begun")
    re.match("(a+)+$", "a" * 64 + "b")  # a C function that comes back after ages
"""
)


def _send(workshop: Workshop, code: str) -> None:
    sent = workshop.python("-c", f"from tasks import *\n{code}")
    assert sent.returncode == 0, sent.stderr


def _counted(worker: Program, text: str, times: int) -> bool:
    return worker.output.count(text) == times


def test_a_rolling_restart_runs_the_new_code(workshop: Workshop) -> None:
    """SIGHUP replaces each process; the supervisor stays, and what ran is finished."""
    workshop.write(TASKS)
    worker = workshop.worker("--processes", "2")
    worker.wait_for("worker.ready")
    before = {child.pid for child in worker.children()}
    _send(workshop, "long_task.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    workshop.write(TASKS.replace('VERSION = "one"', 'VERSION = "second"'))
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for("worker.restarted processes=2")
    eventually(lambda: not before & {child.pid for child in worker.children()})
    assert workshop.ledger() == ["begun", "ended"]
    _send(workshop, "version.delay()")
    eventually(lambda: workshop.ledger()[2:] == ["second"])
    assert worker.stop() == 0


def test_a_rolling_restart_under_load_loses_and_repeats_nothing(workshop: Workshop) -> None:
    """2,000 calls and two restarts amid them."""
    workshop.write(TASKS)
    worker = workshop.worker("--processes", "2")
    worker.wait_for("worker.ready")
    _send(workshop, "note.delay_many([(number,) for number in range(2000)])")
    for times in (1, 2):
        worker.process.send_signal(signal.SIGHUP)
        restarted = partial(_counted, worker, "worker.restarted processes=2", times)
        eventually(restarted)
    eventually(lambda: len(set(workshop.ledger())) == 2000)
    assert worker.stop() == 0
    assert Counter(workshop.ledger()) == Counter(str(number) for number in range(2000))


def test_a_restart_with_broken_code_leaves_the_old_one_at_work(workshop: Workshop) -> None:
    """A process that does not get ready replaces nobody; the log says so."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    before = [child.pid for child in worker.children()]
    workshop.write("import no_such_package\n" + TASKS)
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for("worker.restart_failed")
    assert "No module named 'no_such_package'" in worker.output
    assert [child.pid for child in worker.children()] == before
    workshop.write(TASKS)
    _send(workshop, "version.delay()")
    eventually(lambda: workshop.ledger() == ["one"])
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("task", "function"), [("thread", "in_a_thread"), ("coroutine", "on_the_loop")]
)
def test_stacks_of_what_runs(workshop: Workshop, task: str, function: str) -> None:
    """SIGUSR1 writes where each running task is, with its line."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(workshop, f"{function}.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    worker.process.send_signal(signal.SIGUSR1)
    worker.wait_for("child.stacks")
    worker.wait_for(function)
    assert re.search(rf"tasks\.py.*line \d+.* in {function}", worker.output)
    assert worker.stop(signal.SIGQUIT) == 0


def test_stacks_of_a_process_that_answers_nothing(workshop: Workshop) -> None:
    """A task that holds the interpreter is shown too: by the process's signal handler in C."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(workshop, "holds_the_interpreter.delay()")
    worker.wait_for("child.silent")
    assert "holder[" in worker.output
    worker.process.send_signal(signal.SIGUSR1)
    worker.wait_for("in holds_the_interpreter")
    worker.kill()
