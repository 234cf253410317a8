"""Tasks in runners: as in a thread to whoever sent them, and no way to hurt the worker."""

from __future__ import annotations

import importlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from amqtask import (
    App,
    RemoteError,
    SoftTimeLimitExceeded,
    TaskRevoked,
    TimeLimitExceeded,
    WorkerLost,
    WorkflowFailed,
    chord,
)
from tests.helpers import eventually
from tests.integration.worker.conftest import Running
from tests.integration.worker.inprocess import Line, Worker
from tests.servers import Names

SOURCE = """
import asyncio, ctypes, os, signal, time
from amqtask import App, Context, Ignore, Retry, SoftTimeLimitExceeded, TaskCancelled, current_task
from amqtask import RetryPolicy, TimeLimitExceeded

app = App("isolated", environ={{}}, **{settings!r})

def note(word):
    with open({ledger!r}, "a") as ledger:
        ledger.write(f"{{word}}\\n")

@app.task(name="pid", pool="process")
def pid(): return os.getpid()

@app.task(name="where")
def where(): return os.getpid()

@app.task(name="awhere")
async def awhere():
    await asyncio.sleep(0)
    return os.getpid()

@app.task(name="about", pool="process", bind=True)
def about(self: Context):
    assert current_task.id == self.id
    return [self.task, self.id, self.retries, dict(self.headers), self.queue, self.hostname]

@app.task(name="loops", pool="process")
async def loops():
    await asyncio.sleep(0)
    return [id(asyncio.get_running_loop()), os.getpid()]

@app.task(name="fails", pool="process")
def fails(): raise LookupError("no such customer", 7)

@app.task(name="odd", pool="process")
def odd(): return object()

@app.task(name="quits", pool="process")
def quits(): raise SystemExit(3)

@app.task(name="flaky", pool="process", bind=True,
          retry=RetryPolicy(on=(OSError,), backoff=0.05, jitter=False))
def flaky(self):
    if self.retries < 2: raise OSError("not yet")
    return self.retries

@app.task(name="asks", pool="process", bind=True)
def asks(self):
    if not self.retries: raise Retry("once more", countdown=0.05)
    return self.retries

@app.task(name="dies", pool="process")
def dies(): os.kill(os.getpid(), signal.SIGKILL)

@app.task(name="once", pool="process")
def once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os._exit(9)
    return "alive"

@app.task(name="sleeps", pool="process")
def sleeps(seconds=60):
    note(os.getpid())
    time.sleep(seconds)

@app.task(name="asleeps", pool="process")
async def asleeps(seconds=60):
    note(os.getpid())
    await asyncio.sleep(seconds)

@app.task(name="cleans", pool="process")
def cleans():
    try:
        sleeps()
    except (SoftTimeLimitExceeded, TaskCancelled) as asked:
        note(type(asked).__name__)
        raise

@app.task(name="acleans", pool="process")
async def acleans():
    try:
        await asleeps()
    except (SoftTimeLimitExceeded, asyncio.CancelledError) as asked:
        note(type(asked).__name__)
        raise

@app.task(name="forks", pool="process")
def forks():
    return "copy" if os.fork() == 0 else "original"

@app.task(name="stubborn", pool="process")
def stubborn():
    note(os.getpid())
    while True:
        try:
            time.sleep(60)
        except TaskCancelled:
            pass

@app.task(name="echo", pool="process")
def echo(value): return value

@app.task(name="sends", pool="process")
def sends(): return where.delay().id

@app.task(name="swaps", pool="process", bind=True)
def swaps(self, value):
    self.replace(echo.s(value) | adds.s(1))

@app.task(name="adds", pool="process")
def adds(a, b): return a + b

@app.task(name="grows", pool="process", bind=True)
def grows(self, value):
    self.add_to_chord(echo.s(value + 1))
    return value

@app.task(name="heard", pool="process")
def heard(id, error, traceback): note(type(error).__name__)

@app.task(name="steps", pool="process")
def steps(count):
    for number in range(1, count + 1):
        current_task.progress(number, count)
    return "end"
"""


class Shop:
    """An app in a module that runners can import, and its worker."""

    def __init__(self, module: ModuleType, ledger: Path) -> None:
        self.app: App = module.app
        self._ledger = ledger
        self._workers: list[Worker] = []

    def open(self, **said: Any) -> Worker:
        self._workers.append(Worker(self.app, **{"process_slots": 1, **said}))
        return self._workers[-1].start()

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        self.app.close()

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        return self.app.send_task(task, args, **options)

    @property
    def ledger(self) -> list[str]:
        return self._ledger.read_text().split() if self._ledger.exists() else []


@pytest.fixture
def shop(
    broker: str,
    names: Names,
    delay_prefix: str,
    queue: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    settings = {
        "broker": broker,
        "default_queue": queue,
        "delay_prefix": delay_prefix,
        "backend": "rpc://",
        "crash_limit": 2,
    }
    name = f"isolated_{uuid.uuid4().hex}"
    ledger = tmp_path / "ledger"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(settings=settings, ledger=str(ledger)))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    shop = Shop(module, ledger)
    yield shop
    shop.close()
    del sys.modules[name]


def _gone(pid: int) -> Callable[[], bool]:
    return lambda: not psutil.pid_exists(pid)


def test_it_runs_elsewhere_and_stays_there(shop: Shop):
    """In another process, the same one for the next call; its loop lives as long."""
    worker = shop.open()
    first = shop.send("pid").get(60)
    assert first != os.getpid()
    assert shop.send("pid").get(60) == first
    loop = shop.send("loops").get(60)
    assert loop[1] == first
    assert shop.send("loops").get(60) == loop
    worker.stop()
    eventually(_gone(first))


def test_workflows(shop: Shop):
    """What follows a call, takes its place or joins its chord is the same as from a thread."""
    shop.open()
    s = shop.app.signature
    assert (s("adds", (1, 2)) | s("swaps") | s("adds", (10,))).delay().get(60) == 14
    grown = chord([s("grows", (1,)), s("echo", (5,))], s("echo")).delay().get(60)
    assert grown == [1, 5, 2]
    failing = s("fails").on_error(s("heard")) | s("echo")
    with pytest.raises(WorkflowFailed, match="no such customer"):
        failing.delay().get(60)
    eventually(lambda: shop.ledger == ["LookupError"])


def test_it_is_the_same_to_the_task(shop: Shop, queue: str):
    """Context, headers and id are those of the message."""
    shop.open()
    result = shop.send("about", headers={"tenant": "acme"})
    assert result.get(60) == ["about", result.id, 0, {"tenant": "acme"}, queue, "test-worker"]


def test_values_of_any_size(shop: Shop):
    """A frame is as long as it has to be, in both directions."""
    shop.open()
    value = {"text": "ü" * 1_000_000, "numbers": list(range(1000))}
    assert shop.send("echo", value).get(60) == value


def test_errors_and_signals(shop: Shop, queue: str, line: Line):
    """Failures, retries and dead letters are decided and written as those of a thread."""
    worker = shop.open()
    with pytest.raises(LookupError) as caught:
        shop.send("fails").get(60)
    assert caught.value.args == ("no such customer", 7)
    assert "raise LookupError" in str(caught.value.__cause__)
    assert "amqtask/worker" not in str(caught.value.__cause__)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-exception"] == "LookupError: ('no such customer', 7)"
    assert properties.headers["amqtask-attempts"] == 1
    assert shop.send("flaky").get(60) == 2
    assert shop.send("asks").get(60) == 1
    with pytest.raises(RemoteError) as stopped:
        shop.send("quits").get(60)
    assert stopped.value.exc_type == "SystemExit"
    error = shop.send("odd", task_id="A").get(60, propagate=False)
    assert str(error).startswith("result of task 'odd' (id A): cannot encode the result: ")
    eventually(lambda: worker.node.counts["failed"] == 3)


def test_a_value_that_nobody_wants_need_not_serialise(shop: Shop):
    """As in a thread."""
    worker = shop.open()
    shop.send("odd", ignore_result=True)
    eventually(lambda: worker.node.counts["done"] == 1)


def test_a_call_from_a_runner(shop: Shop, line: Line):
    """It has connections of its own, and is confirmed like any other."""
    shop.open()
    id_ = shop.send("sends").get(60)
    assert isinstance(id_, str)


def test_its_children_and_its_progress(shop: Shop):
    """Calls that a runner sends are the task's children; what it reports reaches who watches."""
    shop.open()
    sent = shop.send("sends")
    child = sent.get(60)
    assert [each.id for each in sent.children] == [child]
    steps = shop.send("steps", 200)
    seen = list(steps.watch(60))
    assert seen == sorted(seen, key=lambda each: each.done)
    assert {each.total for each in seen} <= {200}
    assert seen
    assert steps.get(60) == "end"


def test_a_death_is_counted_and_does_not_stop_the_worker(shop: Shop, queue: str, line: Line):
    """Twice is enough here; then it is parked, with what is known, and its caller is told."""
    worker = shop.open()
    result = shop.send("dies")
    with pytest.raises(WorkerLost, match="died: signal SIGKILL"):
        result.get(60)
    properties, _ = line.take(f"{queue}.dead")
    headers = properties.headers
    assert headers["amqtask-reason"] == "worker_lost"
    assert (headers["amqtask-signal"], headers["amqtask-crashes"]) == ("SIGKILL", 2)
    assert headers["retries"] == 0
    assert shop.send("pid").get(60)
    assert worker.node.counts["again"] == 1


def test_a_death_that_does_not_come_again(shop: Shop, tmp_path: Path):
    """The next try ends in good order, and its result is the call's."""
    shop.open()
    assert shop.send("once", str(tmp_path / "died")).get(60) == "alive"


def test_a_death_that_somebody_else_was_told_of(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """User code may wait for any child, and get ours: the death counts, how is not known."""
    wait4 = os.wait4

    def reaped(*args: Any) -> Any:
        wait4(*args)
        raise ChildProcessError

    monkeypatch.setattr(os, "wait4", reaped)
    shop.open()
    with pytest.raises(WorkerLost, match="how is not known"):
        shop.send("dies").get(60)
    assert shop.send("pid").get(60)


def test_a_task_that_forks_and_forgets(shop: Shop):
    """The copy of the runner that comes back into our code is no runner, and says nothing."""
    worker = shop.open()
    assert shop.send("forks").get(60) == "original"
    assert [shop.send("echo", number).get(60) for number in range(3)] == [0, 1, 2]
    eventually(lambda: worker.node.counts["done"] == 4)


@pytest.mark.parametrize("task", ["cleans", "acleans"])
def test_a_soft_limit(shop: Shop, task: str):
    """It is raised in the task, whatever that waits for."""
    shop.open()
    with pytest.raises(SoftTimeLimitExceeded, match="ran over its soft limit of 2 s"):
        shop.send(task, soft_time_limit=2).get(60)
    assert shop.ledger[1:] == ["SoftTimeLimitExceeded"]
    pid = int(shop.ledger[0])
    assert shop.send("pid").get(60) == pid


@pytest.mark.parametrize("task", ["sleeps", "asleeps"])
def test_a_hard_limit(shop: Shop, queue: str, line: Line, task: str):
    """The runner is killed and replaced, and it does not count as a crash."""
    worker = shop.open()
    with pytest.raises(TimeLimitExceeded, match="ran over its hard limit of 2 s"):
        shop.send(task, time_limit=2).get(60)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "timeout"
    assert "amqtask-crashes" not in properties.headers
    eventually(_gone(int(shop.ledger[0])))
    assert shop.send("pid").get(60) != int(shop.ledger[0])
    assert worker.node.counts["failed"] == 1


@pytest.mark.parametrize(
    ("task", "asked"), [("cleans", "TaskCancelled"), ("acleans", "CancelledError")]
)
def test_a_cancel(shop: Shop, queue: str, line: Line, task: str, asked: str):
    """The task may clean up; its caller is told, and nothing is parked."""
    worker = shop.open()
    result = shop.send(task)
    eventually(lambda: shop.ledger)
    assert worker.node.cancel(result.id)
    with pytest.raises(TaskRevoked):
        result.get(60)
    assert shop.ledger[1:] == [asked]
    assert line.size(f"{queue}.dead") == 0


def test_a_cancel_of_what_waits(shop: Shop):
    """It is settled at once, though all slots are taken."""
    worker = shop.open()
    shop.send("sleeps")
    eventually(lambda: shop.ledger)
    second = shop.send("pid")
    eventually(lambda: worker.node.waiting == 1)
    assert worker.node.cancel(second.id)
    with pytest.raises(TaskRevoked):
        second.get(60)
    assert not worker.node.cancel(second.id)
    worker.stop_now()


def test_a_termination(shop: Shop):
    """A task that would not end is killed; the caller is told that it was cancelled."""
    worker = shop.open()
    result = shop.send("stubborn")
    eventually(lambda: shop.ledger)
    assert worker.node.cancel(result.id, terminate=True)
    with pytest.raises(TaskRevoked):
        result.get(60)
    eventually(_gone(int(shop.ledger[0])))


def test_stopping_asks_then_gives_back(shop: Shop, queue: str, line: Line):
    """What ends because it was asked to is given back, not failed; what does not is killed."""
    worker = shop.open(process_slots=2)
    shop.send("cleans")
    eventually(lambda: len(shop.ledger) == 1)
    worker.begin_to_stop()
    eventually(lambda: not worker.node.ready)  # else what is given back comes once more
    worker.node.cancel_running()
    eventually(worker.stopped)
    assert shop.ledger[1:] == ["TaskCancelled"]
    eventually(lambda: line.size(queue) == 1)
    assert line.size(f"{queue}.dead") == 0
    assert worker.node.counts == {"given_back": 1}


def test_a_quick_stop_kills(shop: Shop, queue: str, line: Line):
    """What runs and what waits is back in the queue, and no process is left."""
    worker = shop.open(prefetch=5)
    for _ in range(3):
        shop.send("sleeps")
    eventually(lambda: shop.ledger)
    worker.stop_now()
    eventually(lambda: line.size(queue) == 3)
    eventually(_gone(int(shop.ledger[0])))


def test_recycling_by_number(shop: Shop):
    """A runner is replaced after so many tasks, and no call notices."""
    shop.open(max_tasks_per_child=2)
    pids = [shop.send("pid").get(60) for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


def test_recycling_by_memory(shop: Shop):
    """A runner that has more than is allowed is replaced after its task."""
    shop.open(max_memory_per_child=1)
    assert shop.send("pid").get(60) != shop.send("pid").get(60)


def test_a_suspect_runs_isolated(shop: Shop):
    """Whatever its pool, plain or async; the others stay where they are."""
    worker = shop.open()
    worker.node.suspect(["A", "B"], "their process died")
    assert shop.send("where", task_id="A").get(60) != os.getpid()
    assert shop.send("awhere", task_id="B").get(60) != os.getpid()
    assert shop.send("where").get(60) == os.getpid()
    assert shop.send("awhere").get(60) == os.getpid()


def test_condemned(shop: Shop, queue: str, line: Line):
    """A call that hung its process does not run again."""
    worker = shop.open()
    worker.node.condemn("A", "hung its process")
    with pytest.raises(TimeLimitExceeded, match=r"task 'pid' \(id A\) hung its process"):
        shop.send("pid", task_id="A").get(60)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "timeout"


def test_everything_isolated(shop: Shop):
    """pool="process" for the worker: tasks that do not say otherwise run in runners."""
    shop.open(pool="process")
    assert shop.send("where").get(60) != os.getpid()
    assert shop.send("awhere").get(60) != os.getpid()


def test_what_a_node_knows_of_what_runs(shop: Shop):
    """Which calls, where, for how long, and at which line."""
    worker = shop.open()
    result = shop.send("sleeps")
    eventually(lambda: shop.ledger)
    (job,) = worker.node.running_jobs()
    assert (job.id, job.task, job.pool) == (result.id, "sleeps", "process")
    assert job.seconds < 60
    stacks = worker.node.stacks()
    assert f"task sleeps (id {result.id}), in a process, for " in stacks
    assert "in sleeps" in stacks
    worker.stop_now()


def test_an_app_that_cannot_be_imported(shop: Shop, tmp_path: Path, queue: str, line: Line):
    """It is said, the worker is not ready for it, and the call is given back when it stops."""
    worker = shop.open()
    module = next(tmp_path.glob("isolated_*.py"))
    whole = module.read_text()
    module.write_text("raise RuntimeError('not today')\n")
    result = shop.send("pid")
    eventually(lambda: any("not today" in why for why in worker.node.unready()))
    worker.begin_to_stop()
    eventually(worker.stopped)
    eventually(lambda: line.size(queue) == 1)
    module.write_text(whole)
    shop.open()
    assert isinstance(result.get(60), int)


def test_an_app_that_no_module_holds(app: App, queue: str, running: Running, line: Line):
    """Nobody else can import it: its isolated tasks fail with what is to be done."""

    @app.task(name="t.alone", pool="process")
    def alone() -> int:
        return 1

    running(app)
    error = alone.delay().get(60, propagate=False)
    assert "is not an attribute of any imported module" in str(error)
    properties, _ = line.take(f"{queue}.dead")
    assert properties.headers["amqtask-reason"] == "failed"
