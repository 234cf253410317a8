"""Workflows of named steps: orders, results by name, failures, and what is told of them."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from amqtask import (
    App,
    ArgumentsError,
    ConfigurationError,
    Context,
    Retry,
    Tally,
    WorkflowFailed,
    WorkflowRun,
)
from tests.contract.workflows.conftest import app_on
from tests.helpers import TIMEOUT
from tests.integration.worker.inprocess import Worker

# the app and its worker live as long as the module
pytestmark = pytest.mark.keeps("one app and one worker for all of the module")

PATIENCE = TIMEOUT * 3


class Shop:
    """An app with a few tasks that say in which order they ran."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.ran: dict[str, list[str]] = defaultdict(list)
        self.gate = threading.Event()
        lock = threading.Lock()

        @app.task(name="n.join")
        def join(word: str = "", **parts: str) -> str:
            """Return a text of the word and all results."""
            found = word + "".join(f"[{name}={parts[name]}]" for name in sorted(parts))
            with lock:
                self.ran["join"].append(word)
            return found

        @app.task(name="n.number")
        async def number(value: int, plus: int = 0) -> int:
            await asyncio.sleep(0)
            return value + plus

        @app.task(name="n.fail")
        def fail(**parts: Any) -> None:
            raise ValueError("no such table")

        @app.task(name="n.wait")
        def wait() -> str:
            self.gate.wait(PATIENCE)
            return "waited"

        @app.task(name="n.twice")
        def twice(a: str) -> str:
            with lock:
                self.ran["twice"].append(a)
                first = len(self.ran["twice"]) == 1
            if first:
                raise Retry("once more", countdown=0)
            return a * 2

        @app.task(name="n.instead", bind=True)
        def instead(context: Context, a: str) -> str:
            return context.replace(join.s(f"for {a} ") | join.s())

        @app.task(name="n.adding", bind=True)
        def adding(context: Context, a: str) -> str:
            context.add_to_chord(join.s("added"))
            return f"adding {a}"

        self.instead, self.adding = instead, adding
        self.join, self.number, self.fail, self.wait = join, number, fail, wait
        self.twice = twice


@pytest.fixture(scope="module")
def shop(place: tuple[str, str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        app = stack.enter_context(app_on(*place))
        made = Shop(app)
        worker = Worker(app)
        stack.callback(worker.stop)
        worker.start()
        yield made


def test_results_by_name(shop: Shop):
    """Each step gets the results of the steps it is after, under their names."""
    wf = shop.app.workflow("nightly")
    wf.step("fetch", shop.join.s("f"))
    wf.step("clean", shop.join.s("c"), after="fetch")
    wf.step("load", shop.join.s("l"), after=("fetch", "clean"))
    run = wf.delay()
    assert run.get(PATIENCE) == {"load": "l[clean=c[fetch=f]][fetch=f]"}
    assert (run["fetch"].get(PATIENCE), run["clean"].get(PATIENCE)) == ("f", "c[fetch=f]")
    assert run.progress() == Tally(3, 0, 0)
    assert wf.delay().get(PATIENCE) == {"load": "l[clean=c[fetch=f]][fetch=f]"}


def test_side_by_side_and_together_again(shop: Shop):
    """Steps with the same before run side by side; results pass by those that do not take them."""
    wf = shop.app.workflow("diamonds")
    wf.step("a", shop.join.s("a"))
    for name in "bc":
        wf.step(name, shop.join.s(name), after="a")
    wf.step("d", shop.join.s("d"), after=("b", "c"))
    for name in "ef":
        wf.step(name, shop.join.s(name), after="d")
    wf.step("g", shop.join.s("g"), after=("a", "e", "f"))
    value = wf.delay().get(PATIENCE)["g"]
    d = "d[b=b[a=a]][c=c[a=a]]"
    assert value == f"g[a=a][e=e[d={d}]][f=f[d={d}]]"
    assert wf.added() == ()


async def test_more_than_one_end(shop: Shop):
    """The values of all steps that nothing waits for come by name; coroutines await them."""
    wf = shop.app.workflow("ends")
    wf.step("one", shop.number.s(1)).step("two", shop.number.s(2), after={"one": "plus"})
    wf.step("ten", shop.number.s(10))
    run = await wf.adelay()
    async with asyncio.timeout(PATIENCE):
        assert await run == {"two": 3, "ten": 10}


def test_an_order_that_no_nesting_says(shop: Shop):
    """It runs, with a step that waits for more than it was told to."""
    wf = shop.app.workflow("n")
    wf.step("a", shop.join.s("a")).step("b", shop.join.s("b"))
    wf.step("c", shop.join.s("c"), after="a").step("d", shop.join.s("d"), after=("a", "b"))
    assert wf.added() == (("b", "c"),)
    assert wf.delay().get(PATIENCE) == {"c": "c[a=a]", "d": "d[a=a][b=b]"}


def test_other_keywords_and_none(shop: Shop):
    """A dict says the keywords; None, and si, only wait."""
    wf = shop.app.workflow("words")
    wf.step("a", shop.join.s("a")).step("b", shop.join.s("b"))
    wf.step("c", shop.join.s("c"), after={"a": "first", "b": None})
    wf.step("d", shop.join.si("d"), after="c")
    wf.step("e", shop.join.s("e"), after=("c", "d"))
    assert wf.delay().get(PATIENCE) == {"e": "e[c=c[first=a]][d=d]"}


def test_a_step_that_is_retried(shop: Shop):
    """It gets its results again."""
    shop.ran["twice"].clear()
    wf = shop.app.workflow("again")
    wf.step("a", shop.join.s("x"))
    wf.step("b", shop.twice.s(), after="a")
    wf.step("c", shop.join.s("c"), after=("a", "b"))
    assert wf.delay().get(PATIENCE) == {"c": "c[a=x][b=xx]"}
    assert shop.ran["twice"] == ["x", "x"]


def test_a_step_that_is_replaced(shop: Shop):
    """What runs in its place hands on the same results by name."""
    wf = shop.app.workflow("replaced")
    wf.step("a", shop.join.s("x")).step("b", shop.instead.s(), after="a")
    wf.step("c", shop.join.s("c"), after=("a", "b"))
    run = wf.delay()
    assert run.get(PATIENCE) == {"c": "c[a=x][b=for x ]"}
    assert run["b"].get(PATIENCE) == "for x "


def test_a_member_that_is_added_on_the_way(shop: Shop):
    """It has no name, so the steps after it do without its result."""
    wf = shop.app.workflow("added")
    wf.step("a", shop.join.s("x"))
    wf.step("b", shop.adding.s(), after="a").step("c", shop.join.s("c"), after="a")
    wf.step("d", shop.join.s("d"), after=("b", "c"))
    assert wf.delay().get(PATIENCE) == {"d": "d[b=adding x][c=c[a=x]]"}
    assert "added" in shop.ran["join"]


def test_a_step_that_fails(shop: Shop):
    """What depends on it ends as failed, and names it; the others finish."""
    wf = shop.app.workflow("broken")
    wf.step("a", shop.join.s("a"))
    wf.step("bad", shop.fail.s(), after="a")
    wf.step("good", shop.join.s("g"), after="a")
    wf.step("never", shop.join.s("n"), after=("bad", "good"))
    run = wf.delay()
    with pytest.raises(WorkflowFailed, match="no such table"):
        run.get(PATIENCE)
    assert run["good"].get(PATIENCE) == "g[a=a]"
    with pytest.raises(ValueError, match="no such table"):
        run["bad"].get(PATIENCE)
    assert run.ready()
    assert run.progress() == Tally(2, 2, 0)


def test_how_far_it_is(shop: Shop):
    """Progress counts the steps, of the run and of a chain; another process finds the run."""
    shop.gate.clear()
    wf = shop.app.workflow("slow")
    wf.step("a", shop.wait.s()).step("b", shop.join.s("b"), after="a")
    run = wf.delay()
    assert run.progress() == Tally(0, 0, 2)
    assert not run.progress().ended
    backend = shop.app.backend
    assert backend is not None
    if backend.can.stores:
        other = shop.app.workflow_run(run.id)
        assert isinstance(other, WorkflowRun)
        assert other.record() == run.record()
        assert shop.app.workflow_run(run["b"].id) is None
    shop.gate.set()
    assert run.get(PATIENCE) == {"b": "b[a=waited]"}
    chained = (shop.wait.s() | shop.join.s()).delay()
    assert chained.get(PATIENCE) == "waited"
    assert chained.progress() == Tally(2, 0, 0)


def test_a_run_is_cancelled(shop: Shop):
    """What has not run does not."""
    shop.gate.clear()
    wf = shop.app.workflow("stopped")
    wf.step("a", shop.wait.s()).step("b", shop.join.s("never"), after="a")
    run = wf.delay()
    run.cancel()
    shop.gate.set()
    run["b"]._need().wait(PATIENCE)
    assert run["b"].state == "REVOKED"
    assert "never" not in shop.ran["join"]


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda s, w: w.step("a b", s.join.s()), ConfigurationError, "cannot be called 'a b'"),
        (lambda s, w: w.step("a", s.join.s()), ConfigurationError, "has a step 'a' already"),
        (lambda s, w: w.step("b", s.join), ArgumentsError, "which is no signature"),
        (lambda s, w: w.step("b", s.join.s() | s.join.s()), ConfigurationError, "more than one"),
        (lambda s, w: w.step("b", s.join.s(), after="aa"), ConfigurationError, "mean 'a'"),
        (lambda s, w: w.step("b", s.join.s(a="x"), after="a"), ArgumentsError, "argument 'a' al"),
        (lambda s, w: w.step("b", s.number.s(1), after="a"), ArgumentsError, "n.number"),
        (lambda s, w: s.app.workflow("none").delay(), ConfigurationError, "has no steps"),
    ],
)
def test_what_is_refused(shop: Shop, build: Any, error: type[Exception], text: str):
    """Wrong steps are refused when they are added."""
    wf = shop.app.workflow("wrong")
    wf.step("a", shop.join.s())
    with pytest.raises(error, match=text):
        build(shop, wf)


def test_drawings(shop: Shop):
    """The graph has no edge beside a longer way, and what was added is dashed."""
    wf = shop.app.workflow("n")
    wf.step("a", shop.join.s()).step("b", shop.join.s())
    wf.step("c", shop.join.s(), after="a").step("d", shop.join.s(), after=("a", "b"))
    assert wf.graph().mermaid() == (
        "flowchart TD\n"
        '    n0["a: n.join"]\n'
        '    n1["b: n.join"]\n'
        '    n2["c: n.join"]\n'
        '    n3["d: n.join"]\n'
        "    n0 --> n2\n"
        "    n0 --> n3\n"
        "    n1 --> n3\n"
        "    n1 -.-> n2\n"
    )
    assert '    "b" -> "c" [style=dashed];' in wf.graph().dot()
