"""The command: ``python -m tests.bench.idle [--seconds 30] [--write]``.

What a worker costs that has nothing to do, beside Celery and Dramatiq: processor time, and the
memory of all its processes. All workers idle side by side on the same broker for the same seconds,
so that whatever else the machine does meets all of them alike.

RSS counts what processes share once for each of them, PSS divides it among them: where children
are forked PSS is the fair figure, and both are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from amqtask import __version__
from amqtask.testing import servers
from tests.bench.peers import environment
from tests.bench.report import IDLE_MARK, machine, with_idle
from tests.servers import Names

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
#: Seconds that workers have to start, and then to be done with what they do once.
START, SETTLE = 60.0, 10.0
#: What an idle worker may take of a core, in per cent.
GOAL = 0.5

_TASKS = {
    "ours": """
        from amqtask import App
        app = App("idle")

        @app.task(name="nothing")
        def nothing():
            pass
        """,
    "with_celery": """
        import os
        from celery import Celery
        app = Celery("idle", broker=os.environ["BROKER"])
        name = os.environ["QUEUE"]
        app.conf.update(
            task_default_queue=name, task_default_exchange=name, event_exchange=name + "-events",
            control_exchange=name + "-control",
        )

        @app.task(name="nothing")
        def nothing():
            pass
        """,
    "with_dramatiq": """
        import os
        import dramatiq
        from dramatiq.brokers.rabbitmq import RabbitmqBroker
        broker = RabbitmqBroker(url=os.environ["BROKER"])
        dramatiq.set_broker(broker)

        @dramatiq.actor(queue_name=os.environ["QUEUE"])
        def nothing():
            pass
        """,
}


@dataclass(frozen=True, slots=True)
class Contender:
    """One worker to be measured.

    Attributes:
        name: With its version.
        shape: How its slots are made.
        command: What starts it.
    """

    name: str
    shape: str
    command: list[str]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one worker takes.

    Attributes:
        cpu: Per cent of one core.
        rss: Bytes, all processes.
        pss: The same, with shared pages divided.
        first: Bytes of PSS of the process that was started.
        each: Bytes of PSS of each other process, on average.
    """

    processes: int
    cpu: float
    rss: int
    pss: int
    first: int
    each: float


def main() -> None:
    """Measure and show."""
    said = _arguments()
    with servers.find_or_start("rabbitmq") as server, TemporaryDirectory() as folder:
        contenders = _contenders()
        _compile(Path(folder))
        for name, source in _TASKS.items():
            lines = [line[8:] for line in source.splitlines()]
            (Path(folder) / f"idle_{name}.py").write_text("\n".join(lines))
        with _names(server.url) as names, contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(
                    _running(each, server.url, names(f"idle{number}"), names, Path(folder))
                )
                for number, each in enumerate(contenders)
            ]
            print(f"waiting {SETTLE:.0f} s for them to settle", file=sys.stderr)
            time.sleep(SETTLE)
            costs = _measure(workers, said.seconds)
        text = _section(contenders, costs, said.seconds, server.version)
    print(text)
    if said.write:
        PAGE.write_text(with_idle(PAGE.read_text(), text))
        print(f"wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)


def _contenders() -> list[Contender]:
    peers, versions = str(environment.python()), environment.versions()
    ours = [sys.executable, "-m", "amqtask", "-A", "idle_ours:app", "worker"]
    celery = [peers, "-m", "celery", "-A", "idle_with_celery", "worker"]
    celery += ["--loglevel", "info"]  # or it does not say when it is ready
    theirs = [peers, "-m", "dramatiq", "idle_with_dramatiq"]
    names = [
        f"amqtask {__version__}",
        f"Celery {versions['celery']}",
        f"Dramatiq {versions['dramatiq']}",
    ]
    shapes = {
        "4 processes, 1 task each": [
            [*ours, "--processes", "4", "--concurrency", "1"],
            [*celery, "--hostname", "idle4@%h", "--pool", "prefork", "--concurrency", "4"],
            [*theirs, "--processes", "4", "--threads", "1"],
        ],
        "1 process, 8 threads": [
            [*ours, "--processes", "1", "--concurrency", "8"],
            [*celery, "--hostname", "idle8@%h", "--pool", "threads", "--concurrency", "8"],
            [*theirs, "--processes", "1", "--threads", "8"],
        ],
    }
    return [
        Contender(name, shape, command)
        for shape, commands in shapes.items()
        for name, command in zip(names, commands, strict=True)
    ]


def _compile(folder: Path) -> None:
    """Have our modules compiled before the first worker that is measured does it."""
    imports = "import amqtask.cli.main, amqtask.worker.template"
    environ = os.environ | _compiled(folder)
    subprocess.run([sys.executable, "-c", imports], env=environ, check=True, cwd=ROOT)


def _compiled(folder: Path) -> dict[str, str]:
    """Return what has Python use compiled modules, as an installed package has them."""
    return {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}


# -- running --------------------------------------------------------------------


@contextlib.contextmanager
def _names(url: str) -> Iterator[Names]:
    names = Names()
    try:
        yield names
    finally:
        names.delete(url)


@contextlib.contextmanager
def _running(
    each: Contender, url: str, queue: str, names: Names, folder: Path
) -> Iterator[psutil.Process]:
    for more in (f"{queue}-events", f"{queue}-control"):
        names.also_exchange(more)
    for more in (".DQ", ".XQ"):  # Dramatiq's delayed and dead messages
        names.also(f"{queue}{more}")
    environ = {key: word for key, word in os.environ.items() if not key.startswith("AMQTASK_")}
    environ |= {
        "BROKER": url,
        "QUEUE": queue,
        "PYTHONPATH": f"{folder}:{ROOT}",
        "AMQTASK_BROKER": url,
        "AMQTASK_DEFAULT_QUEUE": queue,
        "AMQTASK_EXCHANGE": queue,
        "AMQTASK_DEAD_LETTER_EXCHANGE": names.exchange("dead"),
        "AMQTASK_DELAY_PREFIX": names.delay_prefix(),
    }
    if each.command[0] == sys.executable:  # pip has compiled what the others are
        environ |= _compiled(folder)
    log = folder / f"{queue}.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            each.command, cwd=folder, env=environ, stdout=written, stderr=written
        )
    try:
        _await_ready(each, process, log)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(each: Contender, process: subprocess.Popen[bytes], log: Path) -> None:
    # amqtask, Celery, Dramatiq
    words = ("worker.ready", " ready.", "Worker process is ready for action")
    deadline = time.monotonic() + START
    while not any(word in log.read_text(errors="replace") for word in words):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{each.name} did not start: {log.read_text(errors='replace')}")
        time.sleep(0.1)


def _measure(workers: Sequence[psutil.Process], seconds: float) -> list[Cost]:
    trees = [[worker, *worker.children(recursive=True)] for worker in workers]
    before = [_processor(tree) for tree in trees]
    begun = time.monotonic()
    print(f"measuring for {seconds:.0f} s", file=sys.stderr)
    time.sleep(seconds)
    after = [_processor(tree) for tree in trees]
    spent = time.monotonic() - begun
    return [
        _cost(tree, 100.0 * (used - first) / spent)
        for tree, first, used in zip(trees, before, after, strict=True)
    ]


def _processor(tree: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in tree]
    return float(sum(each.user + each.system for each in times))


def _cost(tree: Sequence[psutil.Process], cpu: float) -> Cost:
    infos = [process.memory_full_info() for process in tree]
    pss = [info.pss for info in infos]
    others = pss[1:]
    each = sum(others) / len(others) if others else 0.0
    return Cost(len(tree), cpu, sum(info.rss for info in infos), sum(pss), pss[0], each)


# -- showing --------------------------------------------------------------------


def _section(
    contenders: Sequence[Contender], costs: Sequence[Cost], seconds: float, broker: str
) -> str:
    head = ["worker", "slots", "processes", "CPU, % of a core", "RSS, MiB", "PSS, MiB"]
    head += ["PSS beside Celery", "PSS of the first, MiB", "PSS of each other, MiB"]
    celery = {
        each.shape: cost.pss
        for each, cost in zip(contenders, costs, strict=True)
        if each.name.startswith("Celery")
    }
    rows = [head, ["---", "---"] + ["---:"] * (len(head) - 2)]
    for each, cost in zip(contenders, costs, strict=True):
        sizes = [f"{size / 2**20:.1f}" for size in (cost.rss, cost.pss, cost.first, cost.each)]
        sizes.insert(2, f"{cost.pss / celery[each.shape]:.2f}x")
        rows.append([each.name, each.shape, str(cost.processes), f"{cost.cpu:.2f}", *sizes])
    grid = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""{IDLE_MARK}

What a worker costs that has nothing to do, beside Celery and Dramatiq with as many slots, all side
by side on the same broker for the same {seconds:.0f} seconds, after {SETTLE:.0f} seconds to settle.
The goals are less than {GOAL} % of a core, no more memory than Celery, and for each process that runs
tasks no more than Dramatiq. RSS counts pages that processes share once for each of them; PSS divides
them. What amqtask starts is a supervisor, which runs no tasks and is a process more than Celery's
pool of threads has. Celery's processes are copies of one that has imported the app, Dramatiq's and
amqtask's import it by themselves. amqtask's have two event loops, one for `async def` tasks and one
in a thread for the connection, and Dramatiq's none: whatever code a copy has run, CPython has written
to its memory, reference counts above all, and that memory is no longer shared.
`python -m tests.bench.idle --write` measures and writes this section, after it made an environment
for the other two.

{machine()}; RabbitMQ {broker}.

{grid}
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="to measure (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write it into docs/performance.md")
    said = parser.parse_args()
    if said.seconds <= 0:
        parser.error("--seconds has to be above 0")
    return said


if __name__ == "__main__":
    main()
