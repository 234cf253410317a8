"""What runs isolated, and what does not run any more."""

from __future__ import annotations

from typing import Any

import pytest

from amqtask.worker import suspects
from amqtask.worker.suspects import Suspects
from tests.unit.worker.fakes import delivery


def _delivered(redelivered: bool, **headers: Any) -> Any:
    made = delivery(**headers)
    made.redelivered = redelivered
    return made


@pytest.mark.parametrize(
    ("redelivered", "headers", "why"),
    [
        (False, {}, None),
        (False, {"x-delivery-count": 0}, None),
        (True, {"x-delivery-count": 1}, None),
        (True, {"x-delivery-count": 2}, "it was returned 2 times"),
        (True, {}, "it was delivered before"),
    ],
)
def test_what_the_broker_says(redelivered, headers, why):
    """A quorum queue counts; of a classic one the mark is all there is."""
    assert Suspects().why_isolated(_delivered(redelivered, **headers)) == why


def test_what_the_supervisor_says():
    """An id that ran in a process that died, whatever the broker says of it."""
    known = Suspects()
    known.suspect("A", "its process died")
    assert known.why_isolated(_delivered(False)) == "its process died"
    assert known.why_isolated(_delivered(False, id="B")) is None


def test_condemned():
    """An id that hung its process does not run again."""
    known = Suspects()
    assert known.sentence("A") is None
    known.condemn("A", "it hung")
    assert known.sentence("A") == "it hung"
    assert known.sentence("B") is None


def test_no_more_than_are_kept(monkeypatch):
    """The oldest go first, so memory does not grow."""
    monkeypatch.setattr(suspects, "KEPT", 2)
    known = Suspects()
    for id_ in "ABC":
        known.condemn(id_, "it hung")
    assert [known.sentence(id_) for id_ in "ABC"] == [None, "it hung", "it hung"]
