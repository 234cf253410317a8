"""The whole of a workflow: its handles, cancelling it, and what is sent back from the dead."""

from __future__ import annotations

import json
import pickle
import uuid
from typing import Any

import pytest

from amqtask import AsyncResult, GroupResult, TaskRevoked, WorkflowFailed, chain, group
from tests.contract.workflows.tasks import Tasks
from tests.contract.workflows.test_meaning import PATIENCE
from tests.helpers import eventually
from tests.integration.worker.inprocess import line_to

pytestmark = pytest.mark.keeps


@pytest.fixture(autouse=True)
def _mark(tasks: Tasks) -> None:
    tasks.mark = uuid.uuid4().hex


def test_handles_are_there_before_anything_is_sent(tasks: Tasks):
    """`freeze` gives the handles of all steps; what is sent has their ids."""
    made = chain(tasks.add.s(1, 1), group(tasks.add.s(1), tasks.add.s(2)), tasks.xsum.s())
    before = made.freeze()
    assert [step.task for step in before.steps] == ["w.add", "w.add", "w.add", "w.xsum"]
    assert isinstance(before.parent, GroupResult)
    assert isinstance(before.root, AsyncResult)
    sent = made.delay()
    assert [step.id for step in sent.steps] == [step.id for step in before.steps]
    assert before.get(PATIENCE) == 7
    assert [step.get(PATIENCE) for step in before.steps] == [2, 3, 4, 7]
    again = made.clone().delay()
    assert again.id == sent.id


def test_a_tree_of_calls(tasks: Tasks):
    """All steps have the first one's id as root; each has the one before as parent, and children."""
    last = (tasks.about.s() | tasks.about.s() | tasks.about.s()).delay()
    one, two, three = (step.get(PATIENCE) for step in last.steps)
    assert {one["root"], two["root"], three["root"]} == {one["id"]}
    assert [one["parent"], two["parent"], three["parent"]] == [None, one["id"], two["id"]]
    assert [child.id for child in last.steps[0].children] == [two["id"]]


def test_handles_travel(tasks: Tasks):
    """Through JSON and pickle they keep what comes before them."""
    last = (tasks.add.s(1, 1) | group(tasks.add.s(1)) | tasks.xsum.s()).delay()
    read = AsyncResult.from_dict(json.loads(json.dumps(last.as_dict())))
    assert [step.id for step in read.steps] == [step.id for step in last.steps]
    assert isinstance(read.parent, GroupResult)
    pickled: AsyncResult[Any] = pickle.loads(pickle.dumps(last))
    assert [step.id for step in pickled.steps] == [step.id for step in last.steps]
    assert last.get(PATIENCE) == 3


def test_cancelling_the_whole(tasks: Tasks):
    """What runs is asked to end, and nothing after it waits for ever."""
    last = (tasks.sleeps.s(600) | tasks.same.s() | tasks.same.s()).delay()
    eventually(lambda: tasks.noted_for("sleeps"), timeout=PATIENCE, message="it does not run")
    last.cancel(whole=True)
    with pytest.raises(TaskRevoked):
        last.get(PATIENCE)
    assert [step.state for step in last.steps] == ["REVOKED"] * 3


def test_a_dead_letter_goes_on_where_it_ended(tasks: Tasks, place: tuple[str, str]):
    """Sent back from the dead-letter queue the step runs, and so does all that was to follow it."""
    tasks.broken.add(tasks.mark)
    last = (tasks.add.s(1, 1) | tasks.mended.s(tasks.mark) | tasks.note()).delay()
    with pytest.raises(WorkflowFailed, match="broken"):
        last.get(PATIENCE)
    tasks.broken.discard(tasks.mark)
    queue = tasks.app.settings.default_queue
    with line_to(place[0]) as line:
        while True:
            properties, body = line.take(f"{queue}.dead")
            if properties.headers["id"] == last.parent.id:
                break
        headers = {k: v for k, v in (properties.headers or {}).items() if not k.startswith("x-")}
        line.send(queue, body, headers, reply_to=properties.reply_to)
    eventually(lambda: tasks.noted() == [[2]], timeout=PATIENCE, message="it did not go on")
