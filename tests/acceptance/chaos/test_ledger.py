"""The ledger keeps what a process wrote before it was killed, and nobody waits for another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.chaos.judge import Runs
from tests.acceptance.chaos.ledger import Event, Ledger, Reader
from tests.acceptance.program import ROOT

WRITER = """
import os, signal, sys
from pathlib import Path
from tests.acceptance.chaos.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]))
for number in range(100):
    ledger.write(f"run{number}", "begun", f"call{number}", 1, "plain")
os.kill(os.getpid(), signal.Signals[sys.argv[2]])
"""


@pytest.mark.parametrize("word", ["SIGKILL", "SIGSTOP"])
def test_what_was_written_is_there_whatever_became_of_the_writer(word: str, tmp_path: Path) -> None:
    """All 100 events of a process that was killed, or stopped, and others write on meanwhile."""
    number = signal.Signals[word]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), word],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        _, status = os.waitpid(writer.pid, os.WUNTRACED)
        assert (os.WIFSTOPPED(status), os.WIFSIGNALED(status)) == (
            number == signal.SIGSTOP,
            number == signal.SIGKILL,
        )
        Ledger(tmp_path).write("mine", "begun", "mine", 1, "plain")
        reader = Reader(tmp_path)
        ids = {event.id for event in reader.news()}
        assert ids == {"mine", *(f"call{number}" for number in range(100))}
        assert list(reader.news()) == []
    finally:
        writer.kill()
        if number == signal.SIGSTOP:
            os.waitpid(writer.pid, 0)
        writer.returncode = -signal.SIGKILL  # it was waited for here


def event(word: str, run: str, *, pid: int, ppid: int, kind: str = "plain") -> Event:
    return Event(run, word, f"of {run}", 1, kind, pid, ppid, 100.0)


def test_a_runners_work_is_its_parents() -> None:
    """The worker process holds the delivery, whichever process runs the call."""
    runs = Runs()
    for number, (pid, ppid) in enumerate([(20, 10), (30, 20), (21, 1)]):
        runs.add(event("begun", str(number), pid=pid, ppid=ppid), supervisors={10})
    assert [each.child for found in runs.by_id.values() for each in found] == [20, 20, 21]
    assert set(runs.latest) == {20, 21}


def test_a_call_is_settled_by_its_last_attempt() -> None:
    """Another attempt settles nothing, and what may be destroyed is not counted."""
    runs = Runs()
    for name, word, kind in [
        ("a", "done", "plain"),
        ("b", "again", "retrying"),
        ("c", "failed", "failing"),
        ("d", "done", "expendable"),
    ]:
        runs.add(event("begun", name, pid=20, ppid=10, kind=kind), supervisors={10})
        runs.add(event(word, name, pid=20, ppid=10, kind=kind), supervisors={10})
    assert runs.settled == {"of a", "of c"}
