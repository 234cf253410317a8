"""What holds on every backend that stores: who may read, what is kept, what may not be replaced."""

from __future__ import annotations

import asyncio
import pickle
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqtask import AsyncResult, BackendError, GroupResult, MalformedMessage, ResultSet
from amqtask.backends import StoredBackend
from amqtask.message.results import encode_exception
from tests.contract.backends.conftest import Ends
from tests.helpers import TIMEOUT, eventually

MakeEnds = Callable[..., Ends]


def fresh(ends: Ends, result: AsyncResult[Any]) -> AsyncResult[Any]:
    """Return a handle that knows nothing yet, as in another process."""
    return ends.worker.result(result.id)


def test_an_unknown_call_is_pending(stored: Ends):
    """Nothing is known of an id that nobody stored anything under."""
    result = stored.call()
    assert (result.state, result.ready(), result.result, result.children) == (
        *("PENDING", False, None),
        [],
    )


def test_anybody_may_read_it_more_than_once(stored: Ends):
    """A result stays where it is, for the process that sent the call and for others."""
    result = stored.call()
    stored.save(result, value={"a": 1})
    for _ in range(2):
        assert fresh(stored, result).get(TIMEOUT) == {"a": 1}
    assert stored.app.result(result.id).get(TIMEOUT) == {"a": 1}
    assert pickle.loads(pickle.dumps(result)).get(TIMEOUT) == {"a": 1}


async def test_looking_without_blocking(stored: Ends):
    """Coroutines refresh a handle before they read its properties."""
    result = stored.call()
    await asyncio.to_thread(stored.save, result, "STARTED", {"pid": 1, "hostname": "w"})
    await result.arefresh()
    meta = result._need().meta
    assert meta is not None
    assert (meta.status, meta.result) == ("STARTED", {"pid": 1, "hostname": "w"})


async def test_a_look_at_many_asks_the_store(stored: Ends):
    """A timeout of 0 leaves no time to follow them, so each is looked up."""
    results = [stored.call() for _ in range(3)]
    for value, result in enumerate(results):
        await asyncio.to_thread(stored.save, result, value=value)

    def handles() -> ResultSet[Any]:
        return ResultSet([fresh(stored, result) for result in results])

    assert await handles().ajoin(timeout=0) == [0, 1, 2]
    assert await asyncio.to_thread(handles().join, timeout=0) == [0, 1, 2]


def test_a_success_is_never_replaced(stored: Ends):
    """Whatever a second run of the task brings, the success that was stored stays."""
    for status, value in (
        ("SUCCESS", "second"),
        ("FAILURE", encode_exception(ValueError("late"))),
        ("RETRY", encode_exception(ValueError("late"))),
        ("PROGRESS", {"done": 1}),
    ):
        result = stored.call()
        stored.save(result, value="first")
        stored.save(result, status, value)
        assert fresh(stored, result).get(TIMEOUT) == "first"


def test_a_success_is_never_replaced_in_one_batch(stored: Ends):
    """It holds for states that wait to be written together, too."""
    result = stored.call()
    states = [("RETRY", None), ("SUCCESS", "first"), ("PROGRESS", {"done": 1}), ("SUCCESS", 2)]
    for wait in [stored.begin(result, status, value) for status, value in states]:
        wait()
    assert fresh(stored, result).get(TIMEOUT) == "first"


def test_a_success_is_never_replaced_by_another_worker(stored: Ends):
    """Of two workers that store at the same time, whoever comes second changes nothing."""
    if not stored.stored.can.guards:
        pytest.skip("this backend looks before it writes, as Celery does: there is a gap")
    results = [stored.call() for _ in range(20)]
    others = [
        stored.begin(result, "FAILURE", encode_exception(ValueError("x")), by=stored.app.backend)
        for result in results
    ]
    for wait in [*(stored.begin(result, value="good") for result in results), *others]:
        wait()
    assert [fresh(stored, result).get(TIMEOUT) for result in results] == ["good"] * 20


def test_a_failure_may_be_replaced(stored: Ends):
    """A task that failed can be sent back from the dead letters, and succeed."""
    result = stored.call()
    stored.save(result, "FAILURE", encode_exception(ValueError("x")))
    assert fresh(stored, result).state == "FAILURE"
    stored.save(result, value="at last")
    assert fresh(stored, result).get(TIMEOUT) == "at last"


def test_all_that_a_record_holds(stored: Ends):
    """Traceback, children and date come back as they were stored."""
    result, child = stored.call(), stored.call()
    stored.save(result, value=1, children=[child.as_tuple()], traceback=None)
    found = fresh(stored, result)
    assert found.children == [child]
    assert found.meta is not None
    assert found.meta.date_done is not None
    assert abs(found.meta.date_done - datetime.now(UTC)) < timedelta(minutes=1)


def test_extended_records(make_ends: MakeEnds):
    """With result_extended the call is stored with its result."""
    ends = make_ends(result_extended=True)
    said = {
        "name": "t.task",
        "args": [1, {"a": None}],
        "kwargs": {"b": "c"},
        "worker": "host",
        "retries": 2,
        "queue": "email",
    }
    result = ends.call()
    ends.save(result, value=1, extended=said)
    assert fresh(ends, result).extended == said
    plain = make_ends()
    result = plain.call()
    plain.save(result, value=1)
    assert not {key: value for key, value in fresh(plain, result).extended.items() if value}


def test_compressed_results(make_ends: MakeEnds):
    """A large result is stored compressed, and read whatever the reader's settings are."""
    ends, plain = make_ends(result_compression="zlib"), make_ends()
    result = ends.call()
    ends.save(result, value="x" * 50_000)
    ends.save(result, value="late")
    assert fresh(ends, result).get(TIMEOUT) == "x" * 50_000
    assert plain.app.result(result.id).get(TIMEOUT) == "x" * 50_000
    plain.save(result, "FAILURE", encode_exception(ValueError("late")))
    assert plain.app.result(result.id).state == "SUCCESS"


def test_a_compressed_failure_is_replaced(make_ends: MakeEnds):
    """Compression hides the state from nobody."""
    ends = make_ends(result_compression="zlib", compress_over=0)
    result = ends.call()
    ends.save(result, "FAILURE", encode_exception(ValueError("x" * 5000)))
    ends.save(result, value="y" * 5000)
    assert fresh(ends, result).get(TIMEOUT) == "y" * 5000


def test_expiry(make_ends: MakeEnds):
    """Results go after their time, and failures after a time of their own."""
    ends = make_ends(result_expires=1.0, result_failure_expires=3600.0)
    good, bad = ends.call(), ends.call()
    ends.save(good, value=1)
    ends.save(bad, "FAILURE", encode_exception(ValueError("x")))

    def gone() -> bool:
        assert isinstance(ends.worker.backend, StoredBackend)
        ends.worker.backend.expire()
        return fresh(ends, good).state == "PENDING"

    eventually(gone, timeout=TIMEOUT, message="the result did not expire")
    assert fresh(ends, bad).state == "FAILURE"


def test_results_without_an_end(make_ends: MakeEnds):
    """result_expires=None keeps them."""
    ends = make_ends(result_expires=None)
    result = ends.call()
    ends.save(result, value=1)
    assert isinstance(ends.worker.backend, StoredBackend)
    ends.worker.backend.expire()
    assert fresh(ends, result).get(TIMEOUT) == 1


def test_groups(stored: Ends):
    """A group is kept with its members, and found by its id."""
    members = [stored.call() for _ in range(3)]
    for number, member in enumerate(members):
        stored.save(member, value=number)
    group = GroupResult(str(uuid.uuid4()), members)
    group.save()
    found = stored.worker.group_result(group.id)
    assert found == group
    assert found is not None
    assert found.join(TIMEOUT) == [0, 1, 2]
    group.save()  # again, as for a group that was sent again
    group.delete()
    assert stored.worker.group_result(group.id) is None
    assert members[0].state == "SUCCESS"


def test_counters(stored: Ends):
    """Counting is atomic, whoever counts at the same time."""
    if not stored.stored.can.counts:
        pytest.skip("this backend does not count")
    backend, other = stored.stored, stored.worker.backend
    assert isinstance(other, StoredBackend)
    key = str(uuid.uuid4())
    counts: list[int] = []

    def count(by: StoredBackend) -> None:
        counts.extend(by.count(key) for _ in range(20))

    threads = [threading.Thread(target=count, args=(each,)) for each in (backend, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == list(range(1, 81))
    assert backend.count(key, 5) == 85


def test_a_record_that_cannot_be_read(stored: Ends):
    """Whoever waits for it gets the reason, instead of waiting for ever."""
    result = stored.call()
    backend = stored.worker.backend
    assert isinstance(backend, StoredBackend)
    write = getattr(backend.store, "write", None)
    if write is None:
        pytest.skip("its records have parts, which cannot be written like this")
    write(backend.store.key(result.id), b"{broken", 60.0)  # type: ignore[attr-defined]
    with pytest.raises(MalformedMessage):
        result.get(TIMEOUT)


def test_many_at_once(stored: Ends):
    """Thousands that are stored at once are all there, and each has its own value."""
    results = [stored.call() for _ in range(1500)]
    for wait in [stored.begin(result, value=number) for number, result in enumerate(results)]:
        wait()
    handles = [fresh(stored, result) for result in results]
    assert [handle.get(TIMEOUT * 3) for handle in handles] == list(range(1500))


def test_an_id_is_only_a_name(stored: Ends):
    """Ids that a caller chose lead nowhere else, and do not break the store."""
    for name in ("../../etc/x", "a b", "with'quote", "ünïcode", "x" * 150):
        result = stored.app.result(name)
        with suppress(BackendError):  # a store may refuse a name, in words of ours, and go on
            stored.save(result, value=name)
            assert fresh(stored, result).get(TIMEOUT) == name
            result.forget()
    after = stored.call()
    stored.save(after, value=1)
    assert fresh(stored, after).get(TIMEOUT) == 1


def test_prefixes_keep_apart(stored: Ends, make_ends: MakeEnds):
    """Apps with different prefixes share a server and see nothing of each other."""
    if not hasattr(stored.stored.store, "key"):
        pytest.skip("tables have no keys")
    others = make_ends(result_prefix=f"test-other-{uuid.uuid4().hex[:6]}")
    result = stored.call()
    stored.save(result, value=1)
    assert others.app.result(result.id).state == "PENDING"
