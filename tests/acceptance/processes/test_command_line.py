"""The command line, as a stranger uses it: finding the app, errors, help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.acceptance.program import Workshop, workshop_in
from tests.proxy import closed_port
from tests.servers import Names

TASKS = """
from amqtask import App

app = App("shop")

@app.task(name="mail.send")
def send(to: str) -> None: ...

@app.task(name="mail.count")
async def count() -> int: return 1
"""


NO_APP = (
    "amqtask: no app found in {folder}: there is no tasks.py or app.py\n"
    "  name it: -A module:attribute, AMQTASK_APP, or app in [tool.amqtask] of pyproject.toml\n"
)


@pytest.fixture
def desk(tmp_path: Path):
    """A workshop for commands that need no broker; its own does not run."""
    url = f"amqp://guest:s3cret@127.0.0.1:{closed_port()}/"
    with workshop_in(tmp_path, url, Names()) as made:
        yield made


def test_banner(workshop: Workshop) -> None:
    """It shows app, broker, queues and tasks, and no password."""
    workshop.write(TASKS)
    worker = workshop.worker("--queues", workshop.queue, "--name", "bee", "-c", "4")
    worker.wait_for("worker.ready name=bee processes=1")
    assert worker.stop() == 0
    banner = "\n".join(worker.lines[:9])
    url = workshop.environ["AMQTASK_BROKER"].replace(":guest@", ":***@")
    shown = url.replace("%2F", "").rstrip("/")
    assert banner.splitlines()[0] == "amqtask worker bee"
    assert "  app       tasks:app (shop)" in banner
    assert shown in banner
    assert ":guest@" not in worker.output
    assert "  results   off" in banner
    assert f"  queues    {workshop.queue}" in banner
    assert "  runs      1 process x 4 tasks" in banner
    assert "  tasks     2\n    mail.count (async)\n    mail.send" in banner


def test_an_unreachable_broker_is_waited_for(desk: Workshop) -> None:
    """A worker may start before its broker; it says so, and a signal ends it with 0."""
    desk.write(TASKS)
    worker = desk.worker()
    worker.wait_for("worker.waiting")
    assert "does not answer" in worker.output
    assert "s3cret" not in worker.output
    assert worker.stop() == 0


def test_a_refused_login_ends_with_1(workshop: Workshop) -> None:
    """Wrong credentials do not heal by waiting: one clear line, exit code 1."""
    workshop.write(TASKS)
    url = workshop.environ["AMQTASK_BROKER"].replace("guest:guest", "guest:wr0ng")
    worker = workshop.worker(AMQTASK_BROKER=url)
    assert worker.wait() == 1
    assert "worker.cannot_start" in worker.output
    assert "refused access" in worker.output
    assert "check user, password, vhost and permissions of the broker URL" in worker.output
    assert "wr0ng" not in worker.output


def test_children_that_never_get_ready_end_the_worker(workshop: Workshop) -> None:
    """An app that only the supervisor can import: five tries, then exit code 1 and the reason."""
    workshop.write(
        "import os\n"
        "if os.path.exists('imported'):\n"
        "    raise RuntimeError('not in a child')\n"
        "open('imported', 'x').close()\n" + TASKS
    )
    worker = workshop.worker()
    assert worker.wait() == 1
    assert "RuntimeError: not in a child" in worker.output
    assert re.search(r"worker\.hopeless: 5 children in a row died", worker.output)


def test_topology(desk: Workshop) -> None:
    """It prints what the app wants, without a broker."""
    desk.write(TASKS)
    shown = desk.run("topology")
    assert shown.returncode == 0, shown.stderr
    queue, exchange = desk.queue, desk.environ["AMQTASK_EXCHANGE"]
    assert re.search(rf"^  {exchange} +topic +durable$", shown.stdout, re.MULTILINE)
    assert re.search(
        rf"^  {queue} +quorum +durable +.*x-delivery-limit=20", shown.stdout, re.MULTILINE
    )
    assert re.search(rf"^  {queue}\.dead +quorum", shown.stdout, re.MULTILINE)
    assert re.search(rf"^  {exchange} +{queue}\.# +-> {queue}$", shown.stdout, re.MULTILINE)
    assert "44 queues from 50 ms" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "files"),
    [
        (["-A", "shop.jobs:app", "topology"], {}, ["shop/jobs.py"]),
        (["topology", "-A", "shop.jobs"], {}, ["shop/jobs.py"]),
        (["topology"], {"AMQTASK_APP": "jobs"}, ["jobs.py"]),
        (["topology"], {}, ["app.py"]),
        (["topology"], {}, ["tasks.py"]),
    ],
)
def test_ways_to_name_the_app(
    desk: Workshop, arguments: list[str], environ: dict[str, str], files: list[str]
) -> None:
    """Before and after the command, by variable, and in tasks.py or app.py unnamed."""
    for name in files:
        (desk.folder / name).parent.mkdir(exist_ok=True)
        desk.write(TASKS, name)
    shown = desk.run(*arguments, **environ)
    assert shown.returncode == 0, shown.stderr
    assert desk.queue in shown.stdout


def test_the_app_named_in_pyproject(desk: Workshop) -> None:
    """[tool.amqtask] app names it, and its other keys are settings."""
    desk.write(TASKS, "jobs.py")
    desk.write('[tool.amqtask]\napp = "jobs:app"\nqueues = ["from-the-file"]\n', "pyproject.toml")
    shown = desk.run("topology")
    assert shown.returncode == 0, shown.stderr
    assert "from-the-file" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "source", "text"),
    [
        (
            ["topology"],
            None,
            NO_APP,
        ),
        (["topology"], "x = 1", "no app found in {folder}: tasks.py hold no App"),
        (["-A", "tasks:ap", "topology"], TASKS, "module 'tasks' has no 'ap', did you mean 'app'?"),
        (["-A", "tasks:send", "topology"], TASKS, "'tasks:send' is a SyncTask, not an App"),
        (["-A", "nowhere", "topology"], TASKS, "app 'nowhere': no module named 'nowhere'"),
        (["worker", "-Q", " , "], TASKS, "--queues ' , ' names no queue"),
        (["worker", "--prefetch", "0"], TASKS, "0 is not in the range 1<=x<=65535"),
        (["wroker"], TASKS, "No such command 'wroker'"),
    ],
)
def test_errors(desk: Workshop, arguments: list[str], source: str | None, text: str) -> None:
    """One or two lines that say what, where and what to do; no traceback; not exit code 0."""
    if source is not None:
        desk.write(source)
    shown = desk.run(*arguments)
    assert shown.returncode != 0
    assert text.format(folder=desk.folder) in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_wrong_setting_is_named(desk: Workshop) -> None:
    """A typing error in the environment stops the start, with the near name."""
    desk.write(TASKS)
    shown = desk.run("topology", AMQTASK_BROKR="x")
    assert shown.returncode == 1
    assert "AMQTASK_BROKR" in shown.stderr
    assert "did you mean" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["tasks.py", "amqtask worker --queues email", "AMQTASK_BROKER", "topology"]),
        (
            ("worker",),
            ["--queues", "--processes", "--concurrency", "--prefetch", "--loglevel", "--name"],
        ),
        (("topology",), ["--queues", "--app"]),
    ],
)
def test_help(desk: Workshop, arguments: tuple[str, ...], words: list[str]) -> None:
    """A user who reads only --help succeeds."""
    shown = desk.run(*arguments, "--help")
    assert shown.returncode == 0
    for word in words:
        assert word in shown.stdout
