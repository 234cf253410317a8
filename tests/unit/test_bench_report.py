"""The page that the bench writes in parts: each part leaves the others as they are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.bench import report
from tests.bench.measure import Case, Contender, Goal, Reading, measure
from tests.bench.plot import svg

MAIN, GROWTH, IDLE = (
    "# Performance\n\nfast\n",
    "## Growth\n\nflat\n",
    "## An idle worker\n\nlight\n",
)
PAGE = f"{MAIN}\n{GROWTH}\n{IDLE}"


@pytest.mark.parametrize("page", ["", MAIN, IDLE, f"{MAIN}\n{IDLE}", PAGE])
def test_parts_come_in_their_order_whoever_is_written_first(page: str) -> None:
    """And what was there twice is there once."""
    written = report.with_idle(page, IDLE)
    written = report.with_growth(written, GROWTH)
    assert report.with_main(written, MAIN) == PAGE


def _case(*contenders: Contender) -> Case:
    goals = [Goal("ours", "theirs", 2), Goal("ours", 50.0), Goal("broken", "theirs", 2)]
    return Case("k", "Work", "A note.", contenders, "theirs", goals=goals, pictured=True)


def _taking(name: str, seconds: float) -> Contender:
    return Contender(name, lambda: {name: Reading(100, seconds, 0.5)})


def test_one_that_fails_leaves_the_others_their_figures() -> None:
    """It is told what failed and when, what it left is cleaned up, and it does not run again."""
    ran, cleaned = [], []

    def broken() -> Mapping[str, Reading]:
        ran.append(1)
        raise AssertionError("no broker")

    case = _case(_taking("theirs", 2.0), _taking("ours", 0.5), Contender("broken", broken))
    table = measure(case, 3, lambda _: None, lambda: cleaned.append(1))
    assert len(ran) == len(cleaned) == 1
    assert table.failures == ["broken failed in round 1: AssertionError('no broker')"]
    assert {row.name: row.value.middle for row in table.rows} == {"theirs": 50.0, "ours": 200.0}
    assert [each.ratio.middle for each in table.verdicts] == [4.0, 4.0]
    page = report.page([table], report.Circumstances("4.0", True, 3, (0.1, 0.2), {}))
    assert "| theirs | 50 | 1.00x | 5,000 | 1.00x |" in page
    assert "| ours | 200 | 4.00x | 5,000 | 1.00x |" in page
    assert "- Goal: ours, at least 2 x theirs: 4.00x, reached\n" in page
    assert "- Goal: ours, 50 /s: 4.00x, reached\n" in page
    assert "- Incomplete: broken failed in round 1" in page
    assert svg([table]).count("<rect x=") == 2


def test_without_the_baseline_there_are_figures_and_no_ratios() -> None:
    """Nothing is compared with what did not run."""

    def broken() -> Mapping[str, Reading]:
        raise AssertionError("no broker")

    table = measure(
        _case(Contender("theirs", broken), _taking("ours", 0.5)), 3, lambda _: None, lambda: None
    )
    (row,) = table.rows
    assert row.value.middle == 200
    assert row.ratio is None
    assert row.cpu_ratio is None
    assert [each.goal.beside for each in table.verdicts] == [50.0]
