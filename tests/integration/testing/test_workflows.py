"""Workflows in users' tests: in the sandbox, with a worker, and in eager mode."""

from __future__ import annotations

import asyncio

import pytest

from amqtask import App, ChordError, Context, WorkflowFailed, chain, chord, group
from amqtask.testing import eager, sandbox


def make_app() -> App:
    app = App("kit", backend="rpc://", environ={})

    @app.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="xsum")
    async def xsum(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="boom")
    def boom(*_: object) -> None:
        raise ValueError("boom")

    @app.task(name="swap", bind=True)
    def swap(self: Context, a: int) -> None:
        self.replace(group(self.app.signature("add", (a, 1)), self.app.signature("add", (a, 2))))

    return app


def make_chord(app: App):
    add, xsum = app.signature("add"), app.signature("xsum")
    header = group(add.clone((n, n)) for n in range(4))
    return chain(header, xsum, app.signature("swap"), xsum.clone())


def test_a_worker_runs_it_in_the_sandbox():
    """All of a workflow runs on the sandbox's broker, its join too, and is idle afterwards."""
    app = make_app()
    with sandbox(app) as box, box.worker(app) as worker:
        result = make_chord(app).delay()
        worker.run_until_idle()
        assert result.get(60) == 27
        box.assert_sent("add", 3, 3)
        assert [step.task for step in result.steps].count("add") == 4


def test_a_failure_that_the_test_has_seen_is_not_raised_again():
    """`get` on what follows a failed step counts as having seen that step's failure."""
    app = make_app()
    with sandbox(app) as box, box.worker(app):
        with pytest.raises(WorkflowFailed, match="boom"):
            chain(app.signature("boom"), app.signature("add", (1,))).delay().get(60)
        made = chord([app.signature("boom"), app.signature("add", (1, 1))], app.signature("xsum"))
        with pytest.raises(ChordError, match="boom"):
            made.delay().get(60)
        assert box.take_failures() == []


def test_a_failure_that_nobody_has_seen_is_raised():
    """A step that fails where the test does not look fails the test."""
    app = make_app()
    with sandbox(app) as box, box.worker(app) as worker:
        chain(app.signature("boom"), app.signature("add", (1,))).delay()
        with pytest.raises(ValueError, match="boom"):
            worker.run_until_idle()


def test_eager():
    """It runs where it is sent, step after step, the replaced one and the join too."""
    app = make_app()
    with eager(app) as calls:
        assert make_chord(app).delay().get() == 27
        calls.assert_sent("add", 3, 3)
        calls.assert_sent("xsum", [0, 2, 4, 6])
        assert asyncio.run(make_chord(app).adelay()).get() == 27
        assert app.signature("add", (1, 2)).link(app.signature("add", (5,))).delay().get() == 3
        calls.assert_sent("add", 3, 5)
        assert app.tasks["add"].chunks([(1, 1), (2, 2), (3, 3)], 2).delay().get() == [[2, 4], [6]]


def test_eager_failure():
    """The failing step raises once all that can run has run; what follows it knows."""
    app = make_app()
    with eager(app) as calls:
        made = chain(app.signature("boom"), app.signature("add", (1,)))
        last = made.freeze()
        with pytest.raises(ValueError, match="boom"):
            made.on_error(app.signature("xsum").set(immutable=True).clone()).delay()
        with pytest.raises(WorkflowFailed, match="boom"):
            last.get()
        calls.assert_sent("boom")
    with eager(app, propagate=False):
        made = chord([app.signature("boom"), app.signature("add", (1, 1))], app.signature("xsum"))
        with pytest.raises(ChordError, match="boom"):
            made.delay().get()


def test_no_step_is_lost_when_connections_are_cut():
    """A step whose ack is lost runs again, and sends what follows it again: under the same id."""
    app = make_app()
    with sandbox(app) as box, box.worker(app):
        add, xsum = app.signature("add"), app.signature("xsum")
        chains = [
            chain(add.clone((n, 1)), *[add.clone((1,)) for _ in range(4)]).delay()
            for n in range(30)
        ]
        chords = [(group(add.clone((n, k)) for k in range(4)) | xsum).delay() for n in range(10)]
        for result in (chains[3], chords[3], chains[15], chords[8]):
            box.faults.cut_connections()
            result.get(60)
        assert [result.get(60) for result in chains] == [n + 5 for n in range(30)]
        assert [result.get(60) for result in chords] == [4 * n + 6 for n in range(10)]
