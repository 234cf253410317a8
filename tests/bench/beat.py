"""The command: ``python -m tests.bench.beat [--seconds 30] [--entries 10000]``.

What a beat costs that has many entries and little to do, beside Celery's: processor time and memory,
side by side on the same broker for the same seconds. Celery's beat is one process and needs no
second one; ours are a leader and one that stands by.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from amqtask import __version__
from amqtask.testing import servers
from tests.servers import Names

ROOT = Path(__file__).parents[2]
#: Seconds that beats have to start, and to be done with what they do once.
START = 20.0

_OURS = """
from amqtask import App, cron
app = App("bench-beat")
ZONES = ("UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata")
for number in range({entries}):
    # not due within the measured seconds
    when = cron(f"{{number % 60}} {{number % 24}} 1 1 *", tz=ZONES[number % 4])
    app.schedule(f"entry {{number}}", "nothing", when, args=[number])
"""
_CELERY = """
import os
from celery import Celery
from celery.schedules import crontab
app = Celery("bench-beat", broker=os.environ["AMQTASK_BROKER"])
app.conf.beat_schedule = {{
    f"entry {{number}}": {{
        "task": "nothing", "args": [number],
        "schedule": crontab(minute=number % 60, hour=number % 24, day_of_month=1, month_of_year=1),
    }}
    for number in range({entries})
}}
"""


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--entries", type=int, default=10_000)
    said = parser.parse_args()
    with servers.find_or_start("rabbitmq") as server, TemporaryDirectory() as folder:
        (Path(folder) / "ours.py").write_text(_OURS.format(entries=said.entries))
        (Path(folder) / "peer.py").write_text(_CELERY.format(entries=said.entries))
        names = Names()
        environ = os.environ | {
            "AMQTASK_BROKER": server.url,
            "AMQTASK_BEAT_QUEUE": names.beat_queue(),
            "AMQTASK_CONTROL_EXCHANGE": names.exchange("control"),
            "PYTHONPATH": str(ROOT),
        }
        ours = [sys.executable, "-m", "amqtask", "-A", "ours", "beat", "-l", "warning"]
        peer = [sys.executable, "-m", "celery", "-A", "peer", "beat", "-s", f"{folder}/shelf"]
        with contextlib.ExitStack() as stack:
            stack.callback(names.delete, server.url)
            beats = {
                name: _start(stack, command, folder, environ)
                for name, command in (
                    (f"amqtask {__version__} beat, leader or standby", ours),
                    (f"amqtask {__version__} beat, the other one", ours),
                    ("Celery beat", peer),
                )
            }
            time.sleep(START)
            before = {name: _seconds(process) for name, process in beats.items()}
            time.sleep(said.seconds)
            print(f"{said.entries} entries, {said.seconds:g} s, RabbitMQ {server.version}")
            asked = subprocess.run(
                [sys.executable, "-m", "amqtask", "-A", "ours", "schedule", "status"],
                cwd=folder,
                env=environ,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            for name, process in beats.items():
                cpu = 100 * (_seconds(process) - before[name]) / said.seconds
                rss = process.memory_info().rss >> 20
                print(f"| {name} | {cpu:.2f} % of a core | {rss} MiB |")
            print(asked.stdout, end="")


def _start(
    stack: contextlib.ExitStack, command: list[str], folder: str, environ: dict[str, str]
) -> psutil.Process:
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    return psutil.Process(process.pid)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
