"""What is known of a chord that waits: kept as it was, and made into the call that gives it up."""

from __future__ import annotations

import pytest

from amqtask import App
from amqtask.errors import MalformedMessage
from amqtask.message.model import Call
from amqtask.message.signature import chord_size
from amqtask.workflow.alarm import Waiting, is_by_hand, target_of
from amqtask.workflow.ports import EXPIRE, Opening, Part

BODY = {"task": "t.body", "options": {"task_id": "b", "root_id": "r", "queue": "email"}}
WAITING = Waiting.of(Opening("g", 3, BODY), 1000.5)


def _part(call: Call) -> Part:
    body = call.embed.chord
    assert body is not None
    assert call.group is not None
    size = chord_size(body)
    return Part(call.group, None, size, body, call.id, call.task, None, None, 0, call)


def test_a_record_says_what_was_opened() -> None:
    """The size travels in the body, as a member carries it."""
    read = Waiting.load("g", WAITING.dump())
    assert read == Waiting("g", 3, {**BODY, "chord_size": 3}, 1000.0)
    assert Waiting.load("g", read.dump()) == read


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"body": 1}', b'{"body": {"task": "t"}}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    """Whoever finds it drops it, and says so."""
    with pytest.raises(MalformedMessage):
        Waiting.load("g", data)


def test_an_alarm_is_a_member_by_its_form() -> None:
    """It bears what the body's end needs: its root, its address, and since when it waits."""
    call = WAITING.alarm()
    assert (call.task, call.id, call.group, call.root_id) == (EXPIRE, "g-alarm", "g", "r")
    assert call.ignore_result
    part = _part(call)
    assert not is_by_hand(part)
    assert is_by_hand(_part(WAITING.alarm(by_hand=True)))
    read = Waiting.of_alarm(part)
    assert (read.group_id, read.size, read.opened) == ("g", 3, 1000.0)


def test_an_alarm_of_an_earlier_version_does_not_say_since_when() -> None:
    """It rang only once the time was over, so it counts as old."""
    call = Call(EXPIRE, "g-alarm", group="g")
    part = Part("g", None, 2, BODY, call.id, call.task, None, None, 0, call)
    assert Waiting.of_alarm(part).opened == 0.0


def test_an_alarm_goes_where_the_body_runs() -> None:
    """Else to the default queue: both have workers of the app."""
    app = App("alarms", default_queue="work", environ={})
    assert target_of(app, BODY) == "email"
    assert target_of(app, {"task": "t"}) == "work"
    assert target_of(app, {"task": "t", "options": {"queue": None}}) == "work"
