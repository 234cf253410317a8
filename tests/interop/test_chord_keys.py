"""Chords in Redis whose members end on both sides: Celery's own backend code, and ours."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.result import AsyncResult, GroupResult

from amqtask import App
from amqtask.errors import ChordError
from amqtask.message.model import Call
from amqtask.workflow.join import joins_of
from amqtask.workflow.ports import Done, Opening, Part
from tests.helpers import TIMEOUT, eventually

# Celery's own, of redis-py
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

PREFIX = f"test-{uuid.uuid4().hex[:8]}_"


class Quiet(AsyncResult):  # type: ignore[misc]
    """A result that nobody waits for: it does not connect to unsubscribe when it goes."""

    def __del__(self) -> None:
        pass


class Sides:
    """A worker of each kind, as far as chords go.

    Attributes:
        bodies: What bodies were sent with, by whom.
        failures: Why bodies failed, by whom.
    """

    def __init__(self, redis: str, broker: str) -> None:
        self.bodies: list[tuple[str, list[Any]]] = []
        self.failures: list[tuple[str, str]] = []
        self.group = str(uuid.uuid4())
        self.app = App("keys", broker=broker, backend=redis, result_prefix=PREFIX, environ={})
        self._joins = joins_of(self.app)
        self.celery = Celery("keys", broker="memory://", backend=redis, set_as_current=False)
        self.celery.conf.update(
            result_backend_transport_options={"global_keyprefix": PREFIX},
            task_always_eager=True,  # a body that Celery sends runs at once
            task_store_eager_result=True,
        )

        @self.celery.task(name="body", shared=False)
        def body(values: list[Any]) -> None:
            self.bodies.append(("celery", values))

        @self.celery.task(name="failed", shared=False)
        def failed(request: Any, error: Exception, traceback: Any) -> None:
            self.failures.append(("celery", str(error)))

        self._body = body.s().set(task_id=str(uuid.uuid4()), link_error=[failed.s()])

    # -- what launches ----------------------------------------------------------------

    def open_ours(self, size: int) -> None:
        self._wait(lambda done: self._joins.open(Opening(self.group, size, self._body), done))

    def open_celery(self, size: int) -> None:
        self.celery.backend.set_chord_size(self.group, size)

    # -- what ends --------------------------------------------------------------------

    def ours(
        self, index: int, value: Any, size: int | None, error: Exception | None = None
    ) -> None:
        id_ = f"{self.group}-{index}"
        call = Call("t", id_, group=self.group, group_index=index)
        part = Part(self.group, index, size, self._body, id_, "t", value, error, 0, call)
        self._wait(lambda done: self._joins.part(part, self, done, lambda: True))

    def theirs(self, index: int, value: Any, error: Exception | None = None) -> None:
        request = Context(
            id=f"{self.group}-{index}", group=self.group, group_index=index, chord=dict(self._body)
        )
        state, result = ("SUCCESS", value) if error is None else ("FAILURE", error)
        self.celery.backend.on_chord_part_return(request, state, result)

    # -- what follows, see Follow -------------------------------------------------------

    def send_body(self, part: Part, values: Sequence[Any], done: Done) -> None:
        self.bodies.append(("ours", list(values)))
        done(None)

    def fail_body(self, part: Part, error: ChordError, done: Done) -> None:
        self.failures.append(("ours", str(error)))
        done(None)

    def left(self) -> set[str]:
        """Return the ends of the chord's keys."""
        client = self.celery.backend.client
        start = f"{PREFIX}celery-taskset-meta-{self.group}"
        return {key.decode().removeprefix(start) for key in client.scan_iter(f"{start}*")}

    def close(self) -> None:
        client = self.celery.backend.client
        for key in client.scan_iter(f"{PREFIX}*"):
            client.delete(key)
        client.close()
        self.celery.close()
        self.app.close()

    def _wait(self, call: Callable[[Done], object]) -> None:
        ended: list[Exception | None] = []
        call(ended.append)
        eventually(lambda: ended, timeout=TIMEOUT)
        assert ended == [None]


@pytest.fixture
def sides(request: pytest.FixtureRequest, any_broker: Any) -> Iterator[Sides]:
    made = Sides(request.getfixturevalue("redis").url, any_broker.url)
    yield made
    made.close()


@pytest.mark.parametrize("launcher", ["ours", "celery"])
@pytest.mark.parametrize("last", ["ours", "celery"])
def test_a_chord_whose_members_are_spread(sides: Sides, launcher: str, last: str) -> None:
    """Whoever ends last sends the body, with all values in the order of the header."""
    size = 4
    (sides.open_ours if launcher == "ours" else sides.open_celery)(size)
    known = size if launcher == "ours" else None
    sides.theirs(2, {"b": 1})
    sides.ours(0, "a", known)
    sides.ours(0, "a", known)
    sides.theirs(2, {"b": 1})
    if last == "ours":
        sides.theirs(3, None)
        sides.ours(1, [1], known)
    else:
        sides.ours(1, [1], known)
        sides.theirs(3, None)
    assert sides.bodies == [(last, ["a", [1], {"b": 1}, None])]
    assert sides.failures == []
    # members that come once more, on either side, begin nothing
    sides.ours(1, [1], known)
    sides.theirs(3, None)
    assert len(sides.bodies) == 1
    # a Celery worker knows nothing of our record, which goes when its time comes
    recorded = launcher == "ours" and last == "celery"
    assert sides.left() == ({".b", ".c"} if recorded else {".c"})


@pytest.mark.parametrize("last", ["ours", "celery"])
def test_a_member_that_failed_on_the_other_side(sides: Sides, last: str) -> None:
    """Each side reads the other's failure, and fails the body once."""
    sides.open_ours(2)
    if last == "ours":
        sides.theirs(0, None, ValueError("bad"))
        sides.ours(1, 1, 2)
        sides.ours(1, 1, 2)
        sides.theirs(0, None, ValueError("bad"))
    else:
        sides.ours(0, None, 2, ValueError("bad"))
        sides.theirs(1, 1)
        sides.theirs(1, 1)
    ((who, error),) = sides.failures
    assert who == last
    assert "bad" in error
    assert sides.bodies == []


def test_a_member_that_failed_there_and_was_sent_back_here(sides: Sides) -> None:
    """Its value takes the place of the failure that Celery's worker kept."""
    sides.open_ours(2)
    sides.theirs(0, None, ValueError("bad"))
    sides.ours(0, "good", 2)
    sides.ours(1, 1, 2)
    assert sides.bodies == [("ours", ["good", 1])]


def test_groups_within_a_header_that_celery_sent(sides: Sides) -> None:
    """Their values come as lists in the list, as Celery's own join has them."""
    sides.open_celery(3)
    ids = [f"{sides.group}-{index}" for index in range(3)]
    inner = GroupResult("inner", [Quiet(each, app=sides.celery) for each in ids[1:]])
    header = (sides.group, [Quiet(ids[0], app=sides.celery), inner])
    sides.celery.backend.apply_chord(header, sides._body)
    sides.theirs(2, "c")
    sides.ours(1, "b", None)
    sides.ours(0, "a", None)
    assert sides.bodies == [("ours", ["a", ["b", "c"]])]
    assert sides.left() == {".c"}


def test_a_member_that_celery_adds_is_waited_for(sides: Sides) -> None:
    """Celery counts it beside the size, when it is added."""
    sides.open_celery(1)
    sides.celery.backend.add_to_chord(sides.group, None)
    sides.ours(0, "a", None)
    assert sides.bodies == []
    request = Context(id="added", group=sides.group, group_index=None, chord=None)
    request.chord = dict(sides._body)
    sides.celery.backend.on_chord_part_return(request, "SUCCESS", "x")
    assert sides.bodies == [("celery", ["a", "x"])]
