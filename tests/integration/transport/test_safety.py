"""Sending from threads, loops and forked children at once: every call arrives exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from amqtask import App, PipelineError, Unroutable
from tests.integration.transport import senders
from tests.integration.transport.conftest import MakeApp
from tests.integration.transport.peer import Peer
from tests.proxy import closed_port
from tests.servers import Names

_ROOT = Path(__file__).parents[3]
_SENDERS = "tests.integration.transport.senders"


def _run(name: str, url: str, queue: str) -> list[str]:
    """Run one of the programs and return the ids it printed; it must end well and say no more."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("AMQTASK_")}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", _SENDERS, name, url, queue],
        cwd=_ROOT,
        env={**environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.stderr == ""
    assert ended.returncode == 0
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("everything", 2 + (senders.THREADS + 1 + 2) * senders.EACH),
        ("forks", None),
        ("fork_before_use", 20),
        ("pool", 16),
        ("fork_in_pipeline", 210),
        ("pipeline", senders.THREADS * senders.EACH),
        ("no_close", 3),
        ("unfinished_pipeline", 100),
    ],
)
def test_each_call_arrives_exactly_once(
    name: str, count: int | None, broker: str, names: Names, peer: Peer
) -> None:
    """Whoever sends, at once or after a fork: ids confirmed and ids in the queue are the same.

    A second process that wrote to the first one's connection would break its stream of bytes: the
    broker would close it, and that would show on stderr or as a call sent twice.
    """
    queue = names.queue("q")
    confirmed = Counter(_run(name, broker, queue))
    arrived = Counter(id_ for id_, _ in peer.take(queue))
    assert arrived == confirmed
    assert set(arrived.values()) == {1}
    if count is not None:
        assert arrived.total() == count
    else:
        assert {f"child{n}-{m}" for n in range(10) for m in range(3)} < set(arrived)
        assert any(id_.startswith("parent-") for id_ in arrived)


def test_connecting_imports_nothing(broker: str, names: Names, peer: Peer) -> None:
    """A module half imported in the I/O thread when a process forks is broken in the child."""
    queue = names.queue("q")
    assert _run("lazy_imports", broker, queue) == []
    assert len(peer.take(queue)) == 2


def test_closing_under_senders(broker: str, names: Names, peer: Peer) -> None:
    """A call that meets app.close() is confirmed, or told that the app was closed; none hangs."""
    queue = names.queue("q")
    confirmed = Counter(_run("closing", broker, queue))
    arrived = Counter(id_ for id_, _ in peer.take(queue))
    assert set(confirmed) <= set(arrived)
    assert set(confirmed.values()) == {1}


def test_a_program_that_ends_while_it_sends(broker: str, names: Names, peer: Peer) -> None:
    """A daemon thread under way at the end is no error and no hang; what was confirmed is there."""
    queue = names.queue("q")
    ids = _run("daemon_thread", broker, queue)
    arrived = {id_ for id_, _ in peer.take(queue)}
    assert ids == ["main-0"]
    assert arrived == {"main-0", "daemon"}


def test_a_program_that_never_connects(names: Names, broker: str) -> None:
    """It ends as soon as its work is done, though the app goes on trying."""
    assert broker
    ids = _run_quietly("unreachable", f"amqp://127.0.0.1:{closed_port()}/", names.queue("q"))
    assert ids == ["PublishTimeout"]


def _run_quietly(name: str, url: str, queue: str) -> list[str]:
    """Run a program that may warn: a broker that is not there is worth a line."""
    ended = subprocess.run(
        [sys.executable, "-m", _SENDERS, name, url, queue],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    assert all(line.startswith("broker.unreachable ") for line in ended.stderr.splitlines())
    assert ended.returncode == 0
    return ended.stdout.split()


# -- pipelines --------------------------------------------------------------------


def test_a_pipeline_of_many(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """20,000 calls, more than twice what may be under way at once: all confirmed, all there, once."""
    queue = names.queue("q")
    app = make_app(queue, publish_timeout=60)
    with app.pipeline() as pipeline:
        for number in range(20_000):
            app.send_task("t", (number,))
    assert (pipeline.sent, pipeline.confirmed) == (20_000, 20_000)
    assert peer.ready(queue) == 20_000


async def test_an_async_pipeline(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """As many coroutines as there are calls, over the limit too."""
    queue = names.queue("q")
    app = make_app(queue, publish_timeout=60)

    @app.task(name="t")
    async def task(number: int) -> None: ...

    async with app.pipeline() as pipeline:
        for number in range(9000):
            await task.adelay(number)
    assert pipeline.confirmed == 9000
    assert peer.ready(queue) == 9000
    peer.channel.queue_purge(queue)
    results = await task.adelay_many([(number,) for number in range(50)])
    assert [id_ for id_, _ in peer.take(queue)] == [result.id for result in results]


def test_a_pipeline_lists_every_failure(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """Good ones arrive; each bad one is in the error under its id, with its own reason."""
    queue = names.queue("q")
    app = make_app(queue)
    with pytest.raises(PipelineError) as caught:
        _mixed(app, queue)
    bad = {str(number) for number in range(0, 500, 10)}
    assert {id_ for id_, _ in caught.value.failures} == bad
    assert len(caught.value.failures) == 50
    assert {type(error) for _, error in caught.value.failures} == {Unroutable}
    assert caught.value.confirmed == 450
    assert str(caught.value) == (
        "50 of 500 calls of the pipeline failed, 450 were confirmed; the first: task 't' (id 0)"
        f" to exchange {app.settings.exchange!r} with routing key 'nobody.wants' was not"
        " published: no queue took it (312 NO_ROUTE)"
    )
    assert {id_ for id_, _ in peer.take(queue)} == {str(n) for n in range(500)} - bad


def _mixed(app: App, queue: str) -> None:
    with app.pipeline():
        for number in range(500):
            key = "nobody.wants" if number % 10 == 0 else queue
            app.send_task("t", task_id=str(number), routing_key=key)


def test_delay_many(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """In order, each with its result handle."""
    queue = names.queue("q")
    app = make_app(queue)

    @app.task(name="t")
    def task(number: int) -> None: ...

    results = task.delay_many([(number,) for number in range(500)])
    assert peer.take(queue) == [(result.id, [number]) for number, result in enumerate(results)]


# -- closing ----------------------------------------------------------------------


def test_a_closed_app_can_be_used_again(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """close waits for what is under way and disconnects; the next call connects anew."""
    queue = names.queue("q")
    app = make_app(queue)
    for number in range(3):
        app.send_task("t", (number,))
        app.close()
        assert not app.transport.io.started
    assert [args for _, args in peer.take(queue)] == [[0], [1], [2]]


async def test_closing_from_a_coroutine(make_app: MakeApp, names: Names, peer: Peer) -> None:
    """An app that an async program used is closed the same way."""
    queue = names.queue("q")
    app = make_app(queue)
    await app.asend_task("t", (0,))
    app.close()
    await app.asend_task("t", (1,))
    assert [args for _, args in peer.take(queue)] == [[0], [1]]
