"""Delayed calls by the thousand: none early, each once, and the broker keeps them meanwhile.

How late they are is measured by ``python -m tests.bench.delay``: on a busy machine that says more
about the machine.
"""

from __future__ import annotations

from tests.acceptance.delayed import Delays
from tests.acceptance.program import Workshop
from tests.helpers import eventually

CALLS = 1_000
#: What the clocks of sender and worker, one machine's, may differ by.
CLOCK = 0.005


def test_a_thousand_delays(workshop: Workshop) -> None:
    """0.1 to 6 s, no multiples of anything: none is early, each runs exactly once."""
    delays = Delays(workshop)
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    delays.send(CALLS, 0.1, 6.0)
    eventually(lambda: len(delays.runs()) == CALLS)
    assert worker.stop() == 0
    runs = delays.runs()
    assert set(runs) == set(range(CALLS))
    assert runs.total() == CALLS
    assert delays.lateness()[0] >= -CLOCK


def test_delays_outlive_every_worker(workshop: Workshop) -> None:
    """What is due while no worker is there waits in its queue, and runs once there is one."""
    delays = Delays(workshop)
    first = workshop.worker()
    first.wait_for("worker.ready")
    assert first.stop() == 0
    delays.send(50, 0.1, 1.0)
    second = workshop.worker("--loglevel", "warning")
    eventually(lambda: len(delays.runs()) == 50)
    assert second.stop() == 0
    assert delays.runs().total() == 50
    assert delays.lateness()[0] >= -CLOCK
