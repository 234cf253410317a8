"""Where the calls of a workflow go: what their tasks say is fixed with the ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from amqtask.message.signature import Chain, Group, Step, dump, mapped, parse
from amqtask.workflow.freeze import Frame, freeze

_HOMES: dict[str, dict[str, Any]] = {
    "t.add": {"queue": "sums", "time_limit": 5.0},
    "t.note": {"queue": "notes"},
}


def _defaults(task: str) -> Mapping[str, Any]:
    return _HOMES.get(task, {})


FRAME = Frame(root="root", defaults=_defaults)


def _step(node: object) -> Step:
    assert isinstance(node, Step)
    return node


def test_an_errback_goes_where_its_task_says():
    """It has no id yet: one errback follows many calls."""
    chain = Chain((Step("t.note"), Step("t.note")))
    errbacks = [dump(Step("t.note")), dump(chain), dump(Step("t.note", options={"queue": "own"}))]
    frozen = _step(freeze(Step("t.add", options={"link_error": errbacks}), FRAME))
    plain, steps, own = (parse(each) for each in frozen.options["link_error"])
    assert _step(plain).options == {"queue": "notes"}
    assert isinstance(steps, Chain)
    assert [_step(each).options for each in steps.steps] == [{"queue": "notes"}] * 2
    assert _step(own).options == {"queue": "own"}


def test_an_errback_may_be_one_signature():
    """Celery's clients send one where there is one."""
    node = Step("t.add", options={"link_error": dump(Group((Step("t.note"),)))})
    (errback,) = _step(freeze(node, FRAME)).options["link_error"]
    group = parse(errback)
    assert isinstance(group, Group)
    assert _step(group.members[0]).options == {"queue": "notes"}


@pytest.mark.parametrize("star", [False, True])
def test_a_run_over_items_goes_where_its_tasks_calls_go(star: bool):
    """No worker takes the default queue for its sake; limits are each call's, not the run's."""
    frozen = _step(freeze(mapped(Step("t.add"), [[1, 2]], star=star), FRAME))
    assert frozen.options["queue"] == "sums"
    assert "time_limit" not in frozen.options
    step = Step("t.add", options={"queue": "quick", "priority": 3})
    frozen = _step(freeze(mapped(step, [[1, 2]], star=star), FRAME))
    assert (frozen.options["queue"], frozen.options["priority"]) == ("quick", 3)
