"""What the supervisor remembers of deliveries that harmed a child."""

from __future__ import annotations

from amqtask.worker.offenders import Offenders


def test_those_that_follow_are_told():
    """A new child hears of every suspect and of who is condemned."""
    known = Offenders()
    assert known.suspect(["a", "b"], "died", 0.0) == [
        {"do": "suspect", "ids": ["a", "b"], "why": "died"}
    ]
    assert known.condemn("c", "late", 1.0) == [{"do": "condemn", "id": "c", "why": "late"}]
    assert known.words(2.0) == [
        {"do": "condemn", "id": "c", "why": "late"},
        {"do": "suspect", "ids": ["a", "b"], "why": "died"},
    ]


def test_nobody_is_told_nothing():
    """A child that ran nothing leaves no word behind."""
    known = Offenders()
    assert known.suspect([], "died", 0.0) == []
    assert known.words(0.0) == []


def test_the_condemned_stay_condemned():
    """That its process was killed for it does not make it a mere suspect."""
    known = Offenders()
    known.condemn("a", "late", 0.0)
    assert known.suspect(["a"], "died", 1.0) == []
    assert known.words(1.0) == [{"do": "condemn", "id": "a", "why": "late"}]


def test_it_is_bounded_in_number_and_age():
    """The oldest are forgotten first."""
    known = Offenders(most=2, keep=10.0)
    known.suspect(["a", "b"], "died", 0.0)
    known.suspect(["a"], "again", 5.0)
    known.suspect(["c"], "again", 6.0)
    assert known.words(7.0) == [{"do": "suspect", "ids": ["a", "c"], "why": "again"}]
    assert known.words(15.5) == [{"do": "suspect", "ids": ["c"], "why": "again"}]
    assert known.words(17.0) == []
