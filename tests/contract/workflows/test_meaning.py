"""What workflows mean: every case, on every broker, with every kind of backend."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.workflows.cases import CASES, REFUSED, Case
from tests.contract.workflows.tasks import Tasks
from tests.helpers import eventually

# the connections of app and worker are opened by the first case, and serve all of them
pytestmark = pytest.mark.keeps

#: Seconds for one case: far more than it takes on a slow and busy machine.
PATIENCE = 30.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_case(tasks: Tasks, case: Case):
    """See the case's name."""
    tasks.mark = uuid.uuid4().hex
    made = case.build(tasks)
    said = {
        name: getattr(tasks, value)() if name in ("link", "link_error") else value
        for name, value in (case.said or {}).items()
    }
    handle = made.apply_async(case.args, case.kwargs, **said)
    if case.error is None:
        value = handle.get(PATIENCE)
        if case.look is None:
            assert value == case.value
        else:
            assert case.look(value), value
    else:
        kind, text = case.error
        with pytest.raises(kind, match=text):
            handle.get(PATIENCE)
    wanted = sorted(map(repr, case.notes))
    eventually(
        lambda: len(tasks.noted()) >= len(wanted),
        timeout=PATIENCE,
        message=f"of {wanted} there is {tasks.noted()}",
    )
    assert sorted(map(repr, tasks.noted())) == wanted


@pytest.mark.parametrize(
    ("name", "build", "error", "text"), REFUSED, ids=[case[0].replace(" ", "_") for case in REFUSED]
)
def test_refused(
    tasks: Tasks, name: str, build: Callable[[Tasks], Any], error: type[Exception], text: str
):
    """What has no meaning is refused before anything is sent."""
    tasks.mark = uuid.uuid4().hex
    with pytest.raises(error, match=text):
        build(tasks)


def test_there_are_cases_enough():
    """The table has what Celery's guide describes."""
    assert len(CASES) + len(REFUSED) >= 60
    assert len({case.name for case in CASES}) >= 60
