"""Starts that go wrong: exit code, last line and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import Workshop, workshop_in
from tests.servers import Names

TASKS = """
from amqtask import App

app = App("shop", queues=["email", "reports"])
"""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Workshop]:
    """A workshop for what ends before it needs a broker."""
    with workshop_in(tmp_path, "amqp://127.0.0.1:1/", Names()) as made:
        yield made


def test_an_error_in_the_apps_module(desk: Workshop) -> None:
    """It is the user's code, so its traceback is shown whole, and its error last; exit code 1."""
    desk.write("import json\n\ndata = json.loads('{')\n")
    ended = desk.run("worker")
    assert ended.returncode == 1
    assert "Traceback (most recent call last):" in ended.stderr
    assert "data = json.loads('{')" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("json.decoder.JSONDecodeError: ")


def test_a_module_that_the_apps_module_lacks(desk: Workshop) -> None:
    """A missing import inside tasks.py is not taken for a missing tasks.py."""
    desk.write("import no_such_package\n" + TASKS)
    ended = desk.run("worker")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: No module named 'no_such_package'"
    )


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "text"),
    [
        # click's own words differ by version: what counts is the near name
        (["worker", "--queue", "email"], {}, 2, "--queues"),
        (["worker", "-c", "many"], {}, 2, "'many' is not a valid integer range"),
        (["worker", "-l", "loud"], {}, 2, "'loud' is not one of 'debug', 'info'"),
        (["worker", "-Q", "email:0"], {}, 2, "like email:8,reports"),
        (["worker", "--pool", "gevent"], {}, 2, "'gevent' is not one of 'auto', 'process'"),
        (["worker", "--autoscale", "4,1"], {}, 2, "accepted: the least and the most, like 1,4"),
        (["worker", "--max-memory-per-child", "much"], {}, 2, "accepted: bytes, or a size"),
        (["worker", "--time-limit", "0"], {}, 2, "accepted: seconds above 0, or none"),
        (["worker", "--shutdown-timeout", "soon"], {}, 2, "accepted: seconds of at least 0"),
        (
            ["worker"],
            {"AMQTASK_CONCURRENCY": "0"},
            1,
            "setting 'concurrency' in the environment (AMQTASK_CONCURRENCY) is '0'",
        ),
        (
            ["worker"],
            {"AMQTASK_BROKER": "http://localhost/"},
            1,
            "broker URL has scheme 'http'",
        ),
        (
            ["worker"],
            {"AMQTASK_CONCURENCY": "4"},
            1,
            "in the environment, did you mean 'AMQTASK_CONCURRENCY'?",
        ),
    ],
)
def test_what_was_said_wrong(desk: Workshop, arguments, environ, code, text) -> None:
    """Options end with 2, settings with 1; the text names what is wrong, and a near name."""
    desk.write(TASKS)
    ended = desk.run(*arguments, **environ)
    assert ended.returncode == code
    assert text in ended.stderr


def test_the_banner_shows_what_was_asked_for(desk: Workshop) -> None:
    """Whatever is not as by default has its line."""
    desk.write(TASKS)
    worker = desk.worker(
        *("-Q", "email:8,reports", "--autoscale", "2,4", "--pool", "process", "--time-limit", "60"),
        *("--process-slots", "3"),
        *("--soft-time-limit", "50", "--max-tasks-per-child", "1000"),
        *("--max-memory-per-child", "300MB", "--shutdown-timeout", "25"),
        *("--health-port", "0", "--health-host", "127.0.0.1"),
    )
    worker.wait_for("worker.waiting")
    for line in (
        "  queues    email (8 slots of its own), reports",
        "  runs      2 to 4 processes x 11 tasks, each in a process of its own",
        "  limits    hard 60 s, soft 50 s",
        "  recycles  after 1000 tasks or above 300 MiB",
        "  shutdown  after 25 s tasks are cancelled",
        "  health    http://127.0.0.1:0/live and /ready",
    ):
        assert line in worker.lines
    assert worker.stop() == 0


def test_a_queue_the_app_does_not_know(workshop: Workshop, names: Names) -> None:
    """It is consumed all the same, and a near name is pointed out: it may be a typing error."""
    workshop.write(TASKS)
    unknown = names.queue("works")
    worker = workshop.worker("--queues", unknown)
    worker.wait_for("worker.new_queue")
    assert (
        f"worker.new_queue queue={unknown!r}: the app does not list it, did you mean "
        f"{workshop.queue!r}?; it is declared with the app's defaults"
    ) in worker.output
    worker.wait_for("worker.ready")  # a signal before that meets no handler yet
    assert worker.stop() == 0


def test_a_child_is_not_started_by_hand(desk: Workshop) -> None:
    """It says who starts it."""
    ended = desk.python("-m", "amqtask.worker.child")
    assert ended.returncode == 1
    assert ended.stderr == "amqtask.worker.child is started by `amqtask worker`, not by hand\n"
