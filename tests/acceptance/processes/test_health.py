"""The health port and deafness: probes get answers whatever tasks do, and silence ends."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.program import Program, Workshop, workshop_in
from tests.helpers import eventually
from tests.proxy import closed_port
from tests.servers import Names

TASKS = """
import time
from amqtask import App

app = App("health")

@app.task(name="long")
def long_task():
    open("ledger", "a").write("begun\\n")
    end = time.monotonic() + 60
    while time.monotonic() < end:  # the interpreter is busy, not only waiting
        pass
"""


def _port(worker: Program) -> int:
    worker.wait_for("health.listening")
    found = re.search(r"health\.listening host=\S+ port=(\d+)", worker.output)
    assert found is not None
    return int(found[1])


def _ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.fixture
def desk(tmp_path: Path):
    """A workshop whose broker does not run."""
    url = f"amqp://guest:guest@127.0.0.1:{closed_port()}/"
    with workshop_in(tmp_path, url, Names()) as made:
        yield made


def test_it_answers_during_a_long_task(workshop: Workshop) -> None:
    """Both are 200 while a task computes, and name the processes."""
    workshop.write(TASKS)
    worker = workshop.worker("--health-port", "0", "--health-host", "127.0.0.1")
    worker.wait_for("worker.ready")
    port = _port(worker)
    sent = workshop.python("-c", "from tasks import *; long_task.delay()")
    assert sent.returncode == 0, sent.stderr
    eventually(lambda: workshop.ledger() == ["begun"])
    eventually(
        lambda: _ask(port, "/live")[1]["processes"][0]["running"] == 1,
        message="no beat told of the running task",
    )
    for path in ("/live", "/ready"):
        code, said = _ask(port, path)
        assert code == 200, said
        assert said["reasons"] == []
        assert [child["pid"] for child in said["processes"]] == [
            child.pid for child in worker.children()
        ]
        assert said["processes"][0]["rss"] > 1_000_000
    worker.kill()


def test_it_says_why_it_is_not_ready(desk: Workshop) -> None:
    """Without a broker: alive, not ready, and the reason is the broker's address."""
    desk.write(TASKS)
    worker = desk.worker("--health-port", "0", "--health-host", "127.0.0.1")
    port = _port(worker)
    worker.wait_for("worker.waiting")
    assert _ask(port, "/live")[0] == 200
    code, said = _ask(port, "/ready")
    assert code == 503
    assert "does not answer" in said["reasons"][0]
    assert worker.stop() == 0


def test_a_worker_that_loses_its_queue_is_not_ready(workshop: Workshop) -> None:
    """A queue that others must declare and that is gone: /ready names it, and heals with it."""
    workshop.write(TASKS)
    workshop.write(
        "import os, pika\n"
        "url = pika.URLParameters(os.environ['AMQTASK_BROKER'])\n"
        "channel = pika.BlockingConnection(url).channel()\n"
        "channel.queue_delete(os.environ['AMQTASK_DEFAULT_QUEUE'])\n",
        "delete.py",
    )
    declares = workshop.worker()
    declares.wait_for("worker.ready")
    assert declares.stop() == 0
    worker = workshop.worker(
        "--health-port", "0", "--health-host", "127.0.0.1", AMQTASK_DECLARE="passive"
    )
    worker.wait_for("worker.ready")
    port = _port(worker)
    assert _ask(port, "/ready")[0] == 200
    assert workshop.python("delete.py").returncode == 0
    eventually(lambda: _ask(port, "/ready")[0] == 503)
    code, said = _ask(port, "/ready")
    assert (code, workshop.queue in said["reasons"][0]) == (503, True)
    assert _ask(port, "/live")[0] == 200
    workshop.worker().wait_for("worker.ready")
    eventually(lambda: _ask(port, "/ready")[0] == 200)
    assert worker.stop() == 0


def test_a_port_that_is_taken(desk: Workshop) -> None:
    """One line and a remedy, exit code 1."""
    desk.write(TASKS)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = desk.run("worker", "--health-port", port, "--health-host", "127.0.0.1")
    assert ended.returncode == 1
    assert f"the health port cannot listen on '127.0.0.1', port {port}" in ended.stderr
    assert "give another --health-port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_that_never_hears_ends_with_69(desk: Workshop) -> None:
    """Rather than be silent for ever: the reason, and a code that says to start it again."""
    desk.write(TASKS)
    begun = time.monotonic()
    worker = desk.worker("--deaf-timeout", "2")
    assert worker.wait() == 69
    assert time.monotonic() - begun > 2.0
    assert "worker.deaf seconds=2" in worker.output
    assert "does not answer" in worker.output


def test_a_worker_that_stops_to_hear_ends_with_69(workshop: Workshop) -> None:
    """A queue that is gone and not ours to declare is said, waited for, and then ends it."""
    workshop.write(TASKS)
    worker = workshop.worker("--deaf-timeout", "6")
    worker.wait_for("worker.ready")
    workshop.write(
        "import os, pika\n"
        "url = pika.URLParameters(os.environ['AMQTASK_BROKER'])\n"
        "channel = pika.BlockingConnection(url).channel()\n"
        "channel.queue_delete(os.environ['AMQTASK_DEFAULT_QUEUE'])\n"
        # one of that name that the worker must not consume as it is
        "channel.queue_declare(os.environ['AMQTASK_DEFAULT_QUEUE'], durable=True)\n",
        "spoil.py",
    )
    # the worker may declare it again in between
    eventually(lambda: workshop.python("spoil.py").returncode == 0)
    worker.wait_for("consumer.lost")
    assert worker.wait() == 69
    assert "worker.deaf" in worker.output
    assert workshop.queue in worker.output.split("worker.deaf")[1]
