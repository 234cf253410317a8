"""Celery's own backends read what amqtask stores, and amqtask reads what they store."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from amqtask import App, AsyncResult, GroupResult, RemoteError, RetriesExhausted, TaskRevoked
from amqtask.message.results import ResultMeta, encode_exception
from tests.contract.backends.places import PREFIX, STORED
from tests.helpers import TIMEOUT, eventually

celery = pytest.importorskip("celery", reason='pip install "amqtask[interop]"')

# what Celery 5.7 does to redis-py 8 and psycopg, and says of stores it does not compress for
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


class Two:
    """An amqtask app and a Celery app on the same backend."""

    def __init__(self, ours: App, theirs: Any) -> None:
        self.ours = ours
        self.theirs = theirs

    def ids(self) -> str:
        return str(uuid.uuid4())

    def our_save(self, task_id: str, status: str, value: Any, **said: Any) -> None:
        """Store as an amqtask worker does."""
        done = threading.Event()
        errors: list[Exception | None] = []

        def tell(error: Exception | None) -> None:
            errors.append(error)
            done.set()

        backend = self.ours.backend
        assert backend is not None
        meta = ResultMeta(task_id, status, value, date_done=datetime.now(UTC), **said)
        backend.save(meta, reply_to="", correlation_id=task_id, done=tell)
        assert done.wait(TIMEOUT)
        assert errors == [None]

    def their_save(self, task_id: str, status: str, value: Any, **said: Any) -> None:
        """Store as a Celery worker does."""
        self.theirs.backend.store_result(task_id, value, status, **said)

    def our_handle(self, task_id: str) -> AsyncResult[Any]:
        return self.ours.result(task_id)

    def their_handle(self, task_id: str) -> Any:
        return self.theirs.AsyncResult(task_id)


@pytest.fixture(scope="module", params=["redis", "postgresql", "memcached", "sqlite", "file"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A place on each backend that both have."""
    with ExitStack() as stack:
        yield stack.enter_context(STORED[request.param](request))


def their_url(url: str) -> str:
    """Return what Celery calls the same place."""
    if url.startswith("memcached://"):
        return f"cache+{url}/"
    return url.replace("db+postgresql://", "db+postgresql+psycopg://")


@pytest.fixture
def make_two(url: str) -> Iterator[Callable[..., Two]]:
    """Makes apps of both kinds on the same backend."""
    made: list[Two] = []

    def make(**settings: Any) -> Two:
        prefix = "" if url.startswith("db+") else PREFIX
        ours = App("interop", environ={}, backend=url, result_prefix=prefix or None, **settings)
        theirs = celery.Celery("interop", backend=their_url(url), set_as_current=False)
        theirs.conf.update(
            result_backend_transport_options={"global_keyprefix": prefix},
            result_extended=settings.get("result_extended", False),
            result_compression=settings.get("result_compression"),
            database_create_tables_at_setup=True,
        )
        made.append(Two(ours, theirs))
        return made[-1]

    yield make
    for two in made:
        two.ours.close()
        backend = two.theirs.backend
        if url.startswith("redis"):
            backend.result_consumer.stop()
            backend.client.close()
        elif url.startswith("memcached"):
            backend.client.close()


@pytest.fixture
def two(make_two: Callable[..., Two]) -> Two:
    """Both apps with the usual settings."""
    return make_two()


VALUES = [None, 5, "ü", [1, {"a": True}], datetime(2026, 11, 23, tzinfo=UTC), b"\xff"]


def test_celery_reads_our_successes(two: Two):
    """Values come back as themselves."""
    for value in VALUES:
        task_id = two.ids()
        two.our_save(task_id, "SUCCESS", value)
        handle = two.their_handle(task_id)
        assert handle.get(timeout=TIMEOUT) == value
        assert handle.state == "SUCCESS"
        assert handle.successful()


def test_we_read_celerys_successes(two: Two):
    """Values come back as themselves, with what was stored beside them."""
    for value in VALUES:
        task_id = two.ids()
        two.their_save(task_id, "SUCCESS", value)
        handle = two.our_handle(task_id)
        assert handle.get(TIMEOUT) == value
        assert handle.state == "SUCCESS"
        assert handle.meta is not None
        assert handle.meta.date_done is not None


def test_celery_reads_our_failures(two: Two):
    """The exception is raised in its class, with the traceback."""
    task_id = two.ids()
    error = encode_exception(KeyError("no user", 7))
    two.our_save(task_id, "FAILURE", error, traceback="Traceback: there")
    handle = two.their_handle(task_id)
    with pytest.raises(KeyError) as caught:
        handle.get(timeout=TIMEOUT)
    assert caught.value.args == ("no user", 7)
    assert (handle.state, handle.traceback) == ("FAILURE", "Traceback: there")


def test_we_read_celerys_failures(two: Two):
    """The exception is raised in its class, with the traceback, or as RemoteError."""
    task_id = two.ids()
    two.their_save(task_id, "FAILURE", KeyError("no user", 7), traceback="Traceback: there")
    handle = two.our_handle(task_id)
    with pytest.raises(KeyError) as caught:
        handle.get(TIMEOUT)
    assert caught.value.args == ("no user", 7)
    assert handle.traceback == "Traceback: there"
    for error, kind in (
        (celery.exceptions.MaxRetriesExceededError("no more"), RetriesExhausted),
        (type("Odd", (Exception,), {"__module__": "not.imported"})(5), RemoteError),
    ):
        task_id = two.ids()
        two.their_save(task_id, "FAILURE", error)
        with pytest.raises(kind):
            two.our_handle(task_id).get(TIMEOUT)


def test_revoked(two: Two):
    """A revoked call is one on both sides."""
    ours, theirs = two.ids(), two.ids()
    two.our_save(ours, "REVOKED", encode_exception(TaskRevoked("expired")))
    with pytest.raises(celery.exceptions.TaskRevokedError):
        two.their_handle(ours).get(timeout=TIMEOUT)
    two.their_save(theirs, "REVOKED", celery.exceptions.TaskRevokedError("expired"))
    with pytest.raises(TaskRevoked, match="expired"):
        two.our_handle(theirs).get(TIMEOUT)


def test_retry_and_then_success(two: Two):
    """A retry is seen as one, and the outcome takes its place."""
    ours, theirs = two.ids(), two.ids()
    two.our_save(ours, "RETRY", encode_exception(OSError("again")))
    handle = two.their_handle(ours)
    assert handle.state == "RETRY"
    assert isinstance(handle.result, OSError)
    two.our_save(ours, "SUCCESS", 1)
    assert two.their_handle(ours).get(timeout=TIMEOUT) == 1
    two.their_save(theirs, "RETRY", OSError("again"))
    assert two.our_handle(theirs).state == "RETRY"
    assert isinstance(two.our_handle(theirs).result, OSError)
    two.their_save(theirs, "SUCCESS", 2)
    assert two.our_handle(theirs).get(TIMEOUT) == 2


def test_custom_states(two: Two):
    """States of the users' own, such as progress, are read on both sides."""
    ours, theirs = two.ids(), two.ids()
    two.our_save(ours, "PROGRESS", {"done": 1, "total": 4})
    handle = two.their_handle(ours)
    assert (handle.state, handle.info) == ("PROGRESS", {"done": 1, "total": 4})
    two.their_save(theirs, "PROGRESS", {"current": 1, "total": 4})
    result = two.our_handle(theirs)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend(result.watch(TIMEOUT)))
    thread.start()
    eventually(lambda: seen)
    two.their_save(theirs, "SUCCESS", "end")
    thread.join()
    assert [(each.done, each.total) for each in seen] == [(1, 4)]


def test_a_success_of_either_side_stays(two: Two):
    """Neither side writes over the success of the other one."""
    ours, theirs = two.ids(), two.ids()
    two.our_save(ours, "SUCCESS", "ours")
    two.their_save(ours, "FAILURE", ValueError("late"))
    assert two.our_handle(ours).get(TIMEOUT) == "ours"
    two.their_save(theirs, "SUCCESS", "theirs")
    two.our_save(theirs, "FAILURE", encode_exception(ValueError("late")))
    assert two.their_handle(theirs).get(timeout=TIMEOUT) == "theirs"


def test_groups(two: Two):
    """Groups that one side saves are restored by the other one."""
    ids = [two.ids() for _ in range(3)]
    for number, task_id in enumerate(ids):
        two.our_save(task_id, "SUCCESS", number)
    group = GroupResult(two.ids(), [two.our_handle(task_id) for task_id in ids])
    group.save()
    restored = celery.result.GroupResult.restore(group.id, app=two.theirs)
    assert [each.id for each in restored.results] == ids
    assert restored.join(timeout=TIMEOUT) == [0, 1, 2]
    theirs = celery.result.GroupResult(
        two.ids(), [two.their_handle(task_id) for task_id in ids], app=two.theirs
    )
    theirs.save(backend=two.theirs.backend)
    found = two.ours.group_result(theirs.id)
    assert found is not None
    assert [each.id for each in found] == ids
    assert found.join(TIMEOUT) == [0, 1, 2]


def test_children(two: Two):
    """Children that one side stores are the children on the other one."""
    parent, child = two.ids(), two.ids()
    two.our_save(parent, "SUCCESS", 1, children=[[[child, None], None]])
    handle = two.their_handle(parent)
    assert handle.get(timeout=TIMEOUT) == 1
    assert [each.id for each in handle.children] == [child]


def test_compressed(make_two: Callable[..., Two]):
    """Each side unpacks what the other one compressed."""
    two = make_two(result_compression="zlib", compress_over=0)
    text = "x" * 5000
    ours, theirs = two.ids(), two.ids()
    two.our_save(ours, "SUCCESS", text)
    assert two.their_handle(ours).get(timeout=TIMEOUT) == text
    two.their_save(theirs, "SUCCESS", text)
    assert two.our_handle(theirs).get(TIMEOUT) == text


def test_extended(make_two: Callable[..., Two]):
    """Extended records are read on both sides."""
    two = make_two(result_extended=True)
    said = {
        "name": "t.add",
        "args": [1],
        "kwargs": {"a": 2},
        "worker": "w",
        "retries": 0,
        "queue": "q",
    }
    ours, theirs = two.ids(), two.ids()
    two.our_save(ours, "SUCCESS", 1, extended=said)
    handle = two.their_handle(ours)
    assert handle.get(timeout=TIMEOUT) == 1
    assert {name: getattr(handle, name) for name in said} == said
    request: Any = celery.app.task.Context(
        task="t.add",
        args=[1],
        kwargs={"a": 2},
        hostname="w",
        retries=0,
        delivery_info={"routing_key": "q"},
    )
    two.their_save(theirs, "SUCCESS", 1, request=request)
    assert two.our_handle(theirs).extended == said


def test_waiting_for_a_result_of_celerys(two: Two):
    """Whoever waits is woken by what a Celery worker stores."""
    task_id = two.ids()
    handle = two.our_handle(task_id)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(handle.get(TIMEOUT)))
    thread.start()
    eventually(lambda: handle._need().awaited)
    two.their_save(task_id, "SUCCESS", "woken")
    thread.join()
    assert got == ["woken"]
