"""A chord's queue lives on one node of a cluster: while that is down, nothing of it is given up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from amqtask import App
from amqtask.errors import AmqtaskError, ChordError
from amqtask.message.model import Call
from amqtask.workflow.join import joins_of
from amqtask.workflow.ports import Done, Opening, Part
from tests.cluster import Cluster
from tests.helpers import eventually

BODY = {"task": "t.body", "args": [], "kwargs": {}, "options": {"task_id": "body"}}
#: Seconds that a node may take to come back.
_LONG = 120.0


class Follow:
    def __init__(self) -> None:
        self.bodies: list[list[Any]] = []

    def send_body(self, part: Part, values: Sequence[Any], done: Done) -> None:
        self.bodies.append(list(values))
        done(None)

    def fail_body(self, part: Part, error: ChordError, done: Done) -> None:
        raise AssertionError(error)


def test_a_part_is_offered_until_the_queue_is_back(cluster: Cluster) -> None:
    """The broker returns it meanwhile, as it does when the chord has been joined."""
    first, second = (App(f"node-{n}", broker=cluster.nodes[n].url, environ={}) for n in range(2))
    follow = Follow()

    def ended(app: App, index: int) -> AmqtaskError | None:
        call = Call("t", f"member-{index}", group="group", group_index=index)
        part = Part("group", index, 2, BODY, call.id, "t", index, None, 0, call)
        errors: list[Any] = []
        joins_of(app).part(part, follow, errors.append, lambda: True)
        eventually(lambda: errors, timeout=_LONG)
        error: AmqtaskError | None = errors[0]
        return error

    try:
        opened: list[Any] = []
        joins_of(first).open(Opening("group", 2, BODY), opened.append)
        eventually(lambda: opened, timeout=_LONG)
        assert opened == [None]
        assert ended(second, 0) is None
        cluster.nodes[0].kill()
        error = ended(second, 1)
        assert error is not None
        cluster.nodes[0].start()
        cluster.nodes[0].await_up()
        deadline = time.monotonic() + _LONG
        while ended(second, 1) is not None:  # as the settler does while the delivery is its own
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert follow.bodies == [[0, 1]]
    finally:
        first.close(0.1)
        second.close(0.1)
