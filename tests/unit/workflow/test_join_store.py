"""Joins in a store: what comes while it is busy goes there together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from amqtask import App
from amqtask.backends.chords import OpenChord
from amqtask.errors import BackendError, BackendUnavailable
from amqtask.workflow.join_store import StoreJoins
from amqtask.workflow.ports import Opening


class Chords:
    """Notes what is opened together, and refuses what a test says."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.refuse: Callable[[str], Exception | None] = lambda _: None

    def open(self, sizes: Mapping[OpenChord, int], expires: float) -> None:
        self.batches.append([chord.group_id for chord in sizes])
        for group_id in self.batches[-1]:
            if error := self.refuse(group_id):
                raise error


class Backend:
    """Runs what it is asked to when a test says so; it is a store of its own."""

    def __init__(self, chords: Chords) -> None:
        self.store = self
        self.chords = lambda: chords
        self._jobs: deque[Callable[[], object]] = deque()

    def run(self, job: Callable[[], object]) -> None:
        self._jobs.append(job)

    def work(self) -> None:
        while self._jobs:
            self._jobs.popleft()()


@pytest.fixture
def chords() -> Chords:
    return Chords()


@pytest.fixture
def backend(chords: Chords) -> Backend:
    return Backend(chords)


def _opened(backend: Backend, *ids: str) -> dict[str, Exception | None]:
    made: Any = backend
    joins = StoreJoins(App("joins", environ={}), made)
    told: dict[str, Exception | None] = {}
    for id_ in ids:

        def done(error: Exception | None, id_: str = id_) -> None:
            told[id_] = error

        joins.open(Opening(id_, 2, {}), done)
    assert told == {}
    backend.work()
    return told


def test_chords_are_opened_together(chords: Chords, backend: Backend) -> None:
    """One way to the store for all that wait."""
    assert _opened(backend, "a", "b", "c") == dict.fromkeys("abc")
    assert chords.batches == [["a", "b", "c"]]


def test_one_that_is_refused_fails_alone(chords: Chords, backend: Backend) -> None:
    """The others must not wait for it, nor fail with it."""
    error = BackendError("no")
    chords.refuse = lambda group_id: error if group_id == "b" else None
    assert _opened(backend, "a", "b", "c") == {"a": None, "b": error, "c": None}


def test_a_store_that_is_away_is_asked_once(chords: Chords, backend: Backend) -> None:
    """It would be away for each of them: whoever sends the chords decides what follows."""
    error = BackendUnavailable("away")
    chords.refuse = lambda _: error
    assert _opened(backend, "a", "b") == {"a": error, "b": error}
    assert len(chords.batches) == 1
