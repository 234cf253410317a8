"""Chords that a store keeps and nobody completes, with real workers: given up, once, and said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqtask import App, ChordError, chord
from amqtask.backends import StoredBackend
from amqtask.backends.chords import OpenChord
from amqtask.clock import wall
from amqtask.errors import BackendUnavailable
from amqtask.testing.servers import Server
from amqtask.worker import overdue
from amqtask.workflow.open_joins import OpenJoins
from tests.contract.backends.places import places
from tests.helpers import TIMEOUT, eventually
from tests.integration.worker.inprocess import Worker
from tests.servers import Names

Running = Callable[..., Worker]
MakeApp = Callable[..., App]

STORES = ("memory", "redis", "postgresql")


@pytest.fixture(scope="session")
def broker(any_broker: Server) -> str:
    """Any broker: it only carries the alarms."""
    return any_broker.url


@pytest.fixture(scope="session")
def stores(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    with places(request) as place:
        yield place


class Abandoned:
    """An app whose chords lose members in a queue that nobody consumes."""

    def __init__(
        self, make_app: MakeApp, names: Names, backend: str, join_expires: float = 1.0
    ) -> None:
        self.queue = names.queue("work")
        self.idle = names.queue("idle")
        self.app = app = make_app(
            self.queue, self.idle, backend=backend, join_expires=join_expires, exchange=names()
        )
        self.told: list[str] = []

        @app.task(name="same")
        def same(value: Any) -> Any:
            return value

        @app.task(name="blame")
        def blame(id: str, error: BaseException, traceback: str | None) -> None:
            self.told.append(f"{id}: {error}")

        self._same, self._blame = same, blame

    def send(self, *idle: bool) -> Any:
        """Send a chord, of whose members some never run."""
        members = [
            self._same.s(index).set(queue=self.idle if lost else self.queue)
            for index, lost in enumerate(idle)
        ]
        return chord(members, self._same.s().on_error(self._blame.s())).delay()


@pytest.fixture(params=STORES)
def abandoned(
    request: pytest.FixtureRequest,
    make_app: MakeApp,
    names: Names,
    stores: Callable[[str], str],
) -> Abandoned:
    """The same with each store."""
    return Abandoned(make_app, names, stores(request.param))


def test_a_chord_of_which_nothing_comes_is_given_up(
    abandoned: Abandoned, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """By whichever worker looks first, of two: its body fails, its errback runs once."""
    caplog.set_level(logging.INFO, "amqtask.chord")
    handle = abandoned.send(True, True)
    assert [row.id for row in OpenJoins(abandoned.app).list()] == [handle.parent.id]
    for _ in range(2):
        running(abandoned.app, abandoned.queue)
    with pytest.raises(ChordError, match="0 of 2 parts came, none yet of members 0, 1"):
        handle.get(timeout=TIMEOUT)
    eventually(lambda: abandoned.told)
    eventually(lambda: OpenJoins(abandoned.app).list() == [])
    assert len(abandoned.told) == 1
    assert abandoned.told[0].startswith(handle.id)
    assert f"chord.given_up group={handle.parent.id}" in caplog.text


def test_a_chord_of_which_a_part_is_missing_is_given_up(
    abandoned: Abandoned, running: Running
) -> None:
    """The error says who came, and who did not; who comes later is left."""
    handle = abandoned.send(False, True, False)
    running(abandoned.app, abandoned.queue)
    with pytest.raises(ChordError, match="2 of 3 parts came, none yet of member 1"):
        handle.get(timeout=TIMEOUT)
    late = running(abandoned.app, abandoned.idle)
    eventually(lambda: late.node.counts["done"] == 1)
    eventually(lambda: abandoned.told)
    assert len(abandoned.told) == 1


def test_one_whose_keeper_died_is_given_up_by_another(
    abandoned: Abandoned, running: Running
) -> None:
    """Who had it to himself never sent the alarm: the claim ends."""
    handle = abandoned.send(True)
    backend = abandoned.app.backend
    assert isinstance(backend, StoredBackend)
    register = backend.store.register()
    assert register is not None
    taken = register.take(wall() + 2.0, wall() + 3.0, 10)
    assert [each.group_id for each in taken] == [handle.parent.id]
    running(abandoned.app, abandoned.queue)
    with pytest.raises(ChordError, match="0 of 1 parts came"):
        handle.get(timeout=TIMEOUT)


def test_a_chord_is_given_up_by_hand_before_its_time(
    make_app: MakeApp, names: Names, stores: Callable[[str], str], running: Running
) -> None:
    """The request waits for a worker as any call does."""
    shop = Abandoned(make_app, names, stores("redis"), join_expires=600.0)
    handle = shop.send(True)
    joins = OpenJoins(shop.app)
    row = joins.find(handle.parent.id)
    assert row is not None
    joins.give_up(row.waiting)
    running(shop.app, shop.queue)
    with pytest.raises(ChordError, match="was given up by hand: 0 of 1 parts came"):
        handle.get(timeout=TIMEOUT)
    eventually(lambda: joins.find(handle.parent.id) is None)


def test_a_record_that_cannot_be_read_is_dropped(
    abandoned: Abandoned, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """It must not be found again for ever; the log names it."""
    backend = abandoned.app.backend
    assert isinstance(backend, StoredBackend)
    register = backend.store.register()
    assert register is not None
    register.note(OpenChord("broken", b"[]", wall() - 1.0), 600.0)
    running(abandoned.app, abandoned.queue)
    eventually(lambda: register.find("broken") is None)
    assert "chord.record_malformed group=broken" in caplog.text


def test_a_store_that_is_away_is_looked_at_again(
    abandoned: Abandoned,
    running: Running,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look that fails is logged, and the next one finds what is overdue."""
    real = overdue._asked
    failing = [BackendUnavailable("the store is away")]

    async def asked(*said: Any) -> Any:
        if failing:
            raise failing.pop()
        return await real(*said)

    monkeypatch.setattr(overdue, "_asked", asked)
    handle = abandoned.send(True)
    running(abandoned.app, abandoned.queue)
    with pytest.raises(ChordError, match="0 of 1 parts came"):
        handle.get(timeout=TIMEOUT)
    assert "chord.not_looked error='the store is away'" in caplog.text
