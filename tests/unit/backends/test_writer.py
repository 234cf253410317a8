"""The thread that writes: batches, one bad record among good ones, the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from amqtask.backends import Record
from amqtask.backends.writer import BATCH, Writer
from amqtask.errors import BackendError, BackendUnavailable
from amqtask.message.results import ResultMeta
from tests.helpers import TIMEOUT, eventually


def record(id: str, status: str = "SUCCESS") -> Record:
    return Record(id, b"x", None, ResultMeta(id, status))


class Store:
    """Notes the batches that are written; a test holds them up or has them fail."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None
        self.bad = ""

    def save(self, records: Sequence[Record]) -> None:
        assert self.open.wait(TIMEOUT)
        self.batches.append([each.id for each in records])
        if self.error is not None:
            raise self.error
        if self.bad in self.batches[-1]:
            raise BackendError("not this one")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    made = Writer(store.save, lambda: None)
    yield made
    made.close(TIMEOUT)


def test_what_gathers_goes_out_together(store: Store, writer: Writer) -> None:
    """While a batch is written the next one gathers, up to its limit."""
    store.open.clear()
    done: list[Exception | None] = []
    writer.save(record("first"), done.append)
    eventually(lambda: writer._busy)
    for number in range(BATCH + 10):
        writer.save(record(str(number)), done.append)
    store.open.set()
    eventually(lambda: len(done) == BATCH + 11)
    assert [len(batch) for batch in store.batches] == [1, BATCH, 10]
    assert set(done) == {None}


def test_a_batch_has_each_call_once(store: Store, writer: Writer) -> None:
    """Two states of one call are written one after the other."""
    store.open.clear()
    done: list[Exception | None] = []
    writer.save(record("first"), done.append)
    eventually(lambda: writer._busy)
    for name in ("a", "b", "a", "c"):
        writer.save(record(name), done.append)
    store.open.set()
    eventually(lambda: len(done) == 5)
    assert store.batches == [["first"], ["a", "b"], ["a", "c"]]


def test_one_that_is_refused_does_not_keep_the_others(store: Store, writer: Writer) -> None:
    """When a batch is refused its records are written one by one."""
    store.open.clear()
    store.bad = "bad"
    done: dict[str, Exception | None] = {}
    writer.save(record("first"), lambda error: done.update(first=error))
    eventually(lambda: writer._busy)
    for name in ("a", "bad", "c"):
        writer.save(record(name), partial(done.__setitem__, name))
    store.open.set()
    eventually(lambda: len(done) == 4)
    assert [name for name, error in done.items() if error is not None] == ["bad"]
    assert str(done["bad"]) == "not this one"


def test_a_store_that_is_away_is_asked_once(store: Store, writer: Writer) -> None:
    """All of a batch hear of it, and who wants to tries again."""
    store.error = BackendUnavailable("away")
    done: list[Exception | None] = []
    writer.save(record("a"), done.append)
    eventually(lambda: done)
    assert done == [store.error]
    assert store.batches == [["a"]]


def test_a_bug_in_a_store_ends_nothing(store: Store, writer: Writer) -> None:
    """It is told as trouble that may pass, and the next batch is written."""
    store.error = ZeroDivisionError("bug")
    done: list[Exception | None] = []
    writer.save(record("a"), done.append)
    eventually(lambda: done)
    assert isinstance(done[0], BackendUnavailable)
    assert "bug" in str(done[0])
    store.error = None
    writer.save(record("b"), done.append)
    eventually(lambda: len(done) == 2)
    assert done[1] is None


def test_the_end_writes_what_waits(store: Store, writer: Writer) -> None:
    """Closing waits for it, and what is not written in time is told."""
    done: list[Exception | None] = []
    writer.save(record("a"), done.append)
    assert writer.close(TIMEOUT)
    assert done == [None]
    store.open.clear()
    writer.save(record("b"), done.append)  # the next use starts it again
    eventually(lambda: writer._busy)
    writer.save(record("c"), done.append)
    assert not writer.close(0.05)
    assert isinstance(done[-1], BackendUnavailable)
    assert str(done[-1]) == "result (id c) was not stored: the app was closed"
    store.open.set()
    eventually(lambda: len(done) == 3)


def test_other_calls_run_in_between(writer: Writer) -> None:
    """A call's value and its error are the caller's."""
    assert writer.run(lambda: 5).result(TIMEOUT) == 5
    with pytest.raises(ZeroDivisionError):
        writer.run(lambda: 1 / 0).result(TIMEOUT)
