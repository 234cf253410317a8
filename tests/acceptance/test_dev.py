"""``amqtask dev`` at a terminal: one command, code that changes, and an end that leaves nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from amqtask.broker import Broker
from tests.acceptance.program import ROOT, TIMEOUT, Program
from tests.helpers import eventually

TASKS = """
from pathlib import Path
from amqtask import App

app = App("shop", queues=["email"])

@app.task(queue="email")
def note(text):
    with Path("ledger").open("a") as ledger:
        ledger.write(f"{WORD} {text}\\n")

WORD = "first"
"""
CALL = """
from amqtask import App
App("client", queues=["email"]).send_task("tasks.note", ({!r},), queue="email")
"""


class Desk:
    """A project's folder, ``amqtask dev`` in it, and another shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {key: word for key, word in os.environ.items() if not key.startswith("AMQTASK_")}
        self.environ = kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self.programs: list[Program] = []
        self.write(TASKS)

    def write(self, source: str) -> None:
        (self.folder / "tasks.py").write_text(source)

    def dev(self, *arguments: str, **environ: str) -> Program:
        """Start it, on a port of its own unless the arguments say otherwise."""
        own = () if "--broker" in arguments or environ else ("--port", "0")
        command = [sys.executable, "-m", "amqtask", "dev", *own, *arguments]
        program = Program(command, self.folder, self.environ | environ)
        self.programs.append(program)
        return program

    def call(self, program: Program, text: str) -> None:
        """Make a call in another shell, with the line that dev prints for it."""
        found = re.search(r"export AMQTASK_BROKER=(\S+)", program.output)
        assert found, program.output
        subprocess.run(
            [sys.executable, "-c", CALL.format(text)],
            cwd=self.folder,
            env=self.environ | {"AMQTASK_BROKER": found[1]},
            timeout=TIMEOUT,
            check=True,
        )

    def ledger(self) -> list[str]:
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_line(self, line: str) -> None:
        eventually(lambda: line in self.ledger(), timeout=TIMEOUT)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for program in made.programs:
        for process in family(program):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        program.kill()


def family(program: Program) -> list[psutil.Process]:
    """Return the processes under it, children's children too."""
    try:
        found: list[psutil.Process] = psutil.Process(program.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def wait_for_end(processes: list[psutil.Process]) -> None:
    """Wait until all of them are gone."""
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=TIMEOUT)
    assert alive == []


def test_one_command(desk: Desk) -> None:
    """A broker and a worker, and a line for other shells; Ctrl-C ends them all with 0."""
    dev = desk.dev()
    dev.wait_for("worker.ready")
    assert "(embedded, all in memory)" in dev.output
    desk.call(dev, "hello")
    desk.wait_for_line("first hello")
    dev.wait_for("task.succeeded task=tasks.note")
    processes = family(dev)
    assert dev.stop(signal.SIGINT) == 0
    wait_for_end(processes)
    assert dev.lines[-1] == "dev  stopped"


def test_new_code_is_run(desk: Desk) -> None:
    """A change starts a new worker; broken code leaves none, until it is mended."""
    dev = desk.dev()
    dev.wait_for("worker.ready")
    desk.write(TASKS.replace("first", "second"))
    dev.wait_for("changed: tasks.py")
    dev.wait_for_count("worker.ready", 2)
    desk.write(TASKS + "\ndef (")
    dev.wait_for("SyntaxError: invalid syntax")
    dev.wait_for("dev  the worker ended with exit code 1: a change starts it again")
    desk.write(TASKS.replace("first", "third"))
    dev.wait_for_count("worker.ready", 3)
    desk.call(dev, "hello")
    desk.wait_for_line("third hello")
    assert dev.stop() == 0


def test_a_task_that_takes_long_does_not_hold_up_a_change(desk: Desk) -> None:
    """It has some seconds, then it is given back, and the new worker runs it."""
    slow = "    import time; Path('begun').touch(); time.sleep(600)\n    with Path"
    desk.write(TASKS.replace("    with Path", slow))
    dev = desk.dev()
    dev.wait_for("worker.ready")
    desk.call(dev, "hello")
    eventually((desk.folder / "begun").exists, timeout=TIMEOUT)
    desk.write(TASKS.replace("first", "second"))
    dev.wait_for("dev  the worker takes too long: what runs is given back")
    desk.wait_for_line("second hello")
    assert dev.stop() == 0


def test_killed_it_leaves_nothing(desk: Desk) -> None:
    """The worker notices, and ends."""
    dev = desk.dev()
    dev.wait_for("worker.ready")
    processes = family(dev)
    dev.process.kill()
    wait_for_end(processes)


def test_data_is_kept(desk: Desk) -> None:
    """With --data a call that no worker took waits for the next start."""
    data = str(desk.folder / "data")
    desk.write("def (")
    dev = desk.dev("--data", data)
    dev.wait_for("a change starts it again")
    assert f"(embedded, kept in {data})" in dev.output
    desk.call(dev, "kept")
    assert dev.stop() == 0
    desk.write(TASKS)
    again = desk.dev("--data", data, "--no-reload")
    desk.wait_for_line("first kept")
    assert "watches" not in again.output
    assert again.stop() == 0


def test_a_broker_that_is_there(desk: Desk) -> None:
    """--broker and AMQTASK_BROKER name one; its own is not started then."""
    with Broker() as broker:
        dev = desk.dev("--broker", broker.url)
        dev.wait_for("worker.ready")
        assert "(from --broker)" in dev.output
        assert dev.stop() == 0
        dev = desk.dev(AMQTASK_BROKER=broker.url)
        dev.wait_for("worker.ready")
        assert "(from AMQTASK_BROKER)" in dev.output
        assert "export" not in dev.output
        assert dev.stop() == 0


def test_what_does_not_go_together(desk: Desk) -> None:
    """--data is for a broker of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "amqtask", "dev", "--broker", "amqp://x/", "--data", "d"],
        cwd=desk.folder,
        env=desk.environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 2
    assert "--data and --port are for a broker of its own" in ended.stderr


def test_a_worker_on_memory_is_refused(desk: Desk) -> None:
    """A worker has several processes: it says what to run instead, and dev takes care of it."""
    desk.write(TASKS.replace('App("shop"', 'App("shop", broker="memory://"'))
    ended = subprocess.run(
        [sys.executable, "-m", "amqtask", "worker"],
        cwd=desk.folder,
        env=desk.environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("amqtask: a worker cannot use the broker memory://")
    assert "`amqtask dev`" in ended.stderr
    assert "`amqtask broker`" in ended.stderr
    dev = desk.dev()
    dev.wait_for("worker.ready")
    assert dev.stop() == 0
