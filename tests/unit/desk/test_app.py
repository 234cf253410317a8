"""The app: settings, queues, topology; nothing connects before it must."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amqtask import App, ConfigurationError, Exchange, Queue, UnknownSetting
from amqtask.topology.routing import Router
from tests.helpers import TIMEOUT
from tests.unit.desk.recorder import make_app


def test_making_an_app_starts_nothing() -> None:
    """Importing a module with tasks opens no connection and starts no thread."""
    before = set(threading.enumerate())
    app = App("x", broker="amqp://127.0.0.1:1/", backend="rpc://", queues=["a"], environ={})
    app.task(lambda: None)
    app.topology()
    app.close()
    assert set(threading.enumerate()) == before
    assert not app.transport.io.started


def test_settings_from_every_place(tmp_path: Path) -> None:
    """Environment over arguments over object over pyproject.toml over defaults."""
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        '[tool.amqtask]\nprefetch = 1\nheartbeat = 1\nconcurrency = 1\nqueue_type = "classic"\n'
    )
    app = App(
        "x",
        config=SimpleNamespace(heartbeat=2, concurrency=2, prefetch=2),
        environ={"AMQTASK_PREFETCH": "4"},
        pyproject=pyproject,
        concurrency=3,
        prefetch=3,
    )
    settings = app.settings
    assert (settings.prefetch, settings.concurrency, settings.heartbeat) == (4, 3, 2)
    assert (settings.queue_type, settings.processes) == ("classic", 1)


def test_one_broker_or_several() -> None:
    """A URL, or a list to fail over to."""
    one = App("x", broker="amqp://one", environ={})
    two = App("x", broker=["amqp://one", "amqps://two"], environ={})
    assert [str(url) for url in one.transport.urls] == ["amqp://guest@one:5672"]
    assert [str(url) for url in two.transport.urls] == [
        "amqp://guest@one:5672",
        "amqps://guest@two:5671",
    ]


def test_a_mistyped_setting() -> None:
    """Has a near name, and starts nothing."""
    with pytest.raises(UnknownSetting) as caught:
        App("x", environ={}, publish_timout=3)
    assert str(caught.value) == (
        "unknown setting 'publish_timout' in the app's arguments, did you mean 'publish_timeout'?"
    )


def test_a_bad_broker_url_fails_when_the_app_is_made() -> None:
    """Not at the first call, an hour later."""
    with pytest.raises(ConfigurationError, match="broker URL has scheme 'http'"):
        App("x", broker="http://mq/", environ={})


def test_an_unknown_backend() -> None:
    """Has the known ones as a remedy."""
    with pytest.raises(ConfigurationError) as caught:
        App("x", backend="rcp://", environ={})
    assert str(caught.value) == "no result backend for scheme 'rcp', did you mean 'rpc'?"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("known schemes: rpc://")


# -- queues -----------------------------------------------------------------------


def test_the_default_queue_is_always_known() -> None:
    """Calls that nothing routes go there, so a worker of all queues must consume it."""
    app, _ = make_app("email", default_queue="rest")
    assert set(app.queues) == {"email", "rest"}
    assert app.queue("email") is app.queues["email"]
    assert app.queue("new") == Queue("new")
    assert "new" not in app.queues


def test_a_queue_is_described_once() -> None:
    """By name anywhere, in full in one place; twice in different ways is an error."""
    full = Queue("email", max_length=5)
    app, _ = make_app("email", full, "email")
    assert app.queues["email"] == full

    def task() -> None: ...

    app.task(queue="email")(task)
    assert app.queues["email"] == full
    with pytest.raises(ConfigurationError) as caught:
        app.task(name="other", queue=Queue("email", max_length=6))(task)
    assert str(caught.value).startswith(
        "queue 'email' is described twice, in different ways: Queue(name='email'"
    )
    assert caught.value.hint == (
        "describe it once in App(queues=...) and name it by its str elsewhere"
    )


def test_a_queue_that_comes_later_is_routed_to() -> None:
    """A task module imported after the first call brings its queue along."""
    app, sent = make_app()
    app.send_task("t")

    def task() -> None: ...

    app.task(queue=Queue("late", exchange=""))(task)
    app.send_task("t", queue="late")
    assert (sent.last.exchange, sent.last.routing_key) == ("", "late")


def test_a_queue_that_comes_while_calls_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever works the routes out at that moment keeps no old ones."""
    app, sent = make_app()
    working, added = threading.Event(), threading.Event()

    def slow(*args: Any) -> Router:
        router = Router(*args)
        working.set()
        added.wait(0.2)  # until it was added behind our back, or has to wait for us
        return router

    monkeypatch.setattr("amqtask.producer.Router", slow)

    def add() -> None:
        working.wait(TIMEOUT)
        app.task(queue=Queue("late", exchange=""))(test_making_an_app_starts_nothing)
        added.set()

    adder = threading.Thread(target=add)
    adder.start()
    app.send_task("t")
    adder.join(TIMEOUT)
    app.send_task("t", queue="late")
    assert (sent.last.exchange, sent.last.routing_key) == ("", "late")


def test_joins_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or two threads that send the first chords at once would each follow its own."""
    app, _ = make_app()
    made: list[object] = []
    second = threading.Event()

    def slow(_: App) -> object:
        made.append(object())
        if len(made) > 1:
            second.set()
        second.wait(0.2)  # until there is another, or whoever wants one has to wait for us
        return made[-1]

    monkeypatch.setattr("amqtask.workflow.join.joins_of", slow)
    together = threading.Barrier(4)
    got: list[object] = []

    def ask() -> None:
        together.wait(TIMEOUT)
        got.append(app.joins)

    askers = [threading.Thread(target=ask) for _ in range(together.parties)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(TIMEOUT)
    assert len(made) == 1
    assert got == made * together.parties


def test_topology_holds_all_or_what_is_asked() -> None:
    """The plan names each queue; declare="never" wants nothing of the broker."""
    app, _ = make_app("email", "reports")
    names = {getattr(step, "name", None) for step in app.topology().steps}
    assert {"amqtask", "amqtask.dead", "email", "email.dead", "reports", "default"} <= names
    names = {getattr(step, "name", None) for step in app.topology(["email"]).steps}
    assert "email" in names
    assert "reports" not in names
    never, _ = make_app("email", declare="never")
    assert never.topology().steps == ()


def test_closing_an_app_that_did_nothing() -> None:
    """Any number of times, by hand or by with."""
    app, _ = make_app()
    with app as same:
        assert same is app
    app.close()
    assert repr(app) == "<App desk: 0 tasks>"


def test_exchange_objects_are_accepted() -> None:
    """A call may name an exchange of any kind."""
    app, sent = make_app()
    app.send_task("t", exchange=Exchange("events", "fanout"), routing_key="k")
    assert (sent.last.exchange, sent.last.routing_key) == ("events", "k")
    assert len(sent.last.requires) == 1
    app.send_task("t", exchange="theirs", routing_key="k")
    assert sent.last.requires == ()
