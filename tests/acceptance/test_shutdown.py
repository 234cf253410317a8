"""Stopping: what runs is finished, what waits is given back, and the exit code says how it went."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.acceptance.program import WRITING, Workshop
from tests.helpers import eventually
from tests.integration.worker.inprocess import line_to

TASKS = (
    WRITING
    + """
@app.task(name="note")
def note(number):
    while number > 1000 and not os.path.exists("go"):
        time.sleep(0.01)
    write(number)
    time.sleep(0.002)

@app.task(name="slow")
def slow():
    write("begun")
    time.sleep(1.5)
    write("ended")

@app.task(name="aslow")
async def aslow():
    write("begun")
    await asyncio.sleep(1.5)
    write("ended")

@app.task(name="stubborn")
def stubborn():
    write("begun")
    time.sleep(120)

@app.task(name="blocking")
async def blocking():
    write("begun")
    time.sleep(120)

@app.task(name="patient")
async def patient():
    write("begun")
    try:
        await asyncio.sleep(120)
    finally:
        write("cleaned up")
"""
)


def _send(workshop: Workshop, code: str) -> None:
    sent = workshop.python("-c", f"from tasks import *\n{code}")
    assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("task", ["slow", "aslow"])
def test_one_signal_finishes_what_runs(
    workshop: Workshop, number: signal.Signals, task: str
) -> None:
    """The running task ends as if nothing had happened; exit code 0."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(workshop, f"{task}.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    assert worker.stop(number) == 0
    assert workshop.ledger() == ["begun", "ended"]
    assert f"worker.stopping signal={number.name}: finishing what runs" in worker.output
    assert "worker.stopped counts={'done': 1}" in worker.output


@pytest.mark.parametrize(
    ("task", "left", "cleanup"),
    [("stubborn", ["begun"], "1"), ("patient", ["begun", "cleaned up"], "60")],
)
def test_a_second_signal_cancels_what_runs(
    workshop: Workshop, task: str, left: list[str], cleanup: str
) -> None:
    """It ends soon; a coroutine may clean up; the next worker gets the task again."""
    workshop.write(TASKS)
    worker = workshop.worker(AMQTASK_CLEANUP_TIMEOUT=cleanup)
    worker.wait_for("worker.ready")
    _send(workshop, f"{task}.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("worker.stopping signal=SIGTERM")
    assert worker.stop() == 0
    assert workshop.ledger() == left
    assert "worker.cancelling signal=SIGTERM" in worker.output
    assert "child.killed" not in worker.output
    workshop.worker()
    eventually(lambda: workshop.ledger() == [*left, "begun"])


@pytest.mark.parametrize(
    ("task", "left", "cleanup"),
    [("stubborn", ["begun"], "1"), ("patient", ["begun", "cleaned up"], "60")],
)
def test_a_deadline_goes_down_the_ladder(
    workshop: Workshop, task: str, left: list[str], cleanup: str
) -> None:
    """One signal, and after --shutdown-timeout what runs is cancelled, then given back."""
    workshop.write(TASKS)
    worker = workshop.worker("--shutdown-timeout", "0.5", AMQTASK_CLEANUP_TIMEOUT=cleanup)
    worker.wait_for("worker.ready")
    _send(workshop, f"{task}.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    assert worker.stop() == 0
    assert workshop.ledger() == left
    assert "worker.cancelling reason=timeout" in worker.output
    assert "child.killed" not in worker.output
    workshop.worker()
    eventually(lambda: workshop.ledger() == [*left, "begun"])


def test_quit_gives_back_at_once(workshop: Workshop) -> None:
    """SIGQUIT waits for nothing; the next worker gets the task again."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(workshop, "stubborn.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    assert worker.stop(signal.SIGQUIT) == 0
    assert "worker.stopping_now signal=SIGQUIT" in worker.output
    assert "worker.cancelling" not in worker.output
    workshop.worker()
    eventually(lambda: workshop.ledger() == ["begun", "begun"])


def test_a_blocked_event_loop_does_not_keep_a_worker(workshop: Workshop) -> None:
    """A coroutine that blocks its loop hears nothing: its process ends all the same, in time."""
    workshop.write(TASKS)
    worker = workshop.worker("--shutdown-timeout", "0.5", AMQTASK_CLEANUP_TIMEOUT="0.5")
    worker.wait_for("worker.ready")
    _send(workshop, "blocking.delay()")
    eventually(lambda: workshop.ledger() == ["begun"])
    worker.stop()
    assert worker.children() == []
    workshop.worker()
    eventually(lambda: workshop.ledger() == ["begun", "begun"])


def test_a_signal_under_load_loses_and_repeats_nothing(workshop: Workshop, broker: str) -> None:
    """2,000 calls and a worker that is stopped amid them: the next one runs exactly the rest."""
    workshop.write(TASKS)
    worker = workshop.worker("--processes", "2", "-c", "4", "--prefetch", "50")
    _send(workshop, "note.delay_many([(number,) for number in range(2000)])")
    eventually(lambda: len(workshop.ledger()) > 1000)
    worker.process.send_signal(signal.SIGTERM)
    with line_to(broker) as line:
        # all is given back but what they run, which is eight at most
        eventually(lambda: line.size(workshop.queue) >= 2000 - 1001 - 8)
    (workshop.folder / "go").touch()
    assert worker.wait() == 0
    assert len(workshop.ledger()) < 2000
    second = workshop.worker("--loglevel", "warning")
    eventually(lambda: len(set(workshop.ledger())) == 2000)
    assert second.stop() == 0
    assert Counter(workshop.ledger()) == Counter(str(number) for number in range(2000))


def test_a_child_that_is_told_to_end_is_replaced(workshop: Workshop) -> None:
    """SIGTERM for one child ends it in good order; the supervisor starts another."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    (child,) = worker.children()
    child.terminate()
    worker.wait_for("exit code 0: another one starts in")
    worker.wait_for_count("consumer.ready", 2)
    assert child not in worker.children()
    assert worker.stop() == 0


def test_a_death_from_before_the_stop_is_none_of_its(workshop: Workshop) -> None:
    """A process killed just before the signal, and found dead just after it: exit code 0."""
    workshop.write(TASKS)
    worker = workshop.worker("--processes", "2")
    worker.wait_for("worker.ready")
    killed, _ = worker.children()
    worker.process.send_signal(signal.SIGSTOP)
    try:
        killed.kill()
        worker.process.send_signal(signal.SIGTERM)
    finally:
        worker.process.send_signal(signal.SIGCONT)
    assert worker.wait() == 0
    assert f"child.died pid={killed.pid}" in worker.output
    assert "nobody follows it" in worker.output
