"""Under a service manager: what a worker tells it, and that its processes tell it nothing."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from pathlib import Path

from tests.acceptance.program import Workshop
from tests.helpers import eventually

TASKS = """
import os
from amqtask import App

app = App("service")

@app.task(name="environment")
def environment():
    with open("ledger", "a") as ledger:
        print(sorted(key for key in os.environ if "NOTIFY" in key or "WATCHDOG" in key), file=ledger)
"""


def test_from_start_to_stop(workshop: Workshop, tmp_path: Path) -> None:
    """Ready once it consumes, signs of life, a reload, stopping; tasks cannot speak for it."""
    workshop.write(TASKS)
    heard: list[str] = []
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        address = str(tmp_path / "notify")
        manager.bind(address)
        manager.settimeout(0.05)

        def hears(word: str) -> bool:
            try:
                heard.extend(manager.recv(4096).decode().splitlines())
            except TimeoutError:
                return word in heard
            return word in heard

        worker = workshop.worker(NOTIFY_SOCKET=address, WATCHDOG_USEC="4000000")
        eventually(lambda: hears("READY=1"))
        worker.wait_for("worker.ready")
        assert "STATUS=1 of 1 processes consume" in heard
        eventually(lambda: hears("WATCHDOG=1"))
        sent = workshop.python("-c", "from tasks import *; environment.delay()")
        assert sent.returncode == 0, sent.stderr
        eventually(lambda: workshop.ledger() == ["[]"])
        heard.clear()
        worker.process.send_signal(signal.SIGHUP)
        eventually(lambda: hears("READY=1"))
        assert "RELOADING=1" in heard
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: hears("STOPPING=1"))
        assert worker.wait() == 0
