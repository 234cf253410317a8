"""The judge on made-up evidence: what it must find, and what it must let pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.acceptance.chaos.judge import HOLD, Evidence, Harm, Parked, Run, judge
from tests.acceptance.chaos.load import Sent

CHILD, OTHER, THIRD = 11, 12, 13


def sent(id: str, kind: str = "plain", *, confirmed: float | None = 100.1) -> Sent:
    return Sent(id, kind, 100.0, confirmed)


def run(
    id: str,
    begin: float = 101.0,
    word: str = "done",
    *,
    attempt: int = 1,
    child: int = CHILD,
    kind: str = "plain",
) -> Run:
    return Run(id, attempt, kind, child, begin, begin + 0.1 if word else None, word)


def cut(begin: float, end: float, *, room: int = 1, child: int = CHILD) -> Harm:
    return Harm("link.cut", begin, end, children=frozenset({child}), room=room)


def violations(
    calls: Sequence[Sent],
    runs: Mapping[str, Sequence[Run]],
    harms: Sequence[Harm] = (),
    parked: Sequence[Parked] = (),
    left: Mapping[str, str] | None = None,
) -> list[str]:
    evidence = Evidence({each.id: each for each in calls}, runs, parked, left or {}, harms)
    return judge(evidence).violations


# -- losses -----------------------------------------------------------------------


def test_what_ended_once_is_in_order() -> None:
    """A confirmed call that ended, and a failure that ended and is parked."""
    calls = [sent("a"), sent("b", "failing")]
    runs = {"a": [run("a")], "b": [run("b", word="failed", kind="failing")]}
    assert violations(calls, runs, parked=[Parked("b", "failed")]) == []


@pytest.mark.parametrize(
    ("runs", "left", "word"),
    [
        ({}, {}, "lost"),
        ({"a": [run("a", word="")]}, {}, "lost"),  # begun, and cut off
        ({"a": [run("a", word="again")]}, {}, "lost"),  # its next attempt never came
        ({}, {"a": "work"}, "late"),
    ],
)
def test_lost_is_what_no_queue_holds(runs, left, word) -> None:
    """A confirmed call that did not end is lost, unless it lies in a queue: then it is late."""
    (found,) = violations([sent("a")], runs, left=left)
    assert found.startswith(f"{word}: plain a, confirmed at 100.10: ")


def test_a_failure_that_is_not_parked_is_lost() -> None:
    """It has to be in the dead-letter queue, for somebody to look at."""
    runs = {"a": [run("a", word="failed", kind="failing")]}
    assert violations([sent("a", "failing")], runs)[0].startswith("lost: failing a")


def test_nothing_was_promised_about_what_was_not_confirmed() -> None:
    """A call whose client was told an error may run, or not."""
    assert violations([sent("a", confirmed=None)], {}) == []


def test_what_a_fault_destroyed_is_not_looked_for() -> None:
    """The queue that is deleted takes its messages along."""
    evidence = Evidence({"a": sent("a", "expendable")}, {}, lossy={"expendable"})
    assert judge(evidence).violations == []


@pytest.mark.parametrize(
    ("crashes", "reason", "accepted"),
    [
        (3, "worker_lost", True),
        (3, "delivery_limit", True),
        (2, "worker_lost", False),
        (3, "failed", False),
    ],
)
def test_only_what_crashed_often_enough_may_be_parked(crashes, reason, accepted) -> None:
    """A call that does not fail by itself is parked for its crashes, and for nothing else."""
    begins = [101.0 + 10 * index for index in range(crashes)]
    runs = {"a": [run("a", begin, "") for begin in begins]}
    harms = [cut(begin, begin + 1, room=5) for begin in begins]
    found = violations([sent("a")], runs, harms, [Parked("a", reason)])
    assert [line.partition(":")[0] for line in found] == ([] if accepted else ["parked"])


@pytest.mark.parametrize(("boot", "word"), [(True, None), (False, "late")])
def test_the_lost_queue_may_hold_what_met_a_boot(boot, word) -> None:
    """Only a boot of all nodes at once explains a delayed call that found no queue."""
    harm = Harm("broker.kill", 101.0, 110.0, boot=boot)
    calls = {"a": sent("a", "delayed")}
    verdict = judge(
        Evidence(calls, {}, left={"a": "delay.lost"}, harms=[harm], strand="delay.lost")
    )
    assert [line.partition(":")[0] for line in verdict.violations] == ([word] if word else [])
    assert verdict.stranded == boot


# -- repeats ----------------------------------------------------------------------


def test_a_repeat_without_a_fault_is_a_violation() -> None:
    """Nothing happened, so nothing explains it."""
    (found,) = violations([sent("a")], {"a": [run("a"), run("a", 105.0)]})
    assert found.startswith("repeated: plain a: no fault explains it; runs: attempt 1 in 11 from")


@pytest.mark.parametrize(
    ("harm", "explained"),
    [
        (cut(101.0, 103.0), True),
        (cut(102.0, 103.0), True),  # it had ended, its ack may not have gone out
        (cut(101.0, 103.0, child=THIRD), False),  # somebody else's connection
        (cut(120.0, 121.0), False),  # after the repeat
        (cut(50.0, 100.0 - HOLD), False),  # over before it was sent
    ],
)
def test_a_fault_explains_what_its_process_held(harm, explained) -> None:
    """It has to have hit a process that ran the call, while that held the delivery."""
    found = violations([sent("a")], {"a": [run("a"), run("a", 105.0, child=OTHER)]}, [harm])
    assert (found == []) == explained


def test_an_attempt_repeats_when_the_one_before_it_was_in_doubt() -> None:
    """The fault hit the process that published the successor, and left open whether it had."""
    runs = [
        run("a", 101.0, "again"),
        run("a", 103.0, "done", attempt=2, child=OTHER),
        run("a", 104.0, "done", attempt=2, child=OTHER),
    ]
    assert violations([sent("a")], {"a": runs}, [cut(101.05, 102.0)]) == []


def test_a_client_may_send_twice_what_it_was_sending_at_the_cut() -> None:
    """Its confirm was lost with the connection; a call confirmed before that has no such excuse."""
    runs = {"a": [run("a"), run("a", 101.2, child=OTHER)]}
    during = Harm("client.cut", 100.05, 100.5, client=True)
    after = Harm("client.cut", 100.2, 100.5, client=True)
    assert violations([sent("a")], runs, [during]) == []
    assert len(violations([sent("a")], runs, [after])) == 1


def test_a_fault_explains_no_more_than_was_in_flight() -> None:
    """Two repeats, and room for one."""
    runs = {each: [run(each), run(each, 105.0)] for each in "ab"}
    (found,) = violations([sent("a"), sent("b")], runs, [cut(101.0, 102.0)])
    assert "the faults that could have caused it (link.cut) explain others" in found


def test_faults_are_matched_so_that_as_much_as_can_be_is_explained() -> None:
    """The first takes the only place of the second, until it is moved to another fault."""
    early, late = cut(101.0, 102.0), cut(103.5, 103.6, child=OTHER)
    both = [run("a"), run("a", 105.0), run("a", 104.0, "", child=OTHER)]
    runs = {"a": both, "b": [run("b"), run("b", 103.0)]}
    assert violations([sent("a"), sent("b")], runs, [early, late]) == []


@pytest.mark.parametrize(("kind", "explained"), [("delayed", True), ("plain", False)])
def test_a_broker_that_dies_may_hand_on_twice_what_it_delays(kind, explained) -> None:
    """Between two of its queues a message is in both for a moment; plain calls never are."""
    harm = Harm("node.kill", 101.0, 102.0, levels=32)
    runs = {"a": [run("a", 103.0, kind=kind), run("a", 104.0, kind=kind)]}
    assert (violations([sent("a", kind)], runs, [harm]) == []) == explained
