"""How the processes of a worker come to be: as copies that share memory, or as fresh Pythons."""

from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest

from amqtask.worker.template import NAME as TEMPLATE
from tests.acceptance.program import Program, Workshop
from tests.helpers import eventually

TASKS = """
import os, subprocess, threading
from amqtask import App

app = App("preload")
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def write(line):
    os.write(ledger, line.encode() + b"\\n")

write(f"imported {os.getpid()}")

@app.task(name="who")
def who():
    write(f"ran {os.getpid()} {os.environ.get('WHO')} {'NOTIFY_SOCKET' in os.environ}")

@app.task(name="leave")
def leave():
    left = subprocess.Popen(["sleep", "600"])
    write(f"left {left.pid}")
    os.kill(os.getpid(), 9)
"""

#: So that who sends does not write into the ledger of those who work.
_AWAY = "import os, sys; sys.path.insert(0, os.getcwd()); os.chdir('sender')\n"

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each is a fresh Python")


def _send(workshop: Workshop, code: str) -> None:
    sent = workshop.python("-c", f"{_AWAY}from tasks import *\n{code}")
    assert sent.returncode == 0, sent.stderr


def _said(workshop: Workshop, word: str) -> list[list[str]]:
    return [line.split()[1:] for line in workshop.ledger() if line.split()[0] == word]


def _template(worker: Program) -> psutil.Process:
    found = psutil.Process(worker.process.pid).children()
    (template,) = (process for process in found if process.name() == TEMPLATE)
    return template


def _started(workshop: Workshop, *arguments: str, source: str = TASKS, **environ: str) -> Program:
    workshop.write(source)
    (workshop.folder / "sender").mkdir(exist_ok=True)
    worker = workshop.worker("--processes", "2", "-c", "1", *arguments, **environ)
    worker.wait_for("worker.ready")
    return worker


@linux
def test_they_share_amqtask(workshop: Workshop) -> None:
    """By default: copies that import the app themselves, in an environment like the supervisor's."""
    worker = _started(workshop, WHO="me", NOTIFY_SOCKET="@amqtask-test-nobody")
    children = worker.children()
    assert [child.name() for child in children] == ["amqtask-child"] * 2
    assert {int(pid) for (pid,) in _said(workshop, "imported")} == {
        worker.process.pid,
        *(child.pid for child in children),
    }
    _send(workshop, "who.delay()")
    eventually(lambda: _said(workshop, "ran"))
    ((pid, who, notifies),) = _said(workshop, "ran")
    assert (int(pid) in {child.pid for child in children}, who, notifies) == (True, "me", "False")
    shared = [child.memory_full_info() for child in children]
    assert all(each.uss < 0.7 * each.rss for each in shared), shared
    found = psutil.Process(worker.process.pid).children()
    assert found == children, "the template has become one of them"
    assert worker.stop() == 0


@linux
def test_they_share_the_app(workshop: Workshop) -> None:
    """The app is imported once; after SIGHUP anew, and once."""
    worker = _started(workshop, "--preload", "app")
    assert _said(workshop, "imported") == [[str(worker.process.pid)]]
    before = worker.children()
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for("worker.restarted processes=2")
    assert len(_said(workshop, "imported")) == 2
    _send(workshop, "who.delay()")
    eventually(lambda: _said(workshop, "ran"))
    assert int(_said(workshop, "ran")[0][0]) not in {child.pid for child in before}
    assert worker.stop() == 0
    assert psutil.wait_procs(before, timeout=60)[1] == []


@linux
def test_an_app_with_threads_is_not_shared(workshop: Workshop) -> None:
    """A copy would lack them: it is said, and processes import the app themselves."""
    threaded = TASKS + "\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    worker = _started(workshop, "--preload", "app", source=threaded)
    assert "worker.not_preloaded" in worker.output
    assert len(_said(workshop, "imported")) == 3
    assert all("amqtask.worker.child" in child.cmdline() for child in worker.children())
    assert worker.stop() == 0


def test_they_share_nothing(workshop: Workshop) -> None:
    """Each a fresh Python."""
    worker = _started(workshop, "--preload", "nothing")
    children = worker.children()
    assert all("amqtask.worker.child" in child.cmdline() for child in children)
    assert psutil.Process(worker.process.pid).children() == children
    _send(workshop, "who.delay()")
    eventually(lambda: _said(workshop, "ran"))
    assert worker.stop() == 0


@linux
def test_a_template_that_dies(workshop: Workshop) -> None:
    """Its copies do not mind, and those that follow are fresh Pythons."""
    worker = _started(workshop, "--max-tasks-per-child", "1000")  # so that it is kept
    first, second = worker.children()
    template = _template(worker)
    template.send_signal(signal.SIGTERM)  # what a service manager sends to all is not for it
    template.kill()
    worker.wait_for(f"template.died pid={template.pid}")
    first.kill()
    worker.wait_for(f"child.died pid={first.pid}")
    eventually(lambda: len(worker.children()) == 2)
    eventually(lambda: worker.output.count("consumer.ready") >= 3)
    (fresh,) = set(worker.children()) - {second}
    assert "amqtask.worker.child" in fresh.cmdline()
    assert worker.stop() == 0


@linux
def test_a_template_that_does_not_answer(workshop: Workshop) -> None:
    """The worker waits for it once, and goes on without it."""
    worker = _started(workshop, "--max-tasks-per-child", "1000")
    template = _template(worker)
    template.suspend()
    worker.children()[0].kill()
    worker.wait_for("template.failed error='timed out': processes start by themselves")
    eventually(lambda: worker.output.count("consumer.ready") >= 3)
    assert psutil.wait_procs([template], timeout=60)[1] == []
    assert worker.stop() == 0


@linux
def test_no_template_outlives_its_worker(workshop: Workshop) -> None:
    """kill -9 of the supervisor: it sees the end of its line."""
    worker = _started(workshop, "--max-tasks-per-child", "1000")
    left = psutil.Process(worker.process.pid).children()
    assert len(left) == 3
    worker.process.kill()
    assert psutil.wait_procs(left, timeout=60)[1] == []
    worker.wait()


@linux
def test_orphans_are_collected(workshop: Workshop) -> None:
    """What a killed process had started becomes the supervisor's, which waits for its end."""
    worker = _started(workshop)
    _send(workshop, "app.send_task('leave')")
    eventually(lambda: _said(workshop, "left"))
    orphan = int(_said(workshop, "left")[0][0])
    supervisor = psutil.Process(worker.process.pid)
    eventually(lambda: psutil.Process(orphan).ppid() == supervisor.pid)
    os.kill(orphan, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(orphan))
    for (pid,) in _said(workshop, "left"):
        if psutil.pid_exists(int(pid)):
            os.kill(int(pid), signal.SIGKILL)
    worker.kill()
