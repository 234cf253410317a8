"""``amqtask graph`` and ``amqtask watch``, as a stranger uses them."""

from __future__ import annotations

from tests.acceptance.program import Workshop

TASKS = """
from amqtask import App, chain

app = App("shop", backend="db+sqlite:///results.db")

@app.task(name="fetch")
def fetch() -> list: return [3, 1, 2]

@app.task(name="clean")
def clean(fetch: list) -> list: return sorted(fetch)

@app.task(name="load")
def load(clean: list, fetch: list, to: str) -> str: return f"{to}: {fetch} to {clean}"

@app.task(name="fail")
def fail(load: str) -> None: raise ValueError("no such table")

nightly = app.workflow("nightly")
nightly.step("fetch", fetch.s())
nightly.step("clean", clean.s(), after="fetch")
nightly.step("load", load.s(to="db"), after=("fetch", "clean"))

broken = app.workflow("broken")
broken.step("fetch", fetch.s())
broken.step("clean", clean.s(), after="fetch")
broken.step("load", load.s(to="db"), after=("fetch", "clean"))
broken.step("fail", fail.s(), after="load")

chained = chain(fetch.s(), clean.s())
"""

SEND = """
from tasks import app, broken, nightly
print(nightly.delay().id, broken.delay().id)
app.close()
"""


def test_drawings(workshop: Workshop) -> None:
    """A workflow or a chain is printed as text for Mermaid and for Graphviz."""
    workshop.write(TASKS)
    shown = workshop.run("graph", "tasks.py:nightly")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == (
        "flowchart TD\n"
        '    n0["fetch: fetch"]\n'
        '    n1["clean: clean"]\n'
        '    n2["load: load"]\n'
        "    n0 --> n1\n"
        "    n1 --> n2\n"
    )
    shown = workshop.run("graph", "tasks:chained", "--format", "dot")
    assert shown.stdout == (
        'digraph "chained" {\n'
        "    node [shape=box];\n"
        '    "0" [label="fetch"];\n'
        '    "1" [label="clean"];\n'
        '    "0" -> "1";\n'
        "}\n"
    )


def test_what_is_no_workflow(workshop: Workshop) -> None:
    """The error says what is there."""
    workshop.write(TASKS)
    shown = workshop.run("graph", "tasks.py:app")
    assert shown.returncode == 1
    assert "'tasks.py:app' is of type App, neither a Workflow nor a signature" in shown.stderr
    shown = workshop.run("graph", "tasks.py:nighty")
    assert "has no 'nighty', did you mean 'nightly'" in shown.stderr


def test_a_tree_until_the_end(workshop: Workshop) -> None:
    """Runs are watched by their ids, from another process; the exit code tells how they ended."""
    workshop.write(TASKS)
    workshop.write(SEND, "send.py")
    sent = workshop.python("send.py")
    assert sent.returncode == 0, sent.stderr
    good, bad = sent.stdout.split()
    shown = workshop.run("watch", good, "--once")
    assert shown.returncode == 3, shown.stderr
    assert "· fetch  PENDING" in shown.stdout
    assert "0 done, 0 failed, 3 waiting" in shown.stdout
    worker = workshop.worker()
    worker.wait_for("worker.ready")
    shown = workshop.run("watch", good)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == f"nightly  {good}"
    assert "✓ load  SUCCESS  after fetch, too" in shown.stdout
    assert "3 done, 0 failed, 0 waiting" in shown.stdout
    shown = workshop.run("watch", bad)
    assert shown.returncode == 1, shown.stderr
    assert "✗ fail  FAILURE" in shown.stdout
    assert "3 done, 1 failed, 0 waiting" in shown.stdout
    assert worker.stop() == 0
