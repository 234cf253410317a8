"""Progress: what a state says of it, and reports that do not pile up."""

from __future__ import annotations

from typing import Any

import pytest

from amqtask import Progress
from amqtask.message.results import ResultMeta
from amqtask.progress import Reporter


@pytest.mark.parametrize(
    ("said", "progress"),
    [
        ({"done": 1, "total": 4, "file": "a"}, Progress(1, 4, {"file": "a"})),
        ({"current": 1, "total": 4}, Progress(1, 4)),
        ({"done": 0.5}, Progress(0.5)),
        ({"done": 1, "total": "many"}, Progress(1)),
        ({"done": "half"}, None),
        ({"done": True}, None),
        ({}, None),
        (None, None),
        ("text", None),
    ],
)
def test_what_a_state_says(said: Any, progress: Progress | None) -> None:
    """Ours and Celery's users' words are understood, anything else is no progress."""
    assert Progress.of(ResultMeta("a", "PROGRESS", said)) == progress


def test_fraction() -> None:
    """It is known where the total is."""
    assert Progress(1, 4).fraction == 0.25
    assert Progress(1).fraction is None
    assert Progress(0, 0).fraction is None


def test_one_report_is_on_its_way_at_a_time() -> None:
    """Of those that come meanwhile only the newest follows; after the end none does."""
    sent: list[Any] = []
    waiting: list[Any] = []

    def save(meta: ResultMeta, done: Any) -> None:
        sent.append(meta.result)
        waiting.append(done)

    reporter = Reporter(save)
    for number in range(5):
        reporter.report(ResultMeta("a", "PROGRESS", number))
    assert sent == [0]
    waiting.pop()(None)
    assert sent == [0, 4]
    reporter.report(ResultMeta("a", "PROGRESS", 5))
    reporter.close()
    waiting.pop()(OSError("lost, and not missed"))
    reporter.report(ResultMeta("a", "PROGRESS", 6))
    assert sent == [0, 4]
