"""Workflows whose steps are spread over a Celery worker and an amqtask worker, from either client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amqtask import App, ChordError, Queue, chain, chord, group
from tests.contract.backends.places import PREFIX, STORED
from tests.helpers import eventually
from tests.interop.sides import ROOT, START, CeleryWorker, consumers, running
from tests.servers import Names

celery = pytest.importorskip("celery", reason='pip install "amqtask[interop]"')

pytestmark = [
    pytest.mark.keeps,
    # what Celery 5.7 does to redis-py 8
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::UserWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ),
]

#: Seconds within which two workers on a busy machine have run a workflow.
ANSWER = 30.0


@dataclass(frozen=True, slots=True)
class Sides:
    """Both clients; both workers run.

    Attributes:
        app: The amqtask app.
        client: The Celery app.
        ours: The queue of the amqtask worker.
        theirs: The queue of the Celery worker.
    """

    app: App
    client: Any
    ours: str
    theirs: str

    def s(self, task: str, *args: Any) -> Any:
        """Return amqtask's signature of a task, whosever it is."""
        return self.app.signature(task, args, queue=self._queue(task))

    def c(self, task: str, *args: Any) -> Any:
        """Return Celery's signature of a task, whosever it is."""
        return self.client.signature(task, args=args, queue=self._queue(task))

    def _queue(self, task: str) -> str:
        return self.ours if task.startswith("ours.") else self.theirs


@pytest.fixture(scope="module")
def sides(any_broker: Any, request: pytest.FixtureRequest) -> Iterator[Sides]:
    """Both sides on one broker and one Redis."""
    names = Names()
    with ExitStack() as stack:
        redis = stack.enter_context(STORED["redis"](request))
        stack.callback(names.delete, any_broker.url)
        # as Celery names its exchange
        ours, theirs = names.queue("ours"), names("theirs")
        names.also_exchange(f"{theirs}-events")
        app = stack.enter_context(_app(any_broker.url, redis, ours, theirs, names))
        client = _client(stack, any_broker.url, redis, theirs, ours)
        stack.enter_context(_celery_worker(any_broker.url, redis, theirs, ours))
        stack.enter_context(running(app, ours))
        yield Sides(app, client, ours, theirs)


def _app(broker: str, redis: str, ours: str, theirs: str, names: Names) -> App:
    plain: dict[str, Any] = {"type": "classic", "exchange": "", "dead_letter": False}
    app = App(
        "flow",
        broker=broker,
        backend=redis,
        queues=[Queue(ours, **plain), Queue(theirs, **plain)],
        default_queue=ours,
        result_prefix=PREFIX,
        delay_prefix=names.delay_prefix(),
        cancel_exchange=names.cancel_exchange(),
        environ={},
    )

    @app.task(name="ours.add")
    def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="ours.xsum")
    def xsum(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="ours.same")
    async def same(value: Any) -> Any:
        return value

    @app.task(name="ours.fail")
    def fail(*_: Any) -> None:
        raise KeyError("ours")

    return app


def _client(stack: ExitStack, broker: str, redis: str, theirs: str, ours: str) -> Any:
    from kombu import pools

    from tests.interop.celery_flow import make

    reset: Any = pools.reset
    stack.callback(reset)  # they are the process's, not the app's
    client = make(broker, redis, theirs, ours, PREFIX)
    stack.callback(client.close)
    stack.callback(_disconnect, client.backend)
    return client


def _disconnect(backend: Any) -> None:
    """Close what a Celery client has open to Redis, which its own close leaves to the collector."""
    consumer = backend.result_consumer
    consumer.stop()
    # results unsubscribe when the collector takes them, which would make a connection
    consumer._pubsub = None
    backend.client.connection_pool.disconnect()


@contextmanager
def _celery_worker(broker: str, redis: str, theirs: str, ours: str) -> Iterator[CeleryWorker]:
    said = {"BROKER": broker, "BACKEND": redis, "THEIRS": theirs, "OURS": ours, "PREFIX": PREFIX}
    with tempfile.NamedTemporaryFile(prefix="amqtask-celery-", delete=False) as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "tests.interop.celery_flow", "worker"),
                *("--pool", "threads", "--concurrency", "2", "--loglevel", "info", "-Q", theirs),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
            cwd=ROOT,
            env={**os.environ, **{f"FLOW_{name}": value for name, value in said.items()}},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    worker = CeleryWorker(broker, theirs, process, Path(output.name))
    try:
        eventually(
            lambda: worker.check() and consumers(broker, theirs),
            timeout=START,
            message="the Celery worker did not consume",
        )
        yield worker
        worker.check()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        worker.output.unlink()


#: Workflows: what they are, made of either client's words, and what they end with.
#: ``s`` makes a signature; the rest are the client's chain, group and chord.
Made = Callable[[Any, Any, Any, Any], Any]
FLOWS: dict[str, tuple[Made, Any]] = {
    "chain, ours first": (
        lambda s, chain, group, chord: chain(
            s("ours.add", 1, 2), s("theirs.add", 10), s("ours.add", 100), s("theirs.add", 1000)
        ),
        1113,
    ),
    "chain, theirs first": (
        lambda s, chain, group, chord: chain(
            s("theirs.add", 1, 2), s("ours.add", 10), s("theirs.add", 100), s("ours.add", 1000)
        ),
        1113,
    ),
    "group": (
        lambda s, chain, group, chord: group(
            [s(f"{side}.add", n, n) for n in range(4) for side in ("ours", "theirs")]
        ),
        [0, 0, 2, 2, 4, 4, 6, 6],
    ),
    "chord, our body": (
        lambda s, chain, group, chord: chord(
            [s(f"{side}.add", n, n) for n in range(5) for side in ("ours", "theirs")],
            s("ours.xsum"),
        ),
        40,
    ),
    "chord, their body": (
        lambda s, chain, group, chord: chord(
            [s(f"{side}.same", n) for n in range(5) for side in ("ours", "theirs")],
            s("theirs.same"),
        ),
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    ),
    "chain, group, chain": (
        lambda s, chain, group, chord: chain(
            s("theirs.add", 1, 1),
            group([s("ours.add", 1), s("theirs.add", 2)]),
            s("ours.xsum"),
            s("theirs.add", 10),
        ),
        17,
    ),
    "group in the middle, ours first": (
        lambda s, chain, group, chord: chain(
            s("ours.add", 1, 1),
            group([s("ours.add", 1), s("theirs.add", 2)]),
            s("theirs.xsum"),
            s("ours.add", 10),
        ),
        17,
    ),
    "chains in a header": (
        lambda s, chain, group, chord: chord(
            [
                chain(s("theirs.add", 1, 1), s("ours.add", 5)),
                chain(s("ours.add", 2, 2), s("theirs.add", 5)),
            ],
            s("ours.same"),
        ),
        [7, 9],
    ),
    "a chord in a header": (
        lambda s, chain, group, chord: chord(
            [
                chord([s("ours.same", 1), s("theirs.same", 2)], s("ours.xsum")),
                s("theirs.same", 4),
            ],
            s("theirs.same"),
        ),
        [3, 4],
    ),
}


@pytest.mark.parametrize("name", FLOWS, ids=lambda name: name.replace(" ", "_"))
def test_from_our_client(sides: Sides, name: str):
    """amqtask sends it, and each step runs where it belongs."""
    made, value = FLOWS[name]
    assert made(sides.s, chain, group, chord).delay().get(ANSWER) == value


@pytest.mark.parametrize("name", FLOWS, ids=lambda name: name.replace(" ", "_"))
def test_from_their_client(sides: Sides, name: str):
    """Celery sends it, and each step runs where it belongs."""
    made, value = FLOWS[name]
    result = made(sides.c, celery.chain, celery.group, celery.chord).apply_async()
    assert result.get(timeout=ANSWER) == value


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_member_fails(sides: Sides, side: str):
    """The body fails for both kinds of client, whoever ran the member and whosever the body is."""
    for body in ("ours.same", "theirs.same"):
        members = [f"{side}.fail", "ours.same", "theirs.same"]
        made = chord([sides.s(task, 1) for task in members], sides.s(body))
        with pytest.raises(ChordError, match=side):
            made.delay().get(ANSWER)
        theirs = celery.chord([sides.c(task, 1) for task in members], sides.c(body))
        with pytest.raises(Exception, match=side):
            theirs.apply_async().get(timeout=ANSWER)


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_step_fails(sides: Sides, side: str):
    """The last step's handle tells it, whoever ran the one that failed."""
    steps = ["ours.add", f"{side}.fail", "theirs.same", "ours.same"]
    made = chain(sides.s(steps[0], 1, 2), *(sides.s(task) for task in steps[1:]))
    with pytest.raises(Exception, match=side):
        made.delay().get(ANSWER)
    theirs = celery.chain(sides.c(steps[0], 1, 2), *(sides.c(task) for task in steps[1:]))
    with pytest.raises(Exception, match=side):
        theirs.apply_async().get(timeout=ANSWER)


def test_a_celery_task_is_replaced(sides: Sides):
    """What runs in a Celery step's place gives its value to ours."""
    made = chain(sides.s("theirs.replaced", 1), sides.s("ours.add", 100))
    assert made.delay().get(ANSWER) == 112
