"""Every example runs as its reader would run it, and prints what stands beside it.

An example names its queues plainly; a run of the tests takes a copy in which they have unique
names, and turns these back in what it prints.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqtask.testing import Server
from tests.acceptance.program import TIMEOUT, Program
from tests.helpers import eventually
from tests.servers import Names

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BROKER = "amqp://guest:guest@127.0.0.1:5672/"


class Example:
    """A copy of an example's folder, with unique names.

    Attributes:
        names: The plain names of queues and exchanges, by the unique ones.
    """

    def __init__(
        self, name: str, folder: Path, url: str, unique: Mapping[str, str], delay: str
    ) -> None:
        self.source = EXAMPLES / name
        self.folder = shutil.copytree(self.source, folder / name)
        self.names = {made: plain for plain, made in unique.items()} | {delay: "amqtask.delay"}
        for program in self.folder.glob("*.py"):
            text = program.read_text().replace(BROKER, url)
            for plain, made in unique.items():
                text = re.sub(rf'"{plain}(\.dead)?"', rf'"{made}\1"', text)
            program.write_text(text)
        own = {name: value for name, value in os.environ.items() if "AMQTASK" not in name}
        self.environ = own | {
            "AMQTASK_BROKER": url,
            "AMQTASK_EXCHANGE": unique["amqtask"],
            "AMQTASK_DEAD_LETTER_EXCHANGE": f"{unique['amqtask']}.dead",
            "AMQTASK_DELAY_PREFIX": delay,
            "AMQTASK_CANCEL_EXCHANGE": unique["amqtask.cancel"],
            "AMQTASK_CONTROL_EXCHANGE": unique["amqtask.control"],
            "AMQTASK_BEAT_QUEUE": unique["amqtask.beat"],
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    @contextmanager
    def worker(self, *words: str) -> Iterator[Program]:
        """Run ``amqtask`` with these words, which start a worker, and end it well."""
        worker = self.start([sys.executable, "-m", "amqtask", *map(self.unique, words)])
        try:
            worker.wait_for("worker.ready")
            yield worker
            assert worker.stop() == 0, worker.output
        finally:
            worker.process.kill()
            worker.process.wait()

    def start(self, command: list[str]) -> Program:
        """Start a program in the example's folder."""
        return Program(command, self.folder, self.environ)

    def run(self, *words: str) -> str:
        """Run a program of the example to its end and return what it prints."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return self.plain(done.stdout)

    def expected(self, name: str) -> str:
        """Return the output that stands beside the example."""
        return (self.source / name).read_text()

    def plain(self, text: str) -> str:
        """Return text with the plain names again."""
        for made, plain in self.names.items():
            text = text.replace(made, plain)
        return text

    def unique(self, word: str) -> str:
        """Return a list of names with commas as the unique ones."""
        made = {plain: made for made, plain in self.names.items()}
        return ",".join(made.get(name, name) for name in word.split(","))


MakeExample = Callable[..., Example]


@pytest.fixture
def example(any_broker: Server, names: Names, tmp_path: Path) -> MakeExample:
    """Copies an example, given its name and those of its queues."""

    def make(name: str, *queues: str) -> Example:
        unique = {queue: names.queue(queue) for queue in queues}
        unique["amqtask"] = names.exchange("amqtask")
        names.exchange("amqtask.dead")
        unique["amqtask.cancel"] = names.cancel_exchange("amqtask.cancel")
        unique["amqtask.control"] = names.exchange("amqtask.control")
        unique["amqtask.beat"] = names.beat_queue("amqtask.beat")
        return Example(name, tmp_path, any_broker.url, unique, names.delay_prefix())

    return make


def without_the_run(text: str) -> list[str]:
    """Return a worker's lines without what differs from run to run, in an order that does not."""
    for pattern, stands_for in (
        (r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+", "TIME PID"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"runtime=[\d.]+", "runtime=SECONDS"),
        (r"pid=\d+", "pid=PID"),
        (r"^(amqtask worker) \S+", r"\1 HOST"),
        (r"name=\S+ processes", "name=HOST processes"),
        (r"name='shop (\w+) \S+' url=\S+", r"name='shop \1 HOST' url=URL"),
        (r"amqp://\S+", "URL"),
    ):
        text = re.sub(pattern, stands_for, text, flags=re.MULTILINE)
    return sorted(line.rstrip() for line in text.splitlines() if line.strip())


def test_quickstart(example: MakeExample) -> None:
    """The first program a reader meets prints what is promised, and so does its worker."""
    quickstart = example("quickstart", "email", "reports")
    with quickstart.worker("worker", "--queues", "email,reports") as worker:
        assert quickstart.run("send.py") == quickstart.expected("send.txt")
    said = without_the_run(quickstart.plain(worker.output))
    assert said == without_the_run(quickstart.expected("worker.txt"))


def test_retries_and_dead_letters(example: MakeExample) -> None:
    """What fails for a while succeeds; what fails for good can be looked at, sent back and run."""
    billing = example("retries_and_dead_letters", "billing")
    dead = sorted(billing.expected("dead_letters.txt").splitlines())
    with billing.worker("worker", "--queues", "billing") as worker:
        assert billing.run("send.py") == billing.expected("send.txt")
        assert sorted(billing.run("dead_letters.py").splitlines()) == dead
        sent_back = sorted(billing.run("send_back.py").splitlines())
        assert sent_back == sorted(billing.expected("send_back.txt").splitlines())
        eventually(lambda: worker.output.count("task.failed") == 6, timeout=TIMEOUT)
    # all over again: looking at them took nothing away, and the retries were renewed
    assert worker.output.count("task.retry") == 2 + 3 + 1 + 3
    assert sorted(billing.run("dead_letters.py").splitlines()) == dead


def test_async_client(example: MakeExample) -> None:
    """An asyncio program calls, gathers, times out and catches the tasks' own exceptions."""
    numbers = example("async_client", "numbers")
    with numbers.worker("worker", "--queues", "numbers"):
        assert numbers.run("client.py") == numbers.expected("client.txt")


def test_pipeline(example: MakeExample) -> None:
    """A pipeline confirms every call, and names those it could not."""
    stock = example("pipeline", "stock")
    with stock.worker("worker", "--queues", "stock"):
        assert stock.run("send.py") == stock.expected("send.txt")


def test_workflows(example: MakeExample) -> None:
    """Chains, groups and chords on RabbitMQ alone; what fails ends what depends on it."""
    reports = example("workflows", "reports")
    with reports.worker("worker", "--queues", "reports"):
        assert reports.run("send.py") == reports.expected("send.txt")


def test_topic_routing(example: MakeExample) -> None:
    """Calls take the queue whose binding matches their topic; one that none takes raises."""
    orders = example("topic_routing", "europe", "world")
    shown = orders.run("-m", "amqtask", "topology")
    assert squeezed(shown) == squeezed(orders.expected("topology.txt"))
    with orders.worker("worker", "--queues", "europe,world"):
        assert orders.run("send.py") == orders.expected("send.txt")


def test_named_steps(example: MakeExample) -> None:
    """A workflow of named steps gives results by name; its drawing is printed."""
    nights = example("named_steps", "nights")
    with nights.worker("worker", "--queues", "nights"):
        assert nights.run("send.py") == nights.expected("send.txt")
    assert nights.run("-m", "amqtask", "graph", "tasks.py:nightly") == nights.expected("graph.txt")


def squeezed(text: str) -> list[list[str]]:
    """Return the words of each line: how far they stand apart, and in what order, is the names'."""
    return sorted(line.split() for line in text.splitlines())


def test_schedules(example: MakeExample) -> None:
    """Schedules are fired, seen and changed while the beat runs."""
    weather = example("schedules", "weather")
    with weather.worker("worker", "--queues", "weather", "--beat") as worker:
        worker.wait_for("beat.leading")
        assert weather.run("manage.py") == weather.expected("manage.txt")
        worker.wait_for_count("task.succeeded", 3)
    assert "beat.fired entry='look out'" in worker.output


def test_celery_interop(example: MakeExample, names: Names) -> None:
    """A Celery worker runs what amqtask sends, and an amqtask worker what Celery sends."""
    pytest.importorskip("celery", reason='Celery is not installed: pip install "amqtask[interop]"')
    both = example("celery_interop", "legacy", "orders")
    side = both.folder / "celery_side.py"
    # so that nothing of Celery's own is left on a shared broker
    quiet = f'event_exchange="{names.exchange("celeryev")}", worker_enable_remote_control=False'
    side.write_text(f"{side.read_text()}\napp.conf.update({quiet})\n")
    options = ["--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    queue = both.unique("legacy")
    command = ["celery", "-A", "celery_side", "worker", "--queues", queue, "-l", "info", *options]
    celery = both.start([sys.executable, "-m", *command])
    try:
        celery.wait_for("ready.")
        assert both.run("from_amqtask.py") == both.expected("from_amqtask.txt")
        with both.worker("-A", "amqtask_side", "worker", "--queues", "orders"):
            assert both.run("from_celery.py") == both.expected("from_celery.txt")
        assert celery.stop() == 0, celery.output
    finally:
        celery.process.kill()
        celery.process.wait()


def test_testing(tmp_path: Path) -> None:
    """The tests of the testing example pass, where there is no broker at all."""
    folder = shutil.copytree(EXAMPLES / "testing", tmp_path / "testing")
    own = {name: value for name, value in os.environ.items() if "AMQTASK" not in name}
    own = {name: value for name, value in own.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=folder,
        env=own | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed" in done.stdout
