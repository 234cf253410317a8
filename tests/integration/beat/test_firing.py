"""What is sent: once, with its instant, whatever the call before or the broker does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amqtask import App, Queue, every, once
from amqtask.backends.pending import Pending
from amqtask.beat.tally import utcnow
from amqtask.broker import Broker
from amqtask.clock import telling
from amqtask.errors import BackendUnavailable
from amqtask.message.results import ResultMeta
from amqtask.testing import Server
from amqtask.transport import seat
from tests.helpers import eventually
from tests.integration.beat.conftest import Beating, MakeApp, RunningBeat
from tests.integration.worker.inprocess import Line, line_to
from tests.proxy import closed_port


@pytest.fixture
def broker(any_broker: Server) -> str:
    """One broker: how beats share a queue is tested on all of them, in `test_state_loss`."""
    return any_broker.url


def take(line: Line, queue: str) -> tuple[dict[str, Any], bytes]:
    """Take the next message and return its headers and body."""
    props, body = line.take(queue, timeout=30)
    return dict(props.headers or {}), body


@contextmanager
def coming() -> Iterator[Callable[[datetime], None]]:
    """Give a way to have an instant come at once, however long it took to get ready for it."""
    ahead = [0.0]

    def let_come(at: datetime) -> None:
        ahead[0] = max(0.0, at.timestamp() - time.time())

    with telling(lambda: time.time() + ahead[0]):
        yield let_come


def test_a_fire_is_a_call(app: App, beating: Beating, line: Line, queue: str) -> None:
    """With its fixed id, entry and instant in its headers, and the entry's options."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    entry = app.schedule(
        "soon", "note", once(at), args=[1], kwargs={"a": 2}, expires=60, headers={"mine": "x"}
    )
    with coming() as let_come:
        beating(app)
        let_come(at)
        headers, body = take(line, queue)
        left = datetime.fromisoformat(headers["expires"]) - utcnow()
    assert headers["id"] == entry.fire_id("beat-tests", at)
    assert headers["task"] == "note"
    assert headers["x-amqtask-entry"] == "soon"
    assert headers["periodic_task_name"] == "soon"
    assert datetime.fromisoformat(headers["x-amqtask-instant"]) == at
    assert headers["mine"] == "x"
    assert timedelta(seconds=0) < left <= timedelta(seconds=60)
    assert body.startswith(b'[[1],{"a":2}')


def test_a_full_queue_makes_a_fire_late_and_not_lost(
    make_app: MakeApp, beating: Beating, line: Line, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again until there is room; other entries go on meanwhile."""
    full = Queue(f"{queue}-full", max_length=1, type="classic", dead_letter=False)
    app = make_app(queues=[full])
    line.channel.queue_declare(f"{queue}-full", passive=False, durable=True, arguments={
        "x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish",
    })  # fmt: skip
    try:
        line.send(f"{queue}-full", b"in the way")
        app.schedule("tick", "note", every(seconds=1))
        with coming() as let_come:
            beat = beating(app)
            at = datetime.now(UTC) + timedelta(hours=1)
            app.schedules.add("stuck", "note", once(at), queue=f"{queue}-full")
            let_come(at)
            with caplog.at_level(logging.WARNING, logger="amqtask.beat"):
                eventually(lambda: "beat.late entry='stuck'" in caplog.text)
            due = beat.counts.get("due", 0)
            eventually(lambda: beat.counts.get("due", 0) > due)
            assert app.schedules.get("stuck").fires == 0
            assert line.take(f"{queue}-full")[1] == b"in the way"
            headers, _ = take(line, f"{queue}-full")
            assert headers["x-amqtask-entry"] == "stuck"
            # the leader counts a fire once its confirm has come, which is after the message has
            eventually(lambda: app.schedules.get("stuck").fires == 1)
    finally:
        line.channel.queue_delete(f"{queue}-full")


def test_one_that_cannot_be_sent_stops_no_other(
    make_app: MakeApp, beating: Beating, line: Line, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exchange that is not there is said for its entry; the others of that instant go out."""
    app = make_app()
    for number in range(3):
        app.schedule(f"good-{number}", "note", every(seconds=1))
    app.schedule("bad", "note", every(seconds=1), exchange=f"{queue}-nowhere", routing_key="x")
    with caplog.at_level(logging.ERROR, logger="amqtask.beat"):
        beat = beating(app)
        eventually(lambda: beat.counts.get("failed", 0) >= 2)
    assert "beat.failed entry='bad'" in caplog.text
    assert f"no exchange '{queue}-nowhere'" in caplog.text
    names = [take(line, queue)[0]["x-amqtask-entry"] for _ in range(6)]
    assert sorted(names) == ["good-0", "good-0", "good-1", "good-1", "good-2", "good-2"]
    assert beat.leads


def test_skip_waits_for_the_end_of_the_call_before(
    make_app: MakeApp, beating: Beating, line: Line, queue: str, tmp_path: Path
) -> None:
    """While nothing is known of its end no other one is sent; once it has ended the next is."""
    app = make_app(backend=f"file://{tmp_path}")
    app.schedule("long", "note", every(seconds=1), overlap="skip")
    beat = beating(app)
    headers, _ = take(line, queue)
    eventually(lambda: beat.counts.get("skipped", 0) >= 2)
    assert line.size(queue) == 0
    assert beat.counts["due"] == 1

    ended: list[Exception | None] = []
    backend = app.backend
    assert backend is not None
    meta = ResultMeta(headers["id"], "SUCCESS", 1)
    backend.save(meta, reply_to="", correlation_id=headers["id"], done=ended.append)
    eventually(lambda: ended == [None])
    again, _ = take(line, queue)
    assert again["id"] != headers["id"]
    eventually(lambda: app.schedules.get("long").fires == 2)


def test_a_result_that_has_expired_keeps_nobody_waiting(
    make_app: MakeApp, beating: Beating, line: Line, queue: str, tmp_path: Path
) -> None:
    """A call of which nothing is known for longer than results are kept counts as ended."""
    app = make_app(backend=f"file://{tmp_path}", result_expires=3)
    app.schedule("weekly", "note", every(seconds=1), overlap="skip")
    beat = beating(app)
    take(line, queue)
    take(line, queue)
    eventually(lambda: beat.counts.get("skipped", 0) >= 1)


def test_cancel_running_cancels_the_call_before(
    make_app: MakeApp, beating: Beating, line: Line, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before is on record as cancelled when the next one is sent."""
    app = make_app()
    app.schedule("fresh", "note", every(seconds=1), overlap="cancel_running")
    cancelled: list[str] = []

    async def acancel(ids: list[str], **_: Any) -> None:
        cancelled.extend(ids)

    monkeypatch.setattr(app, "acancel", acancel)
    beating(app)
    first, second = take(line, queue)[0]["id"], take(line, queue)[0]["id"]
    assert cancelled[:1] == [first]
    assert second not in cancelled[:1]


def test_a_call_that_runs_cannot_be_looked_up(
    make_app: MakeApp, beating: Beating, line: Line, queue: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """While the store does not answer the fire is late, and goes out once it does."""
    app = make_app(backend=f"file://{tmp_path}", result_expires=1)
    app.schedule("unsure", "note", every(seconds=1), overlap="skip")
    backend = app.backend
    assert backend is not None
    real, fails = backend.arefresh, [True]

    async def arefresh(pending: Pending) -> None:
        if fails[0]:
            raise BackendUnavailable("the store does not answer")
        await real(pending)

    monkeypatch.setattr(backend, "arefresh", arefresh)
    beat = beating(app)
    take(line, queue)
    eventually(lambda: beat.counts.get("late", 0) >= 1)
    fails[0] = False
    take(line, queue)


def test_a_leader_whose_proof_is_old_shows_it_first(
    app: App, beating: Beating, line: Line, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a sleep: what is due goes out once the queue has shown that it still leads."""
    beat = beating(app)
    term = beat.beat.term
    assert term is not None
    proofs: list[float] = []
    real = seat.Seat.prove

    async def prove(self: seat.Seat) -> None:
        await real(self)
        proofs.append(1.0)

    monkeypatch.setattr(seat.Seat, "prove", prove)
    at = datetime.now(UTC) + timedelta(hours=1)
    app.schedules.add("later", "note", once(at))

    with coming() as let_come:

        async def forget() -> None:
            async with term.lock:  # a record that is being saved is a proof, too
                term.seat._proved = float("-inf")
                let_come(at)

        beat.run(forget())
        take(line, queue)
    assert proofs


@pytest.fixture
def own_broker(tmp_path: Path) -> tuple[Path, int]:
    """A folder and a port for brokers of the test's own."""
    return tmp_path, closed_port()


def test_a_broker_that_restarts_keeps_the_state(own_broker: tuple[Path, int]) -> None:
    """Beats are back in line when it is back, and what passed meanwhile is caught up, once."""
    folder, port = own_broker
    app = App("restart", broker=f"amqp://guest:guest@127.0.0.1:{port}/", environ={})
    app.schedule("tick", "note", every(seconds=1), catch_up="all", window=3600)

    with Broker(data=folder).start_in_thread(port=port) as broker:
        beat = RunningBeat(app, "only")
        try:
            eventually(lambda: beat.counts.get("due", 0) >= 2)
            broker.stop_thread()
            eventually(lambda: beat.role == "connecting")
            missed = datetime.now(UTC) + timedelta(seconds=2)
            eventually(lambda: datetime.now(UTC) > missed)
            with Broker(data=folder).start_in_thread(port=port) as again:
                eventually(lambda: beat.leads)
                count = sum(beat.counts.values())
                eventually(lambda: sum(beat.counts.values()) >= count + 3)
                with line_to(again.url) as line:
                    found = [take(line, "default")[0]["x-amqtask-instant"] for _ in range(count)]
                beat.stop()
        finally:
            beat.stop()
            app.close()
    instants = [datetime.fromisoformat(text) for text in found]
    assert instants == sorted(set(instants))
    assert instants[-1] - instants[0] == timedelta(seconds=count - 1)


async def test_many_due_at_once_go_out(app: App, beating: Beating, line: Line, queue: str) -> None:
    """A thousand entries of one instant are sent, each once, over several ticks."""
    at = datetime.now(UTC) + timedelta(hours=1)
    for number in range(1000):
        app.schedule(f"e{number}", "note", once(at))
    with coming() as let_come:
        beat = await asyncio.to_thread(beating, app)
        let_come(at)
        await asyncio.to_thread(eventually, lambda: sum(beat.counts.values()) == 1000)
    assert await asyncio.to_thread(line.size, queue) == 1000
