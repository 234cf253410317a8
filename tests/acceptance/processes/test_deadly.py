"""Tasks that kill, hang or cripple their process: each ends as documented, its neighbours finish."""

from __future__ import annotations

import json
from typing import Any

import psutil
import pytest

from tests.acceptance.program import Program, Workshop
from tests.helpers import eventually

TASKS = """
import asyncio, ctypes, os, resource, signal, time
from amqtask import App

app = App("deadly", crash_limit=2, process_slots=2)

def write(word):
    with open("ledger", "a") as ledger:
        ledger.write(f"{word}\\n")

@app.task(name="neighbour")
def neighbour(word):
    time.sleep(0.02)
    write(word)

@app.task(name="p.neighbour", pool="process")
def isolated_neighbour(word):
    time.sleep(0.02)
    write(word)

def segfault():
    ctypes.string_at(0)

def leave():
    os._exit(3)

def taken_by_the_kernel():  # what the kernel does when memory has run out
    os.kill(os.getpid(), signal.SIGKILL)

def eat_all_memory():
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    eaten = []
    while True:
        eaten.append(bytearray(2**24))

def hold_the_interpreter():
    ctypes.PyDLL(None).sleep(90)

def ignore_all():
    write("began")
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try:
            time.sleep(0.1)
        except BaseException:
            pass

def close_all():
    write("began")
    os.closerange(3, 4096)
    time.sleep(90)

def outlive():  # a copy of the process lives on, and holds on to the connection to the worker
    if os.fork() == 0:
        time.sleep(90)
    os._exit(4)

for function, said in (
    (segfault, {}),
    (leave, {}),
    (taken_by_the_kernel, {}),
    (eat_all_memory, {}),
    (hold_the_interpreter, {"time_limit": 1}),
    (ignore_all, {"time_limit": 4, "soft_time_limit": 2}),
    (close_all, {}),
    (outlive, {}),
):
    app.task(name=f"p.{function.__name__}", pool="process", **said)(function)

app.task(name="t.segfault")(segfault)
app.task(name="t.leave")(leave)
app.task(name="t.close_all")(close_all)
app.task(name="t.hold_the_interpreter", time_limit=1)(hold_the_interpreter)
app.task(name="t.ignore_all", time_limit=4, soft_time_limit=2)(ignore_all)

@app.task(name="l.ignore_all", time_limit=2)
async def ignore_cancellation():
    write("began")
    while True:
        try:
            await asyncio.sleep(90)
        except asyncio.CancelledError:
            pass

@app.task(name="l.hold", time_limit=2)
async def hold_the_loop():
    write("began")
    time.sleep(90)
"""
DEAD = """
import json, os, pika
connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQTASK_BROKER"]))
_, props, _ = connection.channel().basic_get(os.environ["AMQTASK_DEFAULT_QUEUE"] + ".dead", auto_ack=True)
print(json.dumps(None if props is None else {k: str(v) for k, v in props.headers.items()}))
"""


def _send(workshop: Workshop, code: str) -> None:
    sent = workshop.python("-c", f"from tasks import *\n{code}")
    assert sent.returncode == 0, sent.stderr


def _parked(workshop: Workshop) -> dict[str, Any]:
    """Wait for the dead letter and return its headers."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] | None = json.loads(workshop.python("-c", DEAD).stdout)
        return found

    found = eventually(look)
    assert found is not None
    return found


def _beside_neighbours(workshop: Workshop, task: str, kind: str) -> tuple[Program, dict[str, Any]]:
    """Run a deadly task between neighbours, which have to finish; returns its dead letter."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(
        workshop,
        f"for n in range(5): app.send_task('{kind}', [f'before {{n}}'])\n"
        f"app.send_task({task!r})\n"
        f"for n in range(5): app.send_task('{kind}', [f'after {{n}}'])",
    )
    words = {f"{when} {number}" for when in ("before", "after") for number in range(5)}
    eventually(lambda: words <= set(workshop.ledger()))
    return worker, _parked(workshop)


@pytest.mark.parametrize(
    ("task", "known"),
    [
        ("segfault", {"signal": "SIGSEGV"}),
        ("leave", {"exit-code": "3"}),
        ("taken_by_the_kernel", {"signal": "SIGKILL"}),
        ("close_all", {"exit-code": "74"}),
        ("outlive", {"exit-code": "4"}),
    ],
)
def test_what_kills_its_runner(workshop: Workshop, task: str, known: dict[str, str]) -> None:
    """It is parked after `crash_limit` deaths, with what is known; the worker has not noticed."""
    worker, dead = _beside_neighbours(workshop, f"p.{task}", "p.neighbour")
    assert dead["amqtask-reason"] == "worker_lost"
    assert dead["amqtask-crashes"] == "2"
    assert {name: dead.get(f"amqtask-{name}") for name in known} == known
    assert float(dead["amqtask-runtime"]) < 30
    assert "child.died" not in worker.output
    assert worker.stop() == 0


def test_a_runner_that_has_no_more_memory(workshop: Workshop) -> None:
    """Python says so: that is an error of the task like any other."""
    worker, dead = _beside_neighbours(workshop, "p.eat_all_memory", "p.neighbour")
    assert dead["amqtask-reason"] == "failed"
    assert dead["amqtask-exception"].startswith("MemoryError")
    assert worker.stop() == 0


@pytest.mark.parametrize("task", ["hold_the_interpreter", "ignore_all"])
def test_a_runner_that_hangs(workshop: Workshop, task: str) -> None:
    """It is killed at its hard limit, whatever it does, and nothing of it stays."""
    worker, dead = _beside_neighbours(workshop, f"p.{task}", "p.neighbour")
    assert dead["amqtask-reason"] == "timeout"
    assert dead["amqtask-exception"].startswith("TimeLimitExceeded: task")
    assert "child.died" not in worker.output
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert worker.stop() == 0
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.parametrize("task", ["t.segfault", "t.leave", "t.close_all"])
def test_what_kills_a_worker_process(workshop: Workshop, task: str) -> None:
    """The board says what ran: that runs isolated when it comes again, and is found and parked."""
    worker, dead = _beside_neighbours(workshop, task, "neighbour")
    assert dead["amqtask-reason"] == "worker_lost"
    assert dead["task"] == task
    assert "task.isolated" in worker.output
    assert worker.stop() == 0


@pytest.mark.parametrize("task", ["t.ignore_all", "l.ignore_all", "l.hold"])
def test_what_does_not_end_in_a_worker_process(workshop: Workshop, task: str) -> None:
    """It is settled as timed out, then the process is given up; it does not run again."""
    worker, dead = _beside_neighbours(workshop, task, "neighbour")
    assert dead["amqtask-reason"] == "timeout"
    assert "node.given_up" in worker.output
    worker.wait_for("child.gave_up")
    worker.wait_for_count("consumer.ready", 2)  # one that only starts does not end with 0
    assert workshop.ledger().count("began") == 1
    assert worker.stop() == 0


def test_what_holds_the_interpreter_of_a_worker_process(workshop: Workshop) -> None:
    """Nothing in its process can act: the supervisor kills it, and the call does not run again."""
    worker, dead = _beside_neighbours(workshop, "t.hold_the_interpreter", "neighbour")
    assert dead["amqtask-reason"] == "timeout"
    worker.wait_for("signal SIGKILL: another one starts in")
    assert worker.stop() == 0


def test_no_runner_outlives_a_worker_that_is_killed(workshop: Workshop) -> None:
    """kill -9 of the process that a runner belongs to takes the runner along, whatever it does."""
    workshop.write(TASKS)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(workshop, "app.send_task('p.hold_the_interpreter', time_limit=60)")
    (child,) = worker.children()
    runners = eventually(lambda: child.children())
    worker.wait_for("runner.ready")
    child.kill()
    assert psutil.wait_procs(runners, timeout=60)[1] == []


def test_signals_are_not_for_runners(workshop: Workshop) -> None:
    """A runner that gets what a terminal or a service manager sends to all finishes its task."""
    workshop.write(
        TASKS
        + """
@app.task(name="slow", pool="process")
def slow():
    write("began")
    time.sleep(1.5)
    write("ended")
"""
    )
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    _send(workshop, "app.send_task('slow')")
    eventually(lambda: workshop.ledger() == ["began"])
    for each in psutil.Process(worker.process.pid).children(recursive=True):
        if "runner" in " ".join(each.cmdline()):
            each.terminate()
            each.send_signal(2)
    assert worker.stop() == 0
    assert workshop.ledger() == ["began", "ended"]
