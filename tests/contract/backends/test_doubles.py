"""Cassandra and Couchbase on stand-ins that speak their protocols: Celery's form, and faults."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.collection import Collection
from couchbase.options import ClusterOptions, UpsertOptions

from amqtask import BackendError, BackendUnavailable
from amqtask.message.results import encode_exception
from tests.contract.backends.cassandra_double import Cassandra, Table
from tests.contract.backends.conftest import Ends, MakeApp
from tests.contract.backends.couchbase_double import Couchbase
from tests.helpers import TIMEOUT

STATES: list[tuple[str, Any]] = [
    ("SUCCESS", {"a": [1, None]}),
    ("PROGRESS", {"done": 1, "total": 2}),
]


@pytest.fixture
def cassandra_server() -> Iterator[Cassandra]:
    with Cassandra().running() as server:
        yield server


@pytest.fixture
def couchbase_server() -> Iterator[Couchbase]:
    with Couchbase("results", "ada", "love").running() as server:
        yield server


@pytest.fixture
def on_cassandra(cassandra_server: Cassandra, open_app: MakeApp) -> Ends:
    url = f"cassandra://127.0.0.1:{cassandra_server.port}/celery"
    return Ends(open_app(url), open_app(url), lambda _: "")


@pytest.fixture
def on_couchbase(couchbase_server: Couchbase, open_app: MakeApp) -> Ends:
    url = f"couchbase://ada:love@127.0.0.1:{couchbase_server.port}/results"
    app, worker = (open_app(url, result_prefix=None) for _ in range(2))
    return Ends(app, worker, lambda _: "")


# -- Cassandra ------------------------------------------------------------------------


@pytest.fixture
def celery_on_cassandra(cassandra_server: Cassandra) -> Iterator[Any]:
    import celery

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the driver says of Celery's way to set it up
        app: Any = celery.Celery("double", backend="cassandra://", set_as_current=False)
        app.conf.update(
            cassandra_servers=["127.0.0.1"],
            cassandra_port=cassandra_server.port,
            cassandra_keyspace="celery",
            cassandra_table="tasks",
            cassandra_options={"protocol_version": 4, "schema_metadata_enabled": False},
        )
        yield app
        if app.backend._cluster is not None:
            app.backend._cluster.shutdown()


@pytest.mark.parametrize(("status", "value"), STATES)
def test_celery_reads_ours_in_cassandra(
    on_cassandra: Ends, celery_on_cassandra: Any, status: str, value: Any
):
    """What we store is what Celery's backend expects."""
    result = on_cassandra.call()
    on_cassandra.save(result, status, value)
    found = celery_on_cassandra.AsyncResult(result.id)
    assert (found.state, found.result) == (status, value)


@pytest.mark.parametrize(("status", "value"), STATES)
def test_we_read_celerys_in_cassandra(
    on_cassandra: Ends, celery_on_cassandra: Any, status: str, value: Any
):
    """Celery's table and rows are read, and the column that we need is added to them."""
    first, second = on_cassandra.call(), on_cassandra.call()
    celery_on_cassandra.backend.store_result(first.id, value, status)
    assert (first.state, first.info) == (status, value)
    on_cassandra.save(second, value=2, extended={"name": "t.task"})
    assert on_cassandra.worker.result(second.id).extended == {"name": "t.task"}
    celery_on_cassandra.backend.store_result(first.id, ValueError("x"), "FAILURE")
    again = on_cassandra.app.result(first.id)
    assert again.state == ("SUCCESS" if status == "SUCCESS" else "FAILURE")


def test_a_clock_that_is_late(on_cassandra: Ends, cassandra_server: Cassandra):
    """A worker's later state is read, though another one's clock was ahead."""
    result = on_cassandra.call()
    on_cassandra.save(result, "RETRY", encode_exception(ValueError("x")))
    _later(cassandra_server.tables["tasks"], result.id, timedelta(hours=1))
    on_cassandra.save(result, "FAILURE", encode_exception(ValueError("end")))
    assert on_cassandra.worker.result(result.id).state == "FAILURE"


def test_a_newer_row_does_not_hide_a_success(on_cassandra: Ends, cassandra_server: Cassandra):
    """Of two workers that stored at the same time, the one that succeeded is read."""
    result, other = on_cassandra.call(), on_cassandra.call()
    on_cassandra.save(result, value="good")
    on_cassandra.save(other, "FAILURE", encode_exception(ValueError("late")))
    table = cassandra_server.tables["tasks"]
    table.rows[result.id.encode()].update(table.rows[other.id.encode()])
    _later(table, other.id, timedelta(hours=1))
    assert len(table.alive(result.id.encode())) == 2
    assert on_cassandra.worker.result(result.id).get(TIMEOUT) == "good"


def _later(table: Table, task_id: str, by: timedelta) -> None:
    """Put a call's rows into the future, as a clock that is ahead would."""
    rows = table.rows[task_id.encode()]
    for order in list(rows):
        moved = (int.from_bytes(order) + int(by.total_seconds() * 1000)).to_bytes(8)
        row, ends = rows.pop(order)
        rows[moved] = ({**row, "date_done": moved}, ends)


def test_dates_are_kept_in_cassandra(on_cassandra: Ends):
    """They come back with their zone, to the millisecond."""
    result = on_cassandra.call()
    on_cassandra.save(result, value=1)
    meta = on_cassandra.worker.result(result.id).meta
    assert meta is not None
    assert meta.date_done is not None
    assert abs(meta.date_done - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("place", "error"),
    [("nosuch", "has no keyspace 'nosuch'"), ("celery?tables=check", "has no table 'tasks'")],
)
def test_cassandra_without_a_place(
    cassandra_server: Cassandra, open_app: MakeApp, place: str, error: str
):
    """The error says what is missing, and what to do."""
    app = open_app(f"cassandra://127.0.0.1:{cassandra_server.port}/{place}")
    ends = Ends(app, app, lambda _: "")
    with pytest.raises(BackendError, match=error) as caught:
        ends.save(ends.call(), value=1)
    assert caught.value.hint is not None


def test_cassandra_is_busy_and_comes_back(on_cassandra: Ends, cassandra_server: Cassandra):
    """An answer that it cannot do it now is one to try again after."""
    result = on_cassandra.call()
    on_cassandra.save(result, "PROGRESS", {"done": 1})
    cassandra_server.overloaded = True
    with pytest.raises(BackendUnavailable, match="does not answer"):
        on_cassandra.save(result, value=1)
    cassandra_server.overloaded = False
    on_cassandra.save(result, value=1)
    assert on_cassandra.worker.result(result.id).get(TIMEOUT) == 1


def test_no_cassandra(open_app: MakeApp):
    """Nobody there is one to try again after, too."""
    app = open_app("cassandra://127.0.0.1:1/celery")
    ends = Ends(app, app, lambda _: "")
    with pytest.raises(BackendUnavailable, match="does not answer"):
        ends.save(ends.call(), value=1)


# -- Couchbase ------------------------------------------------------------------------


@pytest.fixture
def collection(couchbase_server: Couchbase) -> Iterator[Collection]:
    """The bucket as Celery's backend uses it; itself it does not connect with an SDK of today."""
    options = ClusterOptions(PasswordAuthenticator("ada", "love"))
    cluster = Cluster.connect(f"couchbase://127.0.0.1:{couchbase_server.port}", options)
    yield cluster.bucket("results").default_collection()
    cluster.close()


@pytest.mark.parametrize(("status", "value"), STATES)
def test_the_form_of_celery_in_couchbase(
    on_couchbase: Ends, collection: Collection, status: str, value: Any
):
    """A document is a text in JSON that holds Celery's JSON; such ones are read, and replaced."""
    first, second = on_couchbase.call(), on_couchbase.call()
    on_couchbase.save(first, status, value)
    found = collection.get(f"celery-task-meta-{first.id}").value
    assert isinstance(found, str)
    assert json.loads(found)["result"] == value
    collection.upsert(
        f"celery-task-meta-{second.id}", found.replace(first.id, second.id), UpsertOptions()
    )
    assert (second.state, second.info) == (status, value)
    on_couchbase.save(second, "FAILURE", encode_exception(ValueError("x")))
    again = on_couchbase.worker.result(second.id)
    assert again.state == ("SUCCESS" if status == "SUCCESS" else "FAILURE")


def test_couchbase_is_busy_and_comes_back(on_couchbase: Ends, couchbase_server: Couchbase):
    """An answer that it cannot do it now is tried again after."""
    result = on_couchbase.call()
    on_couchbase.save(result, "PROGRESS", {"done": 1})
    couchbase_server.busy = True
    with pytest.raises(BackendUnavailable, match="does not answer"):
        on_couchbase.save(result, value=1)
    couchbase_server.busy = False
    on_couchbase.save(result, value=1)
    assert on_couchbase.worker.result(result.id).get(TIMEOUT) == 1


def test_couchbase_refuses_a_login(couchbase_server: Couchbase, open_app: MakeApp):
    """A wrong password is no reason to try again; the error does not tell it."""
    app = open_app(f"couchbase://ada:wrong@127.0.0.1:{couchbase_server.port}/results")
    ends = Ends(app, app, lambda _: "")
    with pytest.raises(BackendError, match="refused: Authentication") as caught:
        ends.save(ends.call(), value=1)
    assert not isinstance(caught.value, BackendUnavailable)
    assert "wrong" not in str(caught.value)
