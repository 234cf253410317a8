"""Extended records: what they tell, and the secrets that they keep."""

from __future__ import annotations

from typing import Any

import pytest

from amqtask import App
from amqtask.worker.execute import Executor, Job
from amqtask.worker.record import extended_record
from tests.unit.worker.fakes import delivery


def job_of(app: App, *args: Any) -> Job:
    job = Job(delivery("t.login", *args))
    Executor(app, "host", lambda _: None).admit(job)
    return job


def make_app(**settings: Any) -> App:
    app = App("t", environ={}, queues=["q"], **settings)

    @app.task(name="t.login")
    def login(user: str, password: str = "", *others: Any) -> None: ...

    return app


def test_nothing_is_told_unless_asked_for() -> None:
    """Results hold no arguments by default."""
    app = make_app()
    assert extended_record(job_of(app, "ada"), "host", app.settings) == {}


def test_secrets_are_hidden_by_their_names() -> None:
    """Of parameters and of keys, however deep they are."""
    app = make_app(result_extended=True)
    inner = {"token": "t", "list": [{"api_key": "k", "lang": "en"}], "pinned": 1}
    record = extended_record(job_of(app, "ada", "s3cret", inner), "host", app.settings)
    assert record == {
        "name": "t.login",
        "args": [
            "ada",
            "***",
            {"token": "***", "list": [{"api_key": "***", "lang": "en"}], "pinned": 1},
        ],
        "kwargs": {},
        "worker": "host",
        "retries": 0,
        "queue": "q.topic",
    }


@pytest.mark.parametrize("secrets", [True, False])
def test_secrets_are_told_where_that_is_asked_for(secrets: bool) -> None:
    """result_secrets stores arguments as they came."""
    app = make_app(result_extended=True, result_secrets=secrets)
    record = extended_record(job_of(app, "ada", "s3cret"), "host", app.settings)
    assert record["args"] == ["ada", "s3cret" if secrets else "***"]


def test_what_is_no_plain_data_is_told_as_text() -> None:
    """A record never keeps a result from being stored."""
    app = make_app(result_extended=True)
    job = job_of(app, "ada")
    assert job.call is not None
    object.__setattr__(job.call, "args", (object(),))
    record = extended_record(job, "host", app.settings)
    assert "object object at" in record["args"]
